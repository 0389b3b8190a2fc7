"""Rows of a table, view or query in SQLite, PostgreSQL, MySQL or MariaDB, fetched as they are needed."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, Any, Final

from fedgen.data.python_cells import PythonCells
from fedgen.data.source import Source, check_header
from fedgen.data.sql_engines import begun, engine_of
from fedgen.errors import ConfigError, DataError, FedgenError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import TypeVar

    import pyarrow as pa
    import sqlalchemy as sa

    T = TypeVar("T")

_FETCH_ROWS: Final = 8192
_OURS: Final = ("table", "schema", "query")
_SELECT: Final = re.compile(r"\s*(select|with)\b", re.IGNORECASE)


class SqlSource(Source):
    """A table or view, named in the address (``sqlite:///claims.db?table=claims``), or a site's own query.

    Guarantees:
        - Names are quoted by the database's own rules and values are never put into a statement.
        - The session can only read. One statement reads all rows, in a transaction of one moment
          (:func:`fedgen.data.sql_engines.engine_of`), and the database keeps the rows on its side.
        - Rows come by primary key where there is one. Of a view, a query or a table without a key the order is
          the database's, and so is what a ``limit`` takes.
        - Only the columns asked for, and the key's, are named in the statement.

    Args:
        address: The URL, with ``?table=`` and, if need be, ``&schema=``; or ``?query=SELECT ...``.
        base: Folder that the path of a SQLite file is relative to.
        may_query: Whether the address is of a site's own file, and may hold a query.

    Raises:
        ConfigError: The address is not one, or holds a query where only a table may be named.
        DataError: No connection, no such table, or a file that is no database.
        MissingExtra: The driver is not installed.
    """

    def __init__(self, address: str, *, base: Path, may_query: bool = False) -> None:
        url = _parse(address)
        where = f"{url.get_backend_name()}://{url.host or ''}/{url.database or ''}"
        self._table, self._schema = _parameter(url, "table"), _parameter(url, "schema")
        self._query = _query(url, where, may_query=may_query)
        if (self._table is None) == (self._query is None):
            raise ConfigError("the address names no table", where=where, hint="add ?table=NAME")
        self._describe = f"{where} table {self._table}" if self._table is not None else f"{where} query"
        self._engine = engine_of(url.difference_update_query(_OURS), base, where)
        self._key: list[str] = []
        self._columns, self._key = self._told(self._inspect)

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

        if self._query is not None:
            with self._engine.connect() as connection:
                statement = sa.select(sa.text("*")).select_from(self._from([])).where(sa.false())
                found = connection.execute(statement)
                return check_header([str(name) for name in found.keys()], self._describe), []  # noqa: SIM118 - a result
        with self._engine.connect() as connection, warnings.catch_warnings():
            warnings.simplefilter("ignore", sa.exc.SAWarning)  # a type it does not know; only names matter
            inspector = sa.inspect(connection)
            table = str(self._table)
            if not inspector.has_table(table, schema=self._schema):
                hint = "check the name and its case; &schema=NAME names a schema"
                raise DataError("no such table or view", where=self._describe, hint=hint)
            columns = [str(column["name"]) for column in inspector.get_columns(table, schema=self._schema)]
            key = inspector.get_pk_constraint(table, schema=self._schema)["constrained_columns"]
        return check_header(columns, self._describe), [str(name) for name in key]

    def _read(self, columns: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        options = {"yield_per": min(batch_rows, _FETCH_ROWS)}
        cells = PythonCells(self._describe)
        seen = 0
        result = None
        connection = self._told(lambda: begun(self._engine))
        try:
            chosen = connection.execution_options(**options)
            result = self._told(lambda: chosen.execute(self._statement(columns)))
            parts = result.partitions()
            while rows := self._told(lambda: next(parts, None)):
                arrays = [
                    cells.array(values, name, seen)
                    for values, name in zip(zip(*rows, strict=True), columns, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(arrays, names=columns)
                seen += len(rows)
        finally:
            _closed(connection, result)

    def _statement(self, columns: list[str]) -> sa.Select[Any]:
        """Return the one statement; names are quoted, so that they are taken as they are."""
        import sqlalchemy as sa

        table = self._from(columns)
        order = (table.c[name] for name in self._key)
        return sa.select(*(table.c[name] for name in columns)).order_by(*order)

    def _from(self, columns: list[str]) -> Any:
        """Return what is selected from: the table, or the query as a table of its own."""
        import sqlalchemy as sa

        def exact(name: str) -> sa.quoted_name:
            return sa.quoted_name(name, quote=True)

        everything: list[Any] = [sa.column(exact(name)) for name in dict.fromkeys((*columns, *self._key))]
        if self._query is not None:
            text = self._query.replace(":", "\\:") + "\n"  # no colon is a parameter, no comment goes on
            return sa.text(text).columns(*everything).subquery("rows_of_query")
        schema = None if self._schema is None else exact(self._schema)
        return sa.table(exact(str(self._table)), *everything, schema=schema)

    def _told(self, act: Callable[[], T]) -> T:
        """Do something at the database; its errors become ours, by their code alone: their text may quote a row."""
        code: Any = None
        try:
            return act()
        except FedgenError:
            raise
        except Exception as error:  # noqa: BLE001 - drivers raise what they like
            cause = getattr(error, "orig", error)
            code = (
                getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None) or _number(cause)
            )
        what = f"the database refused ({code})" if code else "the database cannot be reached"
        raise DataError(what, where=self._describe, hint="check address, password, rights and table")


def _closed(connection: Any, result: Any) -> None:
    """Close a connection; one that is lost cannot be, and that is no fault of its own."""
    try:
        unread: Any = getattr(getattr(result, "cursor", None), "_result", None)
        if getattr(unread, "unbuffered_active", False):
            unread.unbuffered_active = False  # else pymysql takes in every row that nobody asked for
        if result is not None:
            result.close()
        connection.invalidate()
        connection.close()
    except Exception:  # noqa: BLE001, S110 - what went wrong before is what is told
        pass


def _number(error: Any) -> int | None:
    """Return MySQL's number of an error; those from 2000 on are the client's, for no answer."""
    arguments = getattr(error, "args", ())
    number = arguments[0] if arguments else None
    return number if type(number) is int and not 2000 <= number < 3000 and number > 0 else None  # noqa: PLR2004


def _parse(address: str) -> sa.URL:
    """Return the address taken apart."""
    import sqlalchemy as sa

    hint = "write postgresql://user@host/database?table=NAME or sqlite:///file.db?table=NAME"
    try:
        url = sa.make_url(address)
    except (sa.exc.ArgumentError, ValueError):
        pass
    else:
        if url.get_backend_name() == "sqlite" or "@" not in f"{url.host}{url.database}":
            return url
        hint = "percent-encode what is not a letter or digit in user and password"  # else a part is taken for a host
    raise ConfigError("not a database address", hint=hint)


def _parameter(url: sa.URL, name: str) -> str | None:
    """Return one parameter of the query; an empty or repeated one is none."""
    value = url.query.get(name)
    return value if isinstance(value, str) and value else None


def _query(url: sa.URL, where: str, *, may_query: bool) -> str | None:
    """Return the site's own query, if there is one and there may be one."""
    if "query" not in url.query:
        return None
    if not may_query:
        what = "only a site's own file may hold a query"
        raise ConfigError(what, where=where, key="query", hint="make a view, and name it with ?table=")
    text = _parameter(url, "query")
    if text is None or not _SELECT.match(text) or ";" in text:
        hint = "write ?query=SELECT ..., percent-encoded and without a semicolon"
        raise ConfigError("not one query that reads", where=where, key="query", hint=hint)
    return text.strip()
