import sqlite3
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy.dialects import postgresql

from fedgen.data.sources import open_source
from fedgen.data.sql_source import SqlSource
from fedgen.errors import ConfigError, DataError, MissingExtra


@pytest.fixture
def database(tmp_path: Path) -> Any:
    """A database whose names need quoting, with rows out of order of their key."""
    path = tmp_path / "clinic.db"
    with sqlite3.connect(path) as connection:
        connection.execute('CREATE TABLE "Order; --" (id INTEGER PRIMARY KEY, "select" TEXT, "a ""b" REAL)')
        rows = [(3, "c", None), (1, "a", 1.5), (2, None, 2.0)]
        connection.executemany('INSERT INTO "Order; --" VALUES (?, ?, ?)', rows)
        connection.execute('CREATE VIEW young AS SELECT id AS number FROM "Order; --" WHERE id < 3')
        connection.execute("CREATE TABLE mixed (id INTEGER PRIMARY KEY, v)")
        connection.executemany(
            "INSERT INTO mixed (v) VALUES (?)", [(None,), (1,), (2.5,), ("secret",), (b"x",)]
        )
        connection.execute("CREATE TABLE nobody (v INTEGER)")
    connection.close()
    return path


def address(path: Any, table: Any) -> Any:
    return f"sqlite:///{path}?table={table}"


def read(source: Any, columns: Any = None, batch_rows: Any = 65_536) -> Any:
    return pa.Table.from_batches(list(source.batches(columns, batch_rows))).to_pydict()


def refused(kind: Any, url: Any, base: Any, columns: Any = None) -> Any:
    with pytest.raises(kind) as caught:
        read(open_source(url, base=base), columns)
    text = str(caught.value)
    assert "\n" not in text
    assert "secret" not in text
    assert caught.value.__cause__ is None
    if kind is not MissingExtra:
        assert caught.value.__context__ is None, "the driver's exception may quote the row"
    return text


def test_names_are_taken_as_they_are_and_rows_come_by_key(database: Any, tmp_path: Path) -> None:
    source = open_source(address(database, "Order; --"), base=tmp_path)
    assert source.columns == ["id", "select", 'a "b']
    assert read(source) == {"id": [1, 2, 3], "select": ["a", None, "c"], 'a "b': [1.5, 2.0, None]}


def test_columns_are_read_alone_and_still_by_key(database: Any, tmp_path: Path) -> None:
    source = open_source(address(database, "Order; --"), base=tmp_path)
    assert read(source, ["select"]) == {"select": ["a", None, "c"]}


def test_a_path_is_relative_to_the_study(database: Any) -> None:
    source = open_source("sqlite:///clinic.db?table=young", base=database.parent)
    assert read(source) == {"number": [1, 2]}


def test_batches_are_no_larger_than_asked_for(database: Any, tmp_path: Path) -> None:
    source = open_source(address(database, "Order; --"), base=tmp_path)
    assert [b.num_rows for b in source.batches(batch_rows=2)] == [2, 1]


def test_the_database_is_opened_for_reading_only(database: Any, tmp_path: Path) -> None:
    source = open_source(address(database, "young"), base=tmp_path)
    assert isinstance(source, SqlSource)
    with source._engine.connect() as connection, pytest.raises(Exception, match="readonly"):
        connection.exec_driver_sql("DELETE FROM mixed")


def test_an_injected_name_is_only_a_name_that_does_not_exist(database: Any, tmp_path: Path) -> None:
    for name in ("mixed; DROP TABLE mixed", "mixed%22; DROP TABLE mixed; --", "mixed' OR '1'='1"):
        assert "no such table or view" in refused(DataError, address(database, name), tmp_path)
    assert open_source(address(database, "mixed"), base=tmp_path).columns == ["id", "v"]


def test_an_unknown_column(database: Any, tmp_path: Path) -> None:
    text = refused(DataError, address(database, "young"), tmp_path, ["Number"])
    assert "did you mean 'number'?" in text


def test_no_rows(database: Any, tmp_path: Path) -> None:
    assert "no rows" in refused(DataError, address(database, "nobody"), tmp_path)


def test_a_value_of_another_kind_is_named_by_row(database: Any, tmp_path: Path) -> None:
    assert "v: row 4 is stored as another type" in refused_rows(database, tmp_path, 4)
    assert "v: row 5: values of type bytes cannot be read" in refused_rows(database, tmp_path, 5)


def refused_rows(database: Any, tmp_path: Path, rows: Any) -> Any:
    with sqlite3.connect(database) as connection:
        connection.execute(f"CREATE VIEW first_{rows} AS SELECT v FROM mixed WHERE id <= {rows}")  # noqa: S608 -- a number
    connection.close()
    return refused(DataError, address(database, f"first_{rows}"), tmp_path)


def test_whole_and_broken_numbers_are_numbers(database: Any, tmp_path: Path) -> None:
    source = open_source(address(database, "mixed"), base=tmp_path)
    batches = source.batches(["v"], batch_rows=3)
    assert next(batches).to_pydict() == {"v": [None, 1.0, 2.5]}


def test_the_rows_above_are_counted_across_batches(database: Any, tmp_path: Path) -> None:
    source = open_source(address(database, "mixed"), base=tmp_path)
    with pytest.raises(DataError, match="row 4 is stored as another type"):
        list(source.batches(["v"], batch_rows=2))


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    assert "no such file" in refused(DataError, address(tmp_path / "absent.db", "t"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    path.write_bytes(b"secret" * 1000)
    assert "the database refused (SQLITE_NOTADB)" in refused(DataError, address(path, "t"), tmp_path)


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("sqlite:///t.db", "names no table"),
        ("sqlite:///t.db?table=", "names no table"),
        ("sqlite:///t.db?table=a&table=b", "names no table"),
        ("sqlite://?table=t", "names no file"),
        ("sqlite:///:memory:?table=t", "names no file"),
        ("postgresql://me:secret@host/db", "postgresql://host/db: the address names no table"),
        ("postgresql://me:secret@host:port/db?table=t", "not a database address"),
        ("postgresql://me:p@secret@host/db?table=t", "percent-encode"),
        ("postgresql://m/e:secret@host/db?table=t", "percent-encode"),
        ("mysql://me:p@secret@host/db?table=t", "percent-encode"),
        ("mysql://me:secret@host/db", "mysql://host/db: the address names no table"),
        ("sqlite:///t.db?query=SELECT 1", "query: only a site's own file may hold a query"),
        ("sqlite:///t.db?table=t&query=SELECT 1", "query: only a site's own file may hold a query"),
    ],
)
def test_addresses_that_are_not_one(tmp_path: Path, url: Any, what: str) -> None:
    assert what in refused(ConfigError, url, tmp_path)


def test_without_the_driver_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    text = refused(MissingExtra, "postgresql://me:secret@host/db?table=t", tmp_path)
    assert "pip install 'fedgen[sql]'" in text
    monkeypatch.setitem(sys.modules, "pymysql", None)
    for scheme in ("mysql", "mariadb"):
        text = refused(MissingExtra, f"{scheme}://me:secret@host/db?table=t", tmp_path)
        assert "pip install 'fedgen[mysql]'" in text


def test_a_server_that_is_not_there_is_refused_without_the_password(tmp_path: Path) -> None:
    text = refused(DataError, "postgresql://me:secret@127.0.0.1:1/db?table=t", tmp_path)
    assert text.startswith("postgresql://127.0.0.1/db table t: the database cannot be reached")
    text = refused(DataError, "mysql://me:secret@127.0.0.1:1/db?table=t", tmp_path)
    assert text.startswith("mysql://127.0.0.1/db table t: the database cannot be reached")


@pytest.mark.parametrize(
    ("scheme", "option"),
    [
        ("mysql", "init_command"),
        ("mariadb", "local_infile"),
        ("mysql", "read_default_file"),
        ("mysql", "client_flag"),
        ("mysql", "nonsense"),
        ("postgresql", "sslkeylogfile"),
        ("postgresql", "autocommit"),
        ("postgresql", "replication"),
        ("postgresql", "nonsense"),
    ],
)
def test_an_address_sets_what_is_harmless_and_nothing_else(tmp_path: Path, scheme: str, option: str) -> None:
    text = refused(ConfigError, f"{scheme}://me:secret@127.0.0.1:1/db?table=t&{option}=secret", tmp_path)
    assert f": {option}: an option that an address may not set" in text


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_an_option_that_is_no_word_is_not_repeated(tmp_path: Path, scheme: str) -> None:
    refused(ConfigError, f"{scheme}://me@127.0.0.1:1/db?table=t&my+secret=1", tmp_path)


@pytest.mark.parametrize(
    "option", ["options=-c%20statement_timeout%3D20min", "sslmode=prefer", "connect_timeout=2"]
)
def test_what_an_address_may_set_is_taken(tmp_path: Path, option: str) -> None:
    text = refused(DataError, f"postgresql://me@127.0.0.1:1/db?table=t&{option}", tmp_path)
    assert "cannot be reached" in text


def test_names_are_quoted_for_postgresql_too(database: Any, tmp_path: Path) -> None:
    source = open_source(address(database, "Order; --"), base=tmp_path)
    source._schema = 'my "schema'
    text = str(source._statement(["select"]).compile(dialect=postgresql.dialect()))
    assert '"my ""schema"."Order; --"."select"' in text
    assert text.endswith('ORDER BY "my ""schema"."Order; --"."id"')
