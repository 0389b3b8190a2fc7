"""How an entry becomes a row, and how rows become a tally: each must follow the one before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedgen.crypto.keys import VerifyKey
from fedgen.errors import Code, IntegrityError
from fedgen.ledger import _database as db
from fedgen.ledger._tally import Tally, kept
from fedgen.ledger.checkpoint import ENTRY_LABEL, Signer
from fedgen.ledger.entries import GENESIS, Entry, Opened, entry_digest, entry_hash, from_body, to_body

if TYPE_CHECKING:
    from datetime import datetime

    import sqlalchemy as sa


def row_of(entry: Entry, now: datetime, index: int, prev: bytes, key: Signer) -> dict[str, Any]:
    """Return the row of ``entry`` at ``index``, signed."""
    body = to_body(entry, now)
    digest = entry_digest(prev, index, body)
    signature = key.sign(ENTRY_LABEL, digest)
    own = entry_hash(digest, signature)
    return {"idx": index, "prev": prev, "body": body, "hash": own, "signature": signature}


def begin(
    database: db.Database, connection: sa.Connection, wanted: Opened, key: Signer, now: datetime
) -> Tally | None:
    """Write the first entry, unless another process was faster."""
    if database.is_begun(connection):
        return None
    database.create(connection, durable=wanted.durable, genesis=GENESIS)
    row = row_of(wanted, now, 0, GENESIS, key)
    database.append(connection, row, "opened")
    tally = Tally()
    tally.add(0, row["hash"], wanted, now)
    return tally


def resume(database: db.Database, connection: sa.Connection, wanted: Opened) -> Tally:
    """Check that the ledger is the one meant; its totals are those kept, or read when first needed."""
    head = connection.execute(db.head_of).first()
    first = connection.execute(db.rows_from, {"first": 0, "most": 1}).first()
    if not (head and db.sound(head) and first and db.sound(first) and _follows(first, Tally())):
        raise db.damaged(database, "the ledger does not begin as one")
    opened, _ = from_body(first.body)
    where = str(database)
    if not isinstance(opened, Opened) or opened.origin != wanted.origin:
        raise IntegrityError("the ledger has another origin", code=Code.LEDGER, where=where)
    if opened.public_key != wanted.public_key:
        raise IntegrityError("the ledger was begun with another key", code=Code.LEDGER, where=where)
    if opened.durable != wanted.durable:
        is_, is_not = db.NOTES[opened.durable], db.NOTES[wanted.durable]
        raise IntegrityError(
            f"the ledger is '{is_}', not '{is_not}'", code=Code.LEDGER, where=where, hint="use another ledger"
        )
    return kept.take(head.head) or Tally()


def catch_up(
    database: db.Database, connection: sa.Connection, head: db.Head | None, tally: Tally, key: Signer
) -> None:
    """Count what others appended since; refuse a ledger that was rolled back, does not chain, or is not ours."""
    if head is None or not db.sound(head):
        raise db.damaged(database, "the row that promises the head is missing")
    if (tally.size, tally.head) == (head.size, head.head):
        return
    last: Any = None
    if tally.size < head.size:
        for last in db.rows(connection, tally.size):
            if not _follows(last, tally):
                raise db.damaged(database, f"the ledger does not chain at entry {tally.size}")
            tally.add(last.idx, last.hash, *from_body(last.body))
    if last is None or (tally.size, tally.head) != (head.size, head.head):
        raise db.damaged(database, "the ledger was rolled back or replaced while it was open")
    # One signature is enough: it covers every byte before it, the signatures too.
    digest = entry_digest(last.prev, last.idx, last.body)
    VerifyKey(key.public).verify(ENTRY_LABEL, digest, last.signature)


def _follows(row: Any, tally: Tally) -> bool:
    """Return whether ``row`` is the entry after the last one counted."""
    if (row.idx, row.prev) != (tally.size, tally.head):
        return False
    return bool(row.hash == entry_hash(entry_digest(row.prev, row.idx, row.body), row.signature))
