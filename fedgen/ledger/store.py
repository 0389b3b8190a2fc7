"""The ledger of one site: spend first, durably, then draw noise.

A reservation is one transaction under the write lock: the history is read, the budget is asked, the entry is
appended and committed. What was reserved stays charged whatever happens after; :meth:`Ledger.settle` only records
that the round left the site. Two processes on one file take turns, so they cannot overspend together; threads on one
ledger take turns too, and those that wait share one commit.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa

from fedgen.crypto.keys import VerifyKey
from fedgen.errors import BudgetExhausted, Code, FedgenError, IntegrityError
from fedgen.ledger import _database as db
from fedgen.ledger._group import Group
from fedgen.ledger._tally import Tally, kept
from fedgen.ledger.checkpoint import ENTRY_LABEL, Checkpoint, Signer
from fedgen.ledger.entries import (
    GENESIS,
    Entry,
    Opened,
    Recorded,
    Reserved,
    Settled,
    entry_digest,
    entry_hash,
    from_body,
    to_body,
)

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
        - Entries are never changed or removed; triggers in the file refuse it, and the hash chain shows it.
        - What another process appended is seen before the next decision; a file that was rolled back while open,
          does not chain, or whose head the key did not sign, is refused.
        - A clock that goes backwards changes nothing: order is by index.
        - Closing and opening again costs little: totals are kept by head.
    """

    def __init__(
        self, path: Path, opened: Opened, signing_key: Signer, tally: Tally, connection: sa.Connection
    ) -> None:
        self._path, self._opened, self._key = path, opened, signing_key
        self._tally = tally
        self._connection: sa.Connection | None = connection
        self._written = 0  # entries of the transaction that is open
        self._closed = False
        self._lock = RLock()
        self._group = Group(self._lock, self._transaction, _lost)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, origin: str, signing_key: Signer, durable: bool = True
    ) -> Self:
        """Open the ledger at ``path``, or begin one.

        Guarantees:
            - A new file may be read by its owner only.
            - The first entry carries origin, public key and whether every commit reaches the disk.

        Args:
            path: The file; its folder must exist.
            origin: Name of the ledger; must match an existing file's.
            signing_key: Signs every entry; must match an existing file's.
            durable: False skips fsync, for simulations; must match an existing file's.

        Raises:
            IntegrityError: The file is damaged, or belongs to another origin, key or kind (code ``ledger``).
            OSError: The file cannot be created or opened.
            LedgerBusy: Another process holds it.
        """
        place = Path(path)
        wanted = Opened(origin=origin, public_key=signing_key.public.hex(), durable=durable)
        with db.translated(place):
            new = db.touch(place)
            connection = db.connect(place, "durable" if durable else "simulated")
            try:
                with connection.begin():
                    tally = _begin(connection, wanted, signing_key) if new else None
                    tally = tally or _resume(connection, wanted, place)
            except BaseException:
                connection.close()
                raise
        return cls(place, wanted, signing_key, tally, connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a closed ledger can be opened again."""
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
            ValueError: The entry has its own verb: :meth:`open`, :meth:`reserve`, :meth:`settle`.
            IntegrityError: The file was damaged or rolled back (code ``ledger``).
            OSError: The disk is full or broken.
        """
        if isinstance(entry, (Opened, Reserved, Settled)):
            raise ValueError(f"a {entry.kind} entry is not appended; it has its own verb")  # noqa: TRY004 -- not a type fault
        return self._group.take(lambda connection: self._write(connection, entry, None))

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
    ) -> Receipt:
        """Charge one round before its noise is drawn.

        Guarantees:
            - ``check`` sees everything reserved on the data set, by whatever study and process, and nothing can be
              added between its answer and the entry.
            - If ``check`` raises, nothing is written.
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

        Raises:
            IntegrityError: ``replayed`` if it was reserved before; ``ledger`` if the file is damaged.
            OSError: The disk is full or broken; nothing was spent.
            LedgerBusy: Another process holds the file; nothing was spent.
        """
        entry = Reserved(dataset, study_hash, run, round, attempt, event, count)
        once = f"reserved {study_hash} {run} {round} {attempt}"

        def act(connection: sa.Connection) -> Receipt:
            try:
                check(self._tally.spent(dataset, study_hash))
            except BudgetExhausted:
                # A replay is a replay even when nothing is left to spend.
                if connection.execute(db.said_before, {"once": once}).first():
                    raise IntegrityError(
                        "this was reserved or settled before", code=Code.REPLAYED, where=self._path
                    ) from None
                raise
            return self._write(connection, entry, once)

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
                again = connection.execute(db.said_before, {"once": once}).first()
                raise IntegrityError(
                    "this was reserved or settled before" if again else "no such reservation",
                    code=Code.REPLAYED if again else Code.LEDGER,
                    where=self._path,
                )
            return self._write(
                connection, Settled(receipt.index, reserved.round, reserved.attempt, digest), once
            )

        return self._group.take(act)

    def spent(self, dataset: str, study_hash: str | None = None) -> Counts:
        """Return every event reserved on ``dataset``, settled or not, with its total count.

        Args:
            dataset: Identity of the data set.
            study_hash: Count one study only.
        """
        with self._transaction():
            spent = self._tally.spent(dataset, study_hash)
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
        """Return the signed size and root, to be kept elsewhere: it shows a later rollback of the file."""
        with self._transaction():
            return Checkpoint.signed(self.origin, self._tally.size, self._tally.root, self._key)

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        """Hold the write lock with a tally that is true, and commit at the end."""
        with self._lock, db.translated(self._path):
            connection = self._connected()
            self._written = 0
            try:
                with db.transaction(connection):
                    _catch_up(connection, self._tally, self._path, self._key)
                    yield connection
            except BaseException as error:
                if self._written:  # what was counted was not committed; the file is counted again
                    self._tally = Tally()
                if not isinstance(error, FedgenError) or _lost(error):
                    # A fresh connection knows no half-finished transaction.
                    self._drop()
                raise

    def _connected(self) -> sa.Connection:
        """Return the connection, opened anew if a fault closed it."""
        if self._closed:
            raise ValueError("the ledger is closed")
        if self._connection is None:
            self._connection = db.connect(self._path, "durable" if self.durable else "simulated")
        return self._connection

    def _write(self, connection: sa.Connection, entry: Entry, once: str | None) -> Receipt:
        """Append ``entry`` at the head."""
        row = _row(entry, self._tally.size, self._tally.head, self._key)
        with db.translated(self._path):
            db.append(connection, row, once)
        self._written += 1
        self._tally.add(row["idx"], row["hash"], entry)
        return Receipt(row["idx"], row["hash"])

    def _drop(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _row(entry: Entry, index: int, prev: bytes, key: Signer) -> dict[str, Any]:
    """Return the row of ``entry`` at ``index``, signed."""
    body = to_body(entry, datetime.now(UTC))
    digest = entry_digest(prev, index, body)
    signature = key.sign(ENTRY_LABEL, digest)
    own = entry_hash(digest, signature)
    return {"idx": index, "prev": prev, "body": body, "hash": own, "signature": signature}


def _begin(connection: sa.Connection, wanted: Opened, key: Signer) -> Tally | None:
    """Write the first entry, unless another process was faster."""
    if connection.dialect.has_table(connection, "meta"):
        return None
    db.create(connection, durable=wanted.durable, genesis=GENESIS)
    row = _row(wanted, 0, GENESIS, key)
    db.append(connection, row, "opened")
    tally = Tally()
    tally.add(0, row["hash"], wanted)
    return tally


def _resume(connection: sa.Connection, wanted: Opened, path: Path) -> Tally:
    """Check that the ledger is the one meant; its totals are those kept, or read when first needed."""
    head = connection.execute(db.head_of).first()
    first = connection.execute(db.rows_from, {"first": 0, "most": 1}).first()
    if not (head and db.sound(head) and first and db.sound(first) and _follows(first, Tally())):
        raise _damaged("the ledger does not begin as one", path)
    opened, _ = from_body(first.body)
    if not isinstance(opened, Opened) or opened.origin != wanted.origin:
        raise IntegrityError("the ledger has another origin", code=Code.LEDGER, where=path)
    if opened.public_key != wanted.public_key:
        raise IntegrityError("the ledger was begun with another key", code=Code.LEDGER, where=path)
    if opened.durable != wanted.durable:
        is_, is_not = db.NOTES[opened.durable], db.NOTES[wanted.durable]
        raise IntegrityError(
            f"the ledger is '{is_}', not '{is_not}'", code=Code.LEDGER, where=path, hint="use another file"
        )
    return kept.take(head.head) or Tally()


def _catch_up(connection: sa.Connection, tally: Tally, path: Path, key: Signer) -> None:
    """Count what others appended since; refuse a file that was rolled back, does not chain, or is not ours."""
    head = db.head(connection)
    if head is None or not db.sound(head):
        raise _damaged("the row that promises the head is missing", path)
    if (tally.size, tally.head) == (head.size, head.head):
        return
    last: Any = None
    if tally.size < head.size:
        for last in db.rows(connection, tally.size):
            if not _follows(last, tally):
                raise _damaged(f"the ledger does not chain at entry {tally.size}", path)
            tally.add(last.idx, last.hash, from_body(last.body)[0])
    if last is None or (tally.size, tally.head) != (head.size, head.head):
        raise _damaged("the ledger was rolled back or replaced while it was open", path)
    # One signature is enough: it covers every byte before it, the signatures too.
    digest = entry_digest(last.prev, last.idx, last.body)
    VerifyKey(key.public).verify(ENTRY_LABEL, digest, last.signature)


def _follows(row: Any, tally: Tally) -> bool:
    """Return whether ``row`` is the entry after the last one counted."""
    if (row.idx, row.prev) != (tally.size, tally.head):
        return False
    return bool(row.hash == entry_hash(entry_digest(row.prev, row.idx, row.body), row.signature))


def _lost(error: BaseException) -> bool:
    """Return whether an error came from the file and takes the open transaction with it."""
    replayed = isinstance(error, IntegrityError) and error.code is Code.REPLAYED
    return isinstance(error.__cause__, (sqlite3.Error, sa.exc.DBAPIError)) and not replayed


def _damaged(what: str, path: Path) -> IntegrityError:
    """Return the error of a ledger that must not be used any more."""
    return IntegrityError(what, code=Code.LEDGER, where=path, hint="run: fedgen ledger verify")
