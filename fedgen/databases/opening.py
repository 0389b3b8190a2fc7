"""From an address to an engine: the file is its owner's only, and transactions begin as they are asked to."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from fedgen._files import new_private
from fedgen.errors import ConfigError, MissingExtra

if TYPE_CHECKING:
    from fedgen.databases.kind import Kind

WRITES: Final = "fedgen_writes"  # the option of a connection that takes the write lock at once
_BUSY_MS: Final = 30_000
_EVERY: Final = (f"busy_timeout = {_BUSY_MS}", "journal_mode = WAL", "synchronous = FULL")
_CONNECT_S: Final = 10
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def target(address: str | os.PathLike[str], kind: Kind) -> tuple[Path | None, sa.URL]:
    """Return the file, if it is one, and the URL.

    Raises:
        ConfigError: The address is not one; it is not quoted, because it may hold a password.
    """
    text = os.fspath(address)
    nothing = sa.make_url("sqlite://")
    if "://" not in text:
        return Path(text), nothing
    try:
        url = sa.make_url(text)
        backend = url.get_backend_name()
    except (sa.exc.ArgumentError, ValueError):
        raise ConfigError(kind.no_address, hint=kind.addresses) from None
    if backend == "sqlite" and url.database:
        return Path(url.database), nothing
    if backend == "postgresql":
        return None, url.set(drivername="postgresql+psycopg")
    raise ConfigError(f"{kind.name} is SQLite or PostgreSQL", hint=kind.addresses)


def described(url: sa.URL) -> str:
    """Return the address without user, password and options."""
    return f"{url.get_backend_name()}://{url.host or ''}/{url.database or ''}"


def touch(path: Path, kind: Kind) -> None:
    """Create the file for its owner only, or make sure that it is so.

    Raises:
        ConfigError: Others may read it, or its folder is missing.
    """
    try:
        new_private(path).close()
    except FileExistsError:
        if path.stat().st_mode & _OTHERS:
            what = f"others may read the {kind.words.short}"
            raise ConfigError(what, where=path, hint=f"chmod 600 {path.name}") from None
    except FileNotFoundError:
        what = f"no folder for the {kind.words.short}"
        raise ConfigError(what, where=path, hint="make it first") from None


def engine(path: Path | None, url: sa.URL, kind: Kind) -> sa.Engine:
    """Return an engine for the file, or for the server where there is none.

    Raises:
        MissingExtra: The PostgreSQL driver is not installed.
    """
    if path is not None:
        return _of_file(path, kind)
    try:
        return sa.create_engine(
            url, connect_args={"connect_timeout": _CONNECT_S}, pool_size=2, pool_pre_ping=kind.pings
        )
    except ModuleNotFoundError:
        raise MissingExtra("sql", needed_for=f"a {kind.words.full} in PostgreSQL") from None


def _of_file(path: Path, kind: Kind) -> sa.Engine:
    """Return an engine whose transactions are begun here: the driver's own would not lock before it writes."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in (*_EVERY, *kind.pragmas):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def on_begin(connection: sa.Connection) -> None:
        raw: Any = connection.connection.driver_connection
        writes = connection.get_execution_options().get(WRITES)
        raw.execute("BEGIN IMMEDIATE" if writes else "BEGIN")

    made = sa.create_engine("sqlite://", creator=connect, poolclass=sa.QueuePool, pool_size=2)
    sa.event.listen(made, "begin", on_begin)
    return made
