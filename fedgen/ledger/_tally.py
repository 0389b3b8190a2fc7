"""What a ledger's entries add up to: a pure fold, kept beside the file so that a reservation reads no history."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Final

from fedgen.ledger import merkle
from fedgen.ledger.entries import GENESIS, Admitted, Closed, Refused, Reserved, Settled
from fedgen.privacy.budget import YEAR_DAYS, Spent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fedgen.ledger.entries import Entry
    from fedgen.privacy.events import Event

_KEPT_MAX: Final = 4096
Totals = dict["Event", int]


@dataclass(slots=True)
class Tally:
    """Totals of the first ``size`` entries, the last of which hashes to ``head``.

    Days are those of UTC, counted from year 1. An entry counts on the latest day that any entry up to it names, so
    a clock that goes backwards moves nothing out of the last 365 days.
    """

    size: int = 0
    head: bytes = GENESIS
    day: int = 0  # the latest day any entry names
    totals: dict[str, dict[str, Totals]] = field(default_factory=dict)  # by data set and study
    days: dict[str, dict[int, Totals]] = field(default_factory=dict)  # by data set and day, oldest first
    units: dict[str, set[str]] = field(default_factory=dict)  # what each data set was charged per
    latest: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)  # reserved, by study and run
    refused: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)  # the same, refused
    said: dict[tuple[str, str], set[Entry]] = field(default_factory=dict)  # of a run, since its last round
    unsettled: dict[int, Reserved] = field(default_factory=dict)
    frontier: list[bytes] = field(default_factory=list)  # of the Merkle tree over the hashes

    def add(self, index: int, entry_hash: bytes, entry: Entry, time: datetime) -> None:
        """Count one more entry."""
        self.day = max(self.day, day_of(time))
        if isinstance(entry, Reserved):
            self._charge(entry)
            self.unsettled[index] = entry
        elif isinstance(entry, Settled):
            self.unsettled.pop(entry.reservation, None)
        elif isinstance(entry, Refused):
            self._advance(self.refused, entry)
        elif isinstance(entry, Admitted | Closed):
            self.said.setdefault((entry.study_hash, entry.run), set()).add(entry)
        merkle.push(self.frontier, index, merkle.leaf_hash(entry_hash))
        self.size, self.head = index + 1, entry_hash

    def _charge(self, entry: Reserved) -> None:
        """Count a reservation by study, by day and by unit."""
        days = self.days.setdefault(entry.dataset, {})
        for old in [day for day in days if day < self.day - YEAR_DAYS]:
            del days[old]
        of_study = self.totals.setdefault(entry.dataset, {}).setdefault(entry.study_hash, {})
        for totals in (of_study, days.setdefault(self.day, {})):
            totals[entry.event] = totals.get(entry.event, 0) + entry.count
        self.units.setdefault(entry.dataset, set()).add(entry.unit)
        self._advance(self.latest, entry)

    def _advance(self, latest: dict[tuple[str, str], tuple[int, int]], entry: Reserved | Refused) -> None:
        """Remember the latest round of a run; a round is news, so what was said before it may be said again."""
        run, now = (entry.study_hash, entry.run), (entry.round, entry.attempt)
        latest[run] = max(latest.get(run, now), now)
        self.said.pop(run, None)

    @property
    def root(self) -> bytes:
        """Root of the Merkle tree over the hashes of the entries so far."""
        return merkle.root_of(self.frontier)

    def spent(self, dataset: str, study_hash: str | None, now: datetime) -> Spent:
        """Return everything reserved on a data set, in all and in the last 365 days, and by one study of it.

        A day counts whole, and so does the one that ends 365 days before ``now``: never less than the truth.
        """
        studies = self.totals.get(dataset, {})
        first = max(self.day, day_of(now)) - YEAR_DAYS
        recent = (totals for day, totals in self.days.get(dataset, {}).items() if day >= first)
        study = studies.get(study_hash, {}) if study_hash is not None else {}
        return Spent(data=_sum(studies.values()), study=tuple(study.items()), year=_sum(recent))

    def last(self, study_hash: str, run: str | None) -> tuple[int, int]:
        """Return the latest reserved round of a study, or of one run of it, and its attempt; zeros if none."""
        if run is not None:
            return self.latest.get((study_hash, run), (0, 0))
        return max((now for (study, _), now in self.latest.items() if study == study_hash), default=(0, 0))

    def is_news(self, entry: Admitted | Closed | Refused) -> bool:
        """Return whether ``entry`` says what is not known: a refusal of a later attempt, another note on a run."""
        run = (entry.study_hash, entry.run)
        if isinstance(entry, Refused):
            asked = (entry.round, entry.attempt)
            return asked > self.refused.get(run, (-1, 0)) and asked >= self.latest.get(run, (0, 0))
        return entry not in self.said.get(run, ())


def day_of(time: datetime) -> int:
    """Return the day of ``time`` in UTC, counted from the first of year 1."""
    return time.astimezone(UTC).toordinal()


def _sum(parts: Iterable[Totals]) -> tuple[tuple[Event, int], ...]:
    """Return the total count of each event."""
    whole: Totals = {}
    for totals in parts:
        for event, count in totals.items():
            whole[event] = whole.get(event, 0) + count
    return tuple(whole.items())


class _Kept:
    """Tallies of closed ledgers, by head: the head commits to every entry before it, so it names the tally too."""

    def __init__(self) -> None:
        self._by_head: OrderedDict[bytes, Tally] = OrderedDict()
        self._lock = Lock()

    def take(self, head: bytes) -> Tally | None:
        """Return the tally of ``head`` and forget it: it has one owner."""
        with self._lock:
            return self._by_head.pop(head, None)

    def keep(self, tally: Tally) -> None:
        """Remember ``tally`` until somebody takes it, or newer ones crowd it out."""
        with self._lock:
            self._by_head[tally.head] = tally
            while len(self._by_head) > _KEPT_MAX:
                self._by_head.popitem(last=False)


kept: Final = _Kept()
