"""The two tables of a ledger and what is asked of them, whatever database they lie in; nothing here knows an entry.

A file of SQLite and a schema of PostgreSQL differ in their triggers, in how a transaction begins, and in the words
of their errors: see ``_sqlite.py`` and ``_postgres.py``. The rest goes through SQLAlchemy Core.
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

import sqlalchemy as sa

from fedgen.databases.words import Words
from fedgen.errors import Code, ConfigError, FedgenError, IntegrityError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from fedgen.ledger.address import Place

Mode = Literal["durable", "simulated", "read"]
NOTES: Final = {True: "durable", False: "simulated: no fsync"}
PAGE: Final = 1000
TABLES: Final = frozenset({("table", "entries"), ("table", "meta")})


class Bytes(sa.types.TypeDecorator[bytes]):
    """A column of bytes, read as the driver gives it.

    SQLAlchemy would call ``bytes`` on the value, and in a file made by somebody else it may be a huge integer.
    """

    impl = sa.LargeBinary
    cache_ok = True

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> None:
        """Leave values as they are; :func:`sound` checks them."""


metadata = sa.MetaData()
entries = sa.Table(
    "entries",
    metadata,
    sa.Column(
        "idx", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=False
    ),
    sa.Column("prev", Bytes, nullable=False),
    sa.Column("body", Bytes, nullable=False),
    sa.Column("hash", Bytes, nullable=False),
    sa.Column("signature", Bytes, nullable=False),
    sa.Column("once", sa.String, unique=True, nullable=True),  # what may be said once only
)
meta = sa.Table(
    "meta",
    metadata,
    sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
    sa.Column("note", sa.String, nullable=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("head", Bytes, nullable=False),
)
head_of = sa.select(meta.c.size, meta.c.head).where(meta.c.id == 1)
rows_from = (
    sa.select(entries.c.idx, entries.c.prev, entries.c.body, entries.c.hash, entries.c.signature)
    .where(entries.c.idx >= sa.bindparam("first"))
    .order_by(entries.c.idx)
    .limit(sa.bindparam("most"))
)
note_of = sa.select(meta.c.note).where(meta.c.id == 1)
said_before = sa.select(entries.c.idx).where(entries.c.once == sa.bindparam("once"))


class Head(NamedTuple):
    """What the head row promises; :func:`sound` says whether it can be so."""

    size: int
    head: bytes


class Shape(NamedTuple):
    """What a ledger's place holds: kind and name of everything, and whether it refuses changes."""

    found: frozenset[tuple[str, str]]
    guarded: bool


class Database(Protocol):
    """The place of one ledger, opened in one mode.

    Guarantees:
        - ``str`` of it holds no password.
        - What it raises while it connects, and what :meth:`meaning` returns, names it so.

    Attributes:
        faults: What its driver raises.
    """

    faults: tuple[type[Exception], ...]

    def exists(self) -> bool:
        """Return whether there is a ledger to be read."""
        ...

    def make_room(self) -> bool:
        """Make the place of a new ledger; return whether nothing was begun there yet."""
        ...

    def connect(self) -> sa.Connection:
        """Return a connection; the caller closes it."""
        ...

    def is_begun(self, connection: sa.Connection) -> bool:
        """Return, in the transaction that would begin the ledger, whether another process was faster."""
        ...

    def create(self, connection: sa.Connection, *, durable: bool, genesis: bytes) -> None:
        """Create tables and triggers inside the caller's transaction."""
        ...

    def transaction(self, connection: sa.Connection) -> AbstractContextManager[Head | None]:
        """Hold the write lock and give the head row; commit at the end of the block, or take everything back."""
        ...

    def append(self, connection: sa.Connection, row: dict[str, Any], once: str | None) -> None:
        """Insert one entry; ``once`` names what may be said once only."""
        ...

    def shape(self, connection: sa.Connection) -> Shape:
        """Return what the place holds."""
        ...

    def meaning(self, error: Exception) -> Exception:
        """Return the error that says what one of ``faults`` means."""
        ...


def database_of(place: Place, mode: Mode) -> Database:
    """Return the database of a place.

    Raises:
        MissingExtra: PostgreSQL's driver is not installed.
        ConfigError: The address names no ledger, and the database holds none, or several.
    """
    if isinstance(place, Path):
        from fedgen.ledger._sqlite import File

        return File(place, mode)
    try:
        from fedgen.ledger._postgres import Schema, only_ledger
    except ImportError:
        raise MissingExtra("sql", needed_for="a postgresql:// ledger") from None
    return Schema(place if place.ledger is not None else only_ledger(place), mode)


def readable(place: Place) -> Database:
    """Return the database of a ledger that is there, to be read.

    Raises:
        ConfigError: There is none.
    """
    database = database_of(place, "read")
    if not database.exists():
        raise ConfigError("no ledger here", where=str(place))
    return database


def sound(row: Any) -> bool:
    """Return whether a row of :data:`rows_from` or :data:`head_of` is a number followed by bytes."""
    number, *others = row
    return isinstance(number, int) and all(isinstance(value, bytes) for value in others)


def rows(connection: sa.Connection, first: int = 0) -> Iterator[Any]:
    """Yield all rows from ``first`` on, in order of index, a page at a time.

    Raises:
        IntegrityError: A row has columns of another type, or the index does not rise: in a damaged file a table
            can run in a circle.
    """
    while page := connection.execute(rows_from, {"first": first, "most": PAGE}).all():
        for row in page:
            if not sound(row):
                raise IntegrityError("a row has columns of another type", code=Code.LEDGER)
            if row.idx < first:
                raise IntegrityError("the rows do not stand in order", code=Code.LEDGER)
            first = row.idx + 1
            yield row


class LedgerBusy(FedgenError):
    """Another process held the ledger for longer than half a minute; nothing was spent."""

    site_code = Code.LEDGER


WORDS: Final = Words(short="ledger", full="ledger", busy=LedgerBusy, spared="nothing was spent")


class LedgerUnreachable(ConfigError):
    """The ledger's server does not answer, or the connection was lost; nothing was acknowledged."""

    site_code = Code.STORAGE


@contextmanager
def translated(database: Database) -> Iterator[None]:
    """Turn what a database says into what a person can act on.

    Raises:
        IntegrityError: ``replayed`` if the same thing was said before; ``ledger`` if the ledger is damaged.
        OSError: The disk is full, broken, or not to be written to.
        LedgerBusy: Another process holds the ledger.
        LedgerUnreachable: The server is gone.
    """
    try:
        yield
    except sa.exc.DBAPIError as error:
        cause = error.orig if isinstance(error.orig, Exception) else error
        raise database.meaning(cause) from error
    except UnicodeDecodeError as error:  # the driver, at a name or message that is no text
        raise damaged(database) from error
    except database.faults as error:  # straight from the driver
        raise database.meaning(error) from error


def replayed(database: Database) -> IntegrityError:
    """Return the error of what may be said once only."""
    return IntegrityError("this was reserved or settled before", code=Code.REPLAYED, where=str(database))


def damaged(database: Database, what: str = "the ledger is damaged") -> IntegrityError:
    """Return the error of a ledger that must not be used any more."""
    return IntegrityError(what, code=Code.LEDGER, where=str(database), hint="run: fedgen ledger verify")
