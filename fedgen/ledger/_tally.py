"""What a ledger's entries add up to: a pure fold, kept beside the file so that a reservation reads no history."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Final

from fedgen.ledger import merkle
from fedgen.ledger.entries import GENESIS, Reserved, Settled
from fedgen.privacy.budget import Spent

if TYPE_CHECKING:
    from fedgen.ledger.entries import Entry
    from fedgen.privacy.events import Event

_KEPT_MAX: Final = 4096


@dataclass(slots=True)
class Tally:
    """Totals of the first ``size`` entries, the last of which hashes to ``head``."""

    size: int = 0
    head: bytes = GENESIS
    totals: dict[str, dict[str, dict[Event, int]]] = field(default_factory=dict)  # by data set and study
    latest: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)  # by study and run
    unsettled: dict[int, Reserved] = field(default_factory=dict)
    frontier: list[bytes] = field(default_factory=list)  # of the Merkle tree over the hashes

    def add(self, index: int, entry_hash: bytes, entry: Entry) -> None:
        """Count one more entry."""
        if isinstance(entry, Reserved):
            study = self.totals.setdefault(entry.dataset, {}).setdefault(entry.study_hash, {})
            study[entry.event] = study.get(entry.event, 0) + entry.count
            run, now = (entry.study_hash, entry.run), (entry.round, entry.attempt)
            self.latest[run] = max(self.latest.get(run, now), now)
            self.unsettled[index] = entry
        elif isinstance(entry, Settled):
            self.unsettled.pop(entry.reservation, None)
        merkle.push(self.frontier, index, merkle.leaf_hash(entry_hash))
        self.size, self.head = index + 1, entry_hash

    @property
    def root(self) -> bytes:
        """Root of the Merkle tree over the hashes of the entries so far."""
        return merkle.root_of(self.frontier)

    def spent(self, dataset: str, study_hash: str | None) -> Spent:
        """Return everything reserved on a data set, and by one study of it."""
        studies = self.totals.get(dataset, {})
        data: dict[Event, int] = {}
        for counts in studies.values():
            for event, count in counts.items():
                data[event] = data.get(event, 0) + count
        study = studies.get(study_hash, {}) if study_hash is not None else {}
        return Spent(data=tuple(data.items()), study=tuple(study.items()))

    def last(self, study_hash: str, run: str | None) -> tuple[int, int]:
        """Return the latest reserved round of a study, or of one run of it, and its attempt; zeros if none."""
        if run is not None:
            return self.latest.get((study_hash, run), (0, 0))
        return max((now for (study, _), now in self.latest.items() if study == study_hash), default=(0, 0))


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
