"""What a driver says becomes one of a few errors, and none of its text goes on."""

from __future__ import annotations

import errno
import sqlite3

import pytest
from support.boxes import WORDS, BoxBusy, of_postgresql, of_sqlite

from fedgen.databases.words import postgresql_code, sqlite_code
from fedgen.errors import Code, FedgenError, IntegrityError

KNOWN = {
    sqlite3.SQLITE_BUSY: (BoxBusy, "another process holds the box"),
    sqlite3.SQLITE_LOCKED: (BoxBusy, "another process holds the box"),
    sqlite3.SQLITE_FULL: (errno.ENOSPC, "no space left for the big box; nothing was put in"),
    sqlite3.SQLITE_IOERR: (errno.EIO, "the big box cannot be read or written"),
    sqlite3.SQLITE_READONLY: (errno.EACCES, "the big box cannot be opened for writing"),
    sqlite3.SQLITE_CANTOPEN: (errno.EACCES, "the big box cannot be opened for writing"),
    sqlite3.SQLITE_PERM: (errno.EACCES, "the big box cannot be opened for writing"),
}


def told(error: Exception) -> tuple[object, str]:
    if isinstance(error, OSError):
        assert error.filename == "/there"
        return error.errno, str(error.strerror)
    assert isinstance(error, FedgenError)
    assert error.where == "/there"
    assert error.hint == "try again when it is done"
    return type(error), error.what


@pytest.mark.parametrize("code", range(256))
def test_every_code_of_sqlite_has_a_meaning_or_none(code: int) -> None:
    error = WORDS.of_sqlite(code, "/there")
    assert (None if error is None else told(error)) == KNOWN.get(code)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("42501", (errno.EACCES, "the role may not do this in the big box")),
        ("25006", (errno.EACCES, "the role may not do this in the big box")),
        ("55P03", (BoxBusy, "another process holds the box")),
        ("55006", (BoxBusy, "another process holds the box")),
        ("40001", (BoxBusy, "another process holds the box")),
        ("40P01", None),
        ("42601", None),
        ("25001", None),
        ("53100", None),
        ("", None),
    ],
)
def test_codes_of_postgresql_that_mean_the_same_everywhere(code: str, expected: object) -> None:
    error = WORDS.of_postgresql(code, "/there")
    assert (None if error is None else told(error)) == expected


def test_a_damaged_file_is_not_used_any_more() -> None:
    error = WORDS.damaged("/there")
    assert isinstance(error, IntegrityError)
    assert (error.exit_code, error.code, error.where) == (6, Code.STORAGE, "/there")
    assert str(error) == "/there: the big box is damaged or not one (restore it from a backup)"


def test_a_server_that_says_no_more_than_a_code_is_quoted_with_it() -> None:
    assert WORDS.broken("/there", "XX000").strerror == "the big box cannot be read or written XX000"


def test_the_code_is_the_driver_s_and_of_its_kind_only() -> None:
    full = of_sqlite(sqlite3.SQLITE_FULL | 7 << 8)  # an extended code
    assert (sqlite_code(full), postgresql_code(full)) == (sqlite3.SQLITE_FULL, "")
    assert (sqlite_code(of_postgresql("55P03")), postgresql_code(of_postgresql("55P03"))) == (None, "55P03")
    assert (sqlite_code(of_postgresql(None)), postgresql_code(of_postgresql(None))) == (None, "")
    assert (sqlite_code(sqlite3.InterfaceError("x")), postgresql_code(ValueError())) == (None, "")
