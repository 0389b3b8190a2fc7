"""One address for every kind of table; each kind has tests of its own."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedgen.data.sources import SCHEMES, open_source
from fedgen.errors import ConfigError, DataError


@pytest.fixture
def base(tmp_path: Path) -> Any:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    (tmp_path / "odd name%20.csv").write_text("a,b\n1,2\n")
    (tmp_path / "t.tsv").write_text("a\tb\n1\t2\n")
    (tmp_path / "semi.txt").write_text("a;b\n1;2\n")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "t.parquet", tmp_path / "folder" / "x.parquet", tmp_path / "no-suffix"):
        pq.write_table(pa.table({"a": ["1"], "b": ["2"]}), path)
    return tmp_path


@pytest.mark.parametrize(
    "url",
    [
        "t.csv",
        "csv://t.csv",
        "CSV://t.csv",
        " csv://t.csv ",
        "csv://odd name%20.csv",
        "t.tsv",
        "csv://t.tsv",
        "csv://semi.txt?delimiter=;",
        "csv://semi.txt?delimiter=%3B",
        "t.parquet",
        "parquet://t.parquet",
        "parquet://no-suffix",
        "folder",
        "parquet://folder",
    ],
)
def test_every_way_to_name_one_table(base: Any, url: Any) -> None:
    source = open_source(url, base=base)
    assert source.columns == ["a", "b"]
    assert pa.Table.from_batches(list(source.batches())).to_pydict() == {"a": ["1"], "b": ["2"]}
    assert source.describe.startswith(str(base))


def test_absolute_paths_do_not_depend_on_the_base(base: Any, tmp_path_factory: Any) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for url in (f"csv://{base}/t.csv", f"parquet://{base}/t.parquet", str(base / "t.csv")):
        assert open_source(url, base=elsewhere).columns == ["a", "b"]


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("cvs://t.csv", "did you mean csv:?"),
        (
            "ftp://host/t.parquet",
            "known kinds: csv, parquet, sqlite, postgresql, mysql, mariadb, mongodb, s3, gs",
        ),
        ("postgres://host/db?table=t", "did you mean postgresql:?"),
        ("mysql:host", "write mysql://NAME"),
        ("mongodb://", "nothing stands behind mongodb:"),
        ("fsspec+memory:", "nothing stands behind fsspec+memory:"),
        ("csv:t.csv", "write csv://NAME"),
        ("csv://", "nothing stands behind csv:"),
        ("builtin:", "nothing stands behind builtin:"),
        ("csv://t.csv?delimeter=;", "delimeter: an option that csv:// does not have"),
        ("csv://t.csv?delimiter=::", "an option that csv:// does not have"),
        ("csv://t.csv?delimiter=;&delimiter=,", "an option that csv:// does not have"),
        ("t.xlsx", "the suffix does not say"),
        ("", "no address"),
        ("builtin:rand", "did you mean builtin:randhie?"),
        ("builtin:zzz", "known: randhie, digits"),
    ],
)
def test_addresses_that_name_nothing_known(base: Any, url: Any, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_source(url, base=base)
    assert what in str(caught.value)
    assert not isinstance(caught.value, DataError)
    assert "\n" not in str(caught.value)


def test_every_known_kind_is_in_the_list() -> None:
    databases = {"sqlite", "postgresql", "mysql", "mariadb", "mongodb"}
    assert set(SCHEMES) == {"csv", "parquet", "s3", "gs", "abfs", "abfss", "builtin", *databases}


def test_importing_the_room_loads_nothing_heavy() -> None:
    """The command line imports these at start; what reads files is loaded when a file is read."""
    rooms = (
        "sources source builtin encoded partition gate growing csv_source parquet_source sql_source randhie store "
        "folder parquet_footer thrift sql_engines mongo_source python_cells"
    )
    code = (
        f"import sys, importlib; [importlib.import_module('fedgen.data.' + m) for m in '{rooms}'.split()];"
        "import fedgen.policy; heavy = ('pyarrow', 'sqlalchemy', 'pandas', 'pymongo', 'fsspec', 'torch', 'scipy', "
        "'statsmodels');"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
