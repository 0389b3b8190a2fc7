"""A ledger in a schema of PostgreSQL: how it is locked, what guards it, and what its errors mean.

One schema holds one ledger, so that many share a database. A writer locks the head row before it reads what it
decides on, and asks in the same breath whether the server waits for its disk: a setting can change at any time.

Source: PostgreSQL manual, chapters 13.2 (read committed: a row that was locked by another is read anew), 30.3
(asynchronous commit), 39 (triggers) and appendix A (error codes).
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import psycopg
import sqlalchemy as sa
from psycopg import conninfo
from psycopg.pq import TransactionStatus
from sqlalchemy.pool import NullPool

from fedgen.databases.words import postgresql_code
from fedgen.errors import ConfigError
from fedgen.ledger import _postgres_guards as guards
from fedgen.ledger._database import (
    NOTES,
    WORDS,
    Head,
    LedgerUnreachable,
    Mode,
    Shape,
    damaged,
    meta,
    metadata,
    replayed,
)
from fedgen.ledger.address import PREFIX, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

_BUSY_MS: Final = 30_000
_DEFAULTS: Final = {  # a peer that vanished is noticed within a minute and a half
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "90000",
    "application_name": "fedgen ledger",
}
_DISK: Final = ("fsync", "synchronous_commit", "full_page_writes")
_WRITING: Final = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL lock_timeout = {busy}; "
_NOT_WAITING: Final = "SET LOCAL synchronous_commit = off; "
_READING: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_HEAD: Final = (
    "SELECT size, head, current_setting('fsync'), current_setting('synchronous_commit'), "
    "current_setting('full_page_writes') FROM {schema}.meta WHERE id = 1 FOR UPDATE"
)
_APPEND: Final = (
    "INSERT INTO {schema}.entries (idx, prev, body, hash, signature, once) VALUES (%s, %s, %s, %s, %s, %s) "
    "ON CONFLICT (once) DO NOTHING"
)

_LEDGERS: Final = (
    "SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.relname IN ('entries', 'meta') AND starts_with(n.nspname, %s) "
    "GROUP BY n.nspname HAVING count(*) = 2 ORDER BY n.nspname"
)

_target: ContextVar[tuple[Server, Mode]] = ContextVar("fedgen_ledger_server")


class Schema:
    """One schema; see :class:`fedgen.ledger._database.Database`.

    Guarantees:
        - A durable ledger is neither begun, resumed nor written on a server that acknowledges before its disk does.
        - A transaction that the server took back is never reported as committed.
    """

    faults: tuple[type[Exception], ...] = (psycopg.Error,)

    def __init__(self, server: Server, mode: Mode) -> None:
        self._server, self._mode, self._name = server, mode, server.schema
        begin = _WRITING.format(busy=_BUSY_MS) + (_NOT_WAITING if mode == "simulated" else "")
        self._lock = begin + _HEAD.format(schema=self._name)
        self._append = _APPEND.format(schema=self._name)

    def __str__(self) -> str:
        return str(self._server)

    def exists(self) -> bool:
        """Return whether anything lies in the schema; whether it is a ledger is for :meth:`shape` to say."""
        return bool(_ask(self._server, guards.RELATIONS, self._name))

    def make_room(self) -> bool:
        """Return whether nothing lies in the schema; refuse a server that a durable ledger cannot trust."""
        raw = _connected(self._server)
        with raw:
            if self._mode == "durable":
                settings = [raw.execute(f"SHOW {name}").fetchone() for name in _DISK]
                self._check_disk([str(row[0]) for row in settings if row])
            return not raw.execute(guards.RELATIONS, (self._name,)).fetchall()

    def connect(self) -> sa.Connection:
        """Return a connection; the caller closes it."""
        token = _target.set((self._server, self._mode))
        try:
            connection = _engine(reading=self._mode == "read").connect()
        finally:
            _target.reset(token)
        return connection.execution_options(schema_translate_map={None: self._name})

    def is_begun(self, connection: sa.Connection) -> bool:
        """Wait for whoever begins the same ledger, and return whether it is there now."""
        raw = driver(connection)
        raw.execute("SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext(%s))", (self._name,))
        return bool(raw.execute(guards.RELATIONS, (self._name,)).fetchall())

    def create(self, connection: sa.Connection, *, durable: bool, genesis: bytes) -> None:
        """Create schema, tables and triggers inside the caller's transaction; nobody else may use them."""
        raw = driver(connection)
        if not raw.execute(
            "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %s", (self._name,)
        ).fetchall():
            connection.exec_driver_sql(f"CREATE SCHEMA {self._name}")
        metadata.create_all(connection, checkfirst=False)
        connection.execute(meta.insert(), {"id": 1, "note": NOTES[durable], "size": 0, "head": genesis})
        for statement in guards.statements(self._name):
            connection.exec_driver_sql(statement)

    @contextmanager
    def transaction(self, connection: sa.Connection) -> Iterator[Head | None]:
        """Lock the head row and give it; commit at the end, or take everything back."""
        raw = driver(connection)
        try:
            yield self._locked(raw)
            _commit(raw)
        except BaseException:
            if not raw.closed:
                with suppress(psycopg.Error):  # what went wrong first is what counts
                    raw.execute("ROLLBACK")
            raise

    def _locked(self, raw: psycopg.Connection[Any]) -> Head | None:
        """Begin a transaction, lock the head row and return it: one message to the server and back."""
        answer = raw.execute(self._lock)
        while answer.nextset():
            pass
        row = answer.fetchone()
        if row is None:
            return None
        if self._mode == "durable":
            self._check_disk(row[2:])
        return Head(row[0], row[1])

    def _check_disk(self, settings: list[str]) -> None:
        """Refuse a server that says done before its disk has it."""
        off = [name for name, value in zip(_DISK, settings, strict=True) if value == "off"]
        if off:
            raise ConfigError(
                f"the server does not wait for its disk: {' and '.join(off)} off",
                where=str(self),
                hint="switch it on for this database; only a simulation may do without",
            )

    def append(self, connection: sa.Connection, row: dict[str, Any], once: str | None) -> None:
        """Insert one entry.

        Raises:
            IntegrityError: ``replayed``: what ``once`` names was said before. The transaction goes on.
        """
        values = (row["idx"], row["prev"], row["body"], row["hash"], row["signature"], once)
        done = driver(connection).execute(self._append, values)
        if done.rowcount != 1:
            raise replayed(self)

    def shape(self, connection: sa.Connection) -> Shape:
        """Return the tables and whatever else can be selected from, and whether the triggers are ours."""
        raw = driver(connection)
        relations = raw.execute(guards.RELATIONS, (self._name,)).fetchall()
        found = frozenset(("table" if plain else "other", str(name)) for name, plain in relations)
        triggers = raw.execute(guards.FOUND, (self._name,)).fetchall()
        return Shape(found, guards.are_ours(self._name, triggers))

    def meaning(self, error: Exception) -> Exception:
        """Return the error that says what ``error`` means, by its code alone."""
        code = postgresql_code(error)
        if code in {"55P03", "57014", "40P01", "40001"}:
            return WORDS.held(str(self))
        if code == "53100":
            return WORDS.no_space(str(self))
        if code == "58030":
            return WORDS.broken(str(self))
        if code in {"42501", "25006"}:
            return WORDS.closed(str(self))
        if not code or code[:2] in {"08", "28", "3D", "53", "57"}:
            return _unreachable(self._server, code)
        return damaged(self)


def ledgers_on(server: Server) -> tuple[Server, ...]:
    """Return every ledger of a database, by name.

    Raises:
        LedgerUnreachable: The server does not answer.
    """
    names = _ask(server, _LEDGERS, PREFIX)
    return tuple(server.named(str(name).removeprefix(PREFIX)) for (name,) in names)


def only_ledger(server: Server) -> Server:
    """Return the one ledger of a database.

    Raises:
        ConfigError: There is none, or there are several.
    """
    found = ledgers_on(server)
    if len(found) == 1:
        return found[0]
    if not found:
        raise ConfigError("no ledger here", where=str(server))
    names = ", ".join(str(it.ledger) for it in found)
    raise ConfigError(f"{len(found)} ledgers here: {names}", where=str(server), hint="add ?ledger=NAME")


def _commit(raw: psycopg.Connection[Any]) -> None:
    """Commit; a server answers ``ROLLBACK``, and no error, where a statement before it failed."""
    if raw.execute("COMMIT").statusmessage != "COMMIT":
        raise psycopg.OperationalError("the server took the transaction back")


def driver(connection: sa.Connection) -> psycopg.Connection[Any]:
    """Return PostgreSQL's own connection."""
    own: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    return own


@lru_cache(maxsize=2)
def _engine(*, reading: bool) -> sa.Engine:
    """Return the shared engine."""
    engine = sa.create_engine(
        "postgresql+psycopg://", creator=_open, poolclass=NullPool, use_native_hstore=False
    )
    begin = _READING if reading else _WRITING.format(busy=_BUSY_MS)

    def on_begin(connection: sa.Connection) -> None:
        raw = driver(connection)
        if (
            raw.info.transaction_status == TransactionStatus.IDLE
        ):  # else it is one of :meth:`Schema.transaction`
            raw.execute(begin)

    sa.event.listen(engine, "begin", on_begin)
    return engine


def _open() -> psycopg.Connection[Any]:
    """Open the database that :meth:`Schema.connect` named."""
    return _connected(_target.get()[0])


def _connected(server: Server) -> psycopg.Connection[Any]:
    """Return a connection that begins no transaction by itself.

    Raises:
        LedgerUnreachable: No such server, database or user; the driver's own words may quote the URL and are dropped.
    """
    try:
        given = conninfo.conninfo_to_dict(server.conninfo)
        defaults = {name: value for name, value in _DEFAULTS.items() if name not in given}
        return psycopg.connect(server.conninfo, autocommit=True, **defaults)  # type: ignore[arg-type]
    except psycopg.Error as error:
        code = error.sqlstate or ""
    raise _unreachable(server, code)


def _ask(server: Server, question: str, value: str) -> list[Any]:
    """Return the rows of one question, asked on a connection of its own."""
    try:
        with _connected(server) as raw:
            return raw.execute(question, (value,)).fetchall()
    except psycopg.Error as error:
        code = error.sqlstate or ""
    raise _unreachable(server, code)


def _unreachable(server: Server, code: str) -> LedgerUnreachable:
    """Return the error of a server that does not answer."""
    return LedgerUnreachable(
        f"the ledger's server does not answer{f' ({code})' if code else ''}",
        where=str(server),
        hint="check address, password, rights and that it runs; what was on its way may count",
    )
