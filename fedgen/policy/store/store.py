"""The consent store of a site: what people said, when it holds and when it was learned, and nothing taken back."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from fedgen.errors import Code, ConfigError, DataError, IntegrityError
from fedgen.policy.store import chain
from fedgen.policy.store.database import Database, driver_rows, insert_many
from fedgen.policy.store.events import ConsentSaid, RightSaid, microseconds_of
from fedgen.policy.store.evidence import next_number
from fedgen.policy.store.persons import Persons
from fedgen.policy.store.profiles import records
from fedgen.policy.store.secret import Secret
from fedgen.policy.store.taking import Taken, take
from fedgen.policy.store.view import AsKnown, Cache

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable
    from threading import RLock

    import numpy as np
    import sqlalchemy as sa
    from numpy.typing import NDArray

    from fedgen.policy.columns import Records

TRUST: Final = timedelta(minutes=5)  # how far the clock may be behind what the store has recorded
_LOGS: Final = {"consent": "consent_event", "rights": "rights_event"}
_ASKED_AT_ONCE: Final = 500
STALE: Final = timedelta(minutes=15)

# A file that is imported again under its name, mended, takes the place of the faulty one.
_DOUBTFUL: Final = (
    "SELECT job FROM import_job AS faulty WHERE quarantined > 0 AND settled_at IS NULL AND finished_at IS NOT NULL "
    "AND NOT EXISTS (SELECT 1 FROM import_job AS mended WHERE mended.source = faulty.source "
    "AND mended.finished_at >= faulty.finished_at AND (mended.quarantined = 0 OR mended.settled_at IS NOT NULL)) "
    "LIMIT 1"
)


class ConsentStore(Persons):
    """An open consent store.

    Guarantees:
        - ``recorded_at`` is set here: no sender can say it, and it never goes back, whatever the clock does.
        - An event is added once, however often it is sent; another event under its id is refused.
        - Events are never changed or removed; triggers refuse it, and the chain shows it.
        - What a write reports is on the disk (SQLite: WAL with full synchronisation).
        - After :meth:`erase` nobody can compute the person's pseudonym again, and no import brings the person back.
        - :meth:`columns` reads each event once per process; a store that was rolled back meanwhile is refused.
    """

    def __init__(self, database: Database, secret: Secret, clock: Callable[[], datetime]) -> None:
        super().__init__(database, secret)
        self._clock, self._cache = clock, Cache()

    @classmethod
    def open(
        cls,
        address: str | os.PathLike[str],
        *,
        key: str | os.PathLike[str] | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> Self:
        """Open the store at ``address``, or begin one.

        Args:
            address: A path, ``sqlite:///path`` or ``postgresql://user@host/database``.
            key: The file of the store's secret, mode 0600; beside a SQLite file if left out. A new store makes it.
            clock: Gives the time, with a zone; the machine's if left out. A simulation has its own.

        Raises:
            ConfigError: The address, the key file or a file's mode is wrong.
            IntegrityError: The file is damaged, or the key is another store's.
            OSError: The disk or the server cannot be reached.
            StoreBusy: Another process holds the store.
        """
        database = Database(address)
        try:
            secret = _secret(database, None if key is None else Path(key))
        except BaseException:
            database.close()
            raise
        return cls(database, secret, clock or (lambda: datetime.now(UTC)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database; nothing is lost, since nothing waits to be written."""
        self._db.close()

    @property
    def database(self) -> Database:
        """The open database, for the modules of this package."""
        return self._db

    @property
    def secret(self) -> Secret:
        """The store's secret, for the modules of this package."""
        return self._secret

    @property
    def lock(self) -> RLock:
        """Held by whoever writes or reads columns in this process."""
        return self._lock

    def mark_synced(self, connection: sa.Connection, source: str) -> None:
        """As :meth:`synced`, inside the caller's transaction."""
        mark_synced(connection, self.now(), source)

    @property
    def name(self) -> str:
        """Where the store is, without user and password."""
        return self._db.name

    def now(self) -> int:
        """Return the store's time, microseconds since 1970."""
        return microseconds_of(self._clock(), "clock")

    # -- what people say ---------------------------------------------------------------------------------------------

    def record(self, *events: ConsentSaid | RightSaid, source: str = "api") -> Taken:
        """Add events, all or none, in one batch.

        Edge cases:
            ==================================  =============================
            an event that is there already      counted as repeated
            a person under a tombstone          counted as suppressed
            no events                           nothing happens
            ==================================  =============================

        Raises:
            DataError: A field is wrong, or an id stands for another event; nothing was added.
            StoreBusy: Another process holds the store.
        """
        now = self.now()
        consent = [event.said(now) for event in events if isinstance(event, ConsentSaid)]
        rights = [event.said(now) for event in events if isinstance(event, RightSaid)]
        with self._lock, self._db.writing() as connection:
            taken = self.take(connection, source, consent, rights)
            if taken.conflicts:
                hint = "send it under an id of its own"
                raise DataError("the id stands for another event", where=source, key="event_id", hint=hint)
        return taken

    def withdraw(
        self,
        subject_id: str,
        purpose: str,
        *,
        at: datetime | None = None,
        event_id: str | None = None,
        **more: Any,
    ) -> Taken:
        """Withdraw a person's consent for ``purpose`` (``"*"``: for every purpose), from now on.

        Args:
            subject_id: The person.
            purpose: Compared exactly.
            at: From when, by the person's account; now if left out.
            event_id: For senders that may repeat themselves.
            **more: Other fields of :class:`~fedgen.policy.store.events.ConsentSaid`.

        Raises:
            DataError: As :meth:`record`.
        """
        named: dict[str, Any] = {} if event_id is None else {"event_id": event_id}
        said = ConsentSaid(
            subject_id=subject_id,
            purpose=purpose,
            action="withdrawn",
            effective_at=at or self._clock(),
            **named,
            **more,
        )
        return self.record(said)

    def take(
        self,
        connection: sa.Connection,
        source: str,
        consent: list[tuple[Any, ...]],
        rights: list[tuple[Any, ...]],
    ) -> Taken:
        """Add judged rows inside the caller's transaction, later than anything that was asked about."""
        return take(connection, self._secret, max(self.now(), self._asked + 1), source, consent, rights)

    # -- where the store stands --------------------------------------------------------------------------------------

    def head(self) -> chain.Head:
        """Return where the store stands; keep it elsewhere and give it to :meth:`extends` later."""
        with self._db.reading() as connection:
            return chain.head(connection)

    def extends(self, seen: chain.Head) -> bool:
        """Return whether the store goes on from ``seen``; False is ``STORE_ROLLBACK``."""
        with self._db.reading() as connection:
            return chain.extends(connection, seen)

    def verify(self) -> chain.Head:
        """Recompute the whole chain and return its head.

        Raises:
            IntegrityError: An event was changed, added or removed behind the store's back.
        """
        with self._db.reading() as connection:
            return chain.verify(connection)

    def synced(self, source: str) -> None:
        """Say that everything ``source`` knows by now is in the store, even if that was nothing new."""
        with self._db.writing() as connection:
            mark_synced(connection, self.now(), source)

    def last_sync(self) -> datetime | None:
        """Return when the store was last known to be up to date; None if never."""
        with self._db.reading() as connection:
            at = driver_rows(connection, "SELECT max(synced_at) FROM sync", ())[0][0]
        return None if at is None else datetime.fromtimestamp(at / 1e6, UTC)

    def trouble(self, *, seen: chain.Head | None = None, stale_after: timedelta = STALE) -> str | None:
        """Return why nobody may be used now, as a reason code, or None.

        ``STORE_ROLLBACK``: the store does not go on from ``seen``. ``CLOCK_UNTRUSTED``: the clock is more than five
        minutes behind the last event, or a sync is as far ahead. ``CONSENT_STORE_STALE``: the last sync is older than
        the pack allows, or there was none; or an import kept rows out, and it was neither settled nor was the file
        imported mended: any of them may be a withdrawal, whatever was synced since from elsewhere.
        """
        with self._db.reading() as connection:
            if seen is not None and not chain.extends(connection, seen):
                return "STORE_ROLLBACK"
            last = chain.head(connection)
            sync = driver_rows(connection, "SELECT max(synced_at) FROM sync", ())[0][0]
            doubtful = driver_rows(connection, _DOUBTFUL, ())
        now, trust = self.now(), TRUST // timedelta(microseconds=1)
        if max(last.recorded_at, sync or 0) > now + trust:
            return "CLOCK_UNTRUSTED"
        if doubtful or sync is None or now - sync > stale_after // timedelta(microseconds=1):
            return "CONSENT_STORE_STALE"
        return None

    # -- what the engine reads ---------------------------------------------------------------------------------------

    def columns(
        self,
        known_at: int | datetime | None = None,
        *,
        subjects: NDArray[np.bytes_] | None = None,
        upto: chain.Head | None = None,
    ) -> AsKnown:
        """Return events and people as known at ``known_at``, for the engine to fold.

        Guarantees:
            - Only what was written since the last call is read from the database.
            - What is recorded later never shows in an answer for the same ``known_at`` and ``upto``.
            - The order in which events came never shows but in ``recorded`` and ``seq``.

        Edge cases:
            ===============================  =========================================================
            a person who was erased          no events; with ``subjects``, an erasure request
            an empty store                   empty columns
            ===============================  =========================================================

        Args:
            known_at: K of the semantics. Left out, all that is known: now, or the last record time if the clock went
                back behind it. The answer says which; a request is to be made with that K.
            subjects: The people of a table, shape ``(n,)``, bytes; only their events are given. Not changed afterwards.
            upto: The head at the time, to replay a round exactly.

        Raises:
            IntegrityError: The store was rolled back since the last call.
        """
        at = microseconds_of(known_at, "known_at") if isinstance(known_at, datetime) else known_at
        with self._lock, self._db.reading() as connection:
            now = self._present(connection)
            view = self._cache.view(connection, self._secret, now if at is None else at, subjects, upto)
            self._asked = max(self._asked, min(view.known_at, now))
        return view

    def event_ids(self, kind: Literal["consent", "rights"], seqs: Iterable[int]) -> dict[int, str]:
        """Return identifiers of events by their place ``seq``, for an explanation; a place nobody has is left out.

        ``columns()`` leaves them out: a decision never needs them, and ten million of them are most of the store.

        Args:
            kind: Which of the two logs the places are of.
            seqs: As in the ``seq`` of the columns.

        Raises:
            ValueError: ``kind`` is neither.
        """
        if kind not in _LOGS:
            raise ValueError(f"kind must be consent or rights, not {kind!r}")
        wanted = sorted({int(seq) for seq in seqs})
        found: dict[int, str] = {}
        with self._db.reading() as connection:
            for first in range(0, len(wanted), _ASKED_AT_ONCE):
                page = wanted[first : first + _ASKED_AT_ONCE]
                query = f"SELECT seq, event_id FROM {_LOGS[kind]} WHERE seq IN ({', '.join('?' * len(page))})"  # noqa: S608 -- names are constants
                found |= dict(driver_rows(connection, query, tuple(page)))
        return found

    def _present(self, connection: sa.Connection) -> int:
        """Return the present: now, or the last thing that was learned where the clock went back behind it.

        Else a withdrawal that came after the clock went back would not be known until the clock has caught up.
        """
        last = chain.head(connection).recorded_at
        for table in ("subject_profile", "record_meta"):
            query = f"SELECT recorded_at FROM {table} ORDER BY seq DESC LIMIT 1"  # noqa: S608 -- names are constants
            last = max(last, *(row[0] for row in driver_rows(connection, query, ())), 0)
        return max(self.now(), last)

    def records(self, known_at: int | None = None) -> tuple[tuple[str, ...], Records]:
        """Return identifiers of records and their columns, as known at ``known_at``."""
        with self._lock, self._db.reading() as connection:
            self._cache.refresh(connection)
            at = self._present(connection) if known_at is None else known_at
            return records(connection, self._cache.people, at)


def mark_synced(connection: sa.Connection, at: int, source: str) -> None:
    """Write down that the store is up to date with ``source``."""
    insert_many(
        connection, "sync", ("seq", "synced_at", "source"), [(next_number(connection, "sync"), at, source)]
    )


def _secret(database: Database, key: Path | None) -> Secret:
    """Return the store's secret; a new store makes one and remembers how to tell it from another.

    Raises:
        ConfigError: A store in PostgreSQL needs to be told the file.
        IntegrityError: The key is another store's.
    """
    if key is None:
        if database.path is None:
            hint = "give key=, a file outside the database and its backups"
            raise ConfigError(
                "a consent store in PostgreSQL needs a key file", where=database.name, hint=hint
            )
        key = database.path.with_name(database.path.name + ".key")
    with database.reading() as connection:
        known = driver_rows(connection, "SELECT key_check FROM store_meta WHERE id = 1", ())
    secret = Secret.load(key, create=not known)
    if not known:
        with database.writing() as connection:
            known = driver_rows(connection, "SELECT key_check FROM store_meta WHERE id = 1", ())
            if not known:
                row = (1, secrets.token_hex(16), secret.check())
                insert_many(connection, "store_meta", ("id", "store_uid", "key_check"), [row])
                known = [(secret.check(),)]
    if known[0][0] != secret.check():
        raise IntegrityError(
            "the key is another store's", code=Code.STORAGE, where=key, hint="give the store's own"
        )
    return secret
