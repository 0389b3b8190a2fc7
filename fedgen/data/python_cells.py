"""Values as a database's driver returns them, to Arrow columns: by their types alone, and never by guessing."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from fedgen.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pyarrow as pa

_KINDS: Final = frozenset({bool, int, float, str, date, datetime})
_FOREIGNERS: Final[dict[type, Callable[[Any], Any]]] = {Decimal: float, UUID: str}
_HINT: Final = "make a view that casts the column"


class PythonCells:
    """The columns of one reading of a table, batch after batch.

    Guarantees:
        - A column keeps the kind of its first value (whole numbers and broken ones are one kind), however the rows
          fall into batches; a value of another kind is refused by column and row.
        - Numbers of any precision become floats and UUIDs become text.

    Args:
        where: The table, for a person.
        foreigners: More types of the driver's own, and what makes a plain value of each.
        hint: How to mend a column that cannot be read.
    """

    def __init__(
        self, where: str, *, foreigners: Mapping[type, Callable[[Any], Any]] | None = None, hint: str = _HINT
    ) -> None:
        self._where = where
        self._foreigners = {**_FOREIGNERS, **(foreigners or {})}
        self._hint = hint
        self._kinds: dict[str, frozenset[type]] = {}

    def array(self, values: Sequence[Any], name: str, first_row: int) -> pa.Array:
        """Return one column of a batch.

        Args:
            values: The cells; None is a missing value.
            name: The column.
            first_row: Rows of the table before this batch.

        Raises:
            DataError: A type that no column has, another kind than before, or a number too large.
        """
        import pyarrow as pa

        try:
            if strangers := set(map(type, values)) & self._foreigners.keys():
                values = [self._foreigners[type(v)](v) if type(v) in strangers else v for v in values]
            self._check(values, name, first_row)
            return pa.array(values)
        except (pa.ArrowException, OverflowError, ValueError):  # the last also for text that is not Unicode
            pass
        last = first_row + len(values)
        raise self._fault(f"a value out of range in rows {first_row + 1} to {last}", name)

    def _check(self, values: Sequence[Any], name: str, first_row: int) -> None:
        kinds = set(map(type, values)) - {type(None)}
        if strange := kinds - _KINDS:
            kind = min(kind.__name__ for kind in strange)
            row = first_row + next(i for i, value in enumerate(values) if type(value) in strange) + 1
            raise self._fault(f"row {row}: values of type {kind} cannot be read", name)
        if not kinds:
            return
        first = next(type(value) for value in values if value is not None)
        known = self._kinds.setdefault(name, _alike(first))
        if kinds - known:
            alike = known | {type(None)}
            row = first_row + next(i for i, value in enumerate(values) if type(value) not in alike) + 1
            raise self._fault(f"row {row} is stored as another type than rows before it", name)

    def _fault(self, what: str, name: str) -> DataError:
        return DataError(what, where=self._where, key=name, hint=self._hint)


def _alike(kind: type) -> frozenset[type]:
    """Return the kinds that may stand in one column."""
    return frozenset({int, float}) if kind in {int, float} else frozenset({kind})
