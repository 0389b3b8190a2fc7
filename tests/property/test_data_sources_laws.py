"""Laws of sources: how rows fall into batches decides nothing, and no bytes crash a reader or get into its words."""

import datetime as dt
import io
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedgen.data.parquet_source import ParquetSource
from fedgen.data.python_cells import PythonCells
from fedgen.data.sources import open_source
from fedgen.errors import DataError, FedgenError

CANARY = "CANARY-4711"
_cells = (
    st.none()
    | st.integers()
    | st.floats()
    | st.text()
    | st.booleans()
    | st.binary()
    | st.decimals()
    | st.dates()
)


@given(st.lists(_cells, min_size=1, max_size=12), st.integers(1, 12))
def test_whether_a_column_is_of_one_kind_does_not_depend_on_batches(values: list[Any], size: int) -> None:
    def outcome(step: int) -> list[Any] | str:
        cells, out = PythonCells("t"), []
        try:
            for start in range(0, len(values), step):
                out += cells.array(values[start : start + step], "v", start).to_pylist()
        except DataError as error:
            return str(error)
        return [repr(float(v)) if type(v) in {int, float} else v for v in out]

    whole, parts = outcome(len(values)), outcome(size)
    for one, other in ((whole, parts), (parts, whole)):
        if isinstance(one, str) and "out of range" not in one:
            assert isinstance(other, str)
    if isinstance(whole, list) and isinstance(parts, list):
        assert whole == parts


def _parquet() -> bytes:
    stream = io.BytesIO()
    rows = 2000
    columns = {
        "a": [f"{CANARY}-{i % 37}" for i in range(rows)],
        "b": [float(i) for i in range(rows)],
        "c": [dt.date(2026, 1, 1 + i % 28) for i in range(rows)],
    }
    pq.write_table(pa.table(columns), stream, row_group_size=700, compression="zstd", data_page_size=2000)
    return stream.getvalue()


_WHOLE = _parquet()


@settings(max_examples=150)
@given(st.lists(st.tuples(st.integers(0, len(_WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_parquet_file_with_any_bytes_is_read_or_refused(changes: list[tuple[int, int]]) -> None:
    content = bytearray(_WHOLE)
    for place, value in changes:
        content[place] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.parquet"
        path.write_bytes(bytes(content))
        try:
            rows = sum(batch.num_rows for batch in ParquetSource(path).batches())
        except FedgenError as error:
            fault = error
        else:
            assert rows <= 3 * (2**31)
            return
    assert CANARY not in str(fault)
    assert "\n" not in str(fault)
    assert fault.__context__ is None


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.text(min_size=1, max_size=8), st.text(max_size=8), st.integers(0, 5)),
        min_size=1,
        max_size=5,
    )
)
def test_folder_names_say_what_was_written_into_them(parts: list[tuple[str, str, int]]) -> None:
    """Quoting as Hive and Spark do; reading a table of folders gives each row the values it was filed under."""
    with tempfile.TemporaryDirectory() as name:
        folder, want = Path(name), []
        for number, (left, right, rows) in enumerate(parts):
            assume("\ud800" not in left + right)
            inner = folder / f"x={quote(left, safe='')}" / f"y={quote(right, safe='')}"
            inner.mkdir(parents=True, exist_ok=True)
            pq.write_table(
                pa.table({"v": pa.array([number] * rows, pa.int64())}), inner / f"{number}.parquet"
            )
            want += [(number, left, right)] * rows
        try:
            table = pa.Table.from_batches(list(ParquetSource(folder).batches()))
        except DataError:
            table = None  # refused, for it has no rows
        if table is None or not want:
            assert table is None
            assert not want
            return
        assert sorted(zip(*(table[column].to_pylist() for column in "vxy"), strict=True)) == sorted(want)


_schemes = st.sampled_from(
    [
        "postgresql",
        "mysql",
        "mariadb",
        "mongodb",
        "s3",
        "gs",
        "abfs",
        "fsspec+memory",
        "sqlite",
        "csv",
        "parquet",
    ]
)
_rest = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)


@settings(max_examples=200, deadline=None)
@given(_schemes, _rest)
def test_a_password_in_an_address_that_is_none_is_never_repeated(scheme: str, rest: str) -> None:
    """Whatever stands around it: no host can be reached behind these addresses, so opening one only takes it apart."""
    for url in (
        f"{scheme}://me:{CANARY}{rest}",
        f"{scheme}://me:{CANARY}@{rest}",
        f"{scheme}://me:{rest}{CANARY}@",
    ):
        assume("table=" not in url and "collection=" not in url)
        if scheme in {"csv", "parquet", "sqlite"} or (scheme == "fsspec+memory" and "@" not in url):
            continue
        text = ""
        try:
            open_source(url, base=Path("/nonexistent"))
        except FedgenError as error:
            text = str(error)
        assert CANARY not in text, url
