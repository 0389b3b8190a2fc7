"""Calendar arithmetic: periods in a zone, cut-offs for whole columns, birthdays.

A retention end is computed on the wall clock of the rule's zone: the period is added to the local date, the day is
clamped to the month's last (31 January plus a month is 28 or 29 February), and the local time is read back as an
instant. A local time that the spring change skips is read with the offset before the change; one that the autumn
change repeats is its first (PEP 495, ``fold=0``): so nothing is kept longer than the wall clock says.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from fedgen.policy.fold import NEVER

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_ZERO: Final = date(1970, 1, 1).toordinal()
_MICROSECOND: Final = timedelta(microseconds=1)
MICROSECONDS_A_DAY: Final = 86_400_000_000
_QUARTER: Final = 900_000_000
_SLACK: Final = 4 * MICROSECONDS_A_DAY  # month ends move an end by three days, an offset by one
_MODERN: Final = 2 * 365 * MICROSECONDS_A_DAY  # 1972: since then every offset is a multiple of 15 minutes
_FEW: Final = 512
_PERIOD: Final = re.compile(r"P(?=\d)(?:(\d{1,4})Y)?(?:(\d{1,4})M)?(?:(\d{1,4})W)?(?:(\d{1,5})D)?")


@dataclass(frozen=True, slots=True)
class Period:
    """Months, then days: what an ISO 8601 duration of whole days holds."""

    months: int
    days: int

    @classmethod
    def parse(cls, text: str) -> Period:
        """Read ``P2Y``, ``P1Y6M``, ``P30D`` and the like.

        Raises:
            ValueError: It is not such a period, or is empty.
        """
        found = _PERIOD.fullmatch(text)
        if found is None:
            raise ValueError("not a period of whole years, months, weeks or days, such as P2Y")
        years, months, weeks, days = (int(part or 0) for part in found.groups())
        period = cls(12 * years + months, 7 * weeks + days)
        if period == cls(0, 0):
            raise ValueError("a period of nothing")
        return period


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo:
    """Return a zone of the IANA database.

    Raises:
        ValueError: There is none of this name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError("no such time zone") from None


def microseconds_of(moment: datetime) -> int:
    """Return an instant with a zone as microseconds since 1970 in UTC."""
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise ValueError("an instant carries a time zone")
    return (moment - _EPOCH) // _MICROSECOND


def moment_of(instant: int) -> datetime:
    """Inverse of :func:`microseconds_of`; ``OverflowError`` beyond the year 9999."""
    return _EPOCH + instant * _MICROSECOND


def moment_if_any(instant: int) -> datetime | None:
    """Return :func:`moment_of` an instant, or None for never or beyond the year 9999."""
    try:
        return None if instant == NEVER else moment_of(instant)
    except OverflowError:
        return None


def local_day(instant: int, place: ZoneInfo) -> int:
    """Return the local date of an instant as days since 1970-01-01."""
    return moment_of(instant).astimezone(place).toordinal() - _DAY_ZERO


def day_number(day: date) -> int:
    """Return a date as days since 1970-01-01."""
    return day.toordinal() - _DAY_ZERO


def start_of_day(day: date, place: ZoneInfo) -> int:
    """Return the first instant of a local date."""
    return microseconds_of(datetime(day.year, day.month, day.day, tzinfo=place))


def add(instant: int, period: Period, place: ZoneInfo) -> int:
    """Return the instant at which a period that began at ``instant`` is over, by the clocks of ``place``.

    Edge cases:
        - Beyond the year 9999 the period does not end.
    """
    try:
        local = moment_of(instant).astimezone(place)
        year, month = divmod(local.year * 12 + local.month - 1 + period.months, 12)
        day = min(local.day, calendar.monthrange(year, month + 1)[1])
        ends = local.replace(year=year, month=month + 1, day=day, fold=0, tzinfo=None)
        return microseconds_of((ends + timedelta(days=period.days)).replace(tzinfo=place))
    except (OverflowError, ValueError):
        return NEVER


@dataclass(frozen=True, slots=True, eq=False)
class CutOff:
    """Whether a period is over at one instant, for any start: three comparisons for a row that is not near the edge.

    Attributes:
        period: The period.
        place: The zone of its clock.
        at: The instant.
        sure: Periods that began before this are over.
        later: Periods that began at or after this are not.
    """

    period: Period
    place: ZoneInfo
    at: int
    sure: int
    later: int

    @classmethod
    def at_instant(cls, period: Period, place: ZoneInfo, at: int) -> CutOff:
        """Compile the question "is the period over at ``at``?"."""
        back = moment_of(at).astimezone(place) - timedelta(days=period.days)
        year, month = divmod(back.year * 12 + back.month - 1 - period.months, 12)
        if year < 1:
            return cls(period, place, at, -NEVER, -NEVER)
        day = min(back.day, calendar.monthrange(year, month + 1)[1])
        middle = microseconds_of(back.replace(year=year, month=month + 1, day=day))
        start = (middle - _SLACK) // _QUARTER * _QUARTER
        return cls(period, place, at, start, start + 2 * _SLACK)

    def over(self, began: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return, for each start, whether its period is over; exact to the microsecond."""
        result: NDArray[np.bool_] = began < self.sure
        near = np.flatnonzero((began >= self.sure) & (began < self.later))
        if len(near) == 0:
            return result
        starts = began[near]
        if len(near) <= _FEW or self.sure < _MODERN:
            ends = {int(start): add(int(start), self.period, self.place) for start in np.unique(starts)}
            result[near] = [ends[start] <= self.at for start in starts.tolist()]
            return result
        # Within a quarter of an hour no offset changes and no day begins, so the end moves with the start.
        cells = range(self.sure, self.later, _QUARTER)
        limits = np.array([cell + self.at - add(cell, self.period, self.place) for cell in cells])
        result[near] = starts <= limits[(starts - self.sure) // _QUARTER]
        return result

    def next_end(self, began: NDArray[np.int64]) -> int:
        """Return the earliest end after the instant among periods that are not over, NEVER if there is none.

        It may be early by a day: it serves schedulers, and month ends and clock changes are not in order.
        """
        near = began[(began >= self.sure) & (began < self.later)]
        near = near[~self.over(near)]
        first = min(int(near.min(initial=NEVER)), int(began.min(initial=NEVER, where=began >= self.later)))
        if first == NEVER:
            return NEVER
        if first >= self.later:
            return max(self.at + 1, add(first, self.period, self.place) - MICROSECONDS_A_DAY)
        near = np.unique(near)
        if len(near) > _FEW:
            return max(self.at + 1, add(first, self.period, self.place) - MICROSECONDS_A_DAY)
        return min(add(int(start), self.period, self.place) for start in near)


def birthdays(birth_day: NDArray[np.integer], age: NDArray[np.integer] | int) -> NDArray[np.int64]:
    """Return the day on which somebody turns ``age``, as days since 1970; 29 February moves to 1 March.

    Args:
        birth_day: Days since 1970-01-01, shape ``(u,)``.
        age: Whole years, one or shape ``(u,)``.
    """
    born = birth_day.astype("datetime64[D]")
    month = born.astype("datetime64[M]")
    offset = (born - month).astype(np.int64)
    month_then = month + 12 * np.asarray(age, dtype=np.int64)
    # Only 29 February in a common year overflows its month, and it lands on 1 March.
    return np.asarray((month_then.astype("datetime64[D]") + offset).astype(np.int64))
