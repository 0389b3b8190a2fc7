"""The ledger of one site: spend first, durably, then draw noise.

A reservation is one transaction under the write lock: the history is read, the budget is asked, the entry is
appended and committed. What was reserved stays charged whatever happens after; :meth:`Ledger.settle` only records
that the round left the site. Two processes on one ledger take turns, so they cannot overspend together; threads on
one open ledger take turns too, and those that wait share one commit. A ledger lies in a file, or in PostgreSQL.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Self

import sqlalchemy as sa

from fedgen.errors import BudgetExhausted, Code, FedgenError, IntegrityError
from fedgen.ledger import _database as db
from fedgen.ledger._chain import begin, catch_up, resume, row_of
from fedgen.ledger._group import Group
from fedgen.ledger._tally import Tally, kept
from fedgen.ledger.address import Server, default_name, place_of
from fedgen.ledger.checkpoint import Checkpoint, Signer, beside
from fedgen.ledger.entries import (
    Admitted,
    Closed,
    Decided,
    Entry,
    Opened,
    Recorded,
    Refused,
    Reserved,
    Settled,
    from_body,
)
from fedgen.privacy.units import Unit

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from fedgen.privacy.budget import Spent
    from fedgen.privacy.events import Counts, Event


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where an entry stands: proof that it was written, and durably if the ledger is durable."""

    index: int
    hash: bytes


class Ledger:
    """An open ledger.

    Guarantees:
        - A :class:`Receipt` is returned only after the entry is committed; on a durable ledger, after the disk has it.
        - If anything fails before that, nothing was spent and nothing was written.
        - Threads that wait on one open ledger share one commit; each still decides on everything before it.
        - Entries are never changed or removed; triggers refuse it, and the hash chain shows it.
        - What another process appended is seen before the next decision; a ledger that was rolled back while open,
          does not chain, or whose head the key did not sign, is refused.
        - One data set is charged per record, per person or per site, and never per two of them.
        - A clock that goes backwards changes nothing: order is by index, and a year ends no earlier.
        - Closing and opening again costs little: totals are kept by head.
    """

    def __init__(
        self,
        database: db.Database,
        opened: Opened,
        signing_key: Signer,
        tally: Tally,
        connection: sa.Connection,
        file: Path | None,
    ) -> None:
        self._database, self._opened, self._key = database, opened, signing_key
        self._file = file
        self._tally = tally
        self._connection: sa.Connection | None = connection
        self._written = 0  # entries of the transaction that is open
        self._closed = False
        self._lock = RLock()
        self._group = Group(self._lock, self._transaction, self._is_lost)

    @classmethod
    def open(
        cls,
        address: str | os.PathLike[str] | Server,
        *,
        origin: str,
        signing_key: Signer,
        durable: bool = True,
    ) -> Self:
        """Open the ledger at ``address``, or begin one.

        Guarantees:
            - A new file may be read by its owner only.
            - The first entry carries origin, public key and whether every commit reaches the disk.
            - No message holds the password of a URL.

        Args:
            address: A file, whose folder must exist; or ``postgresql://user@host/database?ledger=NAME``. Without
                a name the ledger is named after its origin.
            origin: Name of the ledger; must match an existing one's.
            signing_key: Signs every entry; must match an existing one's.
            durable: False skips fsync, for simulations; must match an existing one's.

        Raises:
            IntegrityError: The ledger is damaged, or belongs to another origin, key or kind (code ``ledger``).
            OSError: The file cannot be created or opened.
            LedgerBusy: Another process holds it.
            ConfigError: The URL is none, the server cannot be reached, or it does not wait for its disk and a
                durable ledger was asked for.
            MissingExtra: PostgreSQL's driver is not installed.
        """
        place = place_of(address)
        if isinstance(place, Server) and place.ledger is None:
            place = place.named(default_name(origin))
        wanted = Opened(origin=origin, public_key=signing_key.public.hex(), durable=durable)
        database = db.database_of(place, "durable" if durable else "simulated")
        with db.translated(database):
            new = database.make_room()
            connection = database.connect()
            try:
                with connection.begin():
                    tally = (
                        begin(database, connection, wanted, signing_key, datetime.now(UTC)) if new else None
                    )
                    tally = tally or resume(database, connection, wanted)
            except BaseException:
                connection.close()
                raise
        file = place if isinstance(place, Path) else None
        return cls(database, wanted, signing_key, tally, connection, file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a closed ledger can be opened again."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._drop()
                kept.keep(self._tally)

    @property
    def origin(self) -> str:
        """The ledger's name."""
        return self._opened.origin

    @property
    def durable(self) -> bool:
        """Whether a receipt means that the disk has the entry."""
        return self._opened.durable

    @property
    def head(self) -> Receipt:
        """The last entry, as of now."""
        with self._transaction():
            return Receipt(self._tally.size - 1, self._tally.head)

    def append(self, entry: Entry) -> Receipt:
        """Append an admission, a refusal or a closing.

        Raises:
            ValueError: The entry has its own verb: :meth:`open`, :meth:`decided`, :meth:`reserve`, :meth:`settle`.
            IntegrityError: The file was damaged or rolled back (code ``ledger``).
            OSError: The disk is full or broken.
        """
        if isinstance(entry, (Opened, Reserved, Settled, Decided)):
            raise ValueError(f"a {entry.kind} entry is not appended; it has its own verb")  # noqa: TRY004 -- not a type fault
        return self._group.take(lambda connection: self._write(connection, entry, None, datetime.now(UTC)))

    def note(self, entry: Admitted | Closed | Refused) -> Receipt | None:
        """Append an admission, a closing or a refusal, unless it is no news; whoever repeats a message adds nothing.

        Guarantees:
            - The same admission or closing of a run is written once between two of its rounds.
            - An attempt is refused once, and one that is over, or before one that was refused, not at all.

        Returns:
            Where it stands, or None if nothing was written.

        Raises:
            IntegrityError: The ledger was damaged or rolled back (code ``ledger``).
            OSError: The disk is full or broken.
        """

        def act(connection: sa.Connection) -> Receipt | None:
            if not self._tally.is_news(entry):
                return None
            return self._write(connection, entry, None, datetime.now(UTC))

        return self._group.take(act)

    def decided(self, entry: Decided) -> Receipt | None:
        """Append what was decided on a site's rows, once for each attempt and check; again adds nothing.

        Returns:
            Where it stands, or None if it was said before.

        Raises:
            IntegrityError: The ledger was damaged or rolled back (code ``ledger``).
            OSError: The disk is full or broken.
        """
        once = f"decided {entry.study_hash} {entry.run} {entry.round} {entry.attempt} {entry.check}"

        def act(connection: sa.Connection) -> Receipt | None:
            if connection.execute(db.said_before, {"once": once}).first():
                return None
            return self._write(connection, entry, once, datetime.now(UTC))

        return self._group.take(act)

    def reserve(
        self,
        dataset: str,
        study_hash: str,
        run: str,
        round: int,  # noqa: A002 -- the word of every message and entry
        attempt: int,
        event: Event,
        count: int,
        *,
        check: Callable[[Spent], object],
        unit: str = Unit.RECORD.value,
    ) -> Receipt:
        """Charge one round before its noise is drawn.

        Guarantees:
            - ``check`` sees everything reserved on the data set, by whatever study and process, and nothing can be
              added between its answer and the entry.
            - If ``check`` raises, nothing is written.
            - If the data set was charged per another unit before, nothing is written.
            - The same (study, run, round, attempt) is charged at most once; a new attempt is charged again.

        Args:
            dataset: Identity of the data set, for its whole life.
            study_hash: Hash of the resolved study, hex.
            run: Identity of the run, hex.
            round: One-based.
            attempt: One-based.
            event: What one step will do.
            count: How many steps.
            check: Raises if the budget does not allow it, e.g. ``lambda spent: decide(spent, request, ceilings)``;
                may run in another thread that waits on this ledger.
            unit: What the event protects as a whole: ``record``, ``person`` or ``site``.

        Raises:
            IntegrityError: ``replayed`` if it was reserved before; ``ledger`` if the ledger is damaged.
            BudgetExhausted: The data set was charged per another unit before, and the two do not compose.
            OSError: The disk is full or broken; nothing was spent.
            LedgerBusy: Another process holds the ledger; nothing was spent.
            LedgerUnreachable: The server is gone. Nothing was acknowledged; if the commit was on its way, the
                round counts, and asking again says ``replayed``.
        """
        entry = Reserved(dataset, study_hash, run, round, attempt, event, count, unit)
        once = f"reserved {study_hash} {run} {round} {attempt}"

        def act(connection: sa.Connection) -> Receipt:
            now = datetime.now(UTC)
            try:
                self._check_unit(dataset, unit)
                check(self._tally.spent(dataset, study_hash, now))
            except BudgetExhausted:
                # A replay is a replay even when nothing is left to spend.
                if connection.execute(db.said_before, {"once": once}).first():
                    raise db.replayed(self._database) from None
                raise
            return self._write(connection, entry, once, now)

        return self._group.take(act)

    def settle(self, receipt: Receipt, digest: str) -> Receipt:
        """Record that a reserved round left the site; inverse of :meth:`reserve` in the books only.

        Args:
            receipt: What :meth:`reserve` returned.
            digest: SHA-256 of the bytes that left, hex.

        Raises:
            IntegrityError: ``replayed`` if it was settled before; ``ledger`` if there is no such reservation.
        """

        def act(connection: sa.Connection) -> Receipt:
            reserved = self._tally.unsettled.get(receipt.index)
            once = f"settled {receipt.index}"
            if reserved is None:
                if connection.execute(db.said_before, {"once": once}).first():
                    raise db.replayed(self._database)
                raise IntegrityError("no such reservation", code=Code.LEDGER, where=str(self._database))
            entry = Settled(receipt.index, reserved.round, reserved.attempt, digest)
            return self._write(connection, entry, once, datetime.now(UTC))

        return self._group.take(act)

    def spent(self, dataset: str, study_hash: str | None = None) -> Counts:
        """Return every event reserved on ``dataset``, settled or not, with its total count.

        Args:
            dataset: Identity of the data set.
            study_hash: Count one study only.
        """
        with self._transaction():
            spent = self._tally.spent(dataset, study_hash, datetime.now(UTC))
        return spent.data if study_hash is None else spent.study

    def last_round(self, study_hash: str, run: str | None = None) -> int:
        """Return the latest reserved round of a study, or of one run of it; 0 if there is none."""
        return self.last_attempt(study_hash, run)[0]

    def last_attempt(self, study_hash: str, run: str | None = None) -> tuple[int, int]:
        """Return the latest reserved round and its latest attempt; zeros if there is none."""
        with self._transaction():
            return self._tally.last(study_hash, run)

    def entries(self, first: int = 0) -> Iterator[Recorded]:
        """Yield the entries from ``first`` on, in order, in bounded memory."""
        while True:
            with self._transaction() as connection:
                page = list(islice(db.rows(connection, first), db.PAGE))
            for row in page:
                entry, moment = from_body(row.body)
                yield Recorded(row.idx, moment, row.hash, entry)
            if len(page) < db.PAGE:
                return
            first = page[-1].idx + 1

    def checkpoint(self) -> Checkpoint:
        """Return the signed size and root, to be kept elsewhere: it shows a later rollback of the ledger."""
        with self._transaction():
            return Checkpoint.signed(self.origin, self._tally.size, self._tally.root, self._key)

    def keep_checkpoint(self, path: Path | None = None) -> Path | None:
        """Write a checkpoint to a file, whole or not at all, and return where.

        Guarantees:
            - The file never promises an entry that was not committed: whatever stops the process, an honest ledger
              holds at least what its checkpoint says.

        Args:
            path: The file; without it, one named like a ledger's file with ``.checkpoint`` at the end. A ledger on a
                server has none, and None is returned.

        Raises:
            OSError: It cannot be written; the ledger is as it was.
        """
        place = path or (None if self._file is None else beside(self._file))
        if place is not None:
            self.checkpoint().write(place, durable=self.durable)
        return place

    def _check_unit(self, dataset: str, unit: str) -> None:
        """Refuse to charge a data set per another unit than before: two units do not add up to one ε."""
        others = self._tally.units.get(dataset, set()) - {unit}
        if others:
            raise BudgetExhausted(
                f"this data set was charged per {' and per '.join(sorted(others))} before, and a charge per {unit} "
                "does not compose with that",
                where=str(self._database),
                hint=f"set privacy.unit to {min(others)} in the study; another ledger gives nothing back",
            )

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """Hold the write lock with a tally that is true, and commit at the end."""
        with self._lock, db.translated(self._database):
            connection = self._connected()
            self._written = 0
            try:
                with self._database.transaction(connection) as head:
                    catch_up(self._database, connection, head, self._tally, self._key)
                    yield connection
            except BaseException as error:
                if self._written:  # what was counted was not committed; the ledger is counted again
                    self._tally = Tally()
                if not isinstance(error, FedgenError) or self._is_lost(error):
                    # A fresh connection knows no half-finished transaction.
                    self._drop()
                raise

    def _connected(self) -> sa.Connection:
        """Return the connection, opened anew if a fault closed it."""
        if self._closed:
            raise ValueError("the ledger is closed")
        if self._connection is None:
            self._connection = self._database.connect()
        return self._connection

    def _write(self, connection: sa.Connection, entry: Entry, once: str | None, now: datetime) -> Receipt:
        """Append ``entry`` at the head."""
        row = row_of(entry, now, self._tally.size, self._tally.head, self._key)
        with db.translated(self._database):
            self._database.append(connection, row, once)
        self._written += 1
        self._tally.add(row["idx"], row["hash"], entry, now)
        return Receipt(row["idx"], row["hash"])

    def _is_lost(self, error: BaseException) -> bool:
        """Return whether an error came from the database and takes the open transaction with it."""
        is_replay = isinstance(error, IntegrityError) and error.code is Code.REPLAYED
        return isinstance(error.__cause__, (*self._database.faults, sa.exc.DBAPIError)) and not is_replay

    def _drop(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
