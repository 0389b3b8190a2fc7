"""How the store's database is opened: SQLite by default, PostgreSQL by URL; nothing here knows what an event means."""

from __future__ import annotations

import errno
import gc
import os
import sqlite3
import stat
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from fedgen.errors import Code, ConfigError, DataError, FedgenError, IntegrityError, MissingExtra
from fedgen.policy.store.tables import HEAD_REVISION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_BUSY_MS: Final = 30_000
_CACHE_KIB: Final = 163_840  # the index of ten million event ids is walked at random while importing
_LOG_PAGES: Final = 32_768  # 128 MiB of log: an import changes the same pages of its indexes again and again
_LOCK: Final = 0x666564_67656E  # "fedgen": one writer at a time for all stores of a PostgreSQL database
_ONE_AT_A_TIME: Final = threading.Lock()
_PRIVATE: Final = 0o077


class StoreBusy(FedgenError):
    """Another process held the store for longer than half a minute; nothing was written."""

    site_code = Code.STORAGE


class Database:
    """An open database: who writes takes the lock first, so that what it read stays true.

    Guarantees:
        - A SQLite file that is made here may be read by its owner only; one that others may read is refused.
        - A transaction is whole or never happened; with SQLite it is on the disk before it counts (WAL, full
          synchronisation).
        - Missing steps of the schema are taken when the store is opened; a newer schema is refused.

    Args:
        address: A path, ``sqlite:///path`` or ``postgresql://…``.

    Raises:
        ConfigError: The address is not one, or the file may be read by others.
        IntegrityError: The file is damaged or not a consent store.
        MissingExtra: The PostgreSQL driver is not installed.
    """

    def __init__(self, address: str | os.PathLike[str]) -> None:
        self.path, url = _target(address)
        self.name = str(self.path) if self.path else _described(sa.make_url(url))
        if self.path is not None:
            _touch(self.path)
        self.engine = _engine(self.path, url)
        self.postgresql = self.engine.dialect.name == "postgresql"
        try:
            with translated(self.name):
                self._migrate()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of every connection."""
        self.engine.dispose()

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Hold the write lock; commit at the end of the block, or take everything back."""
        with translated(self.name), self.engine.connect() as plain:
            connection = plain.execution_options(fedgen_writes=True)
            with connection.begin():
                if self.postgresql:
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
                yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Read one moment of the store: nothing written meanwhile is seen in the block."""
        with translated(self.name), self.engine.connect() as plain:
            options = {"isolation_level": "REPEATABLE READ"} if self.postgresql else {}
            connection = plain.execution_options(**options)
            with connection.begin():
                yield connection

    def forget(self, tables: Sequence[str]) -> None:
        """Make what was deleted unreadable as far as the database allows: overwrite, and fold the log in."""
        with translated(self.name), self.engine.connect() as plain:
            connection = plain.execution_options(isolation_level="AUTOCOMMIT")
            if self.postgresql:
                for table in tables:
                    connection.exec_driver_sql(f"VACUUM {table}")
            else:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def _migrate(self) -> None:
        """Take the missing steps; Alembic is loaded only if there are any."""
        with self.reading() as connection:
            found = _revision(connection)
        if found == HEAD_REVISION:
            return
        if found is not None and found > HEAD_REVISION:
            hint = "upgrade fedgen"
            raise ConfigError("the store was written by a later version", where=self.name, hint=hint)
        # Alembic keeps what it works on in one place for the whole process.
        with _ONE_AT_A_TIME, self.writing() as connection:
            _upgrade(connection)


def driver_rows(connection: sa.Connection, statement: str, values: tuple[Any, ...]) -> list[Any]:
    """Return rows straight from the driver; ``?`` stands for a value with either database.

    SQLAlchemy makes an object of every row, which would double the time that reading millions takes.
    """
    cursor = connection.connection.cursor()
    try:
        postgresql = connection.dialect.name == "postgresql"
        cursor.execute(statement.replace("?", "%s") if postgresql else statement, values)
        return list(cursor.fetchall())
    finally:
        cursor.close()


@contextmanager
def many_rows() -> Iterator[None]:
    """Read or write millions of rows in the block without looking for cycles among them: there are none.

    The collector would walk through every row again and again while they pile up, a fifth of the time in all.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def insert_many(
    connection: sa.Connection, table: str, columns: Sequence[str], rows: list[tuple[Any, ...]]
) -> None:
    """Insert rows whose values stand in the order of ``columns``."""
    if not rows:
        return
    mark = "%s" if connection.dialect.name == "postgresql" else "?"
    marks = ", ".join([mark] * len(columns))
    connection.exec_driver_sql(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)  # noqa: S608 -- names are constants


def among(connection: sa.Connection, column: str) -> str:
    """Return a condition on ``column`` for :func:`listed`, many values in one parameter."""
    if connection.dialect.name == "postgresql":
        return f"{column} = ANY(?)"
    return f"{column} IN (SELECT value FROM json_each(?))"  # noqa: S608 -- names are constants


def listed(connection: sa.Connection, values: Sequence[str]) -> Any:
    """Return the parameter of :func:`among`."""
    if connection.dialect.name == "postgresql":
        return list(values)
    import json

    return json.dumps(list(values), ensure_ascii=False)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn what a database says into what a person can act on; no text of the database, and so no value, is passed on.

    Raises:
        DataError: An event is there already, or the database refuses to change what was said.
        IntegrityError: The file is damaged.
        OSError: The disk is full, broken, or not to be written to; the server cannot be reached.
        StoreBusy: Another process holds the store.
    """
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise _meaning(error.orig or error, where) from None
    except sqlite3.Error as error:
        raise _meaning(error, where) from None


def _meaning(cause: BaseException, where: str) -> Exception:
    """Return the error that says what the database meant."""
    text = str(cause)
    for word in ("append-only", "out-of-order", "said-before"):
        if word in text:
            return DataError(f"the store refuses: {word}", where=where, hint="what was said is never changed")
    code = getattr(cause, "sqlite_errorcode", None)
    if isinstance(code, int):
        return _of_sqlite(code & 0xFF, where)
    state = str(getattr(cause, "sqlstate", None) or "")
    if state.startswith("23"):
        return DataError("the store refuses a row that breaks its rules", where=where, key=state)
    if state in {"42501", "25006"}:
        return OSError(errno.EACCES, "the role may not do this in the consent store", where)
    if state.startswith("55") or state == "40001":
        return StoreBusy("another process holds the store", where=where, hint="try again when it is done")
    return OSError(errno.EIO, f"the consent store cannot be read or written {state}".strip(), where)


def _of_sqlite(primary: int, where: str) -> Exception:
    """Return the error of a primary result code of SQLite."""
    if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StoreBusy("another process holds the store", where=where, hint="try again when it is done")
    if primary == sqlite3.SQLITE_FULL:
        return OSError(errno.ENOSPC, "no space left for the consent store; nothing was written", where)
    if primary == sqlite3.SQLITE_IOERR:
        return OSError(errno.EIO, "the consent store cannot be read or written", where)
    if primary in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
        return OSError(errno.EACCES, "the consent store cannot be opened for writing", where)
    if primary == sqlite3.SQLITE_CONSTRAINT:
        return DataError("the store refuses a row that breaks its rules", where=where)
    return IntegrityError(
        "the consent store is damaged or not one",
        code=Code.STORAGE,
        where=where,
        hint="restore it from a backup",
    )


def _target(address: str | os.PathLike[str]) -> tuple[Path | None, str]:
    """Return the file, if it is one, and the URL."""
    text = os.fspath(address)
    if "://" not in text:
        return Path(text), "sqlite://"
    try:
        url = sa.make_url(text)
        kind = url.get_backend_name()
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigError("not a database address", hint="a path, sqlite:///path or postgresql://…") from None
    if kind == "sqlite" and url.database:
        return Path(url.database), "sqlite://"
    if kind == "postgresql":
        return None, url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    raise ConfigError(
        "a consent store is SQLite or PostgreSQL", hint="a path, sqlite:///path or postgresql://…"
    )


def _described(url: sa.URL) -> str:
    """Return the address without user, password and options."""
    return f"{url.get_backend_name()}://{url.host or ''}/{url.database or ''}"


def _touch(path: Path) -> None:
    """Create the file for its owner only, or make sure that it is so."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        if stat.S_IMODE(path.stat().st_mode) & _PRIVATE:
            raise ConfigError(
                "others may read the store", where=path, hint=f"chmod 600 {path.name}"
            ) from None
    except FileNotFoundError:
        raise ConfigError("no folder for the store", where=path, hint="make it first") from None


def _engine(path: Path | None, url: str) -> sa.Engine:
    """Return an engine whose transactions this module begins itself."""
    if path is None:
        try:
            return sa.create_engine(url, connect_args={"connect_timeout": 10}, pool_size=2)
        except ModuleNotFoundError:
            raise MissingExtra("sql", needed_for="a consent store in PostgreSQL") from None

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in (
            f"busy_timeout = {_BUSY_MS}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "secure_delete = ON",  # a salt that was deleted must not stay on a free page
            f"cache_size = -{_CACHE_KIB}",
            f"wal_autocheckpoint = {_LOG_PAGES}",
        ):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.QueuePool, pool_size=2)

    def on_begin(connection: sa.Connection) -> None:
        raw: Any = connection.connection.driver_connection
        writes = connection.get_execution_options().get("fedgen_writes")
        raw.execute("BEGIN IMMEDIATE" if writes else "BEGIN")

    sa.event.listen(engine, "begin", on_begin)
    return engine


def _revision(connection: sa.Connection) -> str | None:
    """Return the schema's revision, or None for an empty database."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return None if found is None else str(found)


def _upgrade(connection: sa.Connection) -> None:
    """Run the migrations on this very connection, inside its transaction."""
    from alembic import command
    from alembic.config import Config

    if _revision(connection) == HEAD_REVISION:  # another process was faster
        return
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
