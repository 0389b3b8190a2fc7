"""What a database says, in words that a person can act on; no text of the database, and so no value, is passed on."""

from __future__ import annotations

import errno
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fedgen.errors import Code, IntegrityError

if TYPE_CHECKING:
    from fedgen.errors import FedgenError

_PRIMARY: Final = 0xFF  # the rest of an extended result code says which of its kind
# Source: PostgreSQL manual, appendix A.
_NO_RIGHT: Final = {"42501", "25006"}  # insufficient privilege, read-only transaction
_IN_USE: Final = "55"  # the class of what is not in the state for it, such as locked
_OVERTAKEN: Final = "40001"  # serialization failure


@dataclass(frozen=True, slots=True)
class Words:
    """The errors of one kind of database, by what happened to it.

    Attributes:
        short: What it is called in passing, such as ``"store"``.
        full: What it is called where nothing else says which, such as ``"consent store"``.
        busy: The error of who waited in vain for another process.
        spared: What a full disk has not done.
    """

    short: str
    full: str
    busy: type[FedgenError]
    spared: str = "nothing was written"

    def held(self, where: str) -> FedgenError:
        """Return the error of who waited for another process."""
        return self.busy(
            f"another process holds the {self.short}", where=where, hint="try again when it is done"
        )

    def no_space(self, where: str) -> OSError:
        """Return the error of a full disk."""
        return OSError(errno.ENOSPC, f"no space left for the {self.full}; {self.spared}", where)

    def broken(self, where: str, code: str = "") -> OSError:
        """Return the error of a disk that fails, or of a server that says nothing better than ``code``."""
        return OSError(errno.EIO, f"the {self.full} cannot be read or written {code}".strip(), where)

    def closed(self, where: str) -> OSError:
        """Return the error of a place that may not be written."""
        return OSError(errno.EACCES, f"the {self.full} cannot be opened for writing", where)

    def forbidden(self, where: str) -> OSError:
        """Return the error of a role that lacks a right."""
        return OSError(errno.EACCES, f"the role may not do this in the {self.full}", where)

    def damaged(self, where: str) -> IntegrityError:
        """Return the error of a file that must not be used any more."""
        what = f"the {self.full} is damaged or not one"
        return IntegrityError(what, code=Code.STORAGE, where=where, hint="restore it from a backup")

    def of_sqlite(self, code: int, where: str) -> Exception | None:
        """Return the error of SQLite's primary result code, or None where the file is at fault or the statement."""
        if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            return self.held(where)
        if code == sqlite3.SQLITE_FULL:
            return self.no_space(where)
        if code == sqlite3.SQLITE_IOERR:
            return self.broken(where)
        if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
            return self.closed(where)
        return None

    def of_postgresql(self, code: str, where: str) -> Exception | None:
        """Return the error of PostgreSQL's code where all databases mean the same by it, else None."""
        if code in _NO_RIGHT:
            return self.forbidden(where)
        if code.startswith(_IN_USE) or code == _OVERTAKEN:
            return self.held(where)
        return None


def sqlite_code(error: BaseException) -> int | None:
    """Return the primary result code of an error of SQLite; None for any other."""
    code = getattr(error, "sqlite_errorcode", None)
    return code & _PRIMARY if isinstance(code, int) else None


def postgresql_code(error: BaseException) -> str:
    """Return the five characters of an error of PostgreSQL; empty for any other, and where the server is gone."""
    return str(getattr(error, "sqlstate", None) or "")
