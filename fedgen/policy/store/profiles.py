"""Profiles of people and facts of records, as columns: the newest version that was known at an instant."""

from __future__ import annotations

import json
from datetime import date
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedgen.policy.columns import (
    LONG_AGO,
    NEVER,
    NO_DAY,
    NULL,
    UNKNOWN,
    Basis,
    Records,
    Subjects,
    ThreeWay,
    Type,
)
from fedgen.policy.store.database import driver_rows
from fedgen.policy.store.reading import Words, halves, sorted_names
from fedgen.policy.store.tables import RECORD

if TYPE_CHECKING:
    import sqlalchemy as sa
    from numpy.typing import NDArray

    from fedgen.policy.store.reading import People

_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_BASES: Final = {basis.name.lower(): int(basis) for basis in Basis}
_TYPES: Final = {kind.name.lower(): int(kind) for kind in Type}


def subjects(
    connection: sa.Connection,
    people: People,
    known_at: int,
    ordered: tuple[NDArray[np.bytes_], NDArray[np.int64]],
) -> Subjects:
    """Return what was known of everybody at ``known_at``; ``ordered`` is :func:`sorted_names` of ``people``.

    A second birth date that does not say it corrects the first means two people under one identifier.
    """
    names, place = ordered
    n = len(names)
    rows = driver_rows(
        connection,
        "SELECT subject_ref, birth_date, residence, timezone, corrects FROM subject_profile WHERE recorded_at <= ? "
        "ORDER BY seq",
        (known_at,),
    )
    countries, zones = Words(), Words()
    day, home, zone = np.full(n, NO_DAY, np.int32), np.full(n, NULL, np.int16), np.full(n, NULL, np.int16)
    ambiguous = np.zeros(n, dtype=bool)
    if rows and n:
        refs, births, residences, timezones, corrects = zip(*rows, strict=True)
        of = people.places(halves(refs))
        born, lives, where = _days(births), countries.code(residences), zones.code(timezones)
        versions = np.bincount(of[of >= 0], minlength=n)
        once = (of >= 0) & (versions[of] == 1)  # almost everybody: nothing to weigh against anything
        at = place[of[once]]
        day[at], home[at], zone[at] = born[once], lives[once], where[once]
        for row in np.flatnonzero((of >= 0) & ~once).tolist():
            who = place[of[row]]
            if born[row] != NO_DAY:
                if corrects[row]:
                    ambiguous[who] = False
                elif day[who] not in {NO_DAY, born[row]}:
                    ambiguous[who] = True
                day[who] = born[row]
            home[who] = lives[row] if lives[row] != NULL else home[who]
            zone[who] = where[row] if where[row] != NULL else zone[who]
    alias, alias_of = _aliases(connection, people, place)
    country_names, country_place = countries.sorted()
    zone_names, zone_place = zones.sorted()
    return Subjects(
        people=names,
        countries=country_names,
        zones=zone_names,
        birth_day=day,
        residence=country_place[home].astype(np.int16),
        zone=zone_place[zone].astype(np.int16),
        ambiguous=ambiguous,
        malformed=np.zeros(n, dtype=bool),
        alias=alias,
        alias_of=alias_of,
    )


def _days(births: tuple[str | None, ...]) -> NDArray[np.int32]:
    """Return days since 1970, each distinct date read once."""
    days: dict[str | None, int] = {None: NO_DAY}
    days |= {birth: date.fromisoformat(birth).toordinal() - _EPOCH_DAY for birth in set(births) if birth}
    return np.fromiter((days[birth] for birth in births), dtype=np.int32, count=len(births))


def _aliases(
    connection: sa.Connection, people: People, place: NDArray[np.int64]
) -> tuple[NDArray[np.bytes_], NDArray[np.int64]]:
    """Return other names in order, and whose they are."""
    rows = driver_rows(connection, "SELECT alias, subject_ref FROM subject_alias", ())
    if not rows:
        return np.empty(0, dtype="S1"), np.empty(0, dtype=np.int64)
    of = people.places(halves(row[1] for row in rows))
    names = np.array([row[0].encode() for row in rows], dtype=np.bytes_)
    order = np.argsort(names, kind="stable")
    order = order[of[order] >= 0]
    return names[order], place[of[order]]


def records(connection: sa.Connection, people: People, known_at: int) -> tuple[tuple[str, ...], Records]:
    """Return identifiers of records and what was known of each at ``known_at``, in order of identifier."""
    names, place = sorted_names(people)
    latest: dict[str, tuple[Any, ...]] = {}
    last = 0
    query = f"SELECT {', '.join(RECORD)} FROM record_meta WHERE seq > ? AND recorded_at <= ? ORDER BY seq LIMIT 100000"  # noqa: S608 -- names are constants
    while page := driver_rows(connection, query, (last, known_at)):
        latest.update((row[1], row) for row in page)
        last = page[-1][0]
    ids = tuple(sorted(latest))
    column = dict(zip(RECORD, zip(*(latest[i] for i in ids), strict=True), strict=True)) if ids else {}
    return ids, _records(names, place, people, column, len(ids))


def _records(
    names: NDArray[np.bytes_], place: NDArray[np.int64], people: People, column: dict[str, Any], n: int
) -> Records:
    """Return the columns of ``n`` records."""

    def get(name: str) -> Any:
        return column.get(name, ())

    def clock(name: str) -> NDArray[np.int64]:
        return np.array([NEVER if v is None else v for v in get(name)], dtype=np.int64)

    def words(name: str) -> tuple[tuple[str, ...], NDArray[np.int16]]:
        known = Words()
        code = known.code(get(name))
        ordered, to = known.sorted()
        return ordered, to[code].astype(np.int16)

    refs = [v if v is not None else bytes(16) for v in get("subject_ref")]
    of = people.places(halves(refs)) if refs else np.empty(0, dtype=np.int32)
    subject = np.where(of >= 0, place[np.maximum(of, 0)], NULL) if len(place) else np.full(n, NULL)
    rules, rule = words("retention_rule")
    conditions, condition = words("art9_condition")
    purposes, purpose = _distinct(list(get("collected_for")))
    both, categories = _distinct(list(zip(get("categories"), get("special_categories"), strict=True)))
    return Records(
        people=names,
        subject=subject.astype(np.int32),
        type=np.array([_TYPES.get(v, UNKNOWN) for v in get("type")], dtype=np.uint8),
        collected_at=clock("collected_at"),
        last_activity_at=clock("last_activity_at"),
        retention_rules=rules,
        retention_rule=rule,
        basis=np.array(
            [0 if v is None else _BASES.get(v, UNKNOWN) for v in get("legal_basis")], dtype=np.uint8
        ),
        purpose_sets=tuple(map(_words_of, purposes)),
        collected_for=purpose,
        category_sets=tuple((_words_of(a), _words_of(b)) for a, b in both),
        categories=categories,
        art9_conditions=conditions,
        art9_condition=condition,
        sensitive=np.array([ThreeWay.YES if v else ThreeWay.NO for v in get("sensitive_pi")], dtype=np.uint8),
        deidentified=np.array([_all_measures(v) for v in get("deidentified")], dtype=bool),
        inaccurate=np.array(get("inaccurate"), dtype=bool),
        compatible=np.array([v is not None for v in get("compatibility_ref")], dtype=bool),
        criminal_law=np.array([v is not None for v in get("criminal_law_ref")], dtype=bool),
        malformed=np.zeros(n, dtype=bool),
        retain_until=np.full(n, LONG_AGO, dtype=np.int64),
        lineage_revoked=np.full(n, NULL, dtype=np.int32),
        assessment=np.zeros(n, dtype=np.uint8),
        assessed_at=np.full(n, NEVER, dtype=np.int64),
        assessment_until=np.full(n, NEVER, dtype=np.int64),
    )


def _distinct(values: list[Any]) -> tuple[list[Any], NDArray[np.int16]]:
    """Return distinct values and each one's place among them."""
    places: dict[Any, int] = {}
    codes = [places.setdefault(value, len(places)) for value in values]
    return list(places), np.array(codes, dtype=np.int16)


def _words_of(text: str) -> frozenset[str]:
    return frozenset(json.loads(text))


def _all_measures(text: str | None) -> bool:
    """Return whether all three measures of 1798.140(m) are said to stand."""
    said = json.loads(text) if text else {}
    return all(
        said.get(name) is True for name in ("reasonable_measures", "public_commitment", "contractual_no_reid")
    )
