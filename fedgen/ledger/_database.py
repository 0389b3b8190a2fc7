"""The table of entries and how SQLite is opened; nothing here knows what an entry means.

The SQL is plain and goes through SQLAlchemy Core, so that another database is another set of triggers and another
way to begin a transaction.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from fedgen.errors import Code, FedgenError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator

Mode = Literal["durable", "simulated", "read"]
NOTES: Final = {True: "durable", False: "simulated: no fsync"}
PAGE: Final = 1000
_BUSY_MS: Final = 30_000


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
# What a reservation says; straight to the driver, because through SQLAlchemy each costs as much as a signature.
_HEAD: Final = "SELECT size, head FROM meta WHERE id = 1"
_APPEND: Final = "INSERT INTO entries (idx, prev, body, hash, signature, once) VALUES (?, ?, ?, ?, ?, ?)"
rows_from = (
    sa.select(entries.c.idx, entries.c.prev, entries.c.body, entries.c.hash, entries.c.signature)
    .where(entries.c.idx >= sa.bindparam("first"))
    .order_by(entries.c.idx)
    .limit(sa.bindparam("most"))
)
note_of = sa.select(meta.c.note).where(meta.c.id == 1)
said_before = sa.select(entries.c.idx).where(entries.c.once == sa.bindparam("once"))

# Replacing a row deletes it without firing a delete trigger, so an insert checks for what it would replace.
TRIGGERS: Final = {
    "entries_never_change": "BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "entries_never_leave": "BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'append-only'); END",
    "entries_follow_the_head": (
        "BEFORE INSERT ON entries BEGIN "
        "SELECT RAISE(ABORT, 'said-before') WHERE EXISTS (SELECT 1 FROM entries WHERE once = NEW.once); "
        "SELECT RAISE(ABORT, 'not-at-head') WHERE NOT EXISTS "
        "(SELECT 1 FROM meta WHERE size = NEW.idx AND head = NEW.prev); END"
    ),
    "entries_move_the_head": (
        "AFTER INSERT ON entries BEGIN UPDATE meta SET size = NEW.idx + 1, head = NEW.hash; END"
    ),
    "meta_only_follows": (
        "BEFORE UPDATE ON meta WHEN NEW.size <> OLD.size + 1 OR NEW.note <> OLD.note OR NOT EXISTS "
        "(SELECT 1 FROM entries WHERE idx = OLD.size AND hash = NEW.head AND prev = OLD.head) "
        "BEGIN SELECT RAISE(ABORT, 'append-only'); END"
    ),
    "meta_never_leaves": "BEFORE DELETE ON meta BEGIN SELECT RAISE(ABORT, 'append-only'); END",
}

TABLES: Final = {("table", "entries"), ("table", "meta")}
GUARDS: Final = {("trigger", f"CREATE TRIGGER {name} {text}") for name, text in TRIGGERS.items()}

_target: ContextVar[tuple[str, Mode]] = ContextVar("fedgen_ledger_target")


def connect(path: Path, mode: Mode) -> sa.Connection:
    """Return a connection to the file; the caller closes it.

    All files of a process share one engine, and so the compiled statements: opening costs a third of a millisecond
    instead of one and a half.
    """
    token = _target.set((str(path), mode))
    try:
        return _engine(reading=mode == "read").connect()
    finally:
        _target.reset(token)


@lru_cache(maxsize=2)
def _engine(*, reading: bool) -> sa.Engine:
    """Return the shared engine; a writer takes its lock at once, so that what it read stays true."""
    engine = sa.create_engine("sqlite://", creator=_open, poolclass=NullPool)
    begin = "BEGIN" if reading else "BEGIN IMMEDIATE"

    def on_begin(connection: sa.Connection) -> None:
        if not driver(connection).in_transaction:  # else it is one of :func:`transaction`
            driver(connection).execute(begin)

    sa.event.listen(engine, "begin", on_begin)
    return engine


def driver(connection: sa.Connection) -> sqlite3.Connection:
    """Return SQLite's own connection."""
    own: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    return own


@contextmanager
def transaction(connection: sa.Connection) -> Iterator[None]:
    """Hold the write lock; commit at the end of the block, or take everything back."""
    raw = driver(connection)
    raw.execute("BEGIN IMMEDIATE")
    try:
        yield
        raw.execute("COMMIT")
    except BaseException:
        if raw.in_transaction:
            with suppress(sqlite3.Error):  # what went wrong first is what counts
                raw.execute("ROLLBACK")
        raise


class Head(NamedTuple):
    """What the head row promises; :func:`sound` says whether it can be so."""

    size: int
    head: bytes


def head(connection: sa.Connection) -> Head | None:
    """Return the head row, or None if it is missing."""
    row = driver(connection).execute(_HEAD).fetchone()
    return None if row is None else Head(*row)


def append(connection: sa.Connection, row: dict[str, Any], once: str | None) -> None:
    """Insert one entry; ``once`` names what may be said once only."""
    driver(connection).execute(
        _APPEND, (row["idx"], row["prev"], row["body"], row["hash"], row["signature"], once)
    )


def _open() -> sqlite3.Connection:
    """Open the file that :func:`connect` named."""
    path, mode = _target.get()
    if mode == "read":
        flags = "mode=ro&immutable=1" if _quiescent(Path(path)) else "mode=ro"
        return sqlite3.connect(
            f"file:{quote(path)}?{flags}", uri=True, isolation_level=None, check_same_thread=False
        )
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    connection.execute("PRAGMA cache_size = -128")
    if mode == "durable":
        # One fsync of the log for a commit; a rollback journal needs three and was 2.3 times slower (measured).
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
    else:
        connection.execute("PRAGMA synchronous = OFF")
    return connection


def _quiescent(path: Path) -> bool:
    """Return whether the file is in WAL mode with nothing in its log: it is then whole by itself.

    Reading such a file as immutable leaves no files beside it and works in a folder nobody may write to.
    """
    with path.open("rb") as file:
        header = file.read(20)
    log = path.with_name(path.name + "-wal")
    wal = len(header) == 20 and header[18] == 2  # noqa: PLR2004 -- SQLite file format, section 1.3
    return wal and (not log.exists() or log.stat().st_size == 0)


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


def shape(connection: sa.Connection) -> set[tuple[str, str]]:
    """Return kind and name of everything in the file, SQLite's own indexes left out; a trigger's text is its name."""
    query = "SELECT type, CASE type WHEN 'trigger' THEN sql ELSE name END FROM sqlite_master"
    found = {(str(kind), str(name)) for kind, name in connection.exec_driver_sql(query)}
    return {(kind, name) for kind, name in found if not name.startswith("sqlite_")}


def create(connection: sa.Connection, *, durable: bool, genesis: bytes) -> None:
    """Create tables and triggers inside the caller's transaction."""
    metadata.create_all(connection, checkfirst=False)
    connection.execute(meta.insert(), {"id": 1, "note": NOTES[durable], "size": 0, "head": genesis})
    for _, text in sorted(GUARDS):
        connection.exec_driver_sql(text)


def touch(path: Path) -> bool:
    """Create an empty file that only its owner may read; return whether it is new or still empty."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return path.stat().st_size == 0
    return True


class LedgerBusy(FedgenError):
    """Another process held the ledger for longer than half a minute; nothing was spent."""

    site_code = Code.LEDGER


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what SQLite says into what a person can act on.

    Raises:
        IntegrityError: ``replayed`` if the same thing was said before; ``ledger`` if the file is damaged.
        OSError: The disk is full, broken, or not to be written to.
        LedgerBusy: Another process holds the file.
    """
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise _meaning(error, path) from error
    except sqlite3.Error as error:  # while connecting, before SQLAlchemy wraps it
        raise _meaning(error, path) from error
    except UnicodeDecodeError as error:  # the driver, at a name or message that is no text
        raise _damaged(path) from error


def _meaning(error: sa.exc.DBAPIError | sqlite3.Error, path: Path) -> Exception:
    """Return the error that says what ``error`` means."""
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    code = getattr(cause, "sqlite_errorcode", None)
    primary = code & 0xFF if isinstance(code, int) else None
    if "said-before" in str(cause) or "entries.once" in str(cause):
        return IntegrityError("this was reserved or settled before", code=Code.REPLAYED, where=path)
    if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return LedgerBusy("another process holds the ledger", where=path, hint="try again when it is done")
    if primary == sqlite3.SQLITE_FULL:
        return OSError(errno.ENOSPC, "no space left for the ledger; nothing was spent", str(path))
    if primary == sqlite3.SQLITE_IOERR:
        return OSError(errno.EIO, "the ledger cannot be read or written", str(path))
    if primary in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
        return OSError(errno.EACCES, "the ledger cannot be opened for writing", str(path))
    return _damaged(path)


def _damaged(path: Path) -> IntegrityError:
    """Return the error of a file that SQLite cannot make sense of."""
    return IntegrityError(
        "the ledger is damaged", code=Code.LEDGER, where=path, hint="run: fedgen ledger verify"
    )
