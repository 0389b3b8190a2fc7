import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedgen.data.encoded import EncodedTable, read_encoded
from fedgen.data.sources import open_source
from fedgen.errors import DataError
from fedgen.schema.columns import Boolean, Categorical, Continuous, Integer
from fedgen.schema.table import ImageSchema, TableSchema

SCHEMA = TableSchema(
    columns=(
        Continuous(name="x", min=0.0, max=10.0, bins=10),
        Categorical(name="kind", categories=("red", "blue"), nullable=True),
        Integer(name="age", min=0, max=99),
        Boolean(name="flag"),
    ),
    subject="person",
)
HEADER = "person,kind,x,flag,age,note\n"
ROWS = [f"p{i % 7},{('red', 'blue', '')[i % 3]},{i % 10}.5,{i % 2},{i % 100},n\n" for i in range(500)]


def want() -> Any:
    i = np.arange(500)
    return np.stack([i % 10, i % 3, i % 100, i % 2], axis=1)


@pytest.fixture
def table(tmp_path: Path) -> Any:
    (tmp_path / "t.csv").write_text(HEADER + "".join(ROWS))
    return open_source("t.csv", base=tmp_path)


def small_batches(source: Any, rows: Any) -> Any:
    """The same source in batches of another size."""
    original = source.batches
    source.batches = lambda columns=None: original(columns, rows)
    return source


def test_rows_become_codes_in_the_order_of_the_schema(table: Any) -> None:
    encoded = read_encoded(table, SCHEMA)
    assert encoded.codes.dtype == np.uint8
    assert (encoded.codes == want()).all()
    assert encoded.subjects.tolist() == [b"p%d" % (i % 7) for i in range(500)]
    assert encoded.clamped == {}
    assert len(encoded) == 500


@pytest.mark.parametrize("rows", [1, 7, 499, 500, 501])
@pytest.mark.parametrize("spill_bytes", [0, 1000, 10**9])
def test_neither_batches_nor_the_place_of_the_codes_matter(table: Any, rows: Any, spill_bytes: Any) -> None:
    encoded = read_encoded(small_batches(table, rows), SCHEMA, spill_bytes=spill_bytes)
    assert (encoded.codes == want()).all()
    assert encoded.subjects[-1] == b"p%d" % (499 % 7)
    assert isinstance(encoded.codes, np.memmap) == (spill_bytes < 2000)


@pytest.mark.parametrize(("limit", "rows"), [(1, 1), (7, 7), (8, 8), (500, 500), (9999, 500)])
def test_a_limit_takes_the_first_rows(table: Any, limit: Any, rows: Any) -> None:
    encoded = read_encoded(small_batches(table, 7), SCHEMA, limit=limit)
    assert (encoded.codes == want()[:rows]).all()
    assert len(encoded.subjects) == rows


def test_a_limit_that_is_none_is_refused(table: Any) -> None:
    with pytest.raises(ValueError, match="limit must be positive"):
        read_encoded(table, SCHEMA, limit=0)


def test_without_a_subject_in_the_schema_none_is_read(table: Any) -> None:
    schema = SCHEMA.model_copy(update={"subject": None})
    assert read_encoded(table, schema).subjects is None


def test_values_out_of_bounds_are_clamped_and_counted_over_all_batches(tmp_path: Path) -> None:
    rows = ["p,red,-1,0,5,n\n", "p,red,1,0,100,n\n", "p,red,11,0,5,n\n"]
    (tmp_path / "t.csv").write_text(HEADER + "".join(rows))
    source = small_batches(open_source("t.csv", base=tmp_path), 1)
    encoded = read_encoded(source, SCHEMA)
    assert encoded.clamped == {"x": 2, "age": 1}
    assert encoded.codes[:, 0].tolist() == [0, 1, 9]


@pytest.mark.parametrize(
    ("row", "place"),
    [
        ("p,green,1,0,5,n\n", "kind: row 501"),
        ("p,red,secret,0,5,n\n", "x: row 501"),
        ("p,red,NaN,0,5,n\n", "x: row 501"),
        ("p,red,inf,0,5,n\n", "x: row 501"),
        ("p,red,,0,5,n\n", "x: row 501"),
        ("p,red,1,0,5.5,n\n", "age: row 501"),
        (",red,1,0,5,n\n", "person: row 501"),
        (" p,red,1,0,5,n\n", "person: row 501"),
        ("p,red,1\n", "row 501"),
    ],
)
def test_a_row_that_does_not_fit_is_named_by_source_column_and_row(
    tmp_path: Path, row: Any, place: Any
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(HEADER + "".join(ROWS) + row)
    source = small_batches(open_source("t.csv", base=tmp_path), 64)
    with pytest.raises(DataError) as caught:
        read_encoded(source, SCHEMA)
    assert str(caught.value).startswith(f"{path}: {place}")
    assert "secret" not in str(caught.value)


def test_a_column_of_the_schema_that_the_table_lacks(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("person,kind,x,flag,Age\np,red,1,0,5\n")
    with pytest.raises(DataError, match=r"age: the table has no such column .did you mean 'Age'"):
        read_encoded(open_source("t.csv", base=tmp_path), SCHEMA)


def test_typed_columns_give_the_codes_of_text(table: Any, tmp_path: Path) -> None:
    i = np.arange(500)
    columns = {
        "person": [f"p{k % 7}" for k in i],
        "kind": [("red", "blue", None)[k % 3] for k in i],
        "x": i % 10 + 0.5,
        "flag": i % 2 == 1,
        "age": i % 100,
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    typed, text = read_encoded(open_source("t.parquet", base=tmp_path), SCHEMA), read_encoded(table, SCHEMA)
    assert (typed.codes == text.codes).all()
    assert (typed.subjects == text.subjects).all()


def test_images_are_read_like_tables(tmp_path: Path) -> None:
    schema = ImageSchema(height=1, width=2, max_value=300, classes=("a", "b"))
    (tmp_path / "t.csv").write_text("label,p0,p1\nb,0,300\na,7,8\n")
    encoded = read_encoded(open_source("t.csv", base=tmp_path), schema)
    assert encoded.codes.dtype == np.uint16
    assert encoded.codes.tolist() == [[0, 300, 1], [7, 8, 0]]


def test_rows_and_subjects_must_be_as_many() -> None:
    with pytest.raises(ValueError, match="3 rows but 2 subjects"):
        EncodedTable(codes=np.zeros((3, 1), np.uint8), subjects=np.array([b"a", b"b"]))


_PEAK = """
import json, re, resource, sys
from pathlib import Path
import pyarrow.csv
from fedgen.data import csv_source
from fedgen.data.encoded import read_encoded
from fedgen.data.sources import open_source
from fedgen.schema.table import parse_schema

def peak():
    status = Path("/proc/self/status")
    if status.exists():  # there, getrusage would count the process that started this one
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

csv_source.BLOCK_BYTES = 2**17  # Arrow reads a fixed number of blocks ahead; small ones fill it early
schema = parse_schema(json.loads(sys.argv[1]))
peaks = []
for path in sys.argv[3:]:
    if sys.argv[2] == "streamed":
        rows = len(read_encoded(open_source(path, base=Path("/")), schema, spill_bytes=2**20))
    else:
        rows = pyarrow.csv.read_csv(path).num_rows
    peaks.append(peak())
print(json.dumps(peaks))
"""


@pytest.mark.parametrize("way", ["streamed", "whole"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, way: Any) -> None:
    """One file is 36 MiB larger than the other; the peak must not tell. Reading it whole is the control."""
    block = (HEADER + "".join(ROWS)).encode()
    small, large = tmp_path / "small.csv", tmp_path / "large.csv"
    body = block[len(HEADER) :]
    small.write_bytes(block + body * (4 * 2**20 // len(body)))
    large.write_bytes(block + body * (40 * 2**20 // len(body)))
    command = [sys.executable, "-c", _PEAK, json.dumps(SCHEMA.model_dump(mode="json")), way, small, large]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    first, second = json.loads(done.stdout)
    grown = second - first
    assert (grown < 60 * 2**20) == (way == "streamed"), f"peak grew by {grown / 2**20:.0f} MiB"
