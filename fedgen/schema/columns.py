"""The six kinds of column, and the bins and categories a person declares for them.

Everything here is public knowledge: it comes from the form, the standard or the law that made the data, never
from the rows. A column has ``states`` codes ``0 .. states - 1`` and, if nullable, one last code for a missing
value.
"""

from __future__ import annotations

import datetime as dt
import unicodedata
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Final, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictFloat,
    StrictInt,
    model_validator,
)

from fedgen.schema.explain import Flaw

FILL_IN: Final = "FILL-IN"  # what a draft leaves to a person; never a value
MAX_STATES: Final = 65_535  # with the code for a missing value, all codes fit two bytes
EXACT: Final = 2**53 - 1  # whole numbers up to here are exact as float64, the type codecs and JSON compute in
ONE_CODE_EACH: Final = 256  # an integer column up to this many values needs no declared bins
ONE_DAY_EACH: Final = 366
DATE_BINS: Final = 64
_EPOCH: Final = dt.date(1970, 1, 1).toordinal()


def _filled(text: str) -> str:
    """Refuse the mark of a draft: such a schema could be made here and not be read again."""
    if text.strip() == FILL_IN:
        raise Flaw(f"still says {FILL_IN}")
    return text


def _printable(text: str) -> str:
    """Refuse text that would forge lines in a log."""
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in text):
        raise Flaw("must not hold control characters")
    return text


def _clean(text: str) -> str:
    """Refuse text that would never equal a trimmed cell."""
    if text != text.strip():
        raise Flaw("must not begin or end with a space", hint="cells are trimmed before they are compared")
    return text


def _iso(value: object) -> object:
    """Let only dates through: a bare number would be read as seconds since 1970."""
    if isinstance(value, str) or (isinstance(value, dt.date) and not isinstance(value, dt.datetime)):
        return value
    raise Flaw("must be a date such as 2026-01-31")


_Line: TypeAlias = Annotated[str, AfterValidator(_filled), AfterValidator(_printable)]
Name: TypeAlias = Annotated[_Line, Field(min_length=1, max_length=256)]
Label: TypeAlias = Annotated[_Line, Field(min_length=1, max_length=1024), AfterValidator(_clean)]
Labels: TypeAlias = Annotated[tuple[Label, ...], Field(min_length=1, max_length=MAX_STATES)]
Marker: TypeAlias = Annotated[_Line, Field(max_length=1024), AfterValidator(_clean)]
Prose: TypeAlias = Annotated[str, Field(max_length=4096), AfterValidator(_filled)]
Real: TypeAlias = Annotated[StrictFloat, Field(allow_inf_nan=False)]
Whole: TypeAlias = Annotated[StrictInt, Field(ge=-EXACT, le=EXACT)]
Day: TypeAlias = Annotated[dt.date, BeforeValidator(_iso)]
Bins: TypeAlias = Annotated[StrictInt, Field(ge=1, le=MAX_STATES)]


class Declared(BaseModel):
    """A frozen value that a person declares in a schema file; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class _Column(Declared):
    """What all columns share."""

    ordered: ClassVar[bool] = False

    name: Name
    nullable: bool = False

    @property
    def states(self) -> int:
        """Number of codes without the one for a missing value."""
        raise NotImplementedError

    @property
    def cardinality(self) -> int:
        """Number of codes; the last one means missing, if the column is nullable."""
        return self.states + self.nullable

    @property
    def missing_code(self) -> int | None:
        """The code for a missing value, or None if the column is not nullable."""
        return self.states if self.nullable else None


class _Numeric(_Column):
    """A column with bounds, cut into bins of equal width or at declared edges."""

    ordered: ClassVar[bool] = True

    @model_validator(mode="before")
    @classmethod
    def _edges_decide_bins(cls, data: Any) -> Any:
        edges = data.get("edges") if isinstance(data, Mapping) else None
        if isinstance(edges, (list, tuple)) and 1 < len(edges) <= MAX_STATES + 1 and "bins" not in data:
            return {**data, "bins": len(edges) - 1}
        return data


class Continuous(_Numeric):
    """A real number between declared bounds, cut into bins.

    Guarantees:
        - Bin ``i`` is ``[bin_edges[i], bin_edges[i + 1])``; the last one holds ``max`` too.

    Attributes:
        min: Smallest value that can occur, finite.
        max: Largest value that can occur, above ``min``.
        bins: Number of bins, 1 to 65,535; equal in width unless ``edges`` are declared.
        edges: The bounds of uneven bins, strictly increasing from ``min`` to ``max``.
    """

    type: Literal["continuous"] = "continuous"
    min: Real
    max: Real
    bins: Bins = 32
    edges: tuple[Real, ...] | None = None

    @model_validator(mode="after")
    def _bins_hold(self) -> Continuous:
        if not self.min < self.max:
            raise Flaw("max must be above min", key=("max",))
        if self.edges is not None:
            _check_edges(self.edges, self.min, self.max, self.bins)
        elif not all(low < high for low, high in pairwise(self.bin_edges)):
            raise Flaw("too many bins for the width of the bounds", key=("bins",), hint="declare fewer")
        return self

    @property
    def states(self) -> int:
        """Number of bins."""
        return self.bins

    @property
    def bin_edges(self) -> tuple[float, ...]:
        """The ``bins + 1`` bounds of the bins, strictly increasing from ``min`` to ``max``."""
        if self.edges is not None:
            return self.edges
        # Each end is scaled by itself: max - min could overflow.
        inner = (
            self.min * ((self.bins - i) / self.bins) + self.max * (i / self.bins) for i in range(1, self.bins)
        )
        return (self.min, *inner, self.max)


class Integer(_Numeric):
    """A whole number between declared bounds, one code each or cut into bins.

    Guarantees:
        - Bin ``i`` holds the whole numbers from ``starts[i]`` to ``starts[i + 1] - 1``; the last one ends at
          ``max``. No bin is empty.

    Attributes:
        min: Smallest value that can occur, at least ``-(2**53 - 1)``.
        max: Largest value that can occur, at most ``2**53 - 1``.
        bins: Number of bins; None means one code for each value, for up to 256 values.
        edges: The bounds of uneven bins, strictly increasing from ``min`` to ``max``.
    """

    type: Literal["integer"] = "integer"
    min: Whole
    max: Whole
    bins: Bins | None = None
    edges: tuple[Whole, ...] | None = None

    @model_validator(mode="after")
    def _bins_hold(self) -> Integer:
        values = self.max - self.min + 1
        if values < 1:
            raise Flaw("max must not be below min", key=("max",))
        if self.edges is not None:
            _check_edges(self.edges, self.min, self.max, self.bins)
        elif self.bins is None and values > ONE_CODE_EACH:
            raise Flaw(f"bins are needed for {values} values", key=("bins",), hint="for example bins: 64")
        elif self.bins is not None and self.bins > values:
            raise Flaw(f"more bins than the {values} values", key=("bins",), hint="leave bins out")
        return self

    @property
    def states(self) -> int:
        """Number of bins, or of values where each has its own code."""
        return self.max - self.min + 1 if self.bins is None else self.bins

    @property
    def starts(self) -> tuple[int, ...]:
        """The first whole number of each bin, strictly increasing."""
        return self.edges[:-1] if self.edges is not None else _starts(self.min, self.max, self.states)


class Date(_Numeric):
    """A calendar day between declared bounds, one code each or cut into bins of equal length.

    Attributes:
        min: First day that can occur.
        max: Last day that can occur.
        bins: Number of bins; None means one for each day up to 366 days, else 64.
    """

    type: Literal["date"] = "date"
    min: Day
    max: Day
    bins: Bins | None = None

    @model_validator(mode="after")
    def _bins_hold(self) -> Date:
        if self._days < 1:
            raise Flaw("max must not be before min", key=("max",))
        if self.bins is not None and self.bins > self._days:
            raise Flaw(f"more bins than the {self._days} days", key=("bins",), hint="leave bins out")
        return self

    @property
    def _days(self) -> int:
        return self.max.toordinal() - self.min.toordinal() + 1

    @property
    def states(self) -> int:
        """Number of bins."""
        if self.bins is not None:
            return self.bins
        return self._days if self._days <= ONE_DAY_EACH else DATE_BINS

    @property
    def starts(self) -> tuple[int, ...]:
        """The first day of each bin, in days since 1970-01-01, strictly increasing."""
        return _starts(self.min.toordinal() - _EPOCH, self.max.toordinal() - _EPOCH, self.states)


class Categorical(_Column):
    """One of a declared set of names, without an order.

    Attributes:
        categories: Every name that can occur, 1 to 65,535, each once.
    """

    type: Literal["categorical"] = "categorical"
    categories: Labels

    @model_validator(mode="after")
    def _names_are_unique(self) -> Categorical:
        check_unique(self.categories, "categories")
        return self

    @property
    def states(self) -> int:
        """Number of categories."""
        return len(self.categories)


class Ordinal(_Column):
    """One of a declared list of names, lowest first.

    Attributes:
        levels: Every name that can occur, 1 to 65,535, each once, in order.
    """

    ordered: ClassVar[bool] = True

    type: Literal["ordinal"] = "ordinal"
    levels: Labels

    @model_validator(mode="after")
    def _names_are_unique(self) -> Ordinal:
        check_unique(self.levels, "levels")
        return self

    @property
    def states(self) -> int:
        """Number of levels."""
        return len(self.levels)


class Boolean(_Column):
    """True (code 1) or false (code 0)."""

    type: Literal["boolean"] = "boolean"

    @property
    def states(self) -> int:
        """Two."""
        return 2


Column: TypeAlias = Annotated[
    Continuous | Integer | Categorical | Ordinal | Boolean | Date, Field(discriminator="type")
]


def check_unique(names: tuple[str, ...], key: str, *inner: str) -> None:
    """Raise :class:`Flaw` at ``key.<position>`` (and ``inner`` below it) if a name stands twice."""
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name in seen:
            raise Flaw(f"{name!r} stands twice", key=(key, index, *inner))
        seen.add(name)


def _starts(low: int, high: int, bins: int) -> tuple[int, ...]:
    """Cut ``low .. high`` into ``bins`` parts whose sizes differ by at most one."""
    values = high - low + 1
    return tuple(low + i * values // bins for i in range(bins))


def _check_edges(edges: tuple[float, ...], low: float, high: float, bins: int | None) -> None:
    """Raise :class:`Flaw` unless the edges run strictly upwards from bound to bound."""
    if len(edges) - 1 not in range(1, MAX_STATES + 1):
        raise Flaw(f"edges must make 1 to {MAX_STATES} bins", key=("edges",))
    if edges[0] != low or edges[-1] != high:
        raise Flaw("the first edge must be min and the last one max", key=("edges",))
    if not all(left < right for left, right in pairwise(edges)):
        raise Flaw("edges must be strictly increasing", key=("edges",))
    if bins != len(edges) - 1:
        raise Flaw(f"{len(edges)} edges make {len(edges) - 1} bins", key=("bins",), hint="leave bins out")
