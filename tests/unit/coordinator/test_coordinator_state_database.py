"""What the coordinator's state says of itself when something goes wrong."""

from __future__ import annotations

import errno
import sqlite3
from typing import TYPE_CHECKING

import pytest
from support.boxes import of_postgresql, of_sqlite

from fedgen.coordinator.state.database import _KIND, Database, StateBusy
from fedgen.errors import Code, ConfigError, IntegrityError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("cause", "kind", "words"),
    [
        (of_sqlite(sqlite3.SQLITE_LOCKED), StateBusy, "/there: another process holds the state"),
        (of_postgresql("55P03"), StateBusy, "/there: another process holds the state"),
        (of_sqlite(sqlite3.SQLITE_CORRUPT), IntegrityError, "/there: the state is damaged or not one"),
        (of_sqlite(sqlite3.SQLITE_CONSTRAINT), IntegrityError, "/there: the state is damaged or not one"),
        (of_postgresql("22001"), IntegrityError, "/there: the state breaks its own rules"),
        (of_postgresql("23505"), IntegrityError, "/there: the state breaks its own rules"),
        (of_postgresql("42P01"), IntegrityError, "/there: the state breaks its own rules"),
        (of_postgresql("08006"), ConfigError, "/there: the state's server does not answer 08006"),
        (of_postgresql(None), ConfigError, "/there: the state's server does not answer"),
    ],
)
def test_an_error_of_the_database_is_one_line(cause: Exception, kind: type[Exception], words: str) -> None:
    error = _KIND.meaning(cause, "/there")
    assert type(error) is kind
    assert str(error).partition(" (")[0] == words
    assert getattr(error, "code", Code.STORAGE) is Code.STORAGE


def test_who_loses_the_server_is_told_that_the_run_goes_on() -> None:
    error = _KIND.meaning(of_postgresql("57P01"), "/there")
    assert isinstance(error, ConfigError)
    assert error.hint == "check its address and that it runs; a run goes on with --resume"


@pytest.mark.parametrize(
    ("cause", "number", "words"),
    [
        (of_sqlite(sqlite3.SQLITE_FULL), errno.ENOSPC, "no space left for the state; nothing was written"),
        (of_postgresql("53100"), errno.ENOSPC, "no space left for the state; nothing was written"),
        (of_sqlite(sqlite3.SQLITE_IOERR), errno.EIO, "the state cannot be read or written"),
        (of_sqlite(sqlite3.SQLITE_CANTOPEN), errno.EACCES, "the state cannot be opened for writing"),
        (of_postgresql("42501"), errno.EACCES, "the role may not do this in the state"),
        (of_postgresql("25006"), errno.EACCES, "the role may not do this in the state"),
    ],
)
def test_what_the_disk_or_the_server_says_is_the_system_s(cause: Exception, number: int, words: str) -> None:
    error = _KIND.meaning(cause, "/there")
    assert isinstance(error, OSError)
    assert (error.errno, error.strerror, error.filename) == (number, words, "/there")


@pytest.mark.postgres
def test_a_pooled_connection_that_the_server_closed_is_made_anew(server_address: str) -> None:
    import psycopg

    database = Database(server_address)
    with database.reading():
        pass
    with psycopg.connect(server_address, autocommit=True) as raw:
        raw.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT 1").scalar() == 1
    database.close()


def test_what_is_no_address_is_refused(tmp_path: Path) -> None:
    for address, words in (
        ("mysql://u:secret@h/d", "a coordinator's state is SQLite or PostgreSQL"),
        ("a b://secret", "not the address of a state"),
        (str(tmp_path / "none" / "state.db"), "no folder for the state"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            Database(address)
        assert "secret" not in str(caught.value)
