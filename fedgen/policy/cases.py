"""Cases: one person, one record, one request, as JSON; what ``fedgen policy decide`` reads and answers.

A case goes through the same engine as a table of a million rows. What cannot be understood is quarantined, never a
crash.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from fedgen.policy.calendar import microseconds_of
from fedgen.policy.codes import CODES, Code, Verdict, verdict_of
from fedgen.policy.columns import OPERATIONS, Destination, Request
from fedgen.policy.engine import Decision, SystemState, decide
from fedgen.policy.plain import consent_columns, record_columns, rights_columns, subject_columns
from fedgen.policy.plain_values import (
    Unreadable,
    check_keys,
    flag,
    instant,
    mapping,
    text,
    text_or_none,
    words,
)
from fedgen.policy.registry import RULES
from fedgen.policy.standing import stand

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedgen.policy.columns import ConsentEvents, Records, RightsEvents, Subjects
    from fedgen.policy.packs import LoadedPack

_REQUEST_KEYS: Final = (
    "purpose", "operation", "time", "as_known_at", "destination", "round", "is_sale_or_share",
    "information_society_service", "significant_decision", "fields", "strict_fields",
)  # fmt: skip
_DESTINATION_KEYS: Final = ("country", "recipient", "safeguards", "tia", "dpf_certified", "pipeda_commercial")
_MET: Final = ("dpf_certified", "pipeda_commercial")
_LONE: Final = re.compile("[\ud800-\udfff]")  # half a pair: JSON can spell it, UTF-8 cannot
_FIRST, _LAST = (microseconds_of(datetime(year, 1, 1, tzinfo=UTC)) for year in (1970, 9000))
_ARTEFACTS: Final = ("checkpoint", "synthetic_release")  # compared, not hashed: a type may be any JSON


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """A case that could be read; rows of it may still be malformed."""

    laws: tuple[str, ...]
    consent: ConsentEvents
    rights: RightsEvents
    subjects: Subjects
    records: Records
    request: Request

    def decide(self, packs: Mapping[str, LoadedPack], state: SystemState | None = None) -> Decision:
        """Decide it."""
        standing = stand(self.records.people, self.consent, self.rights, self.subjects, self.request)
        return decide(self.records, standing, self.request, packs, self.laws, state)


def decide_cases(
    cases: object, packs: Mapping[str, LoadedPack], state: SystemState | None = None
) -> list[dict[str, Any]]:
    """Return ``{id, decision, reason_code, also, citation}`` for each case, in order.

    Guarantees:
        - One answer for each case, whatever it holds; what is not understood is quarantined.
        - ``also`` holds every other code that hit, under any of the laws.

    Args:
        cases: A list of cases, or one.
        packs: By law.
        state: The engine's footing; None leaves it unchecked.
    """
    return [_answer(case, packs, state) for case in (cases if isinstance(cases, list) else [cases])]


def _answer(case: object, packs: Mapping[str, LoadedPack], state: SystemState | None) -> dict[str, Any]:
    name = _name(case)
    try:
        laws = laws_of(case)
        if not laws:
            return _said(name, Code.NO_APPLICABLE_PACK, (), "")
        decision = read_case(case).decide(packs, state)
    except (Unreadable, RecursionError):
        return _said(name, Code.MALFORMED_RECORD, (), RULES["G-S3"].citation)
    first, *others = decision.hit_codes(0)
    return _said(name, first, tuple(others), decision.citation(0))


def _name(case: object) -> str | int | None:
    """Return what a case is called, if that can be written down again."""
    name = case.get("id") if isinstance(case, dict) else None
    if isinstance(name, str):
        return None if _LONE.search(name) else name
    return name if isinstance(name, int) and not isinstance(name, bool) else None


def _said(name: object, code: Code, also: tuple[Code, ...], citation: str) -> dict[str, Any]:
    return {
        "id": name,
        "decision": Verdict(verdict_of(code)).name.lower(),
        "reason_code": str(code),
        "also": [str(each) for each in also],
        "citation": citation,
    }


def laws_of(case: object) -> tuple[str, ...]:
    """Return the laws a case names.

    Raises:
        Unreadable: It names none in a way that can be read.
    """
    law = case.get("law") if isinstance(case, dict) else None
    named = [law] if isinstance(law, str) else law
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        raise Unreadable("law")
    return tuple(each.lower() for each in named)


def read_case(case: object) -> Case:
    """Return a case as columns of one row.

    Raises:
        Unreadable: Its shape, its request or a person's name cannot be understood.
    """
    if not isinstance(case, dict):
        raise Unreadable("case")
    check_keys(
        case,
        ("id", "law", "subject", "consent_events", "rights_events", "record", "request", "subject_index"),
    )
    subject, row, asked = (mapping(case, key) for key in ("subject", "record", "request"))
    if subject is None or row is None or asked is None:
        raise Unreadable("case")
    profiles = [subject, *_index_rows(case)]
    subjects = subject_columns(profiles)
    if row.get("type") in _ARTEFACTS and row.get("subject_id") is None:
        row = {**row, "subject_id": text(subject, "subject_id")}
    records = record_columns([row])
    known = {*subjects.people.tolist(), *subjects.alias.tolist()}
    if row.get("type") == "record" and any(name not in known for name in records.people.tolist()):
        raise Unreadable("record.subject_id")
    return Case(
        laws=laws_of(case),
        consent=consent_columns(_rows(case, "consent_events")),
        rights=rights_columns(_rows(case, "rights_events")),
        subjects=subjects,
        records=records,
        request=read_request(asked),
    )


def _rows(case: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Return a list of objects; a missing or null one is empty."""
    rows = case.get(key)
    rows = [] if rows is None else rows
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Unreadable(key)
    return rows


def _index_rows(case: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of the identity index: a list, or an object from identifier to a row or rows."""
    index = case.get("subject_index")
    if not isinstance(index, dict):
        return _rows(case, "subject_index")
    flat = [
        (name, row) for name, held in index.items() for row in (held if isinstance(held, list) else [held])
    ]
    if not all(isinstance(row, dict) for _, row in flat):
        raise Unreadable("subject_index")
    return [{"subject_id": name, **row} for name, row in flat]


def read_request(row: Mapping[str, Any]) -> Request:
    """Return a request.

    Raises:
        Unreadable: A field is missing, naive or not what it must be.
    """
    check_keys(row, _REQUEST_KEYS)
    operation = text(row, "operation")
    if operation not in OPERATIONS:
        raise Unreadable("operation")
    number = row.get("round")
    known = row.get("as_known_at")
    return Request(
        purpose=text(row, "purpose"),
        operation=operation,
        time=_now(row),
        known_at=None if known is None else instant(row, "as_known_at"),
        destination=_destination(mapping(row, "destination")),
        is_sale_or_share=flag(row, "is_sale_or_share"),
        information_society_service=flag(row, "information_society_service"),
        significant_decision=flag(
            row, "significant_decision", default=None if operation == "decide" else False
        ),
        fields=words(row, "fields"),
        strict_fields=flag(row, "strict_fields") is not False,
        round=number if isinstance(number, int) else None,
    )


def _now(row: Mapping[str, Any]) -> int:
    """Return the instant that is decided on: one that calendars still reach a lifetime before and after."""
    now = instant(row, "time")
    if not _FIRST <= now < _LAST:
        raise Unreadable("time")
    return now


def _destination(row: Mapping[str, Any] | None) -> Destination | None:
    if row is None:
        return None
    check_keys(row, _DESTINATION_KEYS)
    assessed = row.get("tia")
    return Destination(
        country=text_or_none(row, "country"),
        recipient=text_or_none(row, "recipient"),
        safeguards=words(row, "safeguards") or frozenset(),
        tia=assessed is True or (isinstance(assessed, str | dict) and bool(assessed)),
        met=frozenset(name for name in _MET if flag(row, name) is True),
    )


__all__ = ["CODES", "Case", "decide_cases", "laws_of", "read_case", "read_request"]
