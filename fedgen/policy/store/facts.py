"""Bringing files of profiles and of records' facts in: what a row says that is not known yet becomes a new version.

Neither counts as a sync: who knows everybody's birthday may still have missed a withdrawal.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fedgen.policy.store.checking import Fault
from fedgen.policy.store.database import among, driver_rows, insert_many, listed
from fedgen.policy.store.evidence import next_number
from fedgen.policy.store.incoming import Imported, Kind, Outcome, bring_in
from fedgen.policy.store.judging_facts import judge_profiles, judge_records
from fedgen.policy.store.layout import COLUMNS
from fedgen.policy.store.people import admit, look_up
from fedgen.policy.store.persons import RECORD_COLUMNS, record_row

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping

    import sqlalchemy as sa

    from fedgen.policy.store.layout import Block, Format
    from fedgen.policy.store.store import ConsentStore

_PROFILE: Final = ("seq", "subject_ref", "birth_date", "residence", "timezone", "corrects", "recorded_at")
_SAID_FROM: Final = RECORD_COLUMNS.index("subject_ref")


def import_profiles(
    store: ConsentStore,
    path: str | os.PathLike[str],
    *,
    form: Format | None = None,
    mapping: Mapping[str, str] | None = None,
    corrects: bool = False,
    strict: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Imported:
    """Bring people's profiles into the store; ``fedgen consent import --kind profiles`` and simulations do it so.

    Columns: ``subject_id`` (or ``subject``), and optionally ``birth_date`` (1984-03-09), ``residence`` (ISO 3166-1
        alpha-2: DE), ``timezone`` (IANA: Europe/Berlin) and ``aliases`` (a list, a JSON array, or words between
        semicolons). What is null is not said, and what was known of it stays.

    Guarantees:
        - A row that says what is known already adds nothing, whichever file it comes in: counted as repeated.
        - Killed and called again, it goes on; memory does not grow with the file.
        - No message, and no row of the quarantine, holds a value of the file.
        - It is no sync (:meth:`~fedgen.policy.store.store.ConsentStore.trouble`).

    Edge cases:
        =======================================================  ==========================================
        a second birth date, without ``corrects``                the person is ambiguous from now on
        an alias that stands for another person                  quarantined, ``alias-conflict``
        an identifier or alias of a person who was erased        suppressed
        a person nobody heard of                                 is known from now on
        a date, country or zone that does not exist              quarantined
        =======================================================  ==========================================

    Args:
        store: An open store.
        path: ``.csv``, ``.csv.gz``, ``.parquet`` or ``.jsonl``.
        form: The format, if the name does not say it.
        mapping: Our name to the file's column.
        corrects: Whether a birth date replaces what was known, instead of contradicting it.
        strict: Refuse the file as a whole if a single row would be quarantined by what it says.
        progress: Told the rows that are behind after each block.

    Raises:
        DataError: The file is missing, not of its format, or, with ``strict``, has a faulty row.
        StoreBusy: Another process holds the store.
    """
    kind = _CORRECTIONS if corrects else PROFILES
    return bring_in(store, path, kind, form=form, mapping=mapping, strict=strict, progress=progress)


def import_records(
    store: ConsentStore,
    path: str | os.PathLike[str],
    *,
    form: Format | None = None,
    mapping: Mapping[str, str] | None = None,
    strict: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Imported:
    """Bring facts of records into the store; ``fedgen consent import --kind records`` and simulations do it so.

    Columns: ``record_id``, ``subject_id`` (or ``subject``), ``collected_at``, ``collected_for``,
        ``special_categories``; optionally ``type``, ``last_activity_at``, ``retention_rule``, ``legal_basis``,
        ``categories``, ``art9_condition``, ``sensitive_pi``, ``deidentified`` (an object of the three measures),
        ``inaccurate``, ``compatibility_ref``, ``criminal_law_ref``. Lists as in :func:`import_profiles`; none is
        ``[]``, since an empty cell does not say so.

    Guarantees:
        - As :func:`import_profiles`: repetition adds nothing, a kill loses nothing, no value is told, no sync.

    Edge cases:
        =======================================================  ==========================================
        a record that was another person's                       quarantined, ``record-of-another``
        a record of a person who was erased                      suppressed
        ``inaccurate`` is null in a column of that name           it may be: flagged
        ``sensitive_pi`` is null or not in the file              yes, if there are special categories
        ``type`` is null or not in the file                      ``record``
        =======================================================  ==========================================

    Args:
        store: An open store.
        path: ``.csv``, ``.csv.gz``, ``.parquet`` or ``.jsonl``.
        form: The format, if the name does not say it.
        mapping: Our name to the file's column.
        strict: Refuse the file as a whole if a single row would be quarantined by what it says.
        progress: Told the rows that are behind after each block.

    Raises:
        DataError: The file is missing, not of its format, or, with ``strict``, has a faulty row.
        StoreBusy: Another process holds the store.
    """
    return bring_in(store, path, RECORDS, form=form, mapping=mapping, strict=strict, progress=progress)


class Profile(NamedTuple):
    """A good row of a file of profiles."""

    subject_id: str
    birth_date: str | None
    residence: str | None
    timezone: str | None
    aliases: tuple[str, ...] | None


@dataclass(slots=True)
class _State:
    """What is known of a person: facts in the order of a profile's row, and whether they are two people."""

    facts: list[str | None] = field(default_factory=lambda: [None, None, None])
    ambiguous: bool = False

    def learn(self, said: Iterable[str | None], *, corrects: bool) -> bool:
        """Take a version in; return whether it says anything new."""
        new = False
        for i, value in enumerate(said):
            if value is None:
                continue
            if i == 0 and corrects and self.ambiguous:
                new, self.ambiguous = True, False
            elif i == 0 and not corrects and self.facts[0] not in {None, value}:
                self.ambiguous = True
            new = new or self.facts[i] != value
            self.facts[i] = value
        return new


def _take_profiles(
    store: ConsentStore, connection: sa.Connection, block: Block, *, corrects: bool
) -> Outcome:
    """Add a block's profiles and aliases."""
    rows: list[tuple[int, Profile]] = []
    done = Outcome([])
    for part in block.parts:
        judged = judge_profiles(part, store.now())
        rows += zip(judged.rows, map(Profile._make, judged.said), strict=True)
        done.faults += judged.faults
    aliases = {alias for _, row in rows for alias in row.aliases or ()}
    known = look_up(connection, store.secret, {row.subject_id for _, row in rows} | aliases)
    kept = [it for it in rows if known.erased.keys().isdisjoint((it[1].subject_id, *(it[1].aliases or ())))]
    done.suppressed = len(rows) - len(kept)
    refs = known.refs | admit(connection, {row.subject_id for _, row in kept} - known.refs.keys())
    states = _states(connection, [row.subject_id for _, row in kept])
    fresh: list[tuple[Any, ...]] = []
    names: list[tuple[str, bytes]] = []
    for number, row in kept:
        ref = refs[row.subject_id]
        others = [alias for alias in row.aliases or () if refs.get(alias) != ref]
        if any(alias in refs for alias in others):
            done.faults.append(Fault(number, "aliases", "alias-conflict"))
            continue
        refs.update(dict.fromkeys(others, ref))
        names += [(alias, ref) for alias in others]
        if states.setdefault(ref, _State()).learn(row[1:4], corrects=corrects):
            fresh.append((ref, *row[1:4]))
            done.added += 1
        else:
            done.added, done.repeated = done.added + bool(others), done.repeated + (not others)
    first, at = next_number(connection, "subject_profile"), store.record_time(connection)
    written = [(n, *row, int(corrects), at) for n, row in enumerate(fresh, first)]
    insert_many(connection, "subject_profile", _PROFILE, written)
    insert_many(connection, "subject_alias", ("alias", "subject_ref"), names)
    return done


def _states(connection: sa.Connection, names: list[str]) -> dict[bytes, _State]:
    """Return what is known of people, by pseudonym."""
    query = (
        "SELECT p.subject_ref, p.birth_date, p.residence, p.timezone, p.corrects FROM subject_profile p JOIN ("  # noqa: S608 -- names are constants
        f"SELECT subject_ref FROM subject_salt WHERE {among(connection, 'subject_id')} UNION "
        f"SELECT subject_ref FROM subject_alias WHERE {among(connection, 'alias')}"
        ") w ON w.subject_ref = p.subject_ref ORDER BY p.seq"
    )
    wanted = listed(connection, names)
    states: dict[bytes, _State] = {}
    for ref, *facts, corrects in driver_rows(connection, query, (wanted, wanted)):
        states.setdefault(bytes(ref), _State()).learn(facts, corrects=bool(corrects))
    return states


def _take_records(store: ConsentStore, connection: sa.Connection, _source: str, block: Block) -> Outcome:
    """Add a block's facts of records."""
    rows: list[tuple[int, dict[str, Any]]] = []
    done = Outcome([])
    for part in block.parts:
        judged = judge_records(part, store.now())
        named = (dict(zip(COLUMNS["record_meta"], row, strict=True)) for row in judged.said)
        rows += zip(judged.rows, named, strict=True)
        done.faults += judged.faults
    people = {row["subject_id"] for _, row in rows if row["subject_id"] is not None}
    known = look_up(connection, store.secret, people)
    kept = [(number, row) for number, row in rows if row["subject_id"] not in known.erased]
    done.suppressed = len(rows) - len(kept)
    refs = known.refs | admit(connection, people - known.refs.keys() - known.erased.keys())
    latest = _latest(connection, [row["record_id"] for _, row in kept])
    first, at = next_number(connection, "record_meta"), store.record_time(connection)
    fresh: list[tuple[Any, ...]] = []
    for number, row in kept:
        new = record_row(first + len(fresh), at, refs, row)
        said = new[_SAID_FROM:]
        before = latest.get(row["record_id"])
        if before == said:
            done.repeated += 1
        elif before is not None and before[0] != said[0]:
            done.faults.append(Fault(number, "subject_id", "record-of-another"))
        else:
            fresh.append(new)
            latest[row["record_id"]] = said
            done.added += 1
    insert_many(connection, "record_meta", RECORD_COLUMNS, fresh)
    return done


def _latest(connection: sa.Connection, ids: list[str]) -> dict[str, tuple[Any, ...]]:
    """Return the newest version of records, by identifier, from the person on."""
    query = (
        f"SELECT record_id, {', '.join(RECORD_COLUMNS[_SAID_FROM:])} FROM record_meta "  # noqa: S608 -- names are constants
        f"WHERE {among(connection, 'record_id')} ORDER BY seq"
    )
    rows = driver_rows(connection, query, (listed(connection, ids),))
    return {row[0]: (None if row[1] is None else bytes(row[1]), *row[2:]) for row in rows}


def _profiles(*, corrects: bool) -> Kind:
    """Return how a file of profiles is brought in."""

    def take(store: ConsentStore, connection: sa.Connection, _source: str, block: Block) -> Outcome:
        return _take_profiles(store, connection, block, corrects=corrects)

    return Kind("profiles", judge_profiles, take, syncs=False, how="corrects" if corrects else "")


PROFILES: Final = _profiles(corrects=False)
_CORRECTIONS: Final = _profiles(corrects=True)
RECORDS: Final = Kind("records", judge_records, _take_records, syncs=False)
