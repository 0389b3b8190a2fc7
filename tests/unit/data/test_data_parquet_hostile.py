"""Parquet files that lie: truncated, or whose footers and dictionaries promise far more than is there."""

import struct
from collections import deque
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.peaks import growth

from fedgen.data.parquet_footer import MAX_CELL_BYTES
from fedgen.data.parquet_source import ParquetSource
from fedgen.errors import DataError

CANARY = "CANARY-4711"
ROWS = 123_457  # nothing else in a footer is this number


def varint(number: int) -> bytes:
    """Return a whole number as Thrift's compact protocol writes it: zigzag, seven bits a byte."""
    number, out = number << 1, bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes((*out, number))


def forged(path: Path, claim: int, occurrences: slice = slice(None)) -> Path:
    """Write a file of ``ROWS`` rows whose footer claims another number; at some of the places or at all."""
    required = pa.schema(
        [pa.field("a", pa.string(), nullable=False), pa.field("n", pa.int64(), nullable=False)]
    )
    table = pa.table({"a": [CANARY] * ROWS, "n": [7] * ROWS}, schema=required)
    pq.write_table(table, path, write_statistics=False)
    content = path.read_bytes()
    (size,) = struct.unpack("<I", content[-8:-4])
    body, footer = content[: -8 - size], content[-8 - size : -8]
    parts = footer.split(varint(ROWS))
    assert len(parts) == 5  # two chunks, their row group, the file
    claims = [varint(ROWS)] * 4
    claims[occurrences] = [varint(claim)] * len(claims[occurrences])
    footer = b"".join(a + b for a, b in zip(parts, [*claims, b""], strict=True))
    path.write_bytes(body + footer + struct.pack("<I", len(footer)) + b"PAR1")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        deque(ParquetSource(path).batches(), maxlen=0)
    assert CANARY not in str(caught.value)
    assert caught.value.__context__ is None
    assert caught.value.hint
    return str(caught.value)


def test_the_forger_forges_nothing_when_it_claims_the_truth(tmp_path: Path) -> None:
    path = forged(tmp_path / "t.parquet", ROWS)
    assert sum(batch.num_rows for batch in ParquetSource(path).batches()) == ROWS


def test_a_footer_that_claims_two_to_the_forty_rows(tmp_path: Path) -> None:
    assert "not a Parquet file, or damaged" in refusal(forged(tmp_path / "t.parquet", 2**40))


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("claim", [2**40, 2**20, 1, 0])
def test_counts_that_contradict_each_other(tmp_path: Path, place: int, claim: int) -> None:
    path = forged(tmp_path / "t.parquet", claim, slice(place, place + 1))
    assert "not a Parquet file, or damaged" in refusal(path)


@pytest.mark.parametrize("claim", [2**31 - 1, ROWS + 1])
def test_pages_that_hold_fewer_rows_than_the_footer_says(tmp_path: Path, claim: int) -> None:
    assert "damaged" in refusal(forged(tmp_path / "t.parquet", claim))


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [CANARY + str(i) for i in range(3000)]}), path, row_group_size=1000)
    content = path.read_bytes()
    for size in (1, 4, 12, 100, len(content) // 2, len(content) - 9, len(content) - 8, len(content) - 1):
        path.write_bytes(content[:size])
        assert str(path) in refusal(path)


def test_a_cell_over_a_mebibyte_is_named_by_row(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    cells = ["x"] * 70_000 + [CANARY + "x" * MAX_CELL_BYTES]
    pq.write_table(pa.table({"a": cells}), path)
    assert "a: row 70001 holds a cell over 1 MiB" in refusal(path)
    pq.write_table(pa.table({"a": cells}), path, use_dictionary=False)
    assert "a: row 70001 holds a cell over 1 MiB" in refusal(path)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_text_comes_as_the_type_it_was_written_as(tmp_path: Path, kind: Any) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": pa.array(["x", None, "y"]).cast(kind)}), path)
    (batch,) = ParquetSource(path).batches()
    assert batch.column(0).type == kind
    assert batch.column(0).to_pylist() == ["x", None, "y"]


@pytest.mark.parametrize("way", ["streamed", "whole"])
def test_a_small_file_that_unfolds_to_many_times_its_size(tmp_path: Path, way: str) -> None:
    """One text of 0.9 MiB, four hundred times. Reading the file whole is the control."""
    small, large = tmp_path / "small.parquet", tmp_path / "large.parquet"
    cell = "x" * (9 * MAX_CELL_BYTES // 10)
    folded = pa.DictionaryArray.from_arrays(pa.array([0] * 400, pa.int32()), pa.array([cell]))
    for path, rows in ((small, folded.slice(0, 10)), (large, folded)):
        table = pa.table({"a": rows}).replace_schema_metadata(None)
        pq.write_table(table, path, compression="zstd", store_schema=False)
    assert large.stat().st_size < 2 * MAX_CELL_BYTES
    rows, grown = growth(way, f"parquet://{small}", f"parquet://{large}")
    assert rows == 400
    assert (grown < 200 * 2**20) == (way == "streamed"), f"peak grew by {grown / 2**20:.0f} MiB"


def test_many_long_cells_that_share_no_dictionary(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    cells = [f"{i}" + "x" * (MAX_CELL_BYTES // 2) for i in range(200)]
    pq.write_table(pa.table({"a": cells}), path, use_dictionary=False, compression="none")
    sizes = [batch.nbytes for batch in ParquetSource(path).batches()]
    assert max(sizes) < 80 * 2**20
    assert sum(sizes) > 100 * 2**20
