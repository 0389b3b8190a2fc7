"""Columns from plain values, as JSON has them: what the case reader, small tools and tests build tables with.

Nothing raises here. A value that cannot be understood marks the row, or the person it speaks of, as malformed, and
the engine quarantines it: an event nobody could read may have been a withdrawal.
"""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedgen.policy.calendar import day_number, zone
from fedgen.policy.columns import (
    EVERY_PURPOSE,
    LONG_AGO,
    NEVER,
    NO_DAY,
    NULL,
    UNKNOWN,
    Action,
    Assessment,
    Basis,
    ConsentEvents,
    GivenBy,
    Records,
    Right,
    RightsEvents,
    Subjects,
    ThreeWay,
    Type,
)
from fedgen.policy.plain_values import (
    Unreadable,
    check_keys,
    flag,
    identifiers,
    instant,
    mapping,
    text,
    text_or_none,
    words,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from fedgen.policy.plain_values import Row

_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d")
_ACTIONS: Final = {action.name.lower(): action for action in Action}
_RIGHTS: Final = {right.name.lower(): right for right in Right}
_TYPES: Final = {each.name.lower(): each for each in Type}
_BASES: Final = {
    **{basis.name.lower(): basis for basis in Basis},
    "legitimate_interests": Basis.LEGITIMATE_INTEREST,
    "vital_interest": Basis.VITAL_INTERESTS,
}
_GIVEN_BY: Final = {
    **{each.name.lower(): each for each in GivenBy if each is not GivenBy.NOBODY},
    "self": GivenBy.SUBJECT,
    "consumer": GivenBy.SUBJECT,
    "guardian": GivenBy.PARENT,
    "legal_guardian": GivenBy.PARENT,
    "authorized_agent": GivenBy.AGENT,
    "browser": GivenBy.AGENT,
    "device": GivenBy.AGENT,
}
_RESULTS: Final = {"passed": Assessment.PASSED, "failed": Assessment.FAILED, "none": Assessment.NONE}
MEASURES: Final = ("reasonable_measures", "public_commitment", "contractual_no_reid")


def _people(names: Sequence[str]) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
    """Return sorted, distinct identifiers, and each name's place in them."""
    raw = np.array([name.encode() for name in names] or [], dtype="S")
    if len(raw) == 0:
        return np.zeros(0, dtype="S1"), np.zeros(0, dtype=np.int64)
    people, place = np.unique(raw, return_inverse=True)
    return people, place.reshape(-1).astype(np.int64)


def _index(values: Iterable[Any]) -> tuple[list[Any], list[int]]:
    """Return the distinct values in order of appearance, and each value's place; None is NULL and not kept."""
    seen: dict[Any, int] = {}
    places = [NULL if value is None else seen.setdefault(value, len(seen)) for value in values]
    return list(seen), places


_CONSENT_KEYS: Final = (
    "event_id", "subject_id", "purpose", "action", "explicit", "given_by", "notice_version", "effective_at",
    "recorded_at", "valid_until", "notice_id", "method", "source",
)  # fmt: skip
_RIGHTS_KEYS: Final = (
    "event_id", "subject_id", "type", "exception", "given_by", "after_conflict_notice", "effective_at", "recorded_at",
    "matter", "purpose", "scope", "source", "method", "verified_at",
)  # fmt: skip


def consent_event(row: Row) -> dict[str, Any]:
    """Return one consent event's values; an unreadable one is a word nobody knows, known since ever."""
    subject = text(row, "subject_id")
    nothing = {
        "subject": subject,
        "purpose": "",
        "action": UNKNOWN,
        "explicit": False,
        "given_by": 0,
        "notice": NULL,
        "effective": LONG_AGO,
        "recorded": LONG_AGO,
        "until": NEVER,
        "id": _event_id(row),
    }
    try:
        check_keys(row, _CONSENT_KEYS)
        recorded = instant(row, "recorded_at")
        nothing["recorded"] = recorded  # what is not known yet does not quarantine yet
        version = row.get("notice_version")
        readable = version is None or (isinstance(version, int) and not isinstance(version, bool))
        action = _ACTIONS[text(row, "action")]
        purpose = text(row, "purpose")
        if not readable or (purpose == EVERY_PURPOSE and action <= Action.RENEWED):
            return nothing
        return nothing | {
            "purpose": purpose,
            "action": action,
            "explicit": bool(flag(row, "explicit")),
            "given_by": _given_by(row),
            "notice": NULL if version is None else max(NULL, min(version, 2**31 - 2)),
            "effective": instant(row, "effective_at"),
            "until": instant(row, "valid_until", NEVER),
        }
    except (Unreadable, KeyError):
        return nothing


def _given_by(row: Row) -> int:
    said = text_or_none(row, "given_by")
    return GivenBy.NOBODY if said is None else _GIVEN_BY.get(said, UNKNOWN)


def _event_id(row: Row) -> bytes:
    return str(row.get("event_id") or "").encode("utf-8", "replace").replace(b"\0", b"")[:128]


def rights_event(row: Row) -> dict[str, Any]:
    """Return one rights event's values; an unreadable one is a word nobody knows, known since ever."""
    nothing: dict[str, Any] = {
        "subject": text(row, "subject_id"),
        "kind": UNKNOWN,
        "scope": None,
        "exception": None,
        "given_by": 0,
        "noticed": False,
        "effective": LONG_AGO,
        "recorded": LONG_AGO,
        "id": _event_id(row),
    }
    try:
        check_keys(row, _RIGHTS_KEYS)
        nothing["recorded"] = instant(row, "recorded_at")
        kind = _RIGHTS[text(row, "type")]
        of_matter = kind in {Right.LEGAL_HOLD, Right.LEGAL_HOLD_RELEASED}
        of_purpose = kind in {Right.OBJECTION, Right.OBJECTION_REJECTED}
        scope = (
            text_or_none(row, "matter") if of_matter else text_or_none(row, "purpose") if of_purpose else None
        )
        if scope is None and (of_matter or of_purpose):
            scope = text_or_none(row, "scope")
        kept = row.get("exception") not in (None, False, "")  # an exception that says nothing keeps nothing
        return nothing | {
            "kind": kind,
            "scope": scope,
            "exception": text(row, "exception") if kept else None,
            "given_by": _given_by(row),
            "noticed": bool(flag(row, "after_conflict_notice")),
            "effective": instant(row, "effective_at"),
        }
    except (Unreadable, KeyError):
        return nothing


def consent_columns(rows: Sequence[Row]) -> ConsentEvents:
    """Return consent events as columns.

    Raises:
        Unreadable: An event does not name its person, so nobody could be quarantined for it.
    """
    events = [consent_event(row) for row in rows]
    people, subject = _people([event["subject"] for event in events])
    purposes, purpose = _index(event["purpose"] for event in events)

    def column(key: str, dtype: Any) -> Any:
        return np.array([event[key] for event in events], dtype=dtype)

    return ConsentEvents(
        people=people,
        purposes=tuple(purposes),
        subject=subject,
        purpose=np.array(purpose, dtype=np.int64),
        action=column("action", np.uint8),
        explicit=column("explicit", bool),
        given_by=column("given_by", np.uint8),
        notice_version=column("notice", np.int32),
        effective=column("effective", np.int64),
        recorded=column("recorded", np.int64),
        valid_until=column("until", np.int64),
        seq=np.arange(len(events)),
        event_id=np.array([event["id"] for event in events] or [], dtype="S"),
    )


def rights_columns(rows: Sequence[Row]) -> RightsEvents:
    """Return rights events as columns.

    Raises:
        Unreadable: As :func:`consent_columns`.
    """
    events = [rights_event(row) for row in rows]
    people, subject = _people([event["subject"] for event in events])
    scopes, scope = _index(event["scope"] for event in events)
    exceptions, exception = _index(event["exception"] for event in events)

    def column(key: str, dtype: Any) -> Any:
        return np.array([event[key] for event in events], dtype=dtype)

    return RightsEvents(
        people=people,
        scopes=tuple(scopes),
        exceptions=tuple(exceptions),
        subject=subject,
        kind=column("kind", np.uint8),
        scope=np.array(scope, dtype=np.int32),
        exception=np.array(exception, dtype=np.int32),
        given_by=column("given_by", np.uint8),
        after_conflict_notice=column("noticed", bool),
        effective=column("effective", np.int64),
        recorded=column("recorded", np.int64),
        seq=np.arange(len(events)),
        event_id=np.array([event["id"] for event in events] or [], dtype="S"),
    )


_IDENTITY: Final = ("birth_date", "residence", "person", "person_id", "person_ref", "name")


def subject_columns(rows: Sequence[Row]) -> Subjects:
    """Return profiles as columns; rows of one identifier that contradict each other make it ambiguous.

    Raises:
        Unreadable: A profile does not name its person.
    """
    by_name: dict[str, list[Row]] = {}
    for row in rows:
        by_name.setdefault(text(row, "subject_id"), []).append(row)
    names = sorted(by_name, key=str.encode)
    people, _ = _people(names)
    profiles = [_profile(by_name[name]) for name in names]
    owners: dict[str, set[int]] = {}
    for place, profile in enumerate(profiles):
        for alias in profile["aliases"]:
            if alias != names[place]:
                owners.setdefault(alias, set()).add(place)
    pairs = sorted((alias.encode(), place) for alias, held in owners.items() for place in held)
    countries, residence = _index(profile["residence"] for profile in profiles)
    zones, where = _index(profile["zone"] for profile in profiles)
    return Subjects(
        people=people,
        countries=tuple(countries),
        zones=tuple(zones),
        birth_day=np.array([profile["birth"] for profile in profiles], dtype=np.int32),
        residence=np.array(residence, dtype=np.int16),
        zone=np.array(where, dtype=np.int16),
        ambiguous=np.array([profile["ambiguous"] for profile in profiles], dtype=bool),
        malformed=np.array([profile["malformed"] for profile in profiles], dtype=bool),
        alias=np.array([alias for alias, _ in pairs] or [], dtype="S"),
        alias_of=np.array([place for _, place in pairs], dtype=np.int64),
    )


def _profile(rows: list[Row]) -> dict[str, Any]:
    """Return one person's profile from the rows that name them."""
    result: dict[str, Any] = {
        "birth": NO_DAY, "residence": None, "zone": None, "aliases": frozenset(), "malformed": False
    }  # fmt: skip
    said = {key: {str(row[key]) for row in rows if row.get(key) is not None} for key in _IDENTITY}
    result["ambiguous"] = any(len(values) > 1 for values in said.values())
    for row in reversed(rows):
        try:
            check_keys(row, ("subject_id", "aliases", "timezone", *_IDENTITY))
            result["aliases"] = result["aliases"] | identifiers(row, "aliases")
            if row.get("birth_date") is not None:
                result["birth"] = _birth_day(row)
            result["residence"] = text_or_none(row, "residence") or result["residence"]
            place = text_or_none(row, "timezone")
            if place is not None:
                zone(place)
                result["zone"] = place
        except ValueError:
            result["malformed"] = True
    return result


def _birth_day(row: Row) -> int:
    value = text(row, "birth_date")
    if _DAY.fullmatch(value) is None:
        raise Unreadable("birth_date")
    try:
        return day_number(date.fromisoformat(value))
    except ValueError:
        raise Unreadable("birth_date") from None


_RECORD_KEYS: Final = (
    "record_id", "subject_id", "type", "collected_at", "last_activity_at", "retention_rule", "legal_basis",
    "collected_for", "categories", "special_categories",
    "art9_condition", "sensitive_pi", "deidentified", "retain_until",
    "lineage_revoked_records", "anonymity_assessment", "inaccurate", "compatibility_assessment_id", "criminal_law_id",
)  # fmt: skip


def record(row: Row) -> dict[str, Any]:
    """Return one record's values; what cannot be understood marks it malformed."""
    result: dict[str, Any] = {
        "subject": None, "type": UNKNOWN, "collected": NEVER, "active": NEVER, "rule": None, "basis": Basis.NONE,
        "for": None, "sets": (None, None), "art9": None, "sensitive": ThreeWay.NO, "deidentified": False,
        "inaccurate": False, "compatible": False, "law": False, "malformed": False, "until": NEVER, "revoked": 0,
        "assessment": Assessment.NONE, "assessed": NEVER, "assessed_until": NEVER,
    }  # fmt: skip
    try:
        check_keys(row, _RECORD_KEYS)
        text(row, "record_id")
        result["type"] = _TYPES.get(text(row, "type"), UNKNOWN)
        is_record = result["type"] == Type.RECORD
        result["subject"] = text(row, "subject_id") if is_record else text_or_none(row, "subject_id")
        result["collected"] = instant(row, "collected_at", None if is_record else NEVER)
        result["active"] = instant(row, "last_activity_at", NEVER)
        result["rule"] = text_or_none(row, "retention_rule")
        basis = text_or_none(row, "legal_basis")
        result["basis"] = Basis.NONE if basis is None else _BASES.get(basis, UNKNOWN)
        result["for"] = words(row, "collected_for")
        plain = words(row, "categories") if "categories" in row else frozenset()
        result["sets"] = (plain, words(row, "special_categories"))
        result["art9"] = text_or_none(row, "art9_condition")
        result["sensitive"] = _sensitive(row, result["sets"][1])
        measures = mapping(row, "deidentified") or {}
        result["deidentified"] = [flag(measures, name) for name in MEASURES] == [True] * len(MEASURES)
        result["inaccurate"] = flag(row, "inaccurate") is not False
        result["compatible"] = text_or_none(row, "compatibility_assessment_id") is not None
        result["law"] = text_or_none(row, "criminal_law_id") is not None
        if result["type"] in {Type.CHECKPOINT, Type.SYNTHETIC_RELEASE}:
            result |= _artefact(row)
    except Unreadable:
        result["malformed"] = True
    return result


def _sensitive(row: Row, special: frozenset[str] | None) -> ThreeWay:
    if "sensitive_pi" not in row:
        return ThreeWay.YES if special else ThreeWay.NO
    said = flag(row, "sensitive_pi")
    return ThreeWay.MISSING if said is None else ThreeWay(int(said))


def _artefact(row: Row) -> dict[str, Any]:
    """Return what only artefacts have."""
    revoked = row.get("lineage_revoked_records")
    if isinstance(revoked, list):
        revoked = len(revoked)
    if revoked is not None and (isinstance(revoked, bool) or not isinstance(revoked, int) or revoked < 0):
        raise Unreadable("lineage_revoked_records")
    seen = mapping(row, "anonymity_assessment") or {}
    check_keys(seen, ("result", "assessed_at", "method", "valid_until"))
    result = text_or_none(seen, "result")
    return {
        "until": instant(row, "retain_until", LONG_AGO),
        "revoked": NULL if revoked is None else min(revoked, 2**31 - 1),
        "assessment": Assessment.NONE if result is None else _RESULTS.get(result, UNKNOWN),
        "assessed": instant(seen, "assessed_at", NEVER),
        "assessed_until": instant(seen, "valid_until", NEVER),
    }


def record_columns(rows: Sequence[Row]) -> Records:
    """Return records and artefacts as columns."""
    values = [record(row) for row in rows]
    named = [value["subject"] for value in values]
    people, _ = _people([name for name in named if name is not None])
    place = {name.decode(): index for index, name in enumerate(people.tolist())}
    rules, rule = _index(value["rule"] for value in values)
    sets, collected_for = _index((value["for"],) for value in values)
    pairs, categories = _index(value["sets"] for value in values)
    conditions, condition = _index(value["art9"] for value in values)

    def column(key: str, dtype: Any) -> Any:
        return np.array([value[key] for value in values], dtype=dtype)

    return Records(
        people=people,
        subject=np.array([NULL if name is None else place[name] for name in named], dtype=np.int32),
        type=column("type", np.uint8),
        collected_at=column("collected", np.int64),
        last_activity_at=column("active", np.int64),
        retention_rules=tuple(rules),
        retention_rule=np.array(rule, dtype=np.int16),
        basis=column("basis", np.uint8),
        purpose_sets=tuple(each for (each,) in sets),
        collected_for=np.array(collected_for, dtype=np.int16),
        category_sets=tuple(pairs),
        categories=np.array(categories, dtype=np.int16),
        art9_conditions=tuple(conditions),
        art9_condition=np.array(condition, dtype=np.int16),
        sensitive=column("sensitive", np.uint8),
        deidentified=column("deidentified", bool),
        inaccurate=column("inaccurate", bool),
        compatible=column("compatible", bool),
        criminal_law=column("law", bool),
        malformed=column("malformed", bool),
        retain_until=column("until", np.int64),
        lineage_revoked=column("revoked", np.int32),
        assessment=column("assessment", np.uint8),
        assessed_at=column("assessed", np.int64),
        assessment_until=column("assessed_until", np.int64),
    )
