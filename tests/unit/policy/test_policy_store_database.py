"""What the consent store's database says of itself when something goes wrong, and how its file is kept."""

from __future__ import annotations

import errno
import sqlite3
from typing import TYPE_CHECKING

import pytest
from support.boxes import of_postgresql, of_sqlite

from fedgen.errors import Code, ConfigError, DataError, IntegrityError
from fedgen.policy.store import StoreBusy
from fedgen.policy.store.database import _KIND, Database

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_overwrites_what_is_deleted_and_has_room_for_an_import(tmp_path: Path) -> None:
    database = Database(tmp_path / "consent.db")
    with database.reading() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("secure_delete", "cache_size", "wal_autocheckpoint", "synchronous", "busy_timeout")
        }
    database.close()
    assert found == {
        "secure_delete": 1,
        "cache_size": -163_840,
        "wal_autocheckpoint": 32_768,
        "synchronous": 2,
        "busy_timeout": 30_000,
    }


@pytest.mark.parametrize("word", ["append-only", "out-of-order", "said-before"])
@pytest.mark.parametrize("make", [lambda text: of_sqlite(sqlite3.SQLITE_CONSTRAINT, text), Exception])
def test_what_a_trigger_refuses_is_about_the_events(word: str, make) -> None:
    error = _KIND.meaning(make(f"CANARY {word} CANARY"), "/there")
    assert isinstance(error, DataError)
    assert str(error) == f"/there: the store refuses: {word} (what was said is never changed)"


@pytest.mark.parametrize(
    ("cause", "kind", "words"),
    [
        (
            of_sqlite(sqlite3.SQLITE_CONSTRAINT),
            DataError,
            "/there: the store refuses a row that breaks its rules",
        ),
        (of_postgresql("23505"), DataError, "/there: 23505: the store refuses a row that breaks its rules"),
        (of_sqlite(sqlite3.SQLITE_BUSY), StoreBusy, "/there: another process holds the store"),
        (of_postgresql("55P03"), StoreBusy, "/there: another process holds the store"),
        (of_postgresql("40001"), StoreBusy, "/there: another process holds the store"),
        (
            of_sqlite(sqlite3.SQLITE_CORRUPT),
            IntegrityError,
            "/there: the consent store is damaged or not one",
        ),
        (of_sqlite(sqlite3.SQLITE_NOTADB), IntegrityError, "/there: the consent store is damaged or not one"),
    ],
)
def test_an_error_of_the_database_is_one_line(cause: Exception, kind: type[Exception], words: str) -> None:
    error = _KIND.meaning(cause, "/there")
    assert type(error) is kind
    assert str(error).partition(" (")[0] == words
    assert getattr(error, "code", Code.STORAGE) is Code.STORAGE


@pytest.mark.parametrize(
    ("cause", "number", "words"),
    [
        (
            of_sqlite(sqlite3.SQLITE_FULL),
            errno.ENOSPC,
            "no space left for the consent store; nothing was written",
        ),
        (of_sqlite(sqlite3.SQLITE_IOERR), errno.EIO, "the consent store cannot be read or written"),
        (of_sqlite(sqlite3.SQLITE_READONLY), errno.EACCES, "the consent store cannot be opened for writing"),
        (of_postgresql("42501"), errno.EACCES, "the role may not do this in the consent store"),
        (of_postgresql("08006"), errno.EIO, "the consent store cannot be read or written 08006"),
        (of_postgresql(None), errno.EIO, "the consent store cannot be read or written"),
    ],
)
def test_what_the_disk_or_the_server_says_is_the_system_s(cause: Exception, number: int, words: str) -> None:
    error = _KIND.meaning(cause, "/there")
    assert isinstance(error, OSError)
    assert (error.errno, error.strerror, error.filename) == (number, words, "/there")


def test_what_is_no_address_is_refused() -> None:
    for address, words in (
        ("mysql://u:secret@h/d", "a consent store is SQLite or"),
        ("a b://secret", "not a database"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            Database(address)
        assert "secret" not in str(caught.value)
        assert caught.value.hint == "a path, sqlite:///path or postgresql://…"
