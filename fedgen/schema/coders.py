"""One column's values to codes and back, for each kind of column.

A coder holds what the schema declares, as arrays, and nothing that it saw in a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fedgen.schema.cells import NOTHING, Floats, Place, Positions, days, numbers, positions, truths
from fedgen.schema.columns import Boolean, Categorical, Column, Continuous, Date, Integer, Ordinal

Mask: TypeAlias = npt.NDArray[np.bool_]
Reader: TypeAlias = Callable[[Any, Place], Any]

_NO_VALUE: Final = "no value, and the column is not nullable"
_NO_VALUE_HINT: Final = "declare nullable: true, or mend the source"


class Coder(Protocol):
    """One column's way to codes and back."""

    def encode(self, values: Any, place: Place) -> tuple[Positions, int]:
        """Return the codes of an Arrow array, and how many values were outside the bounds.

        Raises:
            DataError: A cell does not fit the column.
        """
        ...

    def decode(self, codes: Positions, rng: np.random.Generator) -> Any:
        """Return an Arrow array with one value for each code; inverse of :meth:`encode`."""
        ...


def coder_of(column: Column) -> Coder:
    """Return the coder of a declared column."""
    missing = column.missing_code
    match column:
        case Continuous():
            return _Real(np.array(column.bin_edges, np.float64), missing)
        case Integer():
            return _Whole(numbers, pa.int64(), np.array(column.starts, np.int64), column.max, missing)
        case Date():
            starts = np.array(column.starts, np.int64)
            last = int(np.datetime64(column.max, "D").astype(np.int64))
            return _Whole(days, pa.date32(), starts, last, missing)
        case Categorical():
            return _Named(pa.array(column.categories, pa.string()), missing)
        case Ordinal():
            return _Named(pa.array(column.levels, pa.string()), missing)
        case Boolean():
            return _Truth(missing)


def _refuse_empty(empty: Mask, missing: int | None, place: Place) -> None:
    if missing is None:
        place.refuse(empty, _NO_VALUE, _NO_VALUE_HINT)


def _absent(codes: Positions, missing: int | None) -> Mask | None:
    """Return which codes mean a missing value, or None if none does."""
    if missing is None:
        return None
    mask: Mask = codes == missing
    return mask


@dataclass(frozen=True, slots=True)
class _Real:
    """Real numbers in the bins between ``edges``."""

    edges: Floats
    missing: int | None

    def encode(self, values: Any, place: Place) -> tuple[Positions, int]:
        cells: Floats = numbers(values, place)
        empty = np.isnan(cells)
        _refuse_empty(empty, self.missing, place)
        outside = int(((cells < self.edges[0]) | (cells > self.edges[-1])).sum())
        # The outermost bins reach to infinity here: that is the clamping. NaN sorts last, and is replaced.
        codes = np.searchsorted(self.edges[1:-1], cells, side="right")
        return (codes if self.missing is None else np.where(empty, self.missing, codes)), outside

    def decode(self, codes: Positions, rng: np.random.Generator) -> Any:
        absent = _absent(codes, self.missing)
        bins = codes if absent is None else np.where(absent, 0, codes)
        low, high = self.edges[bins], self.edges[bins + 1]
        share = rng.random(len(bins))
        # A weighted mean cannot overflow. Rounding may reach the upper edge, which belongs to the next bin.
        drawn = low * (1.0 - share) + high * share
        top = np.where(bins == len(self.edges) - 2, high, np.nextafter(high, -np.inf))
        return pa.array(np.clip(drawn, low, top), pa.float64(), mask=absent)


@dataclass(frozen=True, slots=True)
class _Whole:
    """Whole numbers, or days, in the bins that begin at ``starts``; the last bin ends at ``last``."""

    read: Reader
    kind: Any
    starts: Positions
    last: int
    missing: int | None

    def encode(self, values: Any, place: Place) -> tuple[Positions, int]:
        cells: Floats = self.read(values, place)
        empty = np.isnan(cells)
        _refuse_empty(empty, self.missing, place)
        if self.read is numbers:
            place.refuse(~empty & (cells != np.trunc(cells)), "a number that is not whole")
        first = int(self.starts[0])
        outside = int(((cells < first) | (cells > self.last)).sum())
        inside = np.clip(np.where(empty, first, cells), first, self.last).astype(np.int64)
        if len(self.starts) == self.last - first + 1:
            codes = inside - first
        else:
            codes = np.searchsorted(self.starts, inside, side="right") - 1
        return (codes if self.missing is None else np.where(empty, self.missing, codes)), outside

    def decode(self, codes: Positions, rng: np.random.Generator) -> Any:
        absent = _absent(codes, self.missing)
        bins = codes if absent is None else np.where(absent, 0, codes)
        drawn = self.starts[bins]
        if len(self.starts) < self.last - int(self.starts[0]) + 1:
            ends = np.append(self.starts[1:] - 1, self.last)
            drawn = rng.integers(drawn, ends[bins], endpoint=True)
        whole = pa.int32() if self.kind == pa.date32() else self.kind
        return pa.array(drawn, whole, mask=absent).cast(self.kind)


@dataclass(frozen=True, slots=True)
class _Named:
    """One of the declared names."""

    names: Any
    missing: int | None

    def encode(self, values: Any, place: Place) -> tuple[Positions, int]:
        codes = positions(values, self.names, place)
        empty = codes == NOTHING
        _refuse_empty(empty, self.missing, place)
        return (codes if self.missing is None else np.where(empty, self.missing, codes)), 0

    def decode(self, codes: Positions, rng: np.random.Generator) -> Any:  # noqa: ARG002 - a name has nothing to draw
        absent = _absent(codes, self.missing)
        indices = pa.array(codes, pa.int32(), mask=absent)
        return pa.DictionaryArray.from_arrays(indices, self.names).dictionary_decode()


@dataclass(frozen=True, slots=True)
class _Truth:
    """True and false."""

    missing: int | None

    def encode(self, values: Any, place: Place) -> tuple[Positions, int]:
        codes = truths(values, place)
        empty = codes == NOTHING
        _refuse_empty(empty, self.missing, place)
        return (codes if self.missing is None else np.where(empty, self.missing, codes)), 0

    def decode(self, codes: Positions, rng: np.random.Generator) -> Any:  # noqa: ARG002 - a truth has nothing to draw
        return pa.array(codes == 1, pa.bool_(), mask=_absent(codes, self.missing))
