"""What the ledgers of a run folder say, read without opening them for writing."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from fedgen.ledger.entries import Entry, Reserved, Settled, from_body
from fedgen.ledger.verify import verify

if TYPE_CHECKING:
    from pathlib import Path


def entries(path: Path) -> list[Entry]:
    """Return every entry of a ledger that verifies."""
    assert verify(path).problems == ()
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
        bodies = connection.execute("SELECT body FROM entries ORDER BY idx").fetchall()
    connection.close()
    return [from_body(bytes(body))[0] for (body,) in bodies]


def reserved(path: Path) -> list[tuple[int, int]]:
    """Return (round, attempt) of every reservation."""
    return [(entry.round, entry.attempt) for entry in entries(path) if isinstance(entry, Reserved)]


def settled(path: Path) -> list[tuple[int, int]]:
    """Return (round, attempt) of every settlement."""
    return [(entry.round, entry.attempt) for entry in entries(path) if isinstance(entry, Settled)]
