"""Rows of a CSV file, read as text: what a cell means is the schema's to say, not a parser's guess."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedgen.data.source import Source, check_header
from fedgen.data.store import Store
from fedgen.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

BLOCK_BYTES: Final = 2**20  # Arrow reads some blocks ahead; a row must fit in one
_HEADER_BYTES: Final = 2**20
_PLACE: Final = re.compile(r"column #(\d+): Row #(\d+)")
_HINT: Final = "write it as UTF-8 with one header line and the same number of values in each row"


class CsvSource(Source):
    """A CSV file (RFC 4180, UTF-8), plain or compressed (``.gz .bz2 .zst .lz4``).

    Guarantees:
        - Every cell is text, exactly as written between delimiters or quotes; an empty cell is ``""``.
        - A row with too many or too few values, or bytes that are not UTF-8, refuse the file by row.

    Edge cases:
        ================================  ==============================
        byte order mark                   skipped
        empty line                        skipped
        line break inside quotes          part of the cell
        a row of more than 1 MiB          may be refused
        ================================  ==============================

    Args:
        place: The file, on this machine or in a store.
        delimiter: One character between cells.
        names: Names of the columns of a file without a header; None reads the first line.

    Raises:
        DataError: The file is missing, empty, not readable, or two columns share a name.

    Source: RFC 4180.
    """

    def __init__(self, place: Path | Store, *, delimiter: str = ",", names: list[str] | None = None) -> None:
        self._store = Store.local(place) if isinstance(place, Path) else place
        self._delimiter = delimiter
        self._names = names
        self._columns = check_header(names or self._header(), self._store.shown)

    @property
    def columns(self) -> list[str]:
        """Names in the header."""
        return list(self._columns)

    @property
    def describe(self) -> str:
        """The path or address."""
        return self._store.shown

    def _header(self) -> list[str]:
        """Return the cells of the first line that is not empty."""
        head = self._head()
        if not head:
            raise DataError("the file is empty", where=self._store.shown, hint="it needs a header and rows")
        text = head.decode(
            "utf-8-sig", errors="surrogateescape"
        )  # what stands below the header is not its matter
        try:
            rows = csv.reader(io.StringIO(text, newline=""), delimiter=self._delimiter, strict=True)
            header = next((row for row in rows if row), None)
        except csv.Error:
            header = None
        if header is None or any("\udc80" <= character <= "\udcff" for character in "".join(header)):
            raise DataError("no header could be read", where=self._store.shown, hint=_HINT)
        return header

    def _head(self) -> bytes:
        """Return the first MiB, unpacked."""
        with self._open() as stream:
            try:
                return bytes(stream.read(_HEADER_BYTES))
            except Exception:  # noqa: BLE001, S110 - a filesystem of somebody else's raises what it likes
                pass
        raise self._error("the file is damaged: it cannot be unpacked", "copy it again")

    def _open(self) -> Any:
        """Return the file's bytes, unpacked as its suffix says."""
        kind = self._store.kind()
        if kind == "nothing":
            raise self._error("no such file", "check the path")
        if kind == "folder":
            raise self._error("the file cannot be read: it is a folder", "name a file in it")
        try:
            return self._store.open_stream()
        except Exception:  # noqa: BLE001, S110 - as above
            pass
        raise self._error("the file cannot be read", "check that it is a file you may read")

    def _read(self, columns: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:  # noqa: ARG002 - blocks rule

        ragged: list[Any] = []
        with self._open() as stream:
            try:
                yield from self._reader(stream, columns, ragged)
            except Exception as error:  # noqa: BLE001 - as above
                text = str(error)
            else:
                return
        raise self._fault(text, ragged)  # outside, for the library's exception quotes the row

    def _reader(self, stream: Any, columns: list[str], ragged: list[Any]) -> Any:
        """Return Arrow's reader of text; it keeps the first row of another length in ``ragged``."""
        import pyarrow as pa
        from pyarrow import csv as arrow_csv

        def refuse(row: Any) -> str:
            ragged.append(row)
            return "error"

        return arrow_csv.open_csv(
            stream,
            read_options=arrow_csv.ReadOptions(
                use_threads=False,  # else rows have no numbers
                block_size=BLOCK_BYTES,
                column_names=self._names,
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter=self._delimiter, newlines_in_values=True, invalid_row_handler=refuse
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()),
                include_columns=columns,
                strings_can_be_null=False,
            ),
        )

    def _fault(self, text: str, ragged: list[Any]) -> DataError:
        """Return the fault in our words; ``text`` is Arrow's, which may quote the row."""
        above = 0 if self._names else 1  # Arrow counts the header as a row
        if ragged:
            row = ragged[0]
            what = f"row {row.number - above} has {row.actual_columns} values, not {row.expected_columns}"
            return self._error(what, "check for a missing quote or delimiter")
        place = _PLACE.search(text)
        if place and "UTF8" in text:
            column, number = int(place[1]), int(place[2])
            what = f"row {number - above} is not UTF-8"
            return self._error(what, "save the file as UTF-8", key=self._columns[column])
        if "straddl" in text:
            size = BLOCK_BYTES // 2**20
            return self._error(f"a row over {size} MiB", "check for a quote that is never closed")
        if "Empty CSV" in text:
            return self._error("the table has no rows", "it needs a header and rows")
        return self._error("the file is damaged or not a CSV file", _HINT)

    def _error(self, what: str, hint: str, *, key: str | None = None) -> DataError:
        return DataError(what, where=self._store.shown, key=key, hint=hint)
