"""What every source of rows has in common: columns by name, rows in batches, faults without values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

from fedgen.errors import DataError
from fedgen.schema.explain import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa

BATCH_ROWS: Final = 65_536


class Source(ABC):
    """A table somebody else keeps, read from the first row to the last as often as one asks.

    Guarantees:
        - Reading takes memory for a few batches, whatever the size of the table.
        - A fault names the place, the column and the one-based data row, never a value.
        - The source is opened for reading only.
    """

    @property
    @abstractmethod
    def columns(self) -> list[str]:
        """Names of the columns, in the order of the table; no two are alike."""

    @property
    @abstractmethod
    def describe(self) -> str:
        """Where the rows come from, for a person; without any password."""

    @abstractmethod
    def _read(self, columns: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield batches of these columns in this order, of any size."""

    def batches(
        self, columns: Sequence[str] | None = None, batch_rows: int = BATCH_ROWS
    ) -> Iterator[pa.RecordBatch]:
        """Return the rows in batches of at most ``batch_rows``.

        Guarantees:
            - Columns come in the order asked for, rows in the order of the table.
            - Faults of the request are raised here, faults of the rows when they are reached.

        Edge cases:
            ==================  =============================
            no rows at all      ``DataError`` when exhausted
            ``columns`` = None  all columns
            ==================  =============================

        Args:
            columns: Names of the columns to read, at least one.
            batch_rows: Most rows in a batch, positive.

        Raises:
            DataError: A column does not exist, the table is empty, or a row cannot be read.
            ValueError: No column is asked for, or ``batch_rows`` is not positive.
        """
        known = self.columns
        chosen = known if columns is None else list(columns)
        if not chosen:
            raise ValueError("at least one column must be asked for")
        if batch_rows < 1:
            raise ValueError(f"batch_rows must be positive, not {batch_rows}")
        for name in chosen:
            if name not in known:
                guess = nearest(name, known)
                hint = f"did you mean {guess!r}?" if guess else "is this the table of this schema?"
                raise DataError("the table has no such column", where=self.describe, key=name, hint=hint)
        return self._checked(chosen, batch_rows)

    def _checked(self, columns: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        """Yield batches of the promised size; refuse a table without rows."""
        seen = 0
        for batch in self._read(columns, batch_rows):
            seen += batch.num_rows
            for start in range(0, batch.num_rows, batch_rows):
                yield batch.slice(start, batch_rows)
        if not seen:
            raise DataError("the table has no rows", where=self.describe, hint="is this the right table?")


def check_header(names: Sequence[str], where: str) -> list[str]:
    """Return the names of the columns, each once.

    Raises:
        DataError: Two are alike.
    """
    seen: set[str] = set()
    for place, name in enumerate(names, start=1):
        if name in seen:
            what = f"column {place} repeats the name of another"
            raise DataError(what, where=where, key=name or None, hint="give each column its own name")
        seen.add(name)
    return list(names)
