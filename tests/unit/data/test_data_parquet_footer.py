"""Footers and page headers read by our own reader agree with Arrow's on files that are sound, and refuse the others."""

import datetime as dt
import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgen.data import parquet_footer
from fedgen.data.parquet_footer import Contradiction, check_pages, read_footer
from fedgen.data.thrift import Compact, Torn


def written(table: pa.Table, **options: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, **options)
    return stream.getvalue()


TABLE = pa.table({
    "i": list(range(5000)),
    "t": [f"text {i % 100}" for i in range(5000)],
    "d": [dt.date(2026, 1, 1)] * 5000,
    "n": [None, 1.5] * 2500,
    "l": [[1, 2]] * 5000,
    "s": [{"a": 1, "b": {"c": "x"}}] * 5000,
})  # fmt: skip


@pytest.mark.parametrize("rows", [5000, 1700, 1])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
@pytest.mark.parametrize("use_dictionary", [True, False])
def test_sound_files_of_every_make_pass(
    rows: Any, version: Any, compression: Any, use_dictionary: Any
) -> None:
    content = written(
        TABLE.slice(0, 40) if rows == 1 else TABLE,
        row_group_size=rows, data_page_version=version, compression=compression, use_dictionary=use_dictionary,
        data_page_size=3000, write_page_index=True, write_page_checksum=True,
    )  # fmt: skip
    stream = io.BytesIO(content)
    footer, want = read_footer(stream, len(content)), pq.read_metadata(io.BytesIO(content))
    assert footer.rows == want.num_rows
    assert [rows for rows, _ in footer.groups] == [
        want.row_group(i).num_rows for i in range(want.num_row_groups)
    ]
    for number, (_, chunks) in enumerate(footer.groups):
        for place, chunk in enumerate(chunks):
            arrow = want.row_group(number).column(place)
            assert (chunk.size, chunk.unpacked) == (
                arrow.total_compressed_size,
                arrow.total_uncompressed_size,
            )
            assert chunk.values == arrow.num_values
            assert chunk.column == arrow.path_in_schema.partition(".")[0]
    assert [chunk.is_flat for chunk in footer.groups[0][1]] == [True] * 4 + [False] * 3
    assert check_pages(stream, footer, TABLE.column_names) == frozenset()


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "brotli", "zstd", "lz4"])
def test_a_long_text_in_a_dictionary_is_seen(compression: Any) -> None:
    short, long = "x" * parquet_footer.SHORT_BYTES, "x" * (parquet_footer.SHORT_BYTES + 1)
    table = pa.table({"a": ["", short] * 9, "b": ["y", long] * 9, "n": [1] * 18})
    content = written(table, compression=compression)
    stream = io.BytesIO(content)
    footer = read_footer(stream, len(content))
    assert check_pages(stream, footer, table.column_names) == {"b"}
    assert check_pages(stream, footer, ["a"]) == frozenset()


def test_an_empty_table_passes() -> None:
    content = written(TABLE.slice(0, 0))
    footer = read_footer(io.BytesIO(content), len(content))
    assert footer.rows == 0
    check_pages(io.BytesIO(content), footer, ["i"])
    assert footer.rows_within(2**20, ["i"]) > 0


def test_wide_rows_are_read_fewer_at_a_time() -> None:
    content = written(
        pa.table({"a": ["x" * 10_000 + str(i) for i in range(1000)], "b": [1] * 1000}), use_dictionary=False
    )
    footer = read_footer(io.BytesIO(content), len(content))
    assert 90 <= footer.rows_within(2**20, ["a"]) <= 110
    assert footer.rows_within(2**20, ["b"]) > 10_000


def test_a_page_that_unpacks_to_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    content = written(
        pa.table({"a": [0.0] * 100_000}), use_dictionary=False, compression="zstd", data_page_size=2**30
    )
    stream = io.BytesIO(content)
    footer = read_footer(stream, len(content))
    monkeypatch.setattr(parquet_footer, "MAX_PAGE_BYTES", 100_000)
    with pytest.raises(Contradiction, match="too much"):
        check_pages(stream, footer, ["a"])
    check_pages(stream, footer, ["b"])


def test_a_value_of_fixed_length_may_not_be_endless() -> None:
    content = written(pa.table({"a": pa.array([b"x" * 2**21], pa.binary(2**21))}))
    with pytest.raises(Contradiction, match="length"):
        read_footer(io.BytesIO(content), len(content))


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"PAR1PAR1", b"PAR1" + b"\xff" * 4 + b"PAR1", b"x" * 100 + b"PARE"]
)
def test_what_has_no_footer(content: bytes) -> None:
    with pytest.raises(Contradiction):
        read_footer(io.BytesIO(content), len(content))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_struct_or_torn(data: bytes) -> None:
    reader = Compact(data)
    try:
        fields = reader.struct()
    except Torn:
        return
    assert isinstance(fields, dict)
    assert 0 < reader.at <= len(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x1c" * 100,  # a struct in a struct in a struct
        b"\x19\xfc\xff\xff\xff\xff\x0f",  # a list of four thousand million structs
        b"\x1b\xff\xff\xff\xff\x0f\x88",  # a map of as many
        b"\x18\xff\xff\xff\xff\x0f",  # as many bytes
        b"\x16" + b"\xff" * 20,  # a number without an end
        b"\x1d\x00",  # no such type
        b"\x17\x00",  # half a number
    ],
)
def test_structs_that_promise_more_than_is_there(data: bytes) -> None:
    with pytest.raises(Torn):
        Compact(data).struct()


def test_a_map_and_a_list_of_truths_are_read() -> None:
    assert Compact(b"\x1b\x01\x85\x01a\x02\x29\x21\x01\x02\x00").struct() == {1: [(b"a", 1)], 3: [1, 2]}
    assert Compact(b"\x1b\x00\x11\x12\x00").struct() == {1: [], 2: True, 3: False}


_WHOLE = written(TABLE.slice(0, 300), compression="none")


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(-2500, -1), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_changed_footer_is_a_footer_or_a_contradiction(changes: list[tuple[int, int]]) -> None:
    content = bytearray(_WHOLE)
    for place, value in changes:
        content[place] = value
    stream = io.BytesIO(bytes(content))
    try:
        footer = read_footer(stream, len(content))
        check_pages(stream, footer, TABLE.column_names)
    except Contradiction:
        return
    assert footer.rows == sum(rows for rows, _ in footer.groups)
