"""The rules every law shares: undecidable rows, artefacts, holds, erasure, retention, restriction (S7, first part).

Each is registered once for each law, with that law's citation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.policy.codes import Code
from fedgen.policy.columns import LONG_AGO, NEVER, NULL, OPERATIONS, UNKNOWN, Assessment
from fedgen.policy.rules import Facts, View, rule
from fedgen.policy.standing import Flag

if TYPE_CHECKING:
    from fedgen.policy.rules import Mask, Test

EARLY: Final = 5 * 60 * 1_000_000  # a record may come from a clock five minutes fast (S3), no more


def unreadable(view: View) -> Mask:
    """Hit rows nobody can decide on: an unknown word, a missing clock, a collection in the future."""
    rows, limit = view.records, view.request.time + EARLY
    bad = rows.malformed | (rows.type == UNKNOWN) | (rows.basis == UNKNOWN) | view.has(Flag.MALFORMED)
    bad |= ((rows.collected_at == NEVER) | (rows.subject == NULL)) & view.is_record
    bad |= (rows.collected_at > limit) & (rows.collected_at != NEVER)
    bad |= (rows.last_activity_at > limit) & (rows.last_activity_at != NEVER)
    bad |= view.is_artefact & ((rows.assessment == UNKNOWN) | (rows.retain_until == LONG_AGO))
    if view.request.operation not in OPERATIONS:
        bad[:] = True
    return np.asarray(bad)


def malformed(view: View, facts: Facts) -> Mask:
    """Hit rows that cannot be read, or whose retention rule the pack does not know."""
    known = np.array([cut is not None for cut in facts.cut_offs] + [False], dtype=bool)
    # The last place of known is that of NULL: no rule at all.
    return np.asarray(unreadable(view) | (view.is_record & ~known[view.records.retention_rule]))


def ambiguous(view: View, _: Facts | None) -> Mask:
    """Hit rows whose identifier stands for two people."""
    return view.has(Flag.AMBIGUOUS)


def hold_retain(view: View, _: Facts) -> Mask:
    """Let what is under legal hold stay."""
    return view.has(Flag.HOLD) if view.retains else view.none()


def hold_no_use(view: View, _: Facts) -> Mask:
    """Keep what is under legal hold from every other use."""
    return view.none() if view.retains else view.has(Flag.HOLD)


def artefact_expired(view: View, _: Facts) -> Mask:
    """Hit artefacts whose time is over; half-open."""
    return view.is_artefact & (view.records.retain_until <= view.request.time)


def _assessment(view: View) -> tuple[Mask, Mask]:
    """Return which artefacts have an assessment that counts now, and which of these passed."""
    rows, at = view.records, view.request.time
    counts = (rows.assessed_at <= at) & (rows.assessment_until > at)
    return (
        counts & ((rows.assessment == Assessment.PASSED) | (rows.assessment == Assessment.FAILED)),
        counts & (rows.assessment == Assessment.PASSED),
    )


def anonymous(view: View) -> Mask:
    """Return the artefacts that were shown to be anonymous."""
    return view.is_artefact & _assessment(view)[1]


def lineage_revoked(view: View, _: Facts) -> Mask:
    """Hit artefacts that revoked records went into; an unknown number is not zero."""
    return np.asarray(view.is_artefact & (view.records.lineage_revoked != 0) & ~anonymous(view))


def release_failed(view: View, _: Facts) -> Mask:
    """Hit releases whose assessment failed."""
    if view.request.operation != "release":
        return view.none()
    return view.is_artefact & _assessment(view)[0] & ~anonymous(view)


def release_not_shown(view: View, _: Facts) -> Mask:
    """Hit releases nobody assessed, or not by now, or too long ago."""
    if view.request.operation != "release":
        return view.none()
    return view.is_artefact & ~_assessment(view)[0]


def erasure_exception_retain(view: View, _: Facts) -> Mask:
    """Let what must be kept in spite of a request for erasure stay."""
    kept = view.has(Flag.ERASURE_EXCEPTION) & view.has(Flag.ERASURE) & view.is_record
    return kept if view.retains else view.none()


def erasure_exception_no_use(view: View, _: Facts) -> Mask:
    """Keep it from every other use."""
    kept = view.has(Flag.ERASURE_EXCEPTION) & view.has(Flag.ERASURE) & view.is_record
    return view.none() if view.retains else kept


def erasure(view: View, _: Facts) -> Mask:
    """Hit records of people who asked for erasure, unless an exception keeps them."""
    return view.has(Flag.ERASURE) & ~view.has(Flag.ERASURE_EXCEPTION) & view.is_record


def retention(view: View, facts: Facts) -> Mask:
    """Hit records whose retention is over; half-open; a clock that is not known is over."""
    rows, result = view.records, view.none()
    for place, cut in enumerate(facts.cut_offs):
        if cut is None:
            continue
        clock = getattr(rows, facts.pack.retention_rules[rows.retention_rules[place]].clock)
        if len(facts.cut_offs) == 1:
            result = cut.over(clock) | (clock == NEVER)
            result &= rows.retention_rule == place
        else:
            mine = np.flatnonzero(rows.retention_rule == place)
            result[mine] = cut.over(clock[mine]) | (clock[mine] == NEVER)
    return result & view.is_record


def restricted(view: View, _: Facts) -> Mask:
    """Keep what is restricted, or known to be wrong, from everything but storage."""
    if view.retains:
        return view.none()
    return (view.has(Flag.RESTRICTED) | view.records.inaccurate) & view.is_record


_SHARED: Final[tuple[tuple[str, Code, int, Test, dict[str, str]], ...]] = (
    (
        "S3", Code.MALFORMED_RECORD, 100, malformed,
        {"gdpr": "GDPR Art. 5(1)(d), 5(2)", "ccpa": "11 CCR 7101", "baseline": "baseline: undecidable"},
    ),
    (
        "S7", Code.SUBJECT_AMBIGUOUS, 110, ambiguous,
        {"gdpr": "GDPR Art. 5(1)(d), 11(2)", "ccpa": "11 CCR 7060", "baseline": "baseline: undecidable"},
    ),
    (
        "17.3H", Code.LEGAL_HOLD_RETAIN, 200, hold_retain,
        {
            "gdpr": "GDPR Art. 17(3)(e)",
            "ccpa": "Cal. Civ. Code 1798.145(a)",
            "baseline": "baseline: legal hold",
        },
    ),
    (
        "17.3N", Code.LEGAL_HOLD_NO_USE, 201, hold_no_use,
        {
            "gdpr": "GDPR Art. 17(3)(e), 18(2)",
            "ccpa": "Cal. Civ. Code 1798.145(a)",
            "baseline": "baseline: legal hold",
        },
    ),
    (
        "5eA", Code.ARTEFACT_RETENTION_EXPIRED, 210, artefact_expired,
        {
            "gdpr": "GDPR Art. 5(1)(e)",
            "ccpa": "Cal. Civ. Code 1798.100(a)(3)",
            "baseline": "baseline: retention",
        },
    ),
    (
        "7.3cA", Code.ARTEFACT_LINEAGE_REVOKED, 220, lineage_revoked,
        {
            "gdpr": "GDPR Art. 7(3), 17(1)(b); EDPB Opinion 28/2024",
            "ccpa": "Cal. Civ. Code 1798.105(c)",
            "baseline": "baseline: lineage",
        },
    ),
    (
        "28aF", Code.RELEASE_ANONYMITY_FAILED, 230, release_failed,
        {
            "gdpr": "GDPR Recital 26; EDPB Opinion 28/2024",
            "ccpa": "Cal. Civ. Code 1798.140(b), (m)",
            "baseline": "baseline: anonymity",
        },
    ),
    (
        "28aN", Code.RELEASE_ANONYMITY_NOT_SHOWN, 240, release_not_shown,
        {
            "gdpr": "GDPR Recital 26; EDPB Opinion 28/2024",
            "ccpa": "Cal. Civ. Code 1798.140(b), (m)",
            "baseline": "baseline: anonymity",
        },
    ),
    (
        "17.3R", Code.ERASURE_EXCEPTION_RETAIN, 300, erasure_exception_retain,
        {
            "gdpr": "GDPR Art. 17(3)",
            "ccpa": "Cal. Civ. Code 1798.105(d)",
            "baseline": "baseline: erasure exception",
        },
    ),
    (
        "17.3", Code.ERASURE_EXCEPTION_LIMITED_USE, 301, erasure_exception_no_use,
        {
            "gdpr": "GDPR Art. 17(3)",
            "ccpa": "Cal. Civ. Code 1798.105(d); 11 CCR 7022(f)",
            "baseline": "baseline: erasure exception",
        },
    ),
    (
        "17", Code.ERASURE_REQUESTED, 310, erasure,
        {
            "gdpr": "GDPR Art. 17(1)",
            "ccpa": "Cal. Civ. Code 1798.105(a)",
            "baseline": "baseline: erasure",
        },
    ),
    (
        "5e", Code.RETENTION_EXPIRED, 400, retention,
        {
            "gdpr": "GDPR Art. 5(1)(e)",
            "ccpa": "Cal. Civ. Code 1798.100(a)(3)",
            "baseline": "baseline: retention",
        },
    ),
    (
        "18", Code.PROCESSING_RESTRICTED, 500, restricted,
        {
            "gdpr": "GDPR Art. 18(1), 5(1)(d), 16",
            "ccpa": "Cal. Civ. Code 1798.106",
            "baseline": "baseline: restriction",
        },
    ),
)  # fmt: skip

PREFIX: Final = {"gdpr": "G", "ccpa": "C", "baseline": "B"}
MANDATORY: Final = frozenset({"S3", "S7"})

for _name, _code, _precedence, _test, _citations in _SHARED:
    for _law, _citation in _citations.items():
        rule(f"{PREFIX[_law]}-{_name}", _code, _law, _citation, _precedence)(_test)
