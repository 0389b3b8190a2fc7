"""Simulated sites that ask a consent store who may be used, and write down who was."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from fedgen.api.sites import SimulatedSites
from fedgen.policy.columns import Request
from fedgen.policy.consent import Decision
from fedgen.policy.standing import OPERATIVE, Flag, stand
from fedgen.policy.store import ConsentSaid, ConsentStore
from fedgen.site.uses import UseBook

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

PURPOSE = "train_generator"
_NO_USE = Flag.HOLD | Flag.ERASURE | Flag.ERASURE_EXCEPTION | Flag.RESTRICTED


class StoreLog:
    """A consent store behind the question that a site asks of its log."""

    def __init__(self, store: ConsentStore) -> None:
        self._store = store

    def decide(self, subjects: np.ndarray, purpose: str, at: datetime, _regime: str) -> Decision:
        people, place = np.unique(subjects, return_inverse=True)
        view = self._store.columns(at, subjects=people)
        request = Request(purpose=purpose, operation="train", time=int(at.timestamp() * 1e6))
        found = stand(people, view.consent, view.rights, view.subjects, request)
        flags, consent = found.flags[: len(people)], found.consent[: len(people)]
        allowed = (consent == OPERATIVE) & ((flags & int(_NO_USE)) == 0)
        permitted = allowed[place]
        return Decision(permitted, {"consent-missing": int((~permitted).sum())}, None)


def grant(store: ConsentStore, *numbers: int) -> None:
    """Record that people of ``support.studies`` agreed, now."""
    now = datetime.now(UTC)
    store.record(
        *(
            ConsentSaid(subject_id=f"p{number:04d}", purpose=PURPOSE, action="given", effective_at=now)
            for number in numbers
        )
    )


def ask_the_store(monkeypatch: pytest.MonkeyPatch, store: ConsentStore, uses: Path) -> None:
    """Let every simulated site ask ``store`` in every round, and write its rounds down in ``uses``."""
    made = SimulatedSites._site

    def site(self: SimulatedSites, number: int) -> Any:
        it = made(self, number)
        permission = it._rounds._permission
        permission._consent = lambda: StoreLog(store)
        permission._uses = UseBook(store, uses, it.name)
        return it

    monkeypatch.setattr(SimulatedSites, "_site", site)
