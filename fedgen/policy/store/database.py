"""How the consent store is opened, what its errors mean, and how millions of rows go in and out of it.

Nothing here knows what an event means.
"""

from __future__ import annotations

import gc
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedgen.databases.kind import Kind
from fedgen.databases.opened import Opened
from fedgen.databases.words import Words, postgresql_code, sqlite_code
from fedgen.errors import Code, DataError, FedgenError
from fedgen.policy.store.tables import HEAD_REVISION

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    import sqlalchemy as sa

_CACHE_KIB: Final = 163_840  # the index of ten million event ids is walked at random while importing
_LOG_PAGES: Final = 32_768  # 128 MiB of log: an import changes the same pages of its indexes again and again
_RAISED: Final = ("append-only", "out-of-order", "said-before")  # by the store's triggers


class StoreBusy(FedgenError):
    """Another process held the store for longer than half a minute; nothing was written."""

    site_code = Code.STORAGE


_WORDS: Final = Words(short="store", full="consent store", busy=StoreBusy)


class Database(Opened):
    """An open consent store; see :class:`fedgen.databases.opened.Opened`.

    Guarantees:
        - Who writes is alone, so that what it read stays true.

    Args:
        address: A path, ``sqlite:///path`` or ``postgresql://…``.

    Raises:
        ConfigError: The address is not one, the file may be read by others, or a later version wrote it.
        DataError: An event is there already, or the database refuses to change what was said.
        IntegrityError: The file is damaged or not a consent store.
        OSError: The disk is full, broken, or not to be written to; the server cannot be reached.
        StoreBusy: Another process holds the store.
        MissingExtra: The PostgreSQL driver is not installed.
    """

    def __init__(self, address: str | os.PathLike[str]) -> None:
        super().__init__(address, _KIND)

    def forget(self, tables: Sequence[str]) -> None:
        """Make what was deleted unreadable as far as the database allows: overwrite, and fold the log in."""
        with self.translated(), self.engine.connect() as plain:
            connection = plain.execution_options(isolation_level="AUTOCOMMIT")
            if self.postgresql:
                for table in tables:
                    connection.exec_driver_sql(f"VACUUM {table}")
            else:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")


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


def _meaning(cause: BaseException, where: str) -> Exception:
    """Return the error that says what the database meant."""
    text = str(cause)
    for word in _RAISED:
        if word in text:
            return DataError(f"the store refuses: {word}", where=where, hint="what was said is never changed")
    primary, code = sqlite_code(cause), postgresql_code(cause)
    if primary == sqlite3.SQLITE_CONSTRAINT or code.startswith("23"):
        return DataError("the store refuses a row that breaks its rules", where=where, key=code or None)
    if primary is not None:
        return _WORDS.of_sqlite(primary, where) or _WORDS.damaged(where)
    return _WORDS.of_postgresql(code, where) or _WORDS.broken(where, code)


_KIND: Final = Kind(
    words=_WORDS,
    name="a consent store",
    no_address="not a database address",
    addresses="a path, sqlite:///path or postgresql://…",
    meaning=_meaning,
    migrations=Path(__file__).with_name("migrations"),
    revision=HEAD_REVISION,
    version_table="alembic_version",
    lock=0x666564_67656E,  # "fedgen": one writer at a time for all stores of a PostgreSQL database
    one_writer=True,
    pragmas=(
        "secure_delete = ON",  # a salt that was deleted must not stay on a free page
        f"cache_size = -{_CACHE_KIB}",
        f"wal_autocheckpoint = {_LOG_PAGES}",
    ),
)
