"""What a Parquet file says of itself, held against itself before a row of it is unpacked.

Arrow believes the sizes in footers and page headers, and some of its checks end the process instead of raising. A
site's process holds keys and a budget, so a broken or hostile file is to be refused before.

Source: Apache Parquet format, ``parquet.thrift`` (FileMetaData, ColumnChunk, PageHeader).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fedgen.data.thrift import Compact, Torn

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

MAX_FOOTER_BYTES: Final = 64 * 2**20
MAX_GROUP_ROWS: Final = 2**31 - 1
MAX_PAGE_BYTES: Final = 128 * 2**20
MAX_CELL_BYTES: Final = 2**20
SHORT_BYTES: Final = 2**10  # a batch of texts this long is at most 64 MiB
_MAGIC: Final = b"PAR1"
_HEADER_BYTES: Final = 2**12
_MAX_HEADER_BYTES: Final = 2**21
_DATA_PAGES: Final = {0: 5, 3: 8}  # type of a page to the field that holds its number of values
_OTHER_PAGES: Final = frozenset({1, 2})
_DICTIONARY: Final = 2
_REPEATED: Final = 2
_BYTES: Final = 6
_PLAIN: Final = 0
_CODECS: Final = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}


class Contradiction(ValueError):
    """The file is not Parquet, or does not agree with itself."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """One column of one row group.

    Attributes:
        column: Its name, of the outermost group if it is nested.
        is_flat: Whether it is not nested, so that each row has one value.
        start: Where its first page begins.
        size: Bytes of its pages in the file.
        unpacked: Bytes of its pages, unpacked, as the footer has it.
        values: Values in its data pages.
        is_bytes: Whether its values are bytes of any length.
        codec: How its pages are packed, as the format numbers it.
    """

    column: str
    is_flat: bool
    start: int
    size: int
    unpacked: int
    values: int
    is_bytes: bool
    codec: int


@dataclass(frozen=True, slots=True)
class Footer:
    """What the end of the file says.

    Attributes:
        rows: Rows in the file.
        groups: Rows of each row group, and its chunks.
    """

    rows: int
    groups: tuple[tuple[int, tuple[Chunk, ...]], ...]

    def rows_within(self, size: int, columns: Collection[str]) -> int:
        """Return how many rows of any row group take up about ``size`` bytes, at least one."""
        fitting = MAX_GROUP_ROWS
        for rows, chunks in self.groups:
            unpacked = sum(chunk.unpacked for chunk in chunks if chunk.column in columns)
            if rows and unpacked:
                fitting = min(fitting, max(1, size * rows // unpacked))
        return fitting


def read_footer(stream: Any, size: int) -> Footer:
    """Return a file's footer.

    Guarantees:
        - Counts of rows and values agree, no row group has over 2,147,483,647 rows, chunks lie in the file and in no
          other one, and a value of fixed length is at most 1 MiB.

    Args:
        stream: The open file.
        size: Its bytes.

    Raises:
        Contradiction: Not so.
        OSError: The file cannot be read.
    """
    stream.seek(max(0, size - 8))
    tail = bytes(stream.read(8))
    length = int.from_bytes(tail[:4], "little")
    if len(tail) != 8 or tail[4:] != _MAGIC or not 0 < length <= min(size - 12, MAX_FOOTER_BYTES):  # noqa: PLR2004
        raise Contradiction("no footer")
    stream.seek(size - 8 - length)
    try:
        return _checked(Compact(bytes(stream.read(length))).struct(), size)
    except (Torn, KeyError, IndexError, TypeError, AttributeError, UnicodeError):
        pass
    raise Contradiction("a footer that is none")


def _checked(said: dict[int, Any], size: int) -> Footer:
    leaves = list(_leaves(said[2]))
    groups = []
    for group in said.get(4, []):
        rows, columns = group[3], group[1]
        if not 0 <= rows <= MAX_GROUP_ROWS or len(columns) != len(leaves):
            raise Contradiction("row group")
        chunks = tuple(_chunk(it, leaf, rows, size) for it, leaf in zip(columns, leaves, strict=True))
        groups.append((rows, chunks))
    if said[3] != sum(rows for rows, _ in groups):
        raise Contradiction("rows")
    return Footer(said[3], tuple(groups))


def _leaves(elements: list[dict[int, Any]]) -> Iterator[tuple[str, bool]]:
    """Yield the outermost name of each column, and whether it is flat; the first element is the root."""
    left = [elements[0].get(5, 0)]
    names: list[str] = []
    for element in elements[1:]:
        name = element[4].decode()
        children = element.get(5, 0)
        if not children:
            if element.get(2, 0) > MAX_CELL_BYTES:
                raise Contradiction("length")
            yield (names[0] if names else name), not names and element.get(3) != _REPEATED
        left[-1] -= 1
        if children:
            left.append(children)
            names.append(name)
        while len(left) > 1 and left[-1] == 0:
            left.pop()
            names.pop()
    if left != [0]:
        raise Contradiction("schema")


def _chunk(said: dict[int, Any], leaf: tuple[str, bool], rows: int, size: int) -> Chunk:
    name, is_flat = leaf
    meta = said[3]
    start = min(meta[9], meta.get(11) or meta[9])
    chunk = Chunk(
        name,
        is_flat,
        start,
        size=meta[7],
        unpacked=meta[6],
        values=meta[5],
        is_bytes=meta[1] == _BYTES,
        codec=meta[4],
    )
    inside = start >= 0 and chunk.size >= 0 and start + chunk.size <= size
    if (
        not inside
        or 1 in said
        or chunk.unpacked < 0
        or chunk.values < 0
        or (is_flat and chunk.values != rows)
    ):
        raise Contradiction("chunk")
    return chunk


def check_pages(stream: Any, footer: Footer, columns: Collection[str]) -> frozenset[str]:
    """Look at the header of each page of some columns; return those whose dictionaries may hold long texts.

    Guarantees:
        - No page unpacks to more than 128 MiB, and data pages hold as many values as the footer says.

    Raises:
        Contradiction: Not so.
        OSError: The file cannot be read.
    """
    return frozenset(
        [
            chunk.column
            for _, chunks in footer.groups
            for chunk in chunks
            if chunk.column in columns and _check_chunk(stream, chunk) > SHORT_BYTES
        ]
    )


def _check_chunk(stream: Any, chunk: Chunk) -> int:
    """Return the most bytes of a text in the chunk's dictionary."""
    at, values, longest = chunk.start, 0, 0
    end = chunk.start + chunk.size
    while at < end and values < chunk.values:
        header, behind = _header(stream, at, end)
        kind, unpacked, packed = header.get(1), header.get(2), header.get(3)
        if not isinstance(unpacked, int) or not isinstance(packed, int) or min(unpacked, packed) < 0:
            raise Contradiction("page")
        if unpacked > MAX_PAGE_BYTES:
            raise Contradiction("a page that unpacks to too much")
        if kind in _DATA_PAGES:
            inner = header.get(_DATA_PAGES[kind])
            count = inner.get(1) if isinstance(inner, dict) else None
            if not isinstance(count, int) or count < 0:
                raise Contradiction("page")
            values += count
        elif kind not in _OTHER_PAGES:
            raise Contradiction("page")
        elif kind == _DICTIONARY and chunk.is_bytes:
            stream.seek(behind)
            longest = max(longest, _longest(bytes(stream.read(packed)), unpacked, chunk.codec))
        at = behind + packed
    if values != chunk.values or at > end:
        raise Contradiction("values")
    return longest


def _longest(page: bytes, unpacked: int, codec: int) -> int:
    """Return the most bytes of a text in a dictionary's page; what cannot be unpacked here may hold any."""
    import pyarrow as pa

    if codec != _PLAIN:
        try:
            page = pa.decompress(page, decompressed_size=unpacked, codec=_CODECS[codec], asbytes=True)
        except (KeyError, pa.ArrowException, OSError, ValueError):
            return MAX_PAGE_BYTES
    at = longest = 0
    while at + 4 <= len(page):
        size = int.from_bytes(page[at : at + 4], "little")
        longest = max(longest, size)
        at += 4 + size
    return longest


def _header(stream: Any, at: int, end: int) -> tuple[dict[int, Any], int]:
    """Return a page's header, and where it ends; statistics may make it long."""
    size = _HEADER_BYTES
    while True:
        stream.seek(at)
        data = bytes(stream.read(min(size, end - at)))
        reader = Compact(data)
        try:
            return reader.struct(), at + reader.at
        except Torn:
            if len(data) < size or size >= _MAX_HEADER_BYTES:
                break
            size *= 8
    raise Contradiction("page header")
