"""A ledger in a file of SQLite: how it is opened, what guards it, and what its errors mean."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from fedgen._files import new_private
from fedgen.databases.words import sqlite_code
from fedgen.ledger._database import (
    NOTES,
    WORDS,
    Head,
    Mode,
    Shape,
    damaged,
    meta,
    metadata,
    replayed,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_BUSY_MS: Final = 30_000
# What a reservation says; straight to the driver, because through SQLAlchemy each costs as much as a signature.
_HEAD: Final = "SELECT size, head FROM meta WHERE id = 1"
_APPEND: Final = "INSERT INTO entries (idx, prev, body, hash, signature, once) VALUES (?, ?, ?, ?, ?, ?)"

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
GUARDS: Final = frozenset(f"CREATE TRIGGER {name} {text}" for name, text in TRIGGERS.items())

_target: ContextVar[tuple[Path, Mode]] = ContextVar("fedgen_ledger_file")


class File:
    """One file; see :class:`fedgen.ledger._database.Database`.

    Guarantees:
        - All files of a process share one engine, and so the compiled statements: opening costs a third of a
          millisecond instead of one and a half.
        - A new file may be read by its owner only.
    """

    faults: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, path: Path, mode: Mode) -> None:
        self.path, self._mode = path, mode

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """Return whether there is such a file."""
        return self.path.is_file()

    def make_room(self) -> bool:
        """Create an empty file that only its owner may read; return whether it is new or still empty."""
        try:
            new_private(self.path).close()
        except FileExistsError:
            return self.path.stat().st_size == 0
        return True

    def connect(self) -> sa.Connection:
        """Return a connection; the caller closes it."""
        token = _target.set((self.path, self._mode))
        try:
            return _engine(reading=self._mode == "read").connect()
        finally:
            _target.reset(token)

    def is_begun(self, connection: sa.Connection) -> bool:
        """Return whether there is a head row's table already; the caller holds the write lock."""
        return connection.dialect.has_table(connection, "meta")

    def create(self, connection: sa.Connection, *, durable: bool, genesis: bytes) -> None:
        """Create tables and triggers inside the caller's transaction."""
        metadata.create_all(connection, checkfirst=False)
        connection.execute(meta.insert(), {"id": 1, "note": NOTES[durable], "size": 0, "head": genesis})
        for text in sorted(GUARDS):
            connection.exec_driver_sql(text)

    @contextmanager
    def transaction(self, connection: sa.Connection) -> Iterator[Head | None]:
        """Hold the write lock and give the head row; commit at the end, or take everything back."""
        raw = driver(connection)
        raw.execute("BEGIN IMMEDIATE")
        try:
            row = raw.execute(_HEAD).fetchone()
            yield None if row is None else Head(*row)
            raw.execute("COMMIT")
        except BaseException:
            if raw.in_transaction:
                with suppress(sqlite3.Error):  # what went wrong first is what counts
                    raw.execute("ROLLBACK")
            raise

    def append(self, connection: sa.Connection, row: dict[str, Any], once: str | None) -> None:
        """Insert one entry."""
        driver(connection).execute(
            _APPEND, (row["idx"], row["prev"], row["body"], row["hash"], row["signature"], once)
        )

    def shape(self, connection: sa.Connection) -> Shape:
        """Return everything in the file, SQLite's own indexes and the triggers left out."""
        rows = connection.exec_driver_sql("SELECT type, name, sql FROM sqlite_master").all()
        found = {(str(kind), str(name)) for kind, name, _ in rows if not str(name).startswith("sqlite_")}
        guards = {str(text) for kind, _, text in rows if kind == "trigger"}
        return Shape(frozenset(it for it in found if it[0] != "trigger"), guards == GUARDS)

    def meaning(self, error: Exception) -> Exception:
        """Return the error that says what ``error`` means."""
        if "said-before" in str(error) or "entries.once" in str(error):
            return replayed(self)
        code = sqlite_code(error)
        return (None if code is None else WORDS.of_sqlite(code, str(self.path))) or damaged(self)


def driver(connection: sa.Connection) -> sqlite3.Connection:
    """Return SQLite's own connection."""
    own: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    return own


@lru_cache(maxsize=2)
def _engine(*, reading: bool) -> sa.Engine:
    """Return the shared engine; a writer takes its lock at once, so that what it read stays true."""
    engine = sa.create_engine("sqlite://", creator=_open, poolclass=NullPool)
    begin = "BEGIN" if reading else "BEGIN IMMEDIATE"

    def on_begin(connection: sa.Connection) -> None:
        if not driver(connection).in_transaction:  # else it is one of :meth:`File.transaction`
            driver(connection).execute(begin)

    sa.event.listen(engine, "begin", on_begin)
    return engine


def _open() -> sqlite3.Connection:
    """Open the file that :meth:`File.connect` named."""
    path, mode = _target.get()
    if mode == "read":
        flags = "mode=ro&immutable=1" if _quiescent(path) else "mode=ro"
        return sqlite3.connect(
            f"file:{quote(str(path))}?{flags}", uri=True, isolation_level=None, check_same_thread=False
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
