"""Reading one Arrow column, text or typed, into numbers or positions: the same answer for both.

A cell of a CSV file is text and a cell of a Parquet file has a type. Both are read exactly: text is trimmed,
then it must be the whole of a number, date or declared name. A fault names the row and never the value, and
it is raised outside of the library's own exception, whose text would hold the value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fedgen.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

Floats: TypeAlias = npt.NDArray[np.float64]
Positions: TypeAlias = npt.NDArray[np.int64]

NOTHING: Final = -1  # the position of a missing value
_TICKS_A_DAY: Final = {"s": 86_400, "ms": 86_400 * 10**3, "us": 86_400 * 10**6, "ns": 86_400 * 10**9}
_FALSE: Final = ("false", "f", "no", "n", "0")
_TRUE: Final = ("true", "t", "yes", "y", "1")


class Markers:
    """The declared texts that mean "no value", and the numbers and days they spell.

    Guarantees:
        - A sentinel such as ``-9`` or ``9999-12-31`` means the same in text and in typed columns.

    Args:
        texts: The texts, as in :attr:`fedgen.schema.table.TableSchema.missing`.
    """

    def __init__(self, texts: tuple[str, ...]) -> None:
        self._texts = pa.array(texts, pa.string())
        self._numbers = np.array([n for n in map(_number, texts) if math.isfinite(n)], np.float64)
        self._days = np.array([d for d in map(_day, texts) if math.isfinite(d)], np.float64)

    def blank(self, values: Any) -> Any:
        """Return text with each marker replaced by null."""
        if not len(self._texts):
            return values
        marked = pc.is_in(values, value_set=self._texts.cast(values.type))
        return pc.if_else(marked, pa.scalar(None, values.type), values) if pc.any(marked).as_py() else values

    def blank_numbers(self, values: Floats) -> Floats:
        """Return numbers with each marker that spells a number replaced by NaN."""
        return _blanked(values, self._numbers)

    def blank_days(self, values: Floats) -> Floats:
        """Return days since 1970-01-01 with each marker that spells a date replaced by NaN."""
        return _blanked(values, self._days)


def _blanked(values: Floats, markers: Floats) -> Floats:
    if not markers.size:
        return values
    marked = np.isin(values, markers)
    return np.where(marked, np.nan, values) if marked.any() else values


@dataclass(frozen=True, slots=True)
class Place:
    """Where a column stands, and what means "no value" there.

    Args:
        column: Its name.
        first_row: Rows of the source before the first one at hand.
        markers: The declared texts for a missing value.
    """

    column: str
    first_row: int
    markers: Markers

    def fault(self, index: int, what: str, hint: str | None = None) -> DataError:
        """Return the error for the cell at ``index``: column and one-based data row, never the value."""
        return DataError(f"row {self.first_row + index + 1}: {what}", key=self.column, hint=hint)

    def wrong_type(self, found: Any, expected: str) -> DataError:
        """Return the error for a column whose stored type cannot be ``expected``."""
        return DataError(f"stored as {found}, declared as {expected}", key=self.column)

    def refuse(self, bad: npt.NDArray[np.bool_], what: str, hint: str | None = None) -> None:
        """Raise for the first row of ``bad``, if there is one."""
        if bad.any():
            raise self.fault(int(bad.argmax()), what, hint)


def _number(text: str) -> float:
    """Return the number that ``text`` spells in the codec's grammar, else NaN."""
    found = _attempt(_to(pa.float64()), pa.array([text]))
    return math.nan if found is None else float(found[0].as_py())


def _day(text: str) -> float:
    """Return the day that ``text`` spells, since 1970-01-01, else NaN."""
    found = _attempt(_to(pa.date32()), pa.array([text]))
    return math.nan if found is None else float(found.cast(pa.int32())[0].as_py())


def plain(values: Any) -> Any:
    """Return an array without dictionary or view."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    return values.cast(pa.string()) if values.type == pa.string_view() else values


def numbers(values: Any, place: Place) -> Floats:
    """Return the cells as float64, NaN where there is no value.

    Guarantees:
        - A whole number in ``±(2**53 - 1)`` comes out exactly; one beyond stays beyond.

    Raises:
        DataError: Text that is not a number, infinity, or a type that holds no numbers.
    """
    kind = values.type
    if _is_text(kind):
        found = _parse(values, _to(pa.float64()), place, "text where a number is expected")
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        found = pc.cast(values, pa.float64(), safe=False)
    elif pa.types.is_null(kind):
        found = values.cast(pa.float64())
    else:
        raise place.wrong_type(kind, "a number")
    out: Floats = found.to_numpy(zero_copy_only=False)
    place.refuse(np.isinf(out), "infinity", "mend it in the source")
    return place.markers.blank_numbers(out)


def days(values: Any, place: Place) -> Floats:
    """Return the cells as days since 1970-01-01, NaN where there is no value.

    Edge cases:
        ==========================  ======================================
        time of day                 dropped
        timestamp with a time zone  the day in that zone
        text with a time zone       refused: it does not say whose day
        ==========================  ======================================

    Raises:
        DataError: Text that is not an ISO 8601 date, or a type that holds no dates.
    """
    kind = values.type
    if _is_text(kind):
        found = _parse(values, _to_date, place, "text where a date (YYYY-MM-DD) is expected")
    elif pa.types.is_date32(kind) or pa.types.is_null(kind):
        found = values.cast(pa.date32())
    elif pa.types.is_timestamp(kind) or pa.types.is_date64(kind):
        return place.markers.blank_days(_days_of_instants(values))
    else:
        raise place.wrong_type(kind, "a date")
    out: Floats = found.cast(pa.int32()).cast(pa.float64()).to_numpy(zero_copy_only=False)
    return place.markers.blank_days(out)


def _days_of_instants(values: Any) -> Floats:
    """Return the day of each instant in its column's zone; any instant has one, however far out of bounds."""
    kind = values.type
    if pa.types.is_timestamp(kind) and kind.tz:
        values = pc.local_timestamp(values)
    ticks = _TICKS_A_DAY["ms" if pa.types.is_date64(kind) else kind.unit]
    whole = pc.fill_null(values.cast(pa.int64()), 0).to_numpy(zero_copy_only=False) // ticks
    return np.where(pc.is_null(values).to_numpy(zero_copy_only=False), np.nan, whole)


def positions(values: Any, names: Any, place: Place) -> Positions:
    """Return the position of each cell among ``names``, ``NOTHING`` where there is no value.

    Edge cases:
        ======================================  ==========================================
        stored as whole numbers                 compared as their digits: 3 is ``"3"``
        stored as floats, all of them whole     the same, so 3.0 is ``"3"`` too
        stored as true and false                refused: declare the column as boolean
        ======================================  ==========================================

    Args:
        values: The column.
        names: Arrow array of the declared names.
        place: Where the column stands.

    Raises:
        DataError: A cell that is not a declared name, or a type that holds no names.
    """
    text = _as_text(values, place)

    def look_up(cells: Any) -> Any:
        found = pc.index_in(cells, value_set=names.cast(cells.type))
        if found.null_count != cells.null_count:
            raise pa.ArrowInvalid
        return found

    found = _parse(text, look_up, place, "not among the declared names", "declare it in the schema")
    out: Positions = pc.fill_null(found, NOTHING).to_numpy(zero_copy_only=False).astype(np.int64)
    return out


def truths(values: Any, place: Place) -> Positions:
    """Return 1 for true, 0 for false and ``NOTHING`` where there is no value.

    Text is ``true``, ``t``, ``yes``, ``y`` or ``1``, or their opposites, in any case; numbers are 0 and 1.

    Raises:
        DataError: A cell that is neither.
    """
    if pa.types.is_boolean(values.type):
        typed: Positions = pc.fill_null(values.cast(pa.int64()), NOTHING).to_numpy(zero_copy_only=False)
        return typed
    names = pa.array(_FALSE + _TRUE, pa.string())

    def look_up(cells: Any) -> Any:
        found = pc.index_in(pc.utf8_lower(cells), value_set=names.cast(cells.type))
        if found.null_count != cells.null_count:
            raise pa.ArrowInvalid
        return pc.cast(pc.greater_equal(found, len(_FALSE)), pa.int64())

    found = _parse(_as_text(values, place), look_up, place, "neither true nor false")
    out: Positions = pc.fill_null(found, NOTHING).to_numpy(zero_copy_only=False)
    return out


def _as_text(values: Any, place: Place) -> Any:
    """Return a column of names as text; whole numbers become their digits."""
    kind = values.type
    if _is_text(kind):
        return values
    if pa.types.is_integer(kind) or pa.types.is_null(kind):
        return values.cast(pa.string())
    if pa.types.is_floating(kind):
        cells: Floats = pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False)
        empty = np.isnan(cells)
        whole = np.where(empty, 0.0, cells)
        place.refuse((whole != np.trunc(whole)) | (abs(whole) > 2.0**53), "a number that is not whole")
        return pa.array(whole.astype(np.int64), mask=empty).cast(pa.string())
    raise place.wrong_type(kind, "names")


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _to(kind: Any) -> Callable[[Any], Any]:
    return lambda cells: pc.cast(cells, kind)


def _to_date(cells: Any) -> Any:
    """Parse ISO dates; where a time of day stands behind one, drop it."""
    try:
        return pc.cast(cells, pa.date32())
    except pa.ArrowInvalid:
        return pc.cast(pc.cast(cells, pa.timestamp("us")), pa.date32())


def _parse(
    cells: Any,
    parse: Callable[[Any], Any],
    place: Place,
    what: str,
    hint: str | None = None,
) -> Any:
    """Parse a column at once; only if that fails, trim it, and only if that fails too, look for the row.

    Args:
        cells: Text.
        parse: Takes text with nulls; raises ``pa.ArrowInvalid`` if one cell does not fit.
        place: Where the column stands.
        what: The fault.
        hint: How to mend it.
    """
    marked = place.markers.blank(cells)
    found = _attempt(parse, marked)
    if found is None:
        trimmed = place.markers.blank(pc.utf8_trim_whitespace(cells))
        found = _attempt(parse, trimmed)
        if found is None:
            raise place.fault(_first_misfit(parse, trimmed), what, hint)
    return found


def _attempt(parse: Callable[[Any], Any], cells: Any) -> Any:
    """Return the parsed cells, or None if one of them does not fit."""
    try:
        return parse(cells)
    except pa.ArrowInvalid:
        return None


def _first_misfit(parse: Callable[[Any], Any], cells: Any) -> int:
    """Return the first row that does not parse, by halving: as many parses as the count has binary digits."""
    low, high = 0, len(cells)
    while high - low > 1:
        middle = (low + high) // 2
        if _attempt(parse, cells[low:middle]) is None:
            high = middle
        else:
            low = middle
    return low
