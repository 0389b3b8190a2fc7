import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedgen.data.parquet_source import ParquetSource
from fedgen.data.store import Store
from fedgen.errors import DataError


def write(path: Any, table: Any = None, **options: Any) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table or {"a": [1, 2], "b": ["x", None]}), path, **options)
    return path


def read(path: Any, columns: Any = None, batch_rows: Any = 65_536) -> Any:
    return pa.Table.from_batches(list(ParquetSource(path).batches(columns, batch_rows))).to_pydict()


def refusal(path: Any) -> Any:
    with pytest.raises(DataError) as caught:
        read(path)
    assert caught.value.__context__ is None, "the library's exception may quote the row"
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.hint
    return str(caught.value)


def test_types_are_kept(tmp_path: Path) -> None:
    table = {"i": [1], "f": [1.5], "t": ["x"], "d": [dt.date(2026, 1, 1)], "b": [True]}
    source = ParquetSource(write(tmp_path / "t.parquet", table))
    (batch,) = source.batches()
    assert [str(t) for t in batch.schema.types] == ["int64", "double", "string", "date32[day]", "bool"]


def test_columns_are_read_alone_and_in_the_order_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"a": [1], "b": [2], "c": [3]})
    assert list(read(path, ["c", "a"]).items()) == [("c", [3]), ("a", [1])]


def test_batches_cross_row_groups_in_order(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"a": list(range(1000))}, row_group_size=70)
    batches = list(ParquetSource(path).batches(batch_rows=64))
    assert max(b.num_rows for b in batches) <= 64
    assert [v for b in batches for v in b.column(0).to_pylist()] == list(range(1000))


def test_a_folder_is_one_table_in_the_order_of_its_paths(tmp_path: Path) -> None:
    write(tmp_path / "b.parquet", {"a": [3], "b": [30]})
    write(tmp_path / "a" / "z.parquet", {"b": [10, 20], "a": [1, 2]})
    write(tmp_path / "_other" / "x.parquet", {"other": [9]})
    write(tmp_path / ".hidden.parquet", {"other": [9]})
    (tmp_path / "readme.txt").write_text("no table")
    assert read(tmp_path) == {"b": [10, 20, 30], "a": [1, 2, 3]}


def test_a_folder_whose_files_differ_names_the_file(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"a": [1]})
    other = write(tmp_path / "b.parquet", {"z": [1]})
    text = refusal(tmp_path)
    assert text.startswith(f"{other}: this file has other columns")


def test_a_missing_file(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "absent.parquet")


def test_a_folder_without_tables(tmp_path: Path) -> None:
    assert "no Parquet file in this folder" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"PAR1" + b"x" * 100 + b"PAR1"])
def test_files_of_another_kind(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(content)
    assert "not a Parquet file" in refusal(path)


def test_a_damaged_page(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"a": [f"secret {i}" for i in range(50_000)]}, compression="zstd")
    content = bytearray(path.read_bytes())
    content[200:5200] = b"\xff" * 5000
    path.write_bytes(bytes(content))
    assert "secret" not in refusal(path)


def test_no_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"a": pa.array([], pa.int64())})
    assert "no rows" in refusal(path)


def test_two_columns_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), path)
    assert "repeats the name" in refusal(path)


def test_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "t.parquet")

    def deny(*_args: Any, **_options: Any) -> None:
        raise PermissionError(13, "secret")

    monkeypatch.setattr(Store, "open_file", deny)
    assert "cannot be read" in refusal(path)
