"""Folders that Spark and its kin write: what is part of the table, and what makes it unfit to be read."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedgen.data import folder
from fedgen.data.parquet_source import ParquetSource
from fedgen.errors import DataError

CANARY = "CANARY-4711"


def write(path: Path, table: Any = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table or {"a": [1, 2]}), path)
    return path


def read(path: Path, columns: Any = None) -> Any:
    return pa.Table.from_batches(list(ParquetSource(path).batches(columns))).to_pydict()


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    text = str(caught.value)
    assert CANARY not in text
    assert "\n" not in text
    assert str(path) in text
    assert caught.value.hint
    assert caught.value.__context__ is None
    return text


@pytest.fixture
def spark(tmp_path: Path) -> Path:
    """What a job of Spark's leaves: part files, one without rows, checksums, and its mark of success."""
    write(tmp_path / "part-00000-8a1c-c000.snappy.parquet", {"a": pa.array([], pa.int64())})
    for number in (2, 1):
        path = write(tmp_path / f"part-0000{number}-8a1c-c000.snappy.parquet", {"a": [number]})
        (tmp_path / f".{path.name}.crc").write_bytes(b"crc")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "._SUCCESS.crc").write_bytes(b"crc")
    return tmp_path


def test_what_spark_writes_is_a_table(spark: Path) -> None:
    assert read(spark) == {"a": [1, 2]}


def test_the_mark_of_success_is_not_needed(spark: Path) -> None:
    (spark / "_SUCCESS").unlink()
    assert read(spark) == {"a": [1, 2]}


@pytest.mark.parametrize("done", [True, False])
@pytest.mark.parametrize(
    "left",
    [
        "_temporary/0/_temporary/attempt_2026_m_000000_0/part-00000.parquet",
        "_temporary/0/.keep",
        "__magic_job-1/x.pending",
        ".spark-staging-1/part-0.parquet",
        "year=2026/_temporary/part-0.parquet",
    ],
)
def test_a_job_that_has_not_finished_is_refused(spark: Path, left: str, done: Any) -> None:
    if not done:
        (spark / "_SUCCESS").unlink()
    (spark / left).parent.mkdir(parents=True)
    (spark / left).touch()
    assert "a job that has not finished left its files here" in refusal(spark)


def test_an_empty_folder_of_a_job_is_one_too(spark: Path) -> None:
    (spark / "_temporary").mkdir()
    assert "a job that has not finished" in refusal(spark)


@pytest.mark.parametrize(
    ("left", "kind"),
    [
        ("_delta_log/00000000000000000000.json", "Delta Lake"),
        (".hoodie/hoodie.properties", "Hudi"),
        ("metadata/v1.metadata.json", "Iceberg"),
    ],
)
def test_a_lakehouse_keeps_deleted_rows_in_its_files(spark: Path, left: str, kind: str) -> None:
    (spark / left).parent.mkdir()
    (spark / left).touch()
    assert f"a {kind} table: its files still hold rows that were deleted" in refusal(spark)


def test_a_file_of_no_bytes_is_a_broken_copy(spark: Path) -> None:
    (spark / "part-00003.parquet").touch()
    assert "part-00003.parquet: a file of no bytes" in refusal(spark)


def test_a_table_of_empty_files_has_no_rows(tmp_path: Path) -> None:
    write(tmp_path / "part-0.parquet", {"a": pa.array([], pa.int64())})
    assert "no rows" in refusal(tmp_path)


def test_folder_names_bring_columns(tmp_path: Path) -> None:
    for place, rows in {
        "year=2025/ward=A%2FB": [1], "year=2026/ward=__HIVE_DEFAULT_PARTITION__": [3, 4], "year=2025/ward=%C3%A9": [2],
    }.items():  # fmt: skip
        write(tmp_path / place / "part-0.parquet", {"a": rows})
    assert ParquetSource(tmp_path).columns == ["a", "year", "ward"]
    want = {
        (1, "2025", "A/B"), (2, "2025", "é"), (3, "2026", None), (4, "2026", None),
    }  # fmt: skip
    table = read(tmp_path)
    assert set(zip(table["a"], table["year"], table["ward"], strict=True)) == want
    assert sorted(read(tmp_path, ["year"])["year"]) == ["2025", "2025", "2026", "2026"]
    assert list(read(tmp_path, ["ward", "a"])) == ["ward", "a"]


def test_only_folders_below_the_address_bring_columns(tmp_path: Path) -> None:
    write(tmp_path / "year=2025" / "part-0.parquet")
    assert ParquetSource(tmp_path / "year=2025").columns == ["a"]


def test_a_value_in_a_folders_name_is_in_no_message(tmp_path: Path) -> None:
    write(tmp_path / f"patient={CANARY}" / "a.parquet", {"a": [1]})
    other = write(tmp_path / f"patient={CANARY}" / "b.parquet", {"z": [1]})
    assert "patient=*/b.parquet: this file has other columns" in refusal(tmp_path)
    other.write_bytes(b"PAR1" + b"x" * 50)
    assert "patient=*/b.parquet: not a Parquet file" in refusal(tmp_path)
    other.write_bytes(b"")
    assert "patient=*/b.parquet: a file of no bytes" in refusal(tmp_path)
    other.unlink()
    assert CANARY not in repr(folder.table_files(ParquetSource(tmp_path)._store))
    write(tmp_path / "c.parquet")
    assert "lies under other keys" in refusal(tmp_path)


def test_a_partition_that_the_file_holds_too(tmp_path: Path) -> None:
    write(tmp_path / "a=1" / "x.parquet")
    assert "a: column 2 repeats the name" in refusal(tmp_path)


def test_two_folders_of_one_key(tmp_path: Path) -> None:
    write(tmp_path / "k=1" / "k=2" / "x.parquet")
    assert "two folders above one file have the same key" in refusal(tmp_path)


def test_a_key_may_begin_like_a_hidden_name(tmp_path: Path) -> None:
    write(tmp_path / "_day=1" / "x.parquet")
    assert read(tmp_path) == {"a": [1, 2], "_day": ["1", "1"]}


def test_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "MAX_FILES", 2)
    for number in range(3):
        write(tmp_path / f"{number}.parquet")
    assert "more than 2 files" in refusal(tmp_path)


def test_a_file_that_was_replaced_meanwhile(spark: Path) -> None:
    source = ParquetSource(spark)
    write(spark / "part-00002-8a1c-c000.snappy.parquet", {"a": [7, 8, 9]})
    with pytest.raises(DataError, match=r"part-00002.*: the file was replaced while the table was read"):
        list(source.batches())


def test_a_file_that_is_gone_meanwhile(spark: Path) -> None:
    source = ParquetSource(spark)
    (spark / "part-00002-8a1c-c000.snappy.parquet").unlink()
    with pytest.raises(DataError, match="the file was replaced"):
        list(source.batches())


def test_a_file_that_comes_meanwhile_is_not_part_of_the_table(spark: Path) -> None:
    source = ParquetSource(spark)
    write(spark / "part-00009.parquet")
    assert sum(batch.num_rows for batch in source.batches()) == 2
