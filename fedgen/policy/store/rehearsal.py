"""A rehearsal of a consent store: events from a file, learned when the file says so, under a clock that is not real.

In a store of real events nobody can say when something was learned. A simulation has to: people withdraw on the
days that it plays. Such a store says so in its first batch, which the chain covers, and no real site decides from
it (:func:`is_rehearsal`); a store of real events is never rehearsed in.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from dataclasses import dataclass
from datetime import date, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from fedgen.errors import DataError
from fedgen.policy.calendar import microseconds_of, zone
from fedgen.policy.log_file import read_bytes, table_of
from fedgen.policy.store import chain
from fedgen.policy.store.database import among, driver_rows, listed
from fedgen.policy.store.events import ACTIONS, RIGHTS, ConsentSaid, RightSaid
from fedgen.policy.store.people import admit, look_up

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    import sqlalchemy as sa

    from fedgen.policy.store.store import ConsentStore

SOURCE: Final = "rehearsal"
REQUIRED: Final = ("subject", "status", "recorded_at")
OPTIONAL: Final = (
    "purpose", "effective_at", "expires_at", "explicit", "given_by", "notice_id", "notice_version", "method", "scope",
    "exception", "after_conflict_notice",
)  # fmt: skip
PROFILE: Final = ("subject", "birth_date", "residence", "timezone")
_LOG_WORDS: Final = {"granted": "given", "objected": "objection"}  # as the consent log calls them
_YES: Final = {"true": True, "false": False, "1": True, "0": False}
_COUNTRY: Final = 2

Profile = tuple[str, str | None, str | None, str | None]


@dataclass(frozen=True, slots=True)
class Line:
    """One event of a script: when it is learned, whether it is about consent, and what the store writes down."""

    at: int
    who: str
    consent: bool
    said: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """Events in the order in which they are learned."""

    lines: tuple[Line, ...]

    def of(self, people: Collection[str]) -> Script:
        """Return the events of some people only."""
        return Script(tuple(line for line in self.lines if line.who in people))

    def upto(self, at: int) -> int:
        """Return how many events are learned by an instant."""
        return bisect_right(self.lines, at, key=lambda line: line.at)


def read_script(path: Path) -> Script:
    """Return the events of a file, all or none.

    Columns: ``subject``, ``status``, ``recorded_at``, and optionally ``purpose``, ``effective_at`` (else as recorded),
        ``expires_at``, ``explicit``, ``given_by``, ``notice_id``, ``notice_version``, ``method``, ``scope``,
        ``exception``, ``after_conflict_notice``. A status is an action of consent or a kind of right; ``granted`` and
        ``objected`` are the consent log's words for ``given`` and ``objection``.

    Guarantees:
        - An event has an identifier of its own content: reading a longer file adds events and doubles none.
        - A message names file, column and row, never a value.

    Raises:
        DataError: The file is missing, not of its kind, or a row of it is no event.
    """
    lines: list[Line] = []
    seen: dict[str, int] = {}
    for number, row in enumerate(_rows(path, REQUIRED, OPTIONAL), start=1):
        try:
            lines.append(_line(row, seen))
        except DataError as error:
            what = f"row {number} is no event: {error.what}"
            raise DataError(what, where=path, key=error.key, hint=error.hint) from None
    return Script(tuple(sorted(lines, key=lambda line: line.at)))


def read_profiles(path: Path) -> dict[str, Profile]:
    """Return people's profiles by identifier: ``subject``, ``birth_date``, ``residence``, ``timezone``.

    Raises:
        DataError: The file is missing, not of its kind, or a row of it is no profile.
    """
    found: dict[str, Profile] = {}
    for number, row in enumerate(_rows(path, PROFILE[:1], PROFILE[1:]), start=1):
        who, where, place = row["subject"], row.get("residence"), row.get("timezone")
        born = row.get("birth_date")
        birth = born if born is None or isinstance(born, str) else str(born)[:10]
        if not _is_profile(birth, where, place):
            hint = "birth_date as 1984-03-09, residence as DE, timezone as Europe/Berlin"
            raise DataError(f"row {number} is no profile", where=path, hint=hint)
        if who in found:
            raise DataError(f"row {number} is a second profile of a person", where=path, key="subject")
        found[who] = (who, birth, where, place)
    return found


def _is_profile(birth: str | None, where: str | None, place: str | None) -> bool:
    """Return whether a birth date, a country and a zone are such, where they are given."""
    try:
        if birth is not None:
            date.fromisoformat(birth)
        if place is not None:
            zone(place)
    except ValueError:
        return False
    return where is None or (len(where) == _COUNTRY and where.isascii() and where.isupper())


def bring(store: ConsentStore, lines: Sequence[Line]) -> int:
    """Add the events that are not there yet, each learned when its line says, in one transaction; return how many.

    An event that comes after its time is learned just after the last one: what was known before stays as it was.

    Raises:
        DataError: The store holds real events.
    """
    if not lines:
        return 0
    with store.lock, store.database.writing() as connection:
        last = chain.head(connection)
        if last.size and not _begun_here(connection):
            hint = "give the rehearsal a store of its own"
            raise DataError("a store of real events is not rehearsed in", where=store.name, hint=hint)
        fresh = _fresh(connection, lines)
        known = look_up(connection, store.secret, {line.who for line in fresh})
        fresh = [line for line in fresh if line.who not in known.erased]
        refs = dict(known.refs)
        refs.update(admit(connection, {line.who for line in fresh} - refs.keys()))
        for at, group in groupby(fresh, key=lambda line: line.at):
            rows: dict[bool, list[tuple[Any, ...]]] = {True: [], False: []}
            for line in group:
                rows[line.consent].append((line.said[0], refs[line.who], *line.said[2:]))
            last = chain.append(
                connection, last, max(at, last.recorded_at + 1), SOURCE, rows[True], rows[False]
            )
    return len(fresh)


def is_rehearsal(store: ConsentStore) -> bool:
    """Return whether a store holds a rehearsal's events: no real site may decide from it."""
    with store.database.reading() as connection:
        return _begun_here(connection)


def _begun_here(connection: sa.Connection) -> bool:
    first = driver_rows(connection, "SELECT source FROM batch WHERE no = 1", ())
    return bool(first) and first[0][0] == SOURCE


def _fresh(connection: sa.Connection, lines: Sequence[Line]) -> list[Line]:
    """Return the lines whose events are not there."""
    there: set[str] = set()
    for table in ("consent_event", "rights_event"):
        ids = listed(connection, [str(line.said[0]) for line in lines])
        query = f"SELECT event_id FROM {table} WHERE {among(connection, 'event_id')}"  # noqa: S608 -- names are constants
        there.update(row[0] for row in driver_rows(connection, query, (ids,)))
    return [line for line in lines if line.said[0] not in there]


def _rows(path: Path, required: Sequence[str], optional: Sequence[str]) -> list[dict[str, Any]]:
    """Return a file's rows; a null, and an empty text, is left out."""
    table = table_of(read_bytes(path), path)
    for name in table.column_names:
        if name not in (*required, *optional):
            hint = f"it has {', '.join((*required, *optional))}"
            raise DataError("unknown column", where=path, key=name, hint=hint)
    for name in required:
        if name not in table.column_names:
            raise DataError("a column is missing", where=path, key=name)
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(table.to_pylist(), start=1):
        kept = {name: value for name, value in row.items() if value not in {None, ""}}
        absent = next((name for name in required if name not in kept), None)
        if absent is not None:
            raise DataError(f"row {number} has no {absent}", where=path, key=absent)
        rows.append(kept)
    return rows


def _line(row: dict[str, Any], seen: dict[str, int]) -> Line:
    """Return the event of a row."""
    status = _LOG_WORDS.get(str(row["status"]).lower(), str(row["status"]).lower())
    recorded = _instant(row, "recorded_at")
    common: dict[str, Any] = {
        "subject_id": str(row["subject"]),
        "effective_at": _instant(row, "effective_at") if "effective_at" in row else recorded,
        "event_id": _identifier(row, seen),
        **{name: str(row[name]) for name in ("given_by", "method") if name in row},
    }
    at = microseconds_of(recorded)
    if status in ACTIONS:
        consent = _consent(row, status, common)
        return Line(at, consent.subject_id, True, consent.said(at))
    if status not in RIGHTS:
        hint = f"granted, {', '.join((*ACTIONS, *RIGHTS))}"
        raise DataError("not a known word", key="status", hint=hint)
    purpose = row.get("purpose")
    scope = row.get("scope", None if purpose == "*" or status != "objection" else purpose)
    right = RightSaid(
        kind=status,
        scope=scope,
        exception=row.get("exception"),
        after_conflict_notice=_flag(row, "after_conflict_notice"),
        **common,
    )
    return Line(at, right.subject_id, False, right.said(at))


def _consent(row: dict[str, Any], action: str, common: dict[str, Any]) -> ConsentSaid:
    """Return what a row says of consent."""
    version = row.get("notice_version")
    if version is not None and not str(version).isascii():
        raise DataError("not a version", key="notice_version", hint="a whole number from 0")
    try:
        number = None if version is None else int(str(version))
    except ValueError:
        raise DataError("not a version", key="notice_version", hint="a whole number from 0") from None
    if "purpose" not in row:
        raise DataError("no purpose", key="purpose")
    return ConsentSaid(
        purpose=str(row["purpose"]),
        action=action,
        explicit=_flag(row, "explicit"),
        notice_id=row.get("notice_id"),
        notice_version=number,
        valid_until=_instant(row, "expires_at") if "expires_at" in row else None,
        **common,
    )


def _flag(row: dict[str, Any], name: str) -> bool:
    value = row.get(name, False)
    found = value if isinstance(value, bool) else _YES.get(str(value).lower())
    if found is None:
        raise DataError("neither true nor false", key=name)
    return found


def _instant(row: dict[str, Any], name: str) -> datetime:
    value = row[name]
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        moment = None
    if moment is None or moment.utcoffset() is None:
        raise DataError("not an instant with an offset", key=name, hint="write 2026-05-04T11:00:00+02:00")
    return moment


def _identifier(row: dict[str, Any], seen: dict[str, int]) -> str:
    """Return the identifier of a row's content; the same content again is another event."""
    text = "\0".join(f"{name}={row[name]}" for name in sorted(row))
    seen[text] = seen.get(text, 0) + 1
    return hashlib.sha256(f"{text}\0{seen[text]}".encode()).hexdigest()[:32]
