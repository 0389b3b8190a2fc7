"""Rows of a Parquet file, or of all Parquet files in a folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fedgen.data.source import Source, check_header
from fedgen.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa

_BUFFER_BYTES: Final = 2**20


class ParquetSource(Source):
    """A Parquet file, or a folder whose ``*.parquet`` files make one table in the order of their paths.

    Guarantees:
        - Pages are read as they are needed, not whole row groups.

    Edge cases:
        ================================================  ============================
        names that begin with ``.`` or ``_``              not part of the table
        values kept in folder names (``year=2026/``)      not read
        files with other columns than the first           refused
        ================================================  ============================

    Args:
        path: The file or folder.

    Raises:
        DataError: Nothing there, not Parquet, files that differ in their columns, or two columns of one name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = self._find()
        self._columns = self._names(self._files[0])
        for file in self._files[1:]:
            if set(self._names(file)) != set(self._columns):
                hint = f"as {self._files[0].name} has them"
                raise DataError("this file has other columns than the first one", where=file, hint=hint)

    @property
    def columns(self) -> list[str]:
        """Names in the file's schema."""
        return list(self._columns)

    @property
    def describe(self) -> str:
        """The path."""
        return str(self._path)

    def _find(self) -> list[Path]:
        """Return the files of the table."""
        if not self._path.exists():
            raise DataError("no such file", where=self._path, hint="check the path")
        if not self._path.is_dir():
            return [self._path]
        inner = sorted(self._path.rglob("*.parquet"))
        files = [p for p in inner if not any(part[0] in "._" for part in p.relative_to(self._path).parts)]
        if not files:
            raise DataError("no Parquet file in this folder", where=self._path, hint="files end in .parquet")
        return files

    def _names(self, file: Path) -> list[str]:
        """Return the columns of one file."""
        with _open(file) as parquet:
            return check_header(parquet.schema_arrow.names, str(file))

    def _read(self, columns: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        for file in self._files:
            with _open(file) as parquet:
                try:
                    for batch in parquet.iter_batches(batch_rows, columns=columns, use_threads=False):
                        yield batch.select(columns)
                except (pa.ArrowException, OSError):
                    damaged = True
                else:
                    continue
            if damaged:
                raise DataError("the file is damaged", where=file, hint="write it again")


def _open(file: Path) -> Any:
    """Open one file.

    Raises:
        DataError: It is not Parquet, or cannot be read.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
    except pa.ArrowException:
        what, hint = "not a Parquet file", "write it again, or name another kind of source"
    except OSError:
        what, hint = "the file cannot be read", "check that it is a file you may read"
    raise DataError(what, where=file, hint=hint)
