"""What the engine is given: events, people and head as known at one instant, and the cache that makes asking cheap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fedgen.errors import Code, IntegrityError
from fedgen.policy.columns import NULL, ConsentEvents, GivenBy, Right, RightsEvents, Subjects
from fedgen.policy.store import chain
from fedgen.policy.store.database import driver_rows, many_rows
from fedgen.policy.store.people import tombstones
from fedgen.policy.store.profiles import subjects
from fedgen.policy.store.reading import (
    ConsentCache,
    EventCache,
    People,
    RightsCache,
    relabelled,
    sorted_names,
)

if TYPE_CHECKING:
    import sqlalchemy as sa
    from numpy.typing import NDArray

    from fedgen.policy.store.secret import Secret


@dataclass(frozen=True, slots=True, eq=False)
class AsKnown:
    """The store as it was known at an instant.

    Attributes:
        consent: Consent events recorded by then.
        rights: Rights events recorded by then; a person of the table who was erased has an ``ERASURE_REQUEST``.
        subjects: What was known of people then.
        head: Where the store stood; for the round's evidence.
        known_at: The instant, microseconds since 1970.
    """

    consent: ConsentEvents
    rights: RightsEvents
    subjects: Subjects
    head: chain.Head
    known_at: int


class Cache:
    """Columns of one store in one process: each event is read once."""

    def __init__(self) -> None:
        self.people = People()
        self.consent, self.rights = ConsentCache(), RightsCache()
        self.head: chain.Head | None = None
        self._erasures = -1
        self._names: tuple[NDArray[np.bytes_], NDArray[np.int64]] | None = None
        self._profiles: tuple[tuple[int, ...], Subjects] | None = None
        self._erased: tuple[NDArray[np.bytes_], tuple[int, int], dict[str, int]] | None = None

    def refresh(self, connection: sa.Connection) -> chain.Head:
        """Read what is new.

        Raises:
            IntegrityError: The store does not go on from what this process saw: it was rolled back.
        """
        head = chain.head(connection)
        if self.head is not None and not chain.extends(connection, self.head):
            hint = "find out who restored an old copy; then import what is missing"
            raise IntegrityError(
                "the store was rolled back (STORE_ROLLBACK)",
                code=Code.STORAGE,
                where="consent store",
                hint=hint,
            )
        erasures = driver_rows(connection, "SELECT COALESCE(max(seq), 0) FROM suppression", ())[0][0]
        gone = self._erasures not in {-1, erasures}
        if gone:
            self.people = People()
        if self.people.read(connection) or self._names is None:
            self._names = sorted_names(self.people)
        for cache in (self.consent, self.rights):
            if gone:
                relabelled(cache, self.people)
        self.consent.read(connection, head.consent, self.people)
        self.rights.read(connection, head.rights, self.people)
        self.head, self._erasures = head, erasures
        return head

    def view(
        self,
        connection: sa.Connection,
        secret: Secret,
        known_at: int,
        table: NDArray[np.bytes_] | None,
        upto: chain.Head | None,
    ) -> AsKnown:
        """Return what was known at ``known_at``, and not after ``upto``."""
        with many_rows():
            head = self.refresh(connection)
        names, place = self._names or sorted_names(self.people)
        end = head if upto is None else upto
        wanted = None if table is None else _wanted(names, table)
        consent = _consent(self.consent, names, place, known_at, end.consent, wanted)
        rights = _rights(self.rights, names, place, known_at, end.rights, wanted)
        if table is not None:
            erased = self._tombstones(connection, secret, names, table)
            rights = with_erasures(rights, {n: at for n, at in erased.items() if at <= known_at})
        return AsKnown(consent, rights, self._subjects(connection, known_at), end, known_at)

    def _subjects(self, connection: sa.Connection, known_at: int) -> Subjects:
        """Return profiles, from memory while nothing was added before ``known_at``."""
        query = (
            "SELECT (SELECT COALESCE(max(seq), 0) FROM subject_profile WHERE recorded_at <= ?), "
            "(SELECT count(*) FROM subject_alias)"
        )
        key = (*driver_rows(connection, query, (known_at,))[0], self.people.seq, self._erasures)
        if self._profiles is None or self._profiles[0] != key:
            ordered = self._names or sorted_names(self.people)
            self._profiles = (key, subjects(connection, self.people, known_at, ordered))
        return self._profiles[1]

    def _tombstones(
        self, connection: sa.Connection, secret: Secret, names: NDArray[np.bytes_], table: NDArray[np.bytes_]
    ) -> dict[str, int]:
        """Return who of a table's strangers was erased; the same array is answered from memory."""
        key = (self._erasures, self.people.seq)
        if self._erased is not None and self._erased[0] is table and self._erased[1] == key:
            return self._erased[2]
        strangers = np.setdiff1d(table, names)
        found = tombstones(connection, secret, (name.decode() for name in strangers.tolist()))
        self._erased = (table, key, found)
        return found


def _wanted(names: NDArray[np.bytes_], table: NDArray[np.bytes_]) -> NDArray[np.bool_]:
    return np.isin(names, table)


def _chosen(
    cache: EventCache,
    place: NDArray[np.int64],
    known_at: int,
    upto: int,
    wanted: NDArray[np.bool_] | None,
) -> tuple[dict[str, NDArray[Any]], NDArray[np.int64]]:
    """Return the columns known by then and each event's person; a prefix, since both orders agree."""
    columns = {name: column.array() for name, column in cache.columns.items()}
    known = int(np.searchsorted(columns["recorded"], known_at, side="right"))
    end = min(known, int(np.searchsorted(columns["seq"], upto, side="right")))
    of = cache.subject.array()[:end]
    keep = of >= 0
    subject = place[of] if len(place) else np.empty(len(of), dtype=np.int64)
    if wanted is not None and len(wanted):
        keep = keep & wanted[subject]
    columns = {name: column[:end] for name, column in columns.items()}
    if not keep.all():
        columns = {name: column[keep] for name, column in columns.items()}
        subject = subject[keep]
    return columns, subject


def _consent(
    cache: ConsentCache,
    names: NDArray[np.bytes_],
    place: NDArray[np.int64],
    known_at: int,
    upto: int,
    wanted: NDArray[np.bool_] | None,
) -> ConsentEvents:
    c, subject = _chosen(cache, place, known_at, upto, wanted)
    purposes, to = cache.words["purpose"].sorted()
    return ConsentEvents(
        people=names,
        purposes=purposes,
        subject=subject,
        purpose=to[c["purpose"]],
        action=c["action"],
        explicit=c["explicit"],
        given_by=c["given_by"],
        notice_version=c["notice_version"],
        effective=c["effective"],
        recorded=c["recorded"],
        valid_until=c["valid_until"],
        seq=c["seq"],
        event_id=np.empty(0, dtype="S1"),
    )


def _rights(
    cache: RightsCache,
    names: NDArray[np.bytes_],
    place: NDArray[np.int64],
    known_at: int,
    upto: int,
    wanted: NDArray[np.bool_] | None,
) -> RightsEvents:
    c, subject = _chosen(cache, place, known_at, upto, wanted)
    scopes, to_scope = cache.words["scope"].sorted()
    exceptions, to_exception = cache.words["exception"].sorted()
    return RightsEvents(
        people=names,
        scopes=scopes,
        exceptions=exceptions,
        subject=subject,
        kind=c["kind"],
        scope=to_scope[c["scope"]],
        exception=to_exception[c["exception"]],
        given_by=c["given_by"],
        after_conflict_notice=c["after_conflict_notice"],
        effective=c["effective"],
        recorded=c["recorded"],
        seq=c["seq"],
        event_id=np.empty(0, dtype="S1"),
    )


def with_erasures(rights: RightsEvents, erased: dict[str, int]) -> RightsEvents:
    """Return the events with an erasure request for everybody who was erased and is in the table again."""
    if not erased:
        return rights
    new = np.array([name.encode() for name in erased], dtype=np.bytes_)
    at = np.array(list(erased.values()), dtype=np.int64)
    people = np.union1d(rights.people, new)
    n = len(new)

    def longer(column: NDArray[Any], value: Any) -> NDArray[Any]:
        return np.concatenate((column, np.full(n, value, dtype=column.dtype)))

    old = np.searchsorted(people, rights.people)[rights.subject] if len(rights) else rights.subject
    return replace(
        rights,
        people=people,
        subject=np.concatenate((old, np.searchsorted(people, new))),
        kind=longer(rights.kind, Right.ERASURE_REQUEST),
        scope=longer(rights.scope, NULL),
        exception=longer(rights.exception, NULL),
        given_by=longer(rights.given_by, GivenBy.SUBJECT),
        after_conflict_notice=longer(rights.after_conflict_notice, False),
        effective=np.concatenate((rights.effective, at)),
        recorded=np.concatenate((rights.recorded, at)),
        seq=longer(rights.seq, 0),
    )
