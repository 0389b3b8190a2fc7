"""What the store writes down of people: profiles, aliases, records' facts, and their end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from threading import RLock
from typing import TYPE_CHECKING, Any, Final

from fedgen.errors import DataError
from fedgen.policy.store import chain
from fedgen.policy.store.database import driver_rows, insert_many
from fedgen.policy.store.evidence import Evidence
from fedgen.policy.store.people import admit, last_number, look_up

if TYPE_CHECKING:
    from collections.abc import Iterable

    import sqlalchemy as sa

    from fedgen.policy.store.database import Database
    from fedgen.policy.store.secret import Secret

_DELETED: Final = ("subject_salt", "subject_profile", "subject_alias", "record_meta")


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure in the store did.

    Attributes:
        at: When, microseconds since 1970.
        rows: Rows deleted, by table.
        task: Number of the erasure task that says so.
    """

    at: int
    rows: dict[str, int]
    task: int


class Persons(Evidence):
    """The part of :class:`~fedgen.policy.store.store.ConsentStore` that knows people, and lets them go."""

    def __init__(self, database: Database, secret: Secret) -> None:
        super().__init__(database)
        self._secret, self._lock = secret, RLock()
        self._asked = 0  # the latest instant of knowledge that an answer was given for

    def put_profiles(
        self, rows: Iterable[tuple[str, str | None, str | None, str | None]], *, corrects: bool = False
    ) -> int:
        """Add versions of profiles ``(subject_id, birth_date, residence, timezone)``.

        Returns how many people are left out because they were erased. A second birth date without ``corrects``
        marks the identifier as standing for two people.

        Raises:
            DataError: A birth date is not an ISO date; nothing was added.
        """
        wanted = list(rows)
        for row in wanted:
            _check_day(row[1])
        with self._lock, self._db.writing() as connection:
            refs, erased = self._refs(connection, {row[0] for row in wanted})
            last = _last(connection, "subject_profile")
            at = self.record_time(connection)
            kept = [row for row in wanted if row[0] in refs]
            insert_many(
                connection,
                "subject_profile",
                ("seq", "subject_ref", "birth_date", "residence", "timezone", "corrects", "recorded_at"),
                [(n, refs[who], *facts, int(corrects), at) for n, (who, *facts) in enumerate(kept, last + 1)],
            )
        return len(erased)

    def put_alias(self, alias: str, subject_id: str) -> None:
        """Let ``alias`` stand for a person.

        Raises:
            DataError: It is a person's own identifier, or stands for another person.
        """
        with self._lock, self._db.writing() as connection:
            refs, erased = self._refs(connection, {subject_id})
            if subject_id in erased:
                return
            taken = look_up(connection, self._secret, [alias]).refs.get(alias)
            if taken is None:
                insert_many(
                    connection, "subject_alias", ("alias", "subject_ref"), [(alias, refs[subject_id])]
                )
            elif taken != refs[subject_id]:
                hint = "two people under one name: settle who is who"
                raise DataError("the alias stands for another person", key="alias", hint=hint)

    def put_records(self, rows: Iterable[dict[str, Any]]) -> int:
        """Add versions of records' facts, instants as microseconds; return how many erased people are left out."""
        wanted = list(rows)
        with self._lock, self._db.writing() as connection:
            refs, erased = self._refs(connection, {r["subject_id"] for r in wanted if r.get("subject_id")})
            last, at = _last(connection, "record_meta"), self.record_time(connection)
            kept = [row for row in wanted if row.get("subject_id") not in erased]
            insert_many(
                connection,
                "record_meta",
                RECORD_COLUMNS,
                [record_row(n, at, refs, row) for n, row in enumerate(kept, last + 1)],
            )
        return len(erased)

    def erase(self, subject_id: str, *, reason: str = "ERASURE_REQUESTED") -> Erased:
        """Delete a person's salt, profile, aliases and records' facts, and leave a tombstone.

        Guarantees:
            - Their events stay, under a pseudonym that nobody can compute or look up any more.
            - An import or a restore that brings the person again is suppressed while the tombstone stands.
            - Repeating it changes nothing.

        Edge cases:
            ===================  ====================================================
            a stranger           a tombstone all the same: a later import finds it
            an alias             the person whose alias it is; every name is barred
            ===================  ====================================================

        Args:
            subject_id: The person, or an alias.
            reason: A reason code.
        """
        with self._lock, self._db.writing() as connection:
            known = look_up(connection, self._secret, [subject_id])
            ref = known.refs.get(subject_id)
            names = {subject_id, *_names(connection, ref)}
            at = self.record_time(connection)
            barred = look_up(connection, self._secret, names).erased.keys() if ref is None else set()
            last, upto = _last(connection, "suppression"), last_number(connection)
            new = enumerate(sorted(names - barred), last + 1)
            rows = [(n, self._secret.tag(name), reason, at, upto) for n, name in new]
            insert_many(
                connection, "suppression", ("seq", "tag", "reason_code", "erased_at", "people_upto"), rows
            )
            gone = {} if ref is None else {table: _delete(connection, table, ref) for table in _DELETED}
            task = self._open_task(connection, "consent-store", reason, at, None)
            self._close_task(connection, task, at, "deleted", json.dumps(gone, sort_keys=True))
        self._db.forget(_DELETED)
        return Erased(at, gone, task)

    def readmit(self, subject_id: str) -> bool:
        """Lift a person's tombstone, because they came back on their own account; return whether there was one."""
        with self._lock, self._db.writing() as connection:
            tag = self._secret.tag(subject_id)
            query = "SELECT seq FROM suppression WHERE tag = ? AND lifted_at IS NULL"
            found = driver_rows(connection, query, (tag,))
            for (seq,) in found:
                _run(connection, "UPDATE suppression SET lifted_at = ? WHERE seq = ?", (self.now(), seq))
        return bool(found)

    def _refs(self, connection: sa.Connection, names: set[str]) -> tuple[dict[str, bytes], dict[str, int]]:
        """Return pseudonyms of people, admitting strangers, and who was erased."""
        known = look_up(connection, self._secret, names)
        new = names - known.refs.keys() - known.erased.keys()
        return {**known.refs, **admit(connection, new)}, known.erased

    def record_time(self, connection: sa.Connection) -> int:
        """Return an instant later than every one that was asked about, and no earlier than the head."""
        return max(self.now(), self._asked + 1, chain.head(connection).recorded_at)


RECORD_COLUMNS: Final = (
    "seq", "recorded_at", "record_id", "subject_ref", "type", "collected_at", "last_activity_at", "retention_rule",
    "legal_basis", "collected_for", "categories", "special_categories", "art9_condition", "sensitive_pi",
    "deidentified", "inaccurate", "compatibility_ref", "criminal_law_ref",
)  # fmt: skip


def record_row(n: int, at: int, refs: dict[str, bytes], row: dict[str, Any]) -> tuple[Any, ...]:
    """Return a row of ``record_meta`` in the order of :data:`RECORD_COLUMNS`."""

    def words(name: str) -> str:
        return json.dumps(sorted(row.get(name) or ()))

    said = row.get("deidentified")
    return (
        n,
        at,
        row["record_id"],
        refs.get(row.get("subject_id") or ""),
        row.get("type", "record"),
        row.get("collected_at"),
        row.get("last_activity_at"),
        row.get("retention_rule"),
        row.get("legal_basis"),
        words("collected_for"),
        words("categories"),
        words("special_categories"),
        row.get("art9_condition"),
        int(bool(row.get("sensitive_pi"))),
        None if said is None else json.dumps(said, sort_keys=True),
        int(bool(row.get("inaccurate"))),
        row.get("compatibility_ref"),
        row.get("criminal_law_ref"),
    )


def _check_day(birth: str | None) -> None:
    """Refuse what every later reader would stumble over."""
    try:
        fine = birth is None or date.fromisoformat(birth).isoformat() == birth
    except ValueError:
        fine = False
    if not fine:
        raise DataError("not a date", key="birth_date", hint="write 1984-03-09")


def _last(connection: sa.Connection, table: str) -> int:
    return int(driver_rows(connection, f"SELECT COALESCE(max(seq), 0) FROM {table}", ())[0][0])  # noqa: S608 -- names are constants


def _names(connection: sa.Connection, ref: bytes | None) -> list[str]:
    """Return every name of a person."""
    if ref is None:
        return []
    query = (
        "SELECT subject_id FROM subject_salt WHERE subject_ref = ? UNION SELECT alias FROM subject_alias "
        "WHERE subject_ref = ?"
    )
    return [row[0] for row in driver_rows(connection, query, (ref, ref))]


def _delete(connection: sa.Connection, table: str, ref: bytes) -> int:
    """Delete a person's rows and return how many there were."""
    return _run(connection, f"DELETE FROM {table} WHERE subject_ref = ?", (ref,))  # noqa: S608 -- names are constants


def _run(connection: sa.Connection, statement: str, values: tuple[Any, ...]) -> int:
    mark = "%s" if connection.dialect.name == "postgresql" else "?"
    return int(connection.exec_driver_sql(statement.replace("?", mark), values).rowcount)
