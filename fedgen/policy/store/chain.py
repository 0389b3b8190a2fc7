"""The chain of batches: what was said, in the order in which the store learned it, and a head that only goes on.

Every write is one batch with one ``recorded_at``, later than any before it. Its digest covers its events and the digest
before it::

    digest = SHA-256( prev ‖ JSON [no, recorded_at, source, [consent rows], [rights rows]] )

JSON is compact UTF-8; a row is an array in the order of :data:`~fedgen.policy.store.tables.WRITTEN`, bytes as hex.
People and records are not in it: they must be able to leave.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from fedgen.errors import Code, IntegrityError
from fedgen.policy.store.database import driver_rows, insert_many
from fedgen.policy.store.tables import WRITTEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlalchemy as sa

GENESIS: Final = bytes(32)
_BATCH: Final = ("no", "prev", "digest", "recorded_at", "consent_upto", "rights_upto", "source")
_READ_EVENTS: Final = 50_000
_AT_ONCE: Final = 1_000  # rows whose JSON is in memory


class Head(NamedTuple):
    """Where the store stands; it is kept outside the store to notice a rollback.

    Attributes:
        size: Batches so far.
        digest: Of the last batch; 32 zero bytes for none.
        recorded_at: Of the last batch, microseconds since 1970; 0 for none.
        consent: Number of the last consent event.
        rights: Number of the last rights event.
    """

    size: int
    digest: bytes
    recorded_at: int
    consent: int
    rights: int


def head(connection: sa.Connection) -> Head:
    """Return where the store stands."""
    found = driver_rows(
        connection,
        "SELECT no, digest, recorded_at, consent_upto, rights_upto FROM batch ORDER BY no DESC LIMIT 1",
        (),
    )
    return Head(*found[0]) if found else Head(0, GENESIS, 0, 0, 0)


def append(
    connection: sa.Connection,
    last: Head,
    at: int,
    source: str,
    consent: list[tuple[Any, ...]],
    rights: list[tuple[Any, ...]],
) -> Head:
    """Write one batch inside the caller's transaction.

    Args:
        connection: Holds the write lock.
        last: The head, read in the same transaction.
        at: The batch's ``recorded_at``, later than ``last.recorded_at``.
        source: Who brought it.
        consent: What was said, in the order of ``CONSENT_SAID``.
        rights: What was said, in the order of ``RIGHTS_SAID``.
    """
    consent = [(n, at, source, *said) for n, said in enumerate(consent, last.consent + 1)]
    rights = [(n, at, source, *said) for n, said in enumerate(rights, last.rights + 1)]
    insert_many(connection, "consent_event", WRITTEN["consent_event"], consent)
    insert_many(connection, "rights_event", WRITTEN["rights_event"], rights)
    digest = digest_of(last.digest, last.size + 1, at, source, consent, rights)
    after = Head(last.size + 1, digest, at, last.consent + len(consent), last.rights + len(rights))
    row = (after.size, last.digest, digest, at, after.consent, after.rights, source)
    insert_many(connection, "batch", _BATCH, [row])
    return after


def digest_of(
    prev: bytes, no: int, at: int, source: str, consent: list[tuple[Any, ...]], rights: list[tuple[Any, ...]]
) -> bytes:
    """Return the digest of a batch, without ever holding the text of all of it."""
    digest = hashlib.sha256(prev)
    digest.update(_json([no, at, source])[:-1])
    for rows in (consent, rights):
        digest.update(b",[")
        for first in range(0, len(rows), _AT_ONCE):
            digest.update(b"," if first else b"")
            digest.update(_json(rows[first : first + _AT_ONCE])[1:-1])
        digest.update(b"]")
    digest.update(b"]")
    return digest.digest()


def _json(values: list[Any]) -> bytes:
    return json.dumps(values, default=bytes.hex, ensure_ascii=False, separators=(",", ":")).encode()


def extends(connection: sa.Connection, seen: Head) -> bool:
    """Return whether the store goes on from ``seen``: False means it was rolled back or is another one."""
    if seen.size == 0:
        return True
    found = driver_rows(connection, "SELECT digest FROM batch WHERE no = ?", (seen.size,))
    return bool(found) and bytes(found[0][0]) == seen.digest


def verify(connection: sa.Connection) -> Head:
    """Recompute every digest; return the head if all fit.

    Raises:
        IntegrityError: An event or batch was changed, added or removed behind the store's back.
    """
    last = Head(0, GENESIS, 0, 0, 0)
    for no, prev, digest, at, consent_upto, rights_upto, source in _batches(connection):
        consent = _events(connection, "consent_event", last.consent, consent_upto)
        rights = _events(connection, "rights_event", last.rights, rights_upto)
        whole = len(consent) == consent_upto - last.consent and len(rights) == rights_upto - last.rights
        fits = digest == digest_of(last.digest, no, at, source, consent, rights)
        if not (whole and fits and no == last.size + 1 and prev == last.digest and at > last.recorded_at):
            raise _broken(f"batch {no} does not fit the chain")
        last = Head(no, digest, at, consent_upto, rights_upto)
    for table, upto in (("consent_event", last.consent), ("rights_event", last.rights)):
        if driver_rows(connection, f"SELECT 1 FROM {table} WHERE seq > ? LIMIT 1", (upto,)):  # noqa: S608 -- names are constants
            raise _broken("events stand outside every batch")
    return last


def _broken(what: str) -> IntegrityError:
    return IntegrityError(what, code=Code.STORAGE, where="consent store", hint="restore it from a backup")


def _batches(connection: sa.Connection) -> Iterator[tuple[Any, ...]]:
    """Yield all batches in order, a page at a time."""
    at = -1
    while page := driver_rows(
        connection,
        f"SELECT {', '.join(_BATCH)} FROM batch WHERE no > ? ORDER BY no LIMIT 1000",  # noqa: S608 -- names are constants
        (at,),
    ):
        yield from page
        at = page[-1][0]


def _events(connection: sa.Connection, table: str, after: int, upto: int) -> list[tuple[Any, ...]]:
    """Return a batch's events as they were written; a batch is never larger than an import's chunk."""
    columns = ", ".join(WRITTEN[table])
    query = f"SELECT {columns} FROM {table} WHERE seq > ? AND seq <= ? ORDER BY seq"  # noqa: S608 -- names are constants
    rows: list[tuple[Any, ...]] = []
    for first in range(after, upto, _READ_EVENTS):
        rows += map(tuple, driver_rows(connection, query, (first, min(first + _READ_EVENTS, upto))))
    return rows
