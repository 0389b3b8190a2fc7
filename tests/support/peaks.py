"""The most memory that another process takes while it reads a table."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_SCRIPT = """
import json, re, resource, sys
from pathlib import Path
from fedgen.data.sources import open_source
import pyarrow.parquet, pyarrow.compute

def peak():
    status = Path("/proc/self/status")
    if status.exists():  # there, getrusage would count the process that started this one
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

def rows_of(way, url):
    source = open_source(url, base=Path("/"))
    if way == "streamed":
        return sum(batch.num_rows for batch in source.batches())
    if way == "all rows":
        with source._engine.connect() as connection:
            return len(connection.execute(source._statement(source.columns)).fetchall())
    return pyarrow.parquet.read_table(url.removeprefix("parquet://")).num_rows

found = [(rows_of(sys.argv[1], url), peak()) for url in sys.argv[2:]]
print(json.dumps(found))
"""


def growth(way: str, small: str, large: str) -> tuple[int, int]:
    """Return the rows of the large table, and how much higher the peak is than after the small one.

    Args:
        way: ``streamed``, as a site reads; or a control: ``all rows`` of a database, or ``whole`` files.
        small: Address of a table read first, so that libraries and buffers are there.
        large: Address of the table.
    """
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, way, small, large],
        check=True, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    (_, before), (rows, after) = json.loads(done.stdout)
    return rows, after - before
