"""Rows of a Parquet file, or of a folder of them that another engine wrote."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedgen.data.folder import TableFile, table_files
from fedgen.data.parquet_footer import MAX_CELL_BYTES, Contradiction, Footer, check_pages, read_footer
from fedgen.data.source import Source, check_header
from fedgen.data.store import Store
from fedgen.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    import pyarrow as pa

_BATCH_BYTES: Final = 64 * 2**20
_BUFFER_BYTES: Final = 2**20


class ParquetSource(Source):
    """A Parquet file, or a folder whose ``*.parquet`` files make one table in the order of their paths.

    Guarantees:
        - Pages are read as they are needed, not whole row groups, and text is unfolded from its dictionary about
          64 MiB at a time, whatever the dictionary holds.
        - Folders called ``name=value`` bring a column of that name, as text; an error shows ``name=*``.
        - The table is the one that was there when it was opened: a file that was replaced since is refused.
        - Text is UTF-8 and every cell lies in its dictionary, or the file is refused.
        - A file whose footer contradicts itself, or promises more rows than its pages hold, is refused.

    Edge cases:
        ================================================  =================================================
        which files of a folder are part of the table     see :func:`fedgen.data.folder.table_files`
        files with other columns than the first           refused
        a column both in the files and in folder names    refused
        a cell of text over 1 MiB                         refused, by column and row
        a row group of over 2,147,483,647 rows            refused; no engine writes one
        a page of over 128 MiB, unpacked                  refused on this machine; in a store the format allows 2 GiB
        ================================================  =================================================

    Args:
        place: The file or folder.

    Raises:
        DataError: Nothing there, not Parquet, or as above.
    """

    def __init__(self, place: Path | Store) -> None:
        self._store = Store.local(place) if isinstance(place, Path) else place
        self._files = table_files(self._store)
        first = self._files[0]
        self._stored = self._names(first)
        self._columns = check_header([*self._stored, *first.key_names], first.shown)
        for file in self._files[1:]:
            if set(self._names(file)) != set(self._stored):
                hint = f"as {first.shown.rpartition('/')[2]} has them"
                raise DataError("this file has other columns than the first one", where=file.shown, hint=hint)

    @property
    def columns(self) -> list[str]:
        """Names in the files' schema, then those of the folders."""
        return list(self._columns)

    @property
    def describe(self) -> str:
        """The path or address."""
        return self._store.shown

    def _names(self, file: TableFile) -> list[str]:
        """Return the columns of one file."""
        with self._opened(file) as (_, types, _):
            return check_header(types.names, file.shown)

    @contextmanager
    def _opened(self, file: TableFile, columns: list[str] | None = None) -> Iterator[tuple[Any, Any, Footer]]:
        """Open one file once it has been held against itself; long texts are left in their dictionaries.

        Yields:
            The file, the types of its columns, and its footer.

        Raises:
            DataError: It is not Parquet, or cannot be read.
        """
        from pyarrow import parquet

        stream: Any = None
        found: tuple[Any, Any, Footer] | None = None
        damaged = ("not a Parquet file, or damaged", "write it again, or name another kind of source")
        what, hint = "the file cannot be read", "check that it is a file you may read"
        options = {"buffer_size": _BUFFER_BYTES, "pre_buffer": False}
        try:
            stream = self._store.open_file(file.stat.path)
            footer = read_footer(stream, file.stat.size)
            what, hint = damaged
            long: Collection[str] = columns or ()
            if columns is not None and self._store.is_here:  # elsewhere each page would be a question
                long = check_pages(stream, footer, columns)
            opened = parquet.ParquetFile(stream, **options)
            types = opened.schema_arrow
            folded = [name for name in long if _is_text(types.field(name).type)]
            if folded:
                opened = parquet.ParquetFile(stream, read_dictionary=folded, **options)
            if opened.metadata.num_rows == footer.rows:
                found = opened, types, footer
        except Contradiction:
            what, hint = damaged
        except Exception:  # noqa: BLE001, S110 - Arrow, and a filesystem of somebody else's, raise what they like
            pass
        try:
            if found is None:
                raise DataError(what, where=file.shown, hint=hint)
            yield found
        finally:
            if stream is not None:
                stream.close()

    def _read(self, columns: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        seen = 0
        for file in self._files:
            if self._store.stat(file.stat.path) != file.stat:
                hint = "read the table when nobody writes to it"
                raise DataError("the file was replaced while the table was read", where=file.shown, hint=hint)
            for batch in self._rows(file, columns, batch_rows, seen):
                seen += batch.num_rows
                yield batch

    def _rows(
        self, file: TableFile, columns: list[str], batch_rows: int, seen: int
    ) -> Iterator[pa.RecordBatch]:
        """Yield one file's rows, with the columns that its folders bring."""
        inner = [name for name in columns if name not in file.key_names]
        with self._opened(file, inner) as (opened, types, footer):
            if not inner:
                for start in range(0, footer.rows, batch_rows):
                    yield _with_keys(None, min(batch_rows, footer.rows - start), columns, file)
                return
            rows = min(batch_rows, footer.rows_within(_BATCH_BYTES, inner))
            batches = opened.iter_batches(rows, columns=inner, use_threads=False)
            read = 0
            while (batch := _next(batches, file)) is not None:
                for part in self._unfolded(batch.select(inner), types, seen + read, file):
                    yield _with_keys(part, part.num_rows, columns, file)
                read += batch.num_rows
        if read != footer.rows:
            raise DataError("the file is damaged", where=file.shown, hint="write it again")

    def _unfolded(
        self, batch: pa.RecordBatch, types: pa.Schema, first_row: int, file: TableFile
    ) -> Iterator[pa.RecordBatch]:
        """Yield a batch in parts whose text, taken out of its dictionary, is of bounded size."""
        import numpy as np
        import pyarrow as pa

        sizes = np.zeros(batch.num_rows, np.int64)
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            cells = _sizes(column)
            if cells is None:
                continue
            if cells.size and cells.max() > MAX_CELL_BYTES:
                what = f"row {first_row + int(cells.argmax()) + 1} holds a cell over {MAX_CELL_BYTES // 2**20} MiB"
                raise DataError(what, where=file.shown, key=name, hint="leave long text out of the table")
            sizes += cells
        ends = np.cumsum(sizes) // _BATCH_BYTES
        edges = [0, *(np.flatnonzero(np.diff(ends)) + 1).tolist(), batch.num_rows]
        for start, end in pairwise(edges):
            part = batch.slice(start, end - start)
            arrays = [
                column.cast(types.field(name).type) if pa.types.is_dictionary(column.type) else column
                for name, column in zip(part.schema.names, part.columns, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, names=part.schema.names)


def _next(batches: Any, file: TableFile) -> Any:
    """Return the next batch or None; the library's error may quote what it could not read."""
    try:
        batch = next(batches, None)
        if batch is not None:
            batch.validate(
                full=True
            )  # a damaged page may point beyond its dictionary, and Arrow would follow
        return batch  # noqa: TRY300 - nothing is left to do
    except Exception:  # noqa: BLE001, S110 - whatever it is, the rows cannot be had
        pass
    raise DataError("the file is damaged", where=file.shown, hint="write it again, or check the network")


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _sizes(column: Any) -> Any:
    """Return the bytes of each cell of text, unfolded; None where cells are of one small size."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(column.type):
        words = _sizes(column.dictionary)
        if words is None or not words.size:
            return None
        places = pc.fill_null(column.indices.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
        return words[places]
    if _is_text(column.type) or pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return pc.fill_null(pc.binary_length(column).cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    return None


def _with_keys(batch: Any, rows: int, columns: list[str], file: TableFile) -> pa.RecordBatch:
    """Return the columns asked for, those of the folders' names filled in."""
    import pyarrow as pa

    keys = dict(file.keys)
    arrays = [
        (
            pa.nulls(rows, pa.string())
            if keys[name] is None
            else pa.repeat(pa.scalar(keys[name], pa.string()), rows)
        )
        if name in keys
        else batch.column(name)
        for name in columns
    ]
    return pa.RecordBatch.from_arrays(arrays, names=columns)
