"""Which rows of a block are profiles or facts of records, with a reason for each that is not, and never a value."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from fedgen.policy.calendar import zone
from fedgen.policy.columns import Basis, Type
from fedgen.policy.store.checking import Checks, is_text
from fedgen.policy.store.events import FUTURE_US, good_subject, good_text
from fedgen.policy.store.judging import Judged
from fedgen.policy.store.layout import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedgen.policy.store.layout import Part

SEPARATOR: Final = ";"  # between words of one cell, where the format has no lists
MEASURES: Final = ("reasonable_measures", "public_commitment", "contractual_no_reid")
_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_BASES: Final = {basis.name.lower() for basis in Basis if basis is not Basis.NONE}
_TYPES: Final = {kind.name.lower() for kind in Type}
_MOST_WORDS: Final = 256


def judge_profiles(part: Part, now: int) -> Judged:
    """Return ``(subject_id, birth_date, residence, timezone, aliases)`` of the good rows, and the others' faults.

    Reasons: ``missing``, ``not-a-person``, ``not-a-date``, ``not-a-country``, ``not-a-zone``.
    """
    checks = Checks(part)
    # Wherever on Earth it is the latest: nobody is born tomorrow.
    today = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now, hours=14)).date()
    columns = [
        checks.text("subject_id", good_subject, "not-a-person", needed=True),
        _days(checks, "birth_date", today),
        checks.checked("residence", is_text(lambda text: bool(_COUNTRY.fullmatch(text))), "not-a-country"),
        checks.checked("timezone", is_text(_is_zone), "not-a-zone"),
        _lists(checks, "aliases", good_subject, "not-a-person"),
    ]
    return _judged(part, checks, columns)


def judge_records(part: Part, now: int) -> Judged:
    """Return the good rows in the order of the columns of a file of records, and the others' faults.

    What is null but must not be is a fault, since a rule would otherwise take it for "none": a record's person, when
    and for what it was collected, and its special categories.

    Reasons: ``missing``, ``not-text``, ``not-a-person``, ``unknown-word``, ``not-a-time``, ``naive-time``,
    ``in-the-future``, ``not-a-flag``, ``not-measures``.
    """
    checks = Checks(part)
    latest = now + FUTURE_US
    kinds = [kind or "record" for kind in checks.checked("type", _TYPES.__contains__, "unknown-word")]
    values: dict[str, list[Any]] = {
        "record_id": checks.text("record_id", good_text, needed=True),
        "subject_id": checks.text("subject_id", good_subject, "not-a-person"),
        "type": kinds,
        "collected_at": checks.instants("collected_at", latest=latest),
        "last_activity_at": checks.instants("last_activity_at", latest=latest),
        "legal_basis": checks.checked("legal_basis", _BASES.__contains__, "unknown-word"),
        "deidentified": _measures(checks, "deidentified"),
        "inaccurate": _marked(checks, "inaccurate"),
    }
    for name in ("retention_rule", "art9_condition", "compatibility_ref", "criminal_law_ref"):
        values[name] = checks.text(name, good_text)
    for name in ("collected_for", "categories", "special_categories"):
        values[name] = _lists(checks, name, good_text, "not-text")
    for name in ("subject_id", "collected_at", "collected_for", "special_categories"):
        for place, value in enumerate(values[name]):
            if value is None and kinds[place] == "record":
                checks.fault(place, name, "missing")
    # As a case does: who has special categories has sensitive information, unless the file says otherwise.
    said, flags = checks.column("sensitive_pi"), checks.flags("sensitive_pi")
    values["sensitive_pi"] = [
        int(bool(special)) if null is None else flag
        for null, flag, special in zip(said, flags, values["special_categories"], strict=True)
    ]
    return _judged(part, checks, [values[name] for name in COLUMNS["record_meta"]])


def _judged(part: Part, checks: Checks, columns: list[list[Any]]) -> Judged:
    rows = list(zip(*columns, strict=True))
    good = checks.good()
    return Judged([rows[i] for i in good], [part.rows[i] for i in good], list(checks.faults.values()))


def _days(checks: Checks, name: str, latest: date) -> list[str | None]:
    """Return dates as ISO text; a day that is not on the calendar, or is yet to come, is none."""
    values = [v.isoformat() if type(v) is date else v for v in checks.plain(name)]
    known: dict[Any, bool] = {None: True}
    for place, value in enumerate(values):
        text = value if isinstance(value, str | None) else ""  # what is no text is no date
        if text is not None and text not in known:
            known[text] = _is_day(text, latest)
        if not known[text]:
            checks.fault(place, name, "not-a-date")
    return values


def _is_day(text: str, latest: date) -> bool:
    try:
        return bool(_DAY.fullmatch(text)) and date.fromisoformat(text) <= latest
    except ValueError:
        return False


def _is_zone(name: str) -> bool:
    try:
        return bool(zone(name))
    except ValueError:
        return False


def _lists(
    checks: Checks, name: str, good: Callable[[str], bool], reason: str
) -> list[tuple[str, ...] | None]:
    """Return sorted, distinct words; text is a JSON array or words between semicolons; a null stays one."""
    result: list[tuple[str, ...] | None] = []
    known: dict[str, tuple[str, ...] | None] = {}
    for place, value in enumerate(checks.column(name)):
        if isinstance(value, str):
            if value not in known:
                known[value] = _words(_split(value), good)
            words = known[value]
        else:
            words = _words(value, good)
        if words is None and value is not None:
            checks.fault(place, name, reason)
        result.append(words)
    return result


def _split(text: str) -> Any:
    if not text.startswith("["):
        return text.split(SEPARATOR)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _words(value: Any, good: Callable[[str], bool]) -> tuple[str, ...] | None:
    """Return good words, or None if it is not a list of such."""
    if not isinstance(value, list) or len(value) > _MOST_WORDS:
        return None
    if not all(isinstance(word, str) and good(word) for word in value):
        return None
    return tuple(sorted(set(value)))


def _measures(checks: Checks, name: str) -> list[dict[str, bool] | None]:
    """Return what is said of the three measures of 1798.140(m), from an object or its JSON text."""
    result: list[dict[str, bool] | None] = []
    for place, value in enumerate(checks.column(name)):
        said = value
        if isinstance(value, str):
            try:
                said = json.loads(value)
            except (ValueError, RecursionError):
                said = 0
        if said is not None and not (
            isinstance(said, dict)
            and said.keys() <= set(MEASURES)
            and {type(v) for v in said.values()} <= {bool}
        ):
            checks.fault(place, name, "not-measures")
            said = None
        result.append(said)
    return result


def _marked(checks: Checks, name: str) -> list[int]:
    """Return flags that a null sets: where the file has the column and leaves it open, it may be wrong."""
    flags = checks.flags(name)
    if not checks.has(name):
        return flags
    return [1 if value is None else flag for value, flag in zip(checks.column(name), flags, strict=True)]
