"""How the coordinator's state is opened: SQLite by default, PostgreSQL by URL; nothing here knows what a run is."""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from fedgen.coordinator.state.tables import HEAD_REVISION, VERSION_TABLE
from fedgen.errors import Code, ConfigError, FedgenError, IntegrityError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Iterator

_BUSY_MS: Final = 30_000
_MIGRATING: Final = 0x66656467_65AE  # advisory lock: one process at a time makes the tables
_ONE_AT_A_TIME: Final = threading.Lock()
_PRIVATE: Final = 0o077
_HINT: Final = "a path, sqlite:///path or postgresql://user@host/database"


class StateBusy(FedgenError):
    """Another process held the state for longer than half a minute; nothing was written."""

    site_code = Code.STORAGE


class Database:
    """An open database.

    Guarantees:
        - A SQLite file that is made here may be read by its owner only; one that others may read is refused.
        - A transaction is whole or never happened, and is on the disk before it counts.
        - Missing steps of the schema are taken on opening; a newer schema is refused.
        - ``name`` holds no user, password or option of a URL.

    Args:
        address: A path, ``sqlite:///path`` or ``postgresql://…``.

    Raises:
        ConfigError: The address is not one, the file may be read by others, or a later version wrote it.
        IntegrityError: The file is damaged or no state store.
        MissingExtra: The PostgreSQL driver is not installed.
    """

    def __init__(self, address: str | os.PathLike[str]) -> None:
        self.path, url = _target(address)
        self.name = str(self.path) if self.path else _described(url)
        if self.path is not None:
            _touch(self.path)
        self.engine = _engine(self.path, url)
        self.postgresql = self.engine.dialect.name == "postgresql"
        try:
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
        with (
            translated(self.name),
            self.engine.connect() as plain,
            plain.execution_options(fedgen_writes=True).begin(),
        ):
            yield plain

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Read one moment of the state."""
        with translated(self.name), self.engine.connect() as plain:
            options = {"isolation_level": "REPEATABLE READ"} if self.postgresql else {}
            with plain.execution_options(**options).begin():
                yield plain

    def _migrate(self) -> None:
        """Take the missing steps; Alembic is loaded only if there are any."""
        with self.reading() as connection:
            found = _revision(connection)
        if found == HEAD_REVISION:
            return
        if found is not None and found > HEAD_REVISION:
            raise ConfigError(
                "the state was written by a later version", where=self.name, hint="upgrade fedgen"
            )
        # Alembic keeps what it works on in one place for the whole process.
        with _ONE_AT_A_TIME, self.writing() as connection:
            if self.postgresql:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATING})")
            if _revision(connection) != HEAD_REVISION:  # else another process was faster
                _upgrade(connection)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn what a database says into what a person can act on; no text of the database is passed on.

    Raises:
        ConfigError: The server does not answer.
        IntegrityError: The file is damaged, or the rules of the tables were broken.
        OSError: The disk is full, broken, or not to be written to.
        StateBusy: Another process holds the state.
    """
    try:
        yield
    except sa.exc.DBAPIError as error:
        raise _meaning(error.orig or error, where) from None
    except sqlite3.Error as error:
        raise _meaning(error, where) from None


def _meaning(cause: BaseException, where: str) -> Exception:
    """Return the error that says what the database meant."""
    code = getattr(cause, "sqlite_errorcode", None)
    if isinstance(code, int):
        return _of_sqlite(code & 0xFF, where)
    state = str(getattr(cause, "sqlstate", None) or "")
    if state in {"42501", "25006"}:
        return OSError(errno.EACCES, "the role may not do this in the state", where)
    if state == "53100":
        return OSError(errno.ENOSPC, "no space left for the state; nothing was written", where)
    if state.startswith("55") or state == "40001":
        return StateBusy("another process holds the state", where=where, hint="try again when it is done")
    if state.startswith(("22", "23", "42")):
        return IntegrityError("the state breaks its own rules", code=Code.STORAGE, where=where)
    return ConfigError(
        f"the state's server does not answer {state}".strip(),
        where=where,
        hint="check its address and that it runs; a run goes on with --resume",
    )


def _of_sqlite(primary: int, where: str) -> Exception:
    """Return the error of a primary result code of SQLite."""
    if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return StateBusy("another process holds the state", where=where, hint="try again when it is done")
    if primary == sqlite3.SQLITE_FULL:
        return OSError(errno.ENOSPC, "no space left for the state; nothing was written", where)
    if primary == sqlite3.SQLITE_IOERR:
        return OSError(errno.EIO, "the state cannot be read or written", where)
    if primary in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
        return OSError(errno.EACCES, "the state cannot be opened for writing", where)
    return IntegrityError(
        "the state is damaged or not one", code=Code.STORAGE, where=where, hint="restore it from a backup"
    )


def _target(address: str | os.PathLike[str]) -> tuple[Path | None, sa.URL]:
    """Return the file, if it is one, and the URL."""
    text = os.fspath(address)
    nothing = sa.make_url("sqlite://")
    if "://" not in text:
        return Path(text), nothing
    try:
        url = sa.make_url(text)
        kind = url.get_backend_name()
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigError("not the address of a state", hint=_HINT) from None
    if kind == "sqlite" and url.database:
        return Path(url.database), nothing
    if kind == "postgresql":
        return None, url.set(drivername="postgresql+psycopg")
    raise ConfigError("a coordinator's state is SQLite or PostgreSQL", hint=_HINT)


def _described(url: sa.URL) -> str:
    """Return the address without user, password and options."""
    return f"{url.get_backend_name()}://{url.host or ''}/{url.database or ''}"


def _touch(path: Path) -> None:
    """Create the file for its owner only, or make sure that it is so."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        if stat.S_IMODE(path.stat().st_mode) & _PRIVATE:
            hint = f"chmod 600 {path.name}"
            raise ConfigError("others may read the state", where=path, hint=hint) from None
    except FileNotFoundError:
        raise ConfigError("no folder for the state", where=path, hint="make it first") from None


def _engine(path: Path | None, url: sa.URL) -> sa.Engine:
    """Return an engine whose transactions this module begins itself."""
    if path is None:
        try:
            return sa.create_engine(
                url, connect_args={"connect_timeout": 10}, pool_size=2, pool_pre_ping=True
            )
        except ModuleNotFoundError:
            raise MissingExtra("sql", needed_for="a state in PostgreSQL") from None

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in (f"busy_timeout = {_BUSY_MS}", "journal_mode = WAL", "synchronous = FULL"):
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
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar()  # noqa: S608 -- a constant
    return None if found is None else str(found)


def _upgrade(connection: sa.Connection) -> None:
    """Run the migrations on this very connection, inside its transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
