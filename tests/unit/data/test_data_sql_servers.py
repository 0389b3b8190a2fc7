"""What holds for a table in SQLite, PostgreSQL and MariaDB alike, each asked through its own driver."""

# ruff: noqa: S608 - statements hold names and numbers of these tests

import gc
import logging
import secrets
import sqlite3
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pytest
from sqlalchemy import make_url
from support import mysql
from support.peaks import growth

from fedgen.data.sources import open_source
from fedgen.errors import ConfigError, DataError

CANARY = "CANARY-4711"
HERE = Path()
OUTFILE = Path(tempfile.gettempdir()) / CANARY


@dataclass
class Database:
    """A database that a test may fill, and its address without a table."""

    kind: str
    url: str

    def do(self, *statements: str) -> Any:
        """Write, over a connection of its own."""
        if self.kind == "sqlite":
            with sqlite3.connect(self.url.removeprefix("sqlite:///"), isolation_level=None) as connection:
                found = [connection.execute(statement).fetchall() for statement in statements]
            connection.close()
            return found
        if self.kind == "postgresql":
            import psycopg

            with psycopg.connect(self.url, autocommit=True) as raw:
                cursors = [raw.execute(statement) for statement in statements]
                return [cursor.fetchall() if cursor.description else [] for cursor in cursors]
        with mysql.connected(self.url) as raw, raw.cursor() as cursor:
            found = []
            for statement in statements:
                cursor.execute(statement)
                found.append(list(cursor.fetchall()))
            return found

    def quoted(self, name: str) -> str:
        mark = "`" if self.kind == "mysql" else '"'
        return mark + name.replace(mark, mark * 2) + mark

    def source(self, **options: str) -> Any:
        may_query = "query" in options
        rest = "&".join(f"{name}={quote(value)}" for name, value in options.items())
        return open_source(
            f"{self.url}{'&' if '?' in self.url else '?'}{rest}", base=HERE, may_query=may_query
        )

    def numbers(self, table: str, rows: int, text: str) -> None:
        """Make a table of whole numbers with a primary key and a column of text, and fill it."""
        fill = {
            "sqlite": f"WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < {rows}) "
            f"SELECT i, {text!r} FROM c",
            "postgresql": f"SELECT i, {text!r} FROM generate_series(1, {rows}) AS c(i)",
            "mysql": f"SELECT seq, {text!r} FROM seq_1_to_{rows}",
        }[self.kind]
        self.do(
            f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, v VARCHAR(250))", f"INSERT INTO {table} {fill}"
        )


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.postgres),
        pytest.param("mysql", marks=pytest.mark.mysql),
    ]
)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    if request.param == "sqlite":
        made = Database("sqlite", f"sqlite:///{tmp_path / 'clinic.db'}")
        made.do("PRAGMA journal_mode = WAL")  # so that one writes while another reads, as the servers let one
        yield made
        return
    name = f"fg_{secrets.token_hex(6)}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
        Database("postgresql", url).do(f"CREATE SCHEMA {name}")
        mark = "&" if "?" in url else "?"
        yield Database("postgresql", f"{url}{mark}options=-c%20search_path%3D{name}")
        Database("postgresql", url).do(f"DROP SCHEMA {name} CASCADE")
        return
    server = make_url(request.getfixturevalue("mysql_url"))
    Database("mysql", server.render_as_string(hide_password=False)).do(
        f"CREATE DATABASE {name} CHARACTER SET utf8mb4"
    )
    yield Database("mysql", server.set(database=name).render_as_string(hide_password=False))
    Database("mysql", server.render_as_string(hide_password=False)).do(f"DROP DATABASE {name}")


def read(source: Any, columns: Any = None) -> Any:
    return pa.Table.from_batches(list(source.batches(columns))).to_pydict()


def refused(act: Any) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        act()
    assert caught.value.__context__ is None, "the driver's exception may quote the row"
    assert "\n" not in str(caught.value)
    assert CANARY not in str(caught.value)
    return str(caught.value)


ODD = 'Or"d`er; DROP TABLE t; --%s :x'


def test_names_are_taken_as_they_are_and_rows_come_by_key(database: Database) -> None:
    table, column = database.quoted(ODD[:60]), database.quoted("sel:ect")
    database.do(f"CREATE TABLE {table} (id INTEGER PRIMARY KEY, {column} VARCHAR(9), x NUMERIC(6, 2))")
    for row in ("(3, 'c', 1.5)", "(1, 'ä', NULL)", "(2, NULL, 2)"):
        database.do(f"INSERT INTO {table} VALUES {row}")
    source = database.source(table=ODD[:60])
    assert source.columns == ["id", "sel:ect", "x"]
    assert read(source, ["x", "sel:ect"]) == {"x": [None, 2.0, 1.5], "sel:ect": ["ä", None, "c"]}
    assert "did you mean" in refused(lambda: read(source, ["sel-ect"]))


def test_dates_come_as_dates(database: Database) -> None:
    if database.kind == "sqlite":  # it has no dates; text is read as one by the schema
        return
    database.do("CREATE TABLE t (d DATE, b BOOLEAN)", "INSERT INTO t VALUES ('2026-01-02', TRUE)")
    table = read(database.source(table="t"))
    assert str(table["d"][0]) == "2026-01-02"
    assert table["b"][0] == 1


def test_nothing_can_be_written(database: Database) -> None:
    database.numbers("t", 3, "x")
    source = database.source(table="t")
    for statement in ("DELETE FROM t", "CREATE TABLE u (i INTEGER)", "UPDATE t SET v = 'y'", "DROP TABLE t"):
        with source._engine.connect() as connection, pytest.raises(Exception, match=r"(?i)read.?only"):
            connection.exec_driver_sql(statement)
    assert read(source)["id"] == [1, 2, 3]


@pytest.mark.mysql
def test_an_address_brings_no_statement_of_its_own(mysql_url: str) -> None:
    """What the driver would run as soon as it is connected, before the session can only read."""
    import pymysql

    server = make_url(mysql_url)
    name = f"fg_{secrets.token_hex(6)}"
    victim = Database("mysql", server.render_as_string(hide_password=False))
    victim.do(f"CREATE DATABASE {name}")
    victim = Database("mysql", server.set(database=name).render_as_string(hide_password=False))
    try:
        victim.numbers("t", 3, "x")
        with pytest.raises(ConfigError, match="init_command: an option that an address may not set"):
            victim.source(table="t", init_command="DELETE FROM t")
        assert victim.do("SELECT COUNT(*) FROM t")[0] == [(3,)]
        # The same address in the driver's hands would have done it.
        asked = make_url(victim.url)
        pymysql.connect(
            unix_socket=asked.query.get("unix_socket"),
            host=asked.host or "localhost",
            port=asked.port or 3306,
            user=asked.username,
            password=asked.password or "",
            database=name,
            autocommit=True,
            init_command="DELETE FROM t",
        ).close()
        assert victim.do("SELECT COUNT(*) FROM t")[0] == [(0,)]
    finally:
        victim.do(f"DROP DATABASE {name}")


def test_rows_are_of_one_moment(database: Database) -> None:
    """What is deleted or added while a table is read plays no part; the next reading sees it."""
    database.numbers("t", 20_000, "x")
    source = database.source(table="t")
    batches = source.batches(["id"], batch_rows=100)
    seen = next(batches).num_rows
    database.do("DELETE FROM t WHERE id > 10000", "INSERT INTO t VALUES (30000, 'y')")
    assert seen + sum(batch.num_rows for batch in batches) == 20_000
    assert len(read(source, ["id"])["id"]) == 10_001


def test_stopping_early_leaves_nothing_behind(database: Database) -> None:
    database.numbers("t", 20_000, "x")
    batches = database.source(table="t").batches(batch_rows=10)
    next(batches)
    batches.close()
    del batches
    gc.collect()  # a cursor that was left open would warn here, and warnings are errors
    database.do("DROP TABLE t")


def test_a_sites_own_query_is_a_table(database: Database) -> None:
    database.numbers("t", 9, "x")
    query = 'SELECT id, 5 % 3 AS "m", \':x\' AS c, v AS "W" FROM t WHERE id < 3 -- that is all\n'
    if database.kind == "mysql":
        query = query.replace('"', "`")
    source = database.source(query=query)
    assert source.columns == ["id", "m", "c", "W"]
    assert read(source, ["W", "c", "m"]) == {"W": ["x", "x"], "c": [":x", ":x"], "m": [2, 2]}
    assert source.describe.endswith(" query")
    assert read(database.source(query="with a as (select 7 as n) select n from a")) == {"n": [7]}


@pytest.mark.parametrize(
    "query",
    [
        f"SELECT '{CANARY}' AS a FROM nowhere",
        f"SELECT nonsense('{CANARY}') AS a",
        f"DELETE FROM t WHERE v = '{CANARY}'",
        f"SELECT 1 AS a; DROP TABLE t; -- {CANARY}",
        f"SELECT 1 AS a) x; DROP TABLE t; -- {CANARY}",
        f"SELECT 1 AS a) x WHERE '{CANARY}' = (SELECT 1",
        f"WITH d AS (DELETE FROM t RETURNING v) SELECT v FROM d -- {CANARY}",
        f"PRAGMA query_only = OFF -- {CANARY}",
        f"SELECT * FROM t INTO OUTFILE '{OUTFILE}'",
        "",
    ],
)
def test_what_is_not_one_query_that_reads(database: Database, query: str) -> None:
    database.numbers("t", 3, CANARY)
    refused(lambda: read(database.source(query=query)))
    assert database.do("SELECT count(*) FROM t") == [[(3,)]]
    assert not OUTFILE.exists()


def test_a_study_may_not_bring_a_query(database: Database) -> None:
    url = f"{database.url}{'&' if '?' in database.url else '?'}query=SELECT 1"
    assert "only a site's own file may hold a query" in refused(lambda: open_source(url, base=HERE))


def test_a_failure_in_the_middle_quotes_nothing(database: Database) -> None:
    """A view that divides by zero, or casts text to a number, far from the first row."""
    database.numbers("t", 20_000, CANARY)
    fault = {
        "sqlite": "abs(CASE WHEN id = 15000 THEN -9223372036854775807 - 1 ELSE id END)",
        "postgresql": "CASE WHEN id = 15000 THEN CAST(v AS INTEGER) ELSE id END",
        "mysql": "CASE WHEN id = 15000 THEN (SELECT id FROM t AS u) ELSE id END",
    }[database.kind]
    database.do(f"CREATE VIEW bad AS SELECT {fault} AS n FROM t")
    assert "the database refused (" in refused(lambda: read(database.source(table="bad")))


def test_no_row_and_no_password_land_in_a_log(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    database.numbers("t", 3, CANARY)
    source = database.source(table="t")
    with caplog.at_level(logging.DEBUG, "sqlalchemy.engine"), caplog.at_level(logging.DEBUG):
        assert read(source)["v"] == [CANARY] * 3
        assert read(database.source(query=f"SELECT v FROM t WHERE v = '{CANARY}'"))["v"] == [CANARY] * 3
        assert CANARY not in caplog.text
        ours = logging.getLogger("sqlalchemy.engine.Engine.fedgen-source")
        ours.setLevel(logging.NOTSET)  # the control: what SQLAlchemy would have written
        read(source)
        ours.setLevel(logging.WARNING)
    assert CANARY in caplog.text


def test_text_that_is_not_unicode_is_refused_without_it(database: Database) -> None:
    if database.kind != "sqlite":  # the servers store none
        return
    database.do(
        "CREATE TABLE t (v TEXT)", f"INSERT INTO t VALUES ('x'), (CAST(x'{CANARY.encode().hex()}ff' AS TEXT))"
    )
    assert "v: a value out of range in rows 1 to 2" in refused(lambda: read(database.source(table="t")))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["streamed", "all rows"])
def test_memory_does_not_grow_with_the_table(database: Database, way: str) -> None:
    """600,000 rows, about 170 MB as Python values; fetching all rows is the control."""
    database.numbers("few", 20_000, "x" * 200)
    database.numbers("many", 600_000, "x" * 200)
    mark = "&" if "?" in database.url else "?"
    rows, grown = growth(way, f"{database.url}{mark}table=few", f"{database.url}{mark}table=many")
    assert rows == 600_000
    assert (grown < 60 * 2**20) == (way == "streamed"), f"peak grew by {grown / 2**20:.0f} MiB"


@pytest.mark.postgres
def test_the_session_of_postgresql_gives_up_in_time(postgres_url: str) -> None:
    mark = "&" if "?" in postgres_url else "?"
    source = open_source(f"{postgres_url}{mark}table=pg_class&schema=pg_catalog", base=HERE)
    with source._engine.connect() as connection:
        names = ("statement_timeout", "lock_timeout", "transaction_isolation", "transaction_read_only")
        found = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names]
    assert found == ["5min", "30s", "repeatable read", "on"]


@pytest.mark.postgres
def test_a_lock_is_not_waited_for_forever(postgres_url: str) -> None:
    import psycopg

    name = f"fg_{secrets.token_hex(6)}"
    mark = "&" if "?" in postgres_url else "?"
    url = f"{postgres_url}{mark}table=t&schema={name}&options=-c%20lock_timeout%3D200ms"
    with psycopg.connect(postgres_url, autocommit=True) as raw:
        raw.execute(f"CREATE SCHEMA {name}; CREATE TABLE {name}.t (id INTEGER)")
        source = open_source(url, base=HERE)
        with psycopg.connect(postgres_url) as other:
            other.execute(f"LOCK TABLE {name}.t IN ACCESS EXCLUSIVE MODE")
            assert "the database refused (55P03)" in refused(lambda: read(source))
        raw.execute(f"DROP SCHEMA {name} CASCADE")


@pytest.mark.mysql
def test_the_session_of_mysql_gives_up_in_time(mysql_url: str) -> None:
    mark = "&" if "?" in mysql_url else "?"
    source = open_source(f"{mysql_url}{mark}query=SELECT 1 AS a", base=HERE, may_query=True)
    with source._engine.connect() as connection:
        names = ("lock_wait_timeout", "net_write_timeout", "tx_read_only")
        found = [connection.exec_driver_sql(f"SELECT @@SESSION.{name}").scalar() for name in names]
        raw = connection.connection.dbapi_connection
    assert found == [30, 300, 1]
    assert (raw._read_timeout, raw._write_timeout, raw.connect_timeout) == (300, 300, 10)
