"""A copy of a ledger in a file of its own, to be handed to an auditor: entry for entry, hash for hash."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from fedgen.errors import Code, ConfigError, IntegrityError
from fedgen.ledger import _database as db
from fedgen.ledger.address import place_of
from fedgen.ledger.entries import GENESIS

if TYPE_CHECKING:
    from fedgen.ledger.address import Server

_ONCE = sa.select(db.entries.c.once).where(db.entries.c.idx == sa.bindparam("idx"))


def export(address: str | os.PathLike[str] | Server, path: str | os.PathLike[str]) -> int:
    """Copy the ledger at ``address`` into a new file at ``path``; return how many entries it has.

    Guarantees:
        - The copy verifies exactly if the ledger does, and has the same hashes, signatures and root.
        - The copy is of one moment; the file is there whole or not at all, and only its owner may read it.
        - The ledger is only read.

    Args:
        address: A file or a URL.
        path: The new file; its folder must exist.

    Raises:
        ConfigError: There is no ledger, or something lies at ``path`` already.
        IntegrityError: The entries do not follow one another; a check says which (code ``ledger``).
        OSError: The file cannot be written.
    """
    source, place = db.readable(place_of(address)), Path(path)
    if place.exists():
        raise ConfigError("something lies here already", where=place, hint="name a new file")
    temporary = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    target = db.database_of(temporary, "simulated")
    try:
        with db.translated(source), source.connect() as reading, reading.begin(), db.translated(target):
            target.make_room()
            with target.connect() as writing, writing.begin():
                size = _copy(source, reading, target, writing)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        os.link(temporary, place)  # unlike a rename, it never takes the place of what lies there
    except FileExistsError:
        raise ConfigError("something lies here already", where=place, hint="name a new file") from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return size


def _copy(source: db.Database, reading: sa.Connection, target: db.Database, writing: sa.Connection) -> int:
    """Copy every row; the target's triggers refuse one that does not follow."""
    if source.shape(reading).found != db.TABLES:
        raise IntegrityError("this is not a ledger", code=Code.LEDGER, where=str(source))
    note: Any = reading.execute(db.note_of).scalar()
    target.create(writing, durable=note == db.NOTES[True], genesis=GENESIS)
    size = 0
    for row in db.rows(reading):
        once = reading.execute(_ONCE, {"idx": row.idx}).scalar()
        target.append(writing, row._asdict(), once)
        size += 1
    return size
