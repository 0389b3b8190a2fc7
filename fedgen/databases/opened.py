"""An open database, its schema up to date: one reads a moment of it, or writes all or nothing."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from fedgen.databases.opening import WRITES, described, engine, target, touch
from fedgen.errors import ConfigError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from pathlib import Path

    from fedgen.databases.kind import Kind

# Alembic keeps what it works on in one place for the whole process.
_ONE_AT_A_TIME: Final = threading.Lock()


class Opened:
    """An open database: who writes takes the lock first.

    Guarantees:
        - A SQLite file that is made here may be read by its owner only; one that others may read is refused.
        - A transaction is whole or never happened; with SQLite it is on the disk before it counts (WAL, full
          synchronisation).
        - Missing steps of the schema are taken on opening; a newer schema is refused.
        - ``name`` holds no user, password or option of a URL.

    Args:
        address: A path, ``sqlite:///path`` or ``postgresql://…``.
        kind: What is kept in it.

    Raises:
        ConfigError: The address is not one, the file may be read by others, or a later version wrote it.
        MissingExtra: The PostgreSQL driver is not installed.
        Exception: What ``kind.meaning`` makes of the driver's.
    """

    def __init__(self, address: str | os.PathLike[str], kind: Kind) -> None:
        self._kind = kind
        self.path, url = target(address, kind)
        self.name = str(self.path) if self.path else described(url)
        if self.path is not None:
            touch(self.path, kind)
        self.engine = engine(self.path, url, kind)
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
        """Hold the write lock; commit at the end of the block, or take everything back.

        Edge cases:
            - In PostgreSQL writers of a kind without ``one_writer`` hold only what they touch.
        """
        with self.translated(), self.engine.connect() as plain:
            connection = plain.execution_options(**{WRITES: True})
            with connection.begin():
                if self.postgresql and self._kind.one_writer:
                    self._take_lock(connection)
                yield connection

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Read one moment: nothing written meanwhile is seen in the block."""
        with self.translated(), self.engine.connect() as plain:
            options = {"isolation_level": "REPEATABLE READ"} if self.postgresql else {}
            connection = plain.execution_options(**options)
            with connection.begin():
                yield connection

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Turn what the database says into what a person can act on.

        Raises:
            Exception: What ``kind.meaning`` makes of the driver's.
        """
        try:
            yield
        except sa.exc.DBAPIError as error:
            raise self._kind.meaning(error.orig or error, self.name) from None
        except sqlite3.Error as error:
            raise self._kind.meaning(error, self.name) from None

    def _take_lock(self, connection: sa.Connection) -> None:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({self._kind.lock})")

    def _migrate(self) -> None:
        """Take the missing steps; Alembic is loaded only if there are any."""
        kind = self._kind
        with self.reading() as connection:
            found = _revision(connection, kind)
        if found == kind.revision:
            return
        if found is not None and found > kind.revision:
            what = f"the {kind.words.short} was written by a later version"
            raise ConfigError(what, where=self.name, hint="upgrade fedgen")
        with _ONE_AT_A_TIME, self.writing() as connection:
            if self.postgresql:
                self._take_lock(connection)
            if _revision(connection, kind) != kind.revision:  # else another process was faster
                _upgrade(connection, kind.migrations)


def _revision(connection: sa.Connection, kind: Kind) -> str | None:
    """Return the schema's revision, or None for an empty database."""
    if not sa.inspect(connection).has_table(kind.version_table):
        return None
    found = connection.exec_driver_sql(f"SELECT version_num FROM {kind.version_table}").scalar()  # noqa: S608 -- a constant
    return None if found is None else str(found)


def _upgrade(connection: sa.Connection, migrations: Path) -> None:
    """Run the migrations on this very connection, inside its transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
