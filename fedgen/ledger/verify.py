"""Check a ledger offline: the file, and at best a public key and a checkpoint that came from elsewhere.

What each can show: the file alone shows every change that does not forge the key inside it; a pinned key shows a
ledger begun anew by somebody else; a checkpoint kept elsewhere shows a file rolled back to an earlier, whole state.
Nothing is repaired and nothing is written.

The hash of an entry covers its signature and everything before it, so in a file where all hashes fit, the last
signature vouches for all. Only where something is wrong is every signature looked at, to say which.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fedgen.errors import Code, FedgenError, IntegrityError
from fedgen.ledger import _database as db
from fedgen.ledger import merkle
from fedgen.ledger.address import place_of
from fedgen.ledger.checkpoint import ENTRY_LABEL, Checkpoint
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
)

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from fedgen.crypto.keys import VerifyKey
    from fedgen.ledger.address import Server

_NAMED_MAX: Final = 100
_SHIFT_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found.

    Attributes:
        entries: Entries in the file.
        problems: What contradicts an honest ledger, each named with its entry; empty if all is well. Names at most
            a hundred and then counts.
        warnings: What an honest ledger can show but a person should know, such as a clock that went backwards.
        origin: Name of the ledger, or None if unreadable.
        public_key: Key that signed it, hex, or None.
        durable: Whether every entry reached the disk before it was acknowledged, or None.
        head: Hash of the last entry, hex, or None.
        root: Root of the Merkle tree over the hashes of all entries, hex, or None.
        unsettled: Reservations that no settlement follows: rounds that crashed or were refused after the charge.
    """

    entries: int
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    origin: str | None = None
    public_key: str | None = None
    durable: bool | None = None
    head: str | None = None
    root: str | None = None
    unsettled: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing contradicts an honest ledger."""
        return not self.problems


@dataclass(slots=True)
class _Findings:
    """What is known after some entries."""

    each: bool = False  # look at every signature, not only at the last
    promised: int = -1  # size at which a checkpoint names a root
    promised_root: bytes | None = None  # the root there
    last: Any = None
    seen: dict[bytes, int] = field(default_factory=dict)  # position by hash, where each is looked at
    frontier: list[bytes] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    count: int = 0
    rows: int = 0
    opened: Opened | None = None
    key: VerifyKey | None = None
    prev: bytes = GENESIS
    shift: int = 0  # how many entries are missing before this one, once renumbering was noticed
    last_time: datetime | None = None
    unsettled: dict[int, Reserved] = field(default_factory=dict)
    later: Callable[[], set[bytes]] = set  # reads all hashes of the file, for a closer look

    def known(self) -> set[bytes]:
        """Return the hashes of all entries of the file, read once and only if something is wrong."""
        hashes = self.later()
        self.later = lambda: hashes
        return hashes


def verify(
    address: str | os.PathLike[str] | Server,
    key: VerifyKey | None = None,
    *,
    checkpoint: Checkpoint | None = None,
) -> Report:
    """Return what a check of the ledger at ``address`` found; never raises for what is inside it.

    Guarantees:
        - Names an entry that was altered, removed, reordered, replayed, or written without the key; a file that was
          truncated, or lengthened behind its head; a first entry that is missing or of another key.
        - An honest ledger, however it was interrupted, has no problems.
        - Reads only, in one snapshot: the file and its folder stay as they are unless a writer is at work.

    Args:
        address: The ledger's file or a copy of it, or its URL.
        key: The key it must be signed with; without it the key inside the file is believed.
        checkpoint: A checkpoint kept elsewhere, which the ledger must still contain.

    Raises:
        ConfigError: There is no ledger there, or its server cannot be reached.
        OSError: The file cannot be read.
    """
    database = db.readable(place_of(address))
    found = _look(database, key, checkpoint, each=False)
    if found.problems:
        found = _look(database, key, checkpoint, each=True)
    return _report(found)


def _look(
    database: db.Database, key: VerifyKey | None, checkpoint: Checkpoint | None, *, each: bool
) -> _Findings:
    """Go through the ledger once, looking at each signature or only at the last."""
    found = _Findings(each=each, key=key, promised=-1 if checkpoint is None else checkpoint.size)
    head: Any = None
    try:
        with db.translated(database):
            connection = database.connect()
            try:
                with connection.begin():
                    _check_shape(found, database.shape(connection))
                    head = connection.execute(db.head_of).first()
                    note = connection.execute(db.note_of).scalar()
                    found.later = lambda: {row.hash for row in db.rows(connection)}
                    for row in db.rows(connection):
                        _check_row(found, row)
            finally:
                connection.close()
    except IntegrityError as error:
        found.problems.append(f"unreadable: {error.what}")
        return found
    _check_end(found, head, note)
    if checkpoint is not None:
        _check_promise(found, checkpoint)
    return found


def read(address: str | os.PathLike[str] | Server) -> Iterator[Recorded]:
    """Yield the entries of a ledger without its key and without checking them; see :func:`verify`.

    Raises:
        ConfigError: There is no ledger there, or its server cannot be reached.
        IntegrityError: The ledger is damaged (code ``ledger``).
    """
    database = db.readable(place_of(address))
    with db.translated(database):
        connection = database.connect()
        try:
            for row in db.rows(connection):
                entry, moment = from_body(row.body)
                yield Recorded(row.idx, moment, row.hash, entry)
        finally:
            connection.close()


def _check_shape(found: _Findings, shape: db.Shape) -> None:
    """Refuse a place that is not two plain tables; a view could answer anything, or never."""
    if shape.found != db.TABLES:
        raise IntegrityError("this is not a ledger", code=Code.LEDGER)
    if not shape.guarded:
        found.warnings.append("unguarded: triggers that refuse changes are missing or others")


def _check_row(found: _Findings, row: Any) -> None:
    """Hold one row against the row before it, its own hash, its signature and its meaning."""
    if row.idx != found.count:
        found.problems.append(f"removed: entries {found.count} to {row.idx - 1} are missing")
        found.count, found.shift = row.idx, 0
    position, digest = row.idx + found.shift, _digest(row, row.idx + found.shift)
    if row.prev != found.prev or row.hash != entry_hash(digest, row.signature):
        position, digest = _diagnose(found, row)
    entry = _meaning(found, row)
    if entry is not None:
        _check_entry(found, row, entry, position)
    if found.each:
        _check_signature(found, row, digest)
        found.seen.setdefault(row.hash, position)
    found.last = (row, digest)
    merkle.push(found.frontier, found.rows, merkle.leaf_hash(row.hash))
    found.rows += 1
    found.count, found.prev = row.idx + 1, row.hash
    if found.count == found.promised:
        found.promised_root = merkle.root_of(found.frontier)


def _digest(row: Any, position: int, prev: bytes | None = None) -> bytes:
    """Return what was signed if the row was written at ``position``."""
    return entry_digest(row.prev if prev is None else prev, position, row.body)


def _diagnose(found: _Findings, row: Any) -> tuple[int, bytes]:
    """Name what is wrong with a row that does not chain; return the position it was written at and its digest."""
    here = row.idx + found.shift
    digest = _digest(row, here, found.prev)
    if row.hash == entry_hash(digest, row.signature):
        found.problems.append(f"altered: the link of entry {row.idx} to the one before it was changed")
        return here, digest
    again = found.seen.get(row.hash)
    if again is not None and row.hash == entry_hash(digest := _digest(row, again), row.signature):
        found.problems.append(f"replayed: entry {row.idx} is entry {again} a second time")
        return again, digest
    for position in range(max(0, row.idx - _SHIFT_MAX), row.idx + _SHIFT_MAX + 1):
        digest = _digest(row, position)
        if row.hash == entry_hash(digest, row.signature):
            return _displaced(found, row, position), digest
    found.problems.append(f"altered: the contents of entry {row.idx} do not match its hash")
    return here, _digest(row, here)


def _displaced(found: _Findings, row: Any, position: int) -> int:
    """Name why an intact row does not stand where it was written."""
    if row.prev != found.prev and row.prev in found.known():
        found.problems.append(
            f"reordered: entry {row.idx} was written at {position}, after another entry than the one before it"
        )
    elif position > row.idx + found.shift:
        missing = position - row.idx - found.shift
        found.problems.append(
            f"removed: {missing} before entry {row.idx} are missing and the rest was renumbered"
        )
        found.shift = position - row.idx
    elif position == row.idx + found.shift:
        found.problems.append(f"removed: what entry {row.idx} follows is missing or was altered")
    else:
        found.problems.append(f"reordered: entry {row.idx} was written at {position}")
    return position


def _check_signature(found: _Findings, row: Any, digest: bytes) -> None:
    """Name an entry that the ledger's key did not sign."""
    if found.key is None:
        return
    try:
        found.key.verify(ENTRY_LABEL, digest, row.signature)
    except (FedgenError, ValueError):
        found.problems.append(f"not signed: entry {row.idx} does not carry a signature of the ledger's key")


def _meaning(found: _Findings, row: Any) -> Entry | None:
    """Return the entry of a row, or name it as unreadable."""
    try:
        entry, time = from_body(row.body)
    except IntegrityError as error:
        found.problems.append(f"unreadable: entry {row.idx} is {error.what}")
        return None
    if found.last_time is not None and time < found.last_time:
        found.warnings.append(f"clock: entry {row.idx} is dated before the one before it; order is by index")
    found.last_time = time
    return entry


def _check_entry(found: _Findings, row: Any, entry: Entry, position: int) -> None:
    """Hold an entry against the ones before it."""
    if (position == 0) != isinstance(entry, Opened):
        found.problems.append(
            f"misplaced: entry {row.idx} is {entry.kind!r}; 'opened' stands first and only there"
        )
    if isinstance(entry, Opened):
        _check_opened(found, entry)
    elif isinstance(entry, Reserved):
        found.unsettled[position] = entry
    elif isinstance(entry, Settled) and found.unsettled.pop(entry.reservation, None) is None:
        found.problems.append(f"unfounded: entry {row.idx} settles a reservation that is not open")


def _check_opened(found: _Findings, entry: Opened) -> None:
    """Take the ledger's own key, or hold it against the pinned one."""
    from fedgen.crypto.keys import VerifyKey

    found.opened = found.opened or entry
    if found.key is None:
        try:
            found.key = VerifyKey(bytes.fromhex(entry.public_key))
        except IntegrityError:
            found.problems.append("unreadable: the ledger's public key is none")
    elif found.key != VerifyKey(bytes.fromhex(entry.public_key)):
        found.problems.append("another key: the ledger was begun with a key other than the pinned one")


def _check_end(found: _Findings, head: Any, note: str | None) -> None:
    """Hold the end of the file against what its head row promises."""
    if found.last is not None and not found.each:
        _check_signature(found, *found.last)
    if found.opened is None:
        found.problems.append("removed: the first entry, which names the ledger and its key, is missing")
    if head is None:
        found.problems.append("removed: the row that promises the head is missing")
        return
    if not db.sound(head):
        found.problems.append("unreadable: the row that promises the head has columns of another type")
    elif head.size > found.count:
        found.problems.append(f"truncated: {head.size} entries are promised, {found.count} are there")
    elif head.size < found.count:
        found.problems.append(f"appended: {found.count} entries are there, {head.size} are promised")
    elif head.head != found.prev:
        found.problems.append("altered: the promised head is not the hash of the last entry")
    if found.opened is not None and note != db.NOTES[found.opened.durable]:
        found.problems.append("altered: the note on durability contradicts the first entry")


def _check_promise(found: _Findings, checkpoint: Checkpoint) -> None:
    """Hold the file against a checkpoint that was kept elsewhere."""
    if found.key is not None:
        try:
            checkpoint.verify(found.key)
        except FedgenError:
            found.problems.append("not signed: the checkpoint does not carry a signature of the ledger's key")
            return
    if found.opened is not None and found.opened.origin != checkpoint.origin:
        found.problems.append("another origin: the checkpoint belongs to another ledger")
    elif checkpoint.size > found.count:
        found.problems.append(
            f"truncated: a checkpoint promises {checkpoint.size} entries, {found.count} are there"
        )
    elif checkpoint.size and found.promised_root != checkpoint.root:
        found.problems.append(
            f"rewritten: the first {checkpoint.size} entries are not those a checkpoint promises"
        )


def _report(found: _Findings) -> Report:
    """Return the findings as a frozen report."""
    problems = found.problems[:_NAMED_MAX]
    if len(found.problems) > _NAMED_MAX:
        problems.append(f"and {len(found.problems) - _NAMED_MAX} more")
    return Report(
        entries=found.count,
        problems=tuple(problems),
        warnings=tuple(found.warnings[:_NAMED_MAX]),
        origin=found.opened.origin if found.opened else None,
        public_key=found.opened.public_key if found.opened else None,
        durable=found.opened.durable if found.opened else None,
        head=found.prev.hex() if found.count else None,
        root=merkle.root_of(found.frontier).hex() if found.count else None,
        unsettled=len(found.unsettled),
    )
