import bz2
import gzip
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from fedgen.data.csv_source import BLOCK_BYTES, CsvSource
from fedgen.data.store import Store
from fedgen.errors import DataError


def write(folder: Any, content: Any, name: Any = "t.csv") -> Any:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Any, columns: Any = None, **options: Any) -> Any:
    return pa.Table.from_batches(list(CsvSource(path, **options).batches(columns))).to_pydict()


def refusal(path: Any, columns: Any = None) -> Any:
    with pytest.raises(DataError) as caught:
        read(path, columns)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    assert "secret" not in text
    assert caught.value.hint
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None, "the library's exception quotes the row"
    return text


def test_cells_are_text_as_they_were_written(tmp_path: Path) -> None:
    path = write(tmp_path, 'a,b,c\n01, x ,NA\n"1,5","say ""hi""",\n"two\nlines",null,1e3\n')
    assert read(path) == {
        "a": ["01", "1,5", "two\nlines"],
        "b": [" x ", 'say "hi"', "null"],
        "c": ["NA", "", "1e3"],
    }


@pytest.mark.parametrize(
    ("name", "pack"), [("t.csv", bytes), ("t.csv.gz", gzip.compress), ("t.csv.bz2", bz2.compress)]
)
def test_packed_files_read_alike(tmp_path: Path, name: str, pack: Any) -> None:
    path = write(tmp_path, pack(b"a,b\n1,2\n"), name)
    assert CsvSource(path).columns == ["a", "b"]
    assert read(path) == {"a": ["1"], "b": ["2"]}


@pytest.mark.parametrize("text", ["\ufeffa,b\n1,2\n", "a,b\r\n1,2\r\n", "\n\na,b\n\n1,2\n\n", "a,b\n1,2"])
def test_marks_line_ends_and_empty_lines_do_not_matter(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    assert CsvSource(path).columns == ["a", "b"]
    assert read(path) == {"a": ["1"], "b": ["2"]}


def test_columns_are_read_alone_and_in_the_order_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b,c\n1,2,3\n")
    assert list(read(path, ["c", "a"]).items()) == [("c", ["3"]), ("a", ["1"])]


def test_another_delimiter(tmp_path: Path) -> None:
    assert read(write(tmp_path, "a;b\n1,5;2\n"), delimiter=";") == {"a": ["1,5"], "b": ["2"]}


def test_names_for_a_file_without_a_header(tmp_path: Path) -> None:
    path = write(tmp_path, "1,2\n3,4\n")
    assert read(path, names=["x", "y"]) == {"x": ["1", "3"], "y": ["2", "4"]}


def test_many_blocks_keep_their_order(tmp_path: Path) -> None:
    rows = 60_000
    path = write(tmp_path, "a,b\n" + "".join(f"{i},{'x' * 40}\n" for i in range(rows)))
    assert path.stat().st_size > 2 * BLOCK_BYTES
    batches = list(CsvSource(path).batches(["a"], batch_rows=1000))
    assert len(batches) >= rows // 1000
    assert [int(v) for b in batches for v in b.column(0).to_pylist()] == list(range(rows))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        CsvSource(tmp_path / "absent.csv")


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "d.csv").mkdir()
    assert "cannot be read" in refusal(tmp_path / "d.csv")


def test_an_empty_file(tmp_path: Path) -> None:
    assert "the file is empty" in refusal(write(tmp_path, ""))


def test_only_empty_lines(tmp_path: Path) -> None:
    assert "no header could be read" in refusal(write(tmp_path, "\n\n"))


@pytest.mark.parametrize("text", ["a,b\n", "a,b", "a,b\n\n\n"])
def test_a_header_without_rows(tmp_path: Path, text: str) -> None:
    assert "the table has no rows" in refusal(write(tmp_path, text))


def test_a_duplicate_header(tmp_path: Path) -> None:
    assert "b: column 3 repeats the name of another" in refusal(write(tmp_path, "a,b,b\n1,2,3\n"))


@pytest.mark.parametrize("above", [0, 1, 100_000])
@pytest.mark.parametrize(("row", "found"), [("secret", 1), ("secret,2,3", 3)])
def test_a_ragged_row_is_named_by_its_number(tmp_path: Path, above: Any, row: Any, found: Any) -> None:
    path = write(tmp_path, "a,b\n" + "1,2345678901234567\n" * above + row + "\n1,2\n")
    assert f"row {above + 1} has {found} values, not 2" in refusal(path)


def test_a_ragged_row_without_a_header_is_counted_from_one(tmp_path: Path) -> None:
    path = write(tmp_path, "1,2\nsecret\n")
    with pytest.raises(DataError, match="row 2 has 1 values, not 2"):
        read(path, names=["x", "y"])


def test_bytes_that_are_not_utf8_are_named_by_row_and_column(tmp_path: Path) -> None:
    path = write(tmp_path, b"a,b\n1,2\n3,secret\xff\n")
    assert f"{path}: b: row 2 is not UTF-8" in refusal(path)


def test_the_column_named_is_that_of_the_file_not_of_the_request(tmp_path: Path) -> None:
    path = write(tmp_path, b"a,b,c\n1,2,3\n3,4,secret\xff\n")
    assert f"{path}: c: row 2 is not UTF-8" in refusal(path, ["c", "a"])


def test_bytes_that_are_not_utf8_in_a_column_nobody_reads_do_no_harm(tmp_path: Path) -> None:
    assert read(write(tmp_path, b"a,b\n1,\xff\n"), ["a"]) == {"a": ["1"]}


def test_a_quote_never_closed(tmp_path: Path) -> None:
    path = write(tmp_path, 'a,b\n1,"secret\n' + "1,2\n" * (BLOCK_BYTES // 2))
    assert "a quote that is never closed" in refusal(path)


@pytest.mark.parametrize("content", ["a,b\n1,2\n".encode("utf-16"), b"\x00\xff" * 100])
def test_files_of_another_kind(tmp_path: Path, content: Any) -> None:
    assert "could be read" in refusal(write(tmp_path, content))


def test_a_packed_file_that_is_not_packed(tmp_path: Path) -> None:
    assert "cannot be unpacked" in refusal(write(tmp_path, b"a,b\n1,2\n", "t.csv.gz"))


def test_a_packed_file_that_breaks_off(tmp_path: Path) -> None:
    packed = gzip.compress(b"a,b\n" + b"".join(b"%d,%d\n" % (i, i * i) for i in range(400_000)))
    path = write(tmp_path, packed[: len(packed) - 20_000], "t.csv.gz")
    assert CsvSource(path).columns == ["a", "b"]
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("head", [b"a,b\n", b""])
def test_a_small_file_that_unpacks_to_a_gigabyte_without_a_line_break(tmp_path: Path, head: bytes) -> None:
    """It is refused after a few blocks, wherever the endless row begins; it is never unpacked."""
    packed = gzip.compress(head) + gzip.compress(b"1" * 2**20) * 1024
    path = write(tmp_path, packed, "t.csv.gz")
    assert len(packed) < 2**21
    tracked = pa.default_memory_pool()
    before = tracked.bytes_allocated()
    assert "MiB" in refusal(path) or "header" in refusal(path)
    assert tracked.bytes_allocated() - before < 64 * BLOCK_BYTES


def test_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "a\n1\n")

    def deny(*_args: Any, **_options: Any) -> None:
        raise PermissionError(13, "secret")

    monkeypatch.setattr(Store, "open_stream", deny)
    assert "cannot be read" in refusal(path)


def test_describe_is_the_path(tmp_path: Path) -> None:
    path = write(tmp_path, "a\n1\n")
    assert CsvSource(path).describe == os.fspath(path)
