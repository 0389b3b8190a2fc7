"""A declared column as the metrics and charts see it: a number of codes, an order, a label for each."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from fedgen.schema.columns import Boolean, Categorical, Continuous, Date, Integer, Ordinal

if TYPE_CHECKING:
    from fedgen.schema.columns import Column
    from fedgen.schema.table import TableSchema

MISSING: Final = "(missing)"
_EPOCH: Final = dt.date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Axis:
    """One column of codes.

    Attributes:
        name: Declared name.
        cardinality: Number of codes, a code for "missing" included.
        ordered: Whether the codes before "missing" have an order.
        missing: Whether the last code means "missing".
        labels: One per code.
    """

    name: str
    cardinality: int
    ordered: bool
    missing: bool
    labels: tuple[str, ...]

    @property
    def levels(self) -> int:
        """Return the number of codes that are values."""
        return self.cardinality - self.missing


def axes_of(schema: TableSchema) -> tuple[Axis, ...]:
    """Return the columns of a schema as axes.

    Guarantees:
        - Labels come from the declaration alone; one per code, the code for "missing" last.
    """
    return tuple(
        Axis(
            name=column.name,
            cardinality=column.cardinality,
            ordered=column.ordered,
            missing=column.nullable,
            labels=(*_labels(column), *((MISSING,) if column.nullable else ())),
        )
        for column in schema.columns
    )


def _labels(column: Column) -> tuple[str, ...]:
    """Return the name of each declared value or bin."""
    match column:
        case Continuous():
            return tuple(f"{low} to {high}" for low, high in pairwise(_figures(column.bin_edges)))
        case Integer():
            return tuple(_span(str(a), str(b - 1)) for a, b in pairwise((*column.starts, column.max + 1)))
        case Date():
            days = (*column.starts, (column.max - _EPOCH).days + 1)
            return tuple(_span(_day(a), _day(b - 1)) for a, b in pairwise(days))
        case Categorical():
            return column.categories
        case Ordinal():
            return column.levels
        case Boolean():
            return ("false", "true")


def _figures(edges: tuple[float, ...]) -> tuple[str, ...]:
    """Return edges as short text that still tells them apart."""
    for digits in (4, 7, 17):
        texts = tuple(f"{edge:.{digits}g}" for edge in edges)
        if len(set(texts)) == len(texts) and not any("e" in text for text in texts):
            return texts
    return tuple(repr(edge) for edge in edges)


def _span(first: str, last: str) -> str:
    """Return one value, or the two ends of a bin."""
    return first if first == last else f"{first} to {last}"


def _day(days: int) -> str:
    """Return an ISO date from days since 1970-01-01."""
    return (_EPOCH + dt.timedelta(days=days)).isoformat()
