"""What a fold of events is made of: flags, groups, and the rows that speak for a person."""

from __future__ import annotations

from enum import IntFlag
from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.policy.columns import LONG_AGO, NEVER

if TYPE_CHECKING:
    from numpy.typing import NDArray

SILENT: Final = 6
OTHER_PURPOSE: Final = 7
OPERATIVE: Final = 8  # beside the restrictive values of Action, in one uint8


class Flag(IntFlag):
    """What is true of a person, one bit each."""

    HOLD = 1 << 0
    ERASURE = 1 << 1
    ERASURE_EXCEPTION = 1 << 2
    RESTRICTED = 1 << 3
    OBJECTED = 1 << 4
    EVER_OBJECTED = 1 << 5
    OPTED_OUT = 1 << 6
    OPT_IN_BY_SELF = 1 << 7
    OPT_IN_BY_PARENT = 1 << 8
    LIMITED = 1 << 9
    ADMT_OPTED_OUT = 1 << 10
    MALFORMED = 1 << 11
    AMBIGUOUS = 1 << 12
    CONSENT_FOR_ANY = 1 << 13
    WITHDREW_ANY = 1 << 14
    EXPLICIT = 1 << 15
    BY_PARENT = 1 << 16
    NEEDS_RECONFIRMATION = 1 << 17


def latest(
    groups: int, group: NDArray[np.integer], values: NDArray[np.int64], chosen: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Return the greatest chosen value of each group, or LONG_AGO."""
    result = np.full(groups, LONG_AGO, dtype=np.int64)
    np.maximum.at(result, group[chosen], values[chosen])
    return result


def spread(
    subject: NDArray[np.integer], names: int, index: NDArray[np.int64], place: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return event rows and the places they speak for."""
    order = np.argsort(index, kind="stable")
    count = np.bincount(index, minlength=names)
    start = np.cumsum(count) - count
    times = count[subject]
    row = np.repeat(np.arange(len(subject)), times)
    step = np.arange(int(times.sum())) - np.repeat(np.cumsum(times) - times, times)
    return row, place[order[start[subject[row]] + step]]


def first_after(values: NDArray[np.int64], at: int) -> int:
    """Return the least value after ``at``, or NEVER."""
    after = values[values > at]
    return int(after.min()) if len(after) else NEVER
