"""What a ledger says was spent so far: read from the file alone, without its key and without writing to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fedgen.ledger._tally import Tally
from fedgen.ledger.entries import Reserved
from fedgen.ledger.verify import read
from fedgen.privacy.budget import Spent

if TYPE_CHECKING:
    import os
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class History:
    """What was reserved on one data set.

    Attributes:
        spent: In all, in the last 365 days, and by the study that was asked about.
        studies: How many studies spent anything.
        units: What they protect as a whole.
    """

    spent: Spent = field(default_factory=Spent)
    studies: int = 0
    units: frozenset[str] = frozenset()


def history_of(path: str | os.PathLike[str], dataset: str, study_hash: str, *, now: datetime) -> History:
    """Return what was reserved on a data set, settled or not; days are counted as a reservation counts them.

    Args:
        path: The ledger, or a copy of it.
        dataset: Identity of the data set.
        study_hash: The study that asks, hex.
        now: The end of the year that counts, timezone-aware.

    Raises:
        IntegrityError: The file cannot be read as a ledger.
        ConfigError: There is none.
    """
    tally, units, studies = Tally(), set(), set()
    for it in read(path):
        tally.add(it.index, it.hash, it.entry, it.time)
        if isinstance(it.entry, Reserved) and it.entry.dataset == dataset:
            units.add(it.entry.unit)
            studies.add(it.entry.study_hash)
    return History(tally.spent(dataset, study_hash, now), len(studies), frozenset(units))
