"""A kind of database of the tests' own: its words, and what its errors mean."""

from __future__ import annotations

import sqlite3

from fedgen.databases.words import Words, postgresql_code, sqlite_code
from fedgen.errors import Code, FedgenError


class BoxBusy(FedgenError):
    """Another process holds the box."""

    site_code = Code.STORAGE


class Unknown(Exception):
    """What the tests' kind makes of an error that nobody else knows."""


WORDS = Words(short="box", full="big box", busy=BoxBusy, spared="nothing was put in")


def meaning(cause: BaseException, where: str) -> Exception:
    primary = sqlite_code(cause)
    if primary is not None:
        return WORDS.of_sqlite(primary, where) or WORDS.damaged(where)
    return WORDS.of_postgresql(postgresql_code(cause), where) or Unknown(where)


def of_sqlite(code: int, text: str = "CANARY") -> sqlite3.Error:
    """Return an error as SQLite's driver raises it."""
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


def of_postgresql(code: str | None) -> Exception:
    """Return an error as PostgreSQL's driver raises it; None where the server is gone."""
    error = Exception("CANARY")
    error.sqlstate = code  # type: ignore[attr-defined]
    return error
