"""A site with policy packs: its consent store, what is stated of its rows, and the documents behind a run."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from fedgen.config.policy import Stated
from fedgen.policy.packs import load_packs
from fedgen.policy.store import ConsentSaid, ConsentStore
from fedgen.site.policy import PolicyDesk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
RECORDS: dict[str, Any] = {
    "legal_basis": "consent",
    "collected_for": ["train_generator"],
    "categories": ["visits"],
    "special_categories": [],
    "sensitive": False,
    "collected_at": "2025-10-01T00:00:00Z",
}
TERMS = [
    "limited_purpose",
    "same_protection",
    "right_to_check",
    "notify_if_unable",
    "right_to_stop",
    "no_combining",
]
DOCUMENTS: dict[str, Any] = {
    "destination": {"country": "DE", "recipient": "processor"},
    "recipients": [
        {
            "name": "coordinator",
            "kind": "processor",
            "contract_id": "D-1",
            "instructions_sha256": "a" * 64,
            "subprocessors_known": True,
            "terms": TERMS,
        }
    ],
    "joint_controllers": True,
    "arrangement_id": "J-1",
    "dpia": {"id": "P-1", "high_residual_risk": False},
    "needs_dpia": True,
    "notice_version": 3,
    "notice_covers": True,
    "information_society_service": False,
    "is_sale_or_share": False,
    "significant_decision": False,
    "solely_automated": False,
    "research_derogation": False,
    "loosened": [],
    "tls": True,
    "encryption_at_rest": True,
    "serves_several": False,
    "needs_risk_assessment": False,
    "admt": False,
    "minors": False,
    "training_unlawful": False,
}


def stated(**documents: Any) -> Stated:
    """Return what a site states; a keyword changes a document, None takes it away."""
    said = {name: value for name, value in {**DOCUMENTS, **documents}.items() if value is not None}
    return Stated.model_validate({"records": RECORDS, "documents": said})


class Clock:
    """Says what it is told."""

    def __init__(self, at: datetime = NOW) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at

    def go(self, **by: float) -> None:
        self.at += timedelta(**by)


class Guarded:
    """A site's desk over a real consent store under a clock of the test's own.

    Args:
        folder: Where the store lies.
        people: How many of ``p0000`` and so on agree.
    """

    def __init__(self, folder: Path, *, people: int = 40, **documents: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.clock = Clock(NOW - timedelta(days=30))
        self.path, self.head = folder / "consent.db", folder / "store-head"
        self.store = ConsentStore.open(self.path, clock=self.clock)
        self.store.record(*(self.grant(number) for number in range(people)))
        self.clock.at = NOW
        self.store.synced("test")
        self.stated = stated(**documents)
        self.packs = load_packs(["gdpr", "ccpa"])
        for loaded in self.packs.values():  # forty people are too few to hide among, by the shipped packs
            object.__setattr__(loaded, "pack", loaded.pack.model_copy(update={"cohort_floor": 5}))

    def grant(self, number: int, **changes: Any) -> ConsentSaid:
        """Return a consent."""
        fields: dict[str, Any] = {
            "subject_id": f"p{number:04d}",
            "purpose": "train_generator",
            "action": "given",
            "notice_version": 3,
            "effective_at": self.clock.at,
        }
        return ConsentSaid(**{**fields, **changes})

    def desk(self, **parts: Any) -> PolicyDesk:
        """Return who decides."""
        made: dict[str, Any] = {"packs": self.packs, "stated": self.stated, "head": self.head, **parts}
        return PolicyDesk(self.lend, **made)

    @contextmanager
    def lend(self) -> Iterator[ConsentStore]:
        yield self.store

    def withdraw(self, *numbers: int) -> None:
        """Let people take their consent back, now."""
        for number in numbers:
            self.store.withdraw(f"p{number:04d}", "train_generator")


def policy_section(**changes: Any) -> dict[str, Any]:
    """Return the ``policy`` section of a simulated study with both packs."""
    section: dict[str, Any] = {
        "packs": ["gdpr", "ccpa"],
        "consent": "events.csv",
        "records": RECORDS,
        "documents": DOCUMENTS,
        "min_cohort": 5,
    }
    return {name: value for name, value in {**section, **changes}.items() if value is not None}


def small_pack(folder: Path, law: str = "gdpr", **changes: Any) -> Path:
    """Write a pack of one's own that lets few people hide among each other; nobody has signed it."""
    from fedgen._resources import kit
    from fedgen.schema.yamlsource import parse_yaml

    source = kit("policies", f"{law}.yaml")
    data, _lines = parse_yaml(source.read_text(encoding="utf-8"), source)
    data |= {"id": f"small-{law}", "version": "1", "cohort_floor": 5, **changes}
    path = folder / f"small-{law}.yaml"
    path.write_text(json.dumps(data, default=str), encoding="utf-8")
    return path
