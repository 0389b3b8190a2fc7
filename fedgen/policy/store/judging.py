"""Which rows of a block are events: column by column, with a reason for each that is not, and never a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from fedgen.policy.columns import EVERY_PURPOSE
from fedgen.policy.store.checking import Checks, Fault
from fedgen.policy.store.events import (
    ACTIONS,
    FUTURE_US,
    GIVERS,
    GRANTS,
    RIGHTS,
    good_subject,
    good_text,
)
from fedgen.policy.store.layout import COLUMNS

if TYPE_CHECKING:
    from fedgen.policy.store.layout import Part

__all__ = ["Fault", "Judged", "judge"]


class Judged(NamedTuple):
    """Rows in the order of the store, each one's number in the file, and what was wrong with the others."""

    said: list[tuple[Any, ...]]
    rows: list[int]
    faults: list[Fault]


def judge(part: Part, now: int) -> Judged:
    """Return the events of a part and the faults of its other rows.

    Reasons: ``missing``, ``not-text``, ``not-a-person``, ``unknown-word``, ``not-a-time``, ``naive-time``,
    ``in-the-future``, ``not-a-number``, ``not-a-flag``, ``not-a-digest``, ``grants-every-purpose``.
    """
    checks = Checks(part)
    consent = part.table == "consent_event"
    word, known = ("action", ACTIONS) if consent else ("kind", RIGHTS)
    columns: dict[str, list[Any]] = {
        "event_id": checks.text("event_id", good_text, needed=True),
        "subject_id": checks.text("subject_id", good_subject, "not-a-person", needed=True),
        word: checks.checked(word, known.__contains__, "unknown-word", needed=True),
        "effective_at": checks.instants("effective_at", needed=True, latest=now + FUTURE_US),
        "given_by": checks.checked("given_by", GIVERS.__contains__, "unknown-word"),
        "method": checks.text("method", good_text),
        "evidence_sha256": checks.digests("evidence_sha256"),
    }
    columns |= _of_consent(checks, columns) if consent else _of_rights(checks)
    said = list(zip(*(columns[name] for name in COLUMNS[part.table]), strict=True))
    if not checks.faults:
        return Judged(said, part.rows, [])
    good = checks.good()
    return Judged([said[i] for i in good], [part.rows[i] for i in good], list(checks.faults.values()))


def _of_consent(checks: Checks, columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the columns that only consent has; nobody consents to every purpose (Art. 6(1)(a))."""
    purposes = checks.text("purpose", good_text, needed=True)
    if EVERY_PURPOSE in purposes:
        for place, (purpose, action) in enumerate(zip(purposes, columns["action"], strict=True)):
            if purpose == EVERY_PURPOSE and action in GRANTS:
                checks.fault(place, "purpose", "grants-every-purpose")
    return {
        "given_by": [giver or "subject" for giver in columns["given_by"]],
        "purpose": purposes,
        "explicit": checks.flags("explicit"),
        "notice_id": checks.text("notice_id", good_text),
        "notice_version": checks.numbers("notice_version"),
        "valid_until": checks.instants("valid_until"),
    }


def _of_rights(checks: Checks) -> dict[str, list[Any]]:
    """Return the columns that only rights have."""
    return {
        "scope": checks.text("scope", good_text),
        "exception": checks.text("exception", good_text),
        "after_conflict_notice": checks.flags("after_conflict_notice"),
        "verified_at": checks.instants("verified_at"),
    }
