"""A person's number in the store: what bitmaps of used persons are over. It says nothing without the store.

A number is the place at which the store learned of somebody. It leaves with the person: after an erasure nobody can
say whose a bit was. If the last number of all is erased it may be given again, and the newcomer then counts as used
where the other was: too often, never too seldom.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fedgen.policy.store.database import driver_rows
from fedgen.policy.store.people import look_up

if TYPE_CHECKING:
    import sqlalchemy as sa
    from numpy.typing import NDArray

    from fedgen.policy.store.store import ConsentStore


class Known(NamedTuple):
    """A person, as the store knows them.

    Attributes:
        name: The identifier under which the store learned of them.
        ref: The pseudonym, hex.
        number: See the module.
    """

    name: str
    ref: str
    number: int


class Numbers(NamedTuple):
    """Numbers of everybody, for whole columns of identifiers.

    Attributes:
        names: Identifiers and other names, sorted, bytes.
        numbers: Of each name, int64.
        upto: The greatest number there is.
    """

    names: NDArray[np.bytes_]
    numbers: NDArray[np.int64]
    upto: int

    def of(self, subjects: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Return each one's number, -1 for somebody who has none; shape as ``subjects``."""
        if not len(self.names):
            return np.full(len(subjects), -1, dtype=np.int64)
        place = np.searchsorted(self.names, subjects)
        place[place == len(self.names)] = 0
        return np.where(self.names[place] == subjects, self.numbers[place], -1)


def version(store: ConsentStore) -> tuple[int, ...]:
    """Return what changes whenever somebody's number or name does: cheap to ask."""
    query = (
        "SELECT (SELECT COALESCE(max(seq), 0) FROM subject_salt), (SELECT count(*) FROM subject_alias), "
        "(SELECT COALESCE(max(seq), 0) FROM suppression)"
    )
    with store._db.reading() as connection:  # noqa: SLF001 -- the same room
        return tuple(map(int, driver_rows(connection, query, ())[0]))


def numbers(store: ConsentStore) -> Numbers:
    """Return the number behind every name there is now."""
    query = (
        "SELECT subject_id, seq FROM subject_salt UNION ALL "
        "SELECT a.alias, s.seq FROM subject_alias a JOIN subject_salt s ON s.subject_ref = a.subject_ref"
    )
    with store._db.reading() as connection:  # noqa: SLF001 -- the same room
        rows = driver_rows(connection, query, ())
    if not rows:
        return Numbers(np.empty(0, dtype="S1"), np.empty(0, dtype=np.int64), 0)
    names = np.array([row[0].encode() for row in rows], dtype=np.bytes_)
    seqs = np.array([row[1] for row in rows], dtype=np.int64)
    order = np.argsort(names, kind="stable")
    return Numbers(names[order], seqs[order], int(seqs.max()))


def find(store: ConsentStore, name: str) -> Known | None:
    """Return whose ``name`` is, or None for a stranger and for somebody who was erased."""
    with store._db.reading() as connection:  # noqa: SLF001 -- the same room
        ref = look_up(connection, store._secret, [name]).refs.get(name)  # noqa: SLF001 -- the same room
        return None if ref is None else _by_ref(connection, ref)


def find_by_ref(store: ConsentStore, ref: str) -> Known | None:
    """Return whose pseudonym ``ref`` is (hex), or None once the person is gone."""
    with store._db.reading() as connection:  # noqa: SLF001 -- the same room
        return _by_ref(connection, bytes.fromhex(ref))


def erased_at(store: ConsentStore, name: str) -> int | None:
    """Return when somebody of this name was erased, microseconds since 1970; None if not, or readmitted since."""
    with store._db.reading() as connection:  # noqa: SLF001 -- the same room
        return look_up(connection, store._secret, [name]).erased.get(name)  # noqa: SLF001 -- the same room


def tag(store: ConsentStore, name: str) -> str:
    """Return what a tombstone keeps of a name, hex; see :mod:`fedgen.policy.store.secret`."""
    return store._secret.tag(name)  # noqa: SLF001 -- the same room


def record_ids(store: ConsentStore, ref: str) -> tuple[str, ...]:
    """Return the identifiers of a person's records whose facts are in the store."""
    query = "SELECT DISTINCT record_id FROM record_meta WHERE subject_ref = ? ORDER BY record_id"
    with store._db.reading() as connection:  # noqa: SLF001 -- the same room
        return tuple(row[0] for row in driver_rows(connection, query, (bytes.fromhex(ref),)))


def _by_ref(connection: sa.Connection, ref: bytes) -> Known | None:
    query = "SELECT subject_id, subject_ref, seq FROM subject_salt WHERE subject_ref = ?"
    rows = driver_rows(connection, query, (ref,))
    return Known(rows[0][0], bytes(rows[0][1]).hex(), int(rows[0][2])) if rows else None
