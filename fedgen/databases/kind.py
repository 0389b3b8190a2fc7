"""What a room says of the database it keeps: its words, its schema, and how it is opened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fedgen.databases.words import Words


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of database.

    Attributes:
        words: What it is called, and its errors.
        name: With its article, in the sentence ``NAME is SQLite or PostgreSQL``.
        no_address: What is said of a text that is no address at all.
        addresses: Which addresses there are, as a hint.
        meaning: Returns the error that says what the driver's means, given it and where the database is.
        migrations: The folder of Alembic's scripts.
        revision: The newest of them; later ones sort after it.
        version_table: Where Alembic notes which were run.
        lock: Number of the advisory lock in PostgreSQL under which the schema is made, one process at a time.
        one_writer: Whether every writer takes that lock, so that what it read stays true.
        pragmas: Of each connection to SQLite.
        pings: Whether a pooled connection to PostgreSQL is tried before it is used.
    """

    words: Words
    name: str
    no_address: str
    addresses: str
    meaning: Callable[[BaseException, str], Exception]
    migrations: Path
    revision: str
    version_table: str
    lock: int
    one_writer: bool
    pragmas: tuple[str, ...] = ()
    pings: bool = False
