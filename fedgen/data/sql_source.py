"""Rows of a table or view in SQLite or PostgreSQL, fetched as they are needed."""

from __future__ import annotations

import sqlite3
import warnings
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote
from uuid import UUID

from fedgen.data.source import Source, check_header
from fedgen.errors import ConfigError, DataError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa
    import sqlalchemy as sa

_FETCH_ROWS: Final = 8192
_CONNECT_SECONDS: Final = 10
_KINDS: Final = frozenset({bool, int, float, str, date, datetime})


class SqlSource(Source):
    """A table or view, named in the address: ``sqlite:///claims.db?table=claims``.

    Guarantees:
        - Names are quoted by the database's own rules and values are never put into a statement.
        - The database is opened for reading only, and PostgreSQL keeps the rows on its side (server-side
          cursor).
        - One statement reads all rows, so they are of one moment.
        - Rows come by primary key where there is one; without one their order is the database's.

    Args:
        address: The URL, with ``?table=`` and, if need be, ``&schema=``.
        base: Folder that the path of a SQLite file is relative to.

    Raises:
        ConfigError: The address is not one.
        DataError: No connection, no such table, or a file that is no database.
        MissingExtra: The PostgreSQL driver is not installed.
    """

    def __init__(self, address: str, *, base: Path) -> None:
        url = _parse(address)
        where = f"{url.get_backend_name()}://{url.host or ''}/{url.database or ''}"
        table = _parameter(url, "table")
        if table is None:
            raise ConfigError("the address names no table", where=where, hint="add ?table=NAME")
        self._table, self._schema = table, _parameter(url, "schema")
        self._describe = f"{where} table {table}"
        self._engine = _engine(url.difference_update_query(["table", "schema"]), base, where)
        self._columns, self._key = self._inspect()

    @property
    def columns(self) -> list[str]:
        """Names of the table's columns."""
        return list(self._columns)

    @property
    def describe(self) -> str:
        """The address without user, password and options, and the table."""
        return self._describe

    def _inspect(self) -> tuple[list[str], list[str]]:
        """Return the names of the columns, and of those that make the primary key."""
        import sqlalchemy as sa

        with self._told_apart(), warnings.catch_warnings():
            warnings.simplefilter("ignore", sa.exc.SAWarning)  # a type it does not know; only names matter
            inspector = sa.inspect(self._engine)
            if not inspector.has_table(self._table, schema=self._schema):
                hint = "check the name and its case; &schema=NAME names a schema"
                raise DataError("no such table or view", where=self._describe, hint=hint)
            columns = [str(c["name"]) for c in inspector.get_columns(self._table, schema=self._schema)]
            key = inspector.get_pk_constraint(self._table, schema=self._schema)["constrained_columns"]
        return check_header(columns, self._describe), [str(name) for name in key]

    def _read(self, columns: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        options = {"yield_per": min(batch_rows, _FETCH_ROWS)}
        if self._engine.dialect.name == "postgresql":
            options["postgresql_readonly"] = True
        seen = 0
        with self._told_apart(), self._engine.connect() as connection:
            result = connection.execution_options(**options).execute(self._statement(columns))
            for rows in result.partitions():
                cells = zip(*rows, strict=True)
                arrays = [
                    self._array(values, name, seen) for values, name in zip(cells, columns, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(arrays, names=columns)
                seen += len(rows)

    def _statement(self, columns: list[str]) -> sa.Select[Any]:
        """Return the one statement; names are quoted, so that they are taken as they are."""
        import sqlalchemy as sa

        def exact(name: str) -> sa.quoted_name:
            return sa.quoted_name(name, quote=True)

        everything = dict.fromkeys((*columns, *self._key))
        schema = None if self._schema is None else exact(self._schema)
        table = sa.table(exact(self._table), *(sa.column(exact(name)) for name in everything), schema=schema)
        order = (table.c[name] for name in self._key)
        return sa.select(*(table.c[name] for name in columns)).order_by(*order)

    def _array(self, values: Sequence[Any], name: str, first_row: int) -> pa.Array:
        """Return one column of a batch; numbers of any precision become floats, UUIDs become text."""
        import pyarrow as pa

        kinds = set(map(type, values)) - {type(None)}
        foreigners: tuple[tuple[type, Callable[[Any], Any]], ...] = ((Decimal, float), (UUID, str))
        for foreign, plain in foreigners:
            if foreign in kinds:
                values = [plain(value) if type(value) is foreign else value for value in values]
                kinds = set(map(type, values)) - {type(None)}
        what = None
        if strange := kinds - _KINDS:
            what = f"values of type {min(kind.__name__ for kind in strange)} cannot be read"
        elif len(kinds) > 1 and kinds != {int, float}:
            first = next(type(value) for value in values if value is not None)
            alike = {type(None), *({int, float} if first in {int, float} else {first})}
            row = next(i for i, value in enumerate(values) if type(value) not in alike)
            what = f"row {first_row + row + 1} is stored as another type than rows before it"
        else:
            try:
                return pa.array(values)
            except (pa.ArrowException, OverflowError):
                what = f"a value out of range in rows {first_row + 1} to {first_row + len(values)}"
        raise DataError(what, where=self._describe, key=name, hint="make a view that casts the column")

    @contextmanager
    def _told_apart(self) -> Iterator[None]:
        """Turn the database's errors into ours, by their code alone: their text may quote a row."""
        import sqlalchemy as sa

        try:
            yield
        except sa.exc.DBAPIError as error:
            cause = error.orig
            code = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None)
        else:
            return
        what = f"the database refused ({code})" if code else "the database cannot be reached"
        raise DataError(what, where=self._describe, hint="check address, password, rights and table")


def _parse(address: str) -> sa.URL:
    """Return the address taken apart."""
    import sqlalchemy as sa

    try:
        return sa.make_url(address)
    except (sa.exc.ArgumentError, ValueError):
        pass
    hint = "write postgresql://user@host/database?table=NAME or sqlite:///file.db?table=NAME"
    raise ConfigError("not a database address", hint=hint)


def _parameter(url: sa.URL, name: str) -> str | None:
    """Return one parameter of the query; an empty or repeated one is none."""
    value = url.query.get(name)
    return value if isinstance(value, str) and value else None


def _engine(url: sa.URL, base: Path, where: str) -> sa.Engine:
    """Return an engine that keeps no connection between reads."""
    import sqlalchemy as sa

    if url.get_backend_name() == "sqlite":
        return _sqlite(url, base, where)
    if "connect_timeout" not in url.query:
        url = url.update_query_dict({"connect_timeout": str(_CONNECT_SECONDS)})
    try:
        return sa.create_engine(url.set(drivername="postgresql+psycopg"), poolclass=sa.NullPool)
    except ImportError:
        raise MissingExtra("sql", needed_for="a postgresql:// source") from None


def _sqlite(url: sa.URL, base: Path, where: str) -> sa.Engine:
    """Return an engine over an existing file, opened for reading: SQLite would make a missing one."""
    import sqlalchemy as sa

    if not url.database or url.database == ":memory:":
        raise ConfigError("the address names no file", where=where, hint="write sqlite:///file.db?table=NAME")
    path = base / url.database
    if not path.is_file():
        hint = "sqlite:///name is relative, sqlite:////name is absolute"
        raise DataError("no such file", where=path, hint=hint)
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    return sa.create_engine(
        "sqlite://", creator=lambda: sqlite3.connect(uri, uri=True), poolclass=sa.NullPool
    )
