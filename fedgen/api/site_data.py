"""What a deployed site keeps of its data: the rows as codes, and the one identity they are charged under."""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.data.encoded import read_encoded
from fedgen.data.sources import open_source
from fedgen.errors import Code, ConfigError, IntegrityError
from fedgen.runs.atomic import write_private

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fedgen.data.encoded import EncodedTable
    from fedgen.ledger.store import Ledger
    from fedgen.schema.table import Schema

_BLOCK: Final = 2**16
_MOST_FILES: Final = 10_000
_EVERY_S: Final = 900.0
_MAX_BYTES: Final = 4096
_HASH: Final = re.compile(r"[0-9a-f]{64}")
# A database writes beside its file, so its file's time says nothing.
_ADDRESS: Final = re.compile(r"(?:(?:csv|parquet)://|(?![A-Za-z][A-Za-z0-9+.-]+:))(?P<path>[^?]*)")


class SiteTable:
    """The site's rows, read again when their source changed.

    Guarantees:
        - As long as the rows are the same, the very same table is returned.
        - When they are not, ``changed`` is called before the new table is: what was remembered by the place of a row
          holds no longer. A mark of the rows on the disk finds a change while no process ran.

    Edge cases:
        - A source that is no CSV or Parquet file of this machine is read again every 15 minutes.

    Args:
        address: Of the source.
        schema: Public knowledge of its rows.
        base: Folder that relative paths start from.
        mark: File that holds a digest of the rows.
        changed: What must be done when the rows are others.
        opens: Returns the address with its password, whenever the source is opened; None where it has all it needs.
    """

    def __init__(
        self,
        address: str,
        schema: Schema,
        *,
        base: Path,
        mark: Path,
        changed: Callable[[], None],
        opens: Callable[[], str] | None = None,
    ) -> None:
        self._address, self._schema, self._base = address, schema, base
        self._opens = opens or (lambda: address)
        self._mark, self._changed = mark, changed
        self._table: EncodedTable | None = None
        self._digest = ""
        self._stamp: object = None

    def __call__(self) -> EncodedTable:
        """Return the rows as they are now.

        Raises:
            ConfigError: The source is gone.
            DataError: A row does not fit the schema, or there are none.
        """
        stamp = _stamp(self._address, self._base)
        if self._table is None or stamp != self._stamp:
            table = read_encoded(open_source(self._opens(), base=self._base, may_query=True), self._schema)
            digest = _digest(table)
            if self._table is None or digest != self._digest:
                if digest != _read_mark(self._mark):
                    self._changed()
                    write_private(self._mark, f"{digest}\n".encode())
                self._table, self._digest = table, digest
            self._stamp = stamp
        return self._table


def dataset_of(path: Path, ledger: Ledger) -> str:
    """Return the identity of the site's data set; it is made once, and stays whatever becomes of the rows.

    One site, one ledger, one data set: rows that come, go or change do not make another budget. The identity is
    random, so that it says nothing of who is in the rows.

    Args:
        path: The file that remembers it.
        ledger: The site's ledger, which knows it too once anything was charged.

    Raises:
        IntegrityError: The file is damaged or names another data set than the ledger does.
    """
    named = {
        str(found)
        for recorded in ledger.entries()
        if (found := getattr(recorded.entry, "dataset", None)) is not None
    }
    known = _read_identity(path)
    if len(named) > 1 or (known is not None and named - {known}):
        raise IntegrityError(
            "the ledger was charged for other data",
            code=Code.LEDGER,
            where=path,
            hint="one site has one ledger and one data set: restore the file",
        )
    if known is None:
        known = named.pop() if named else secrets.token_hex(32)
        write_private(path, (json.dumps({"format": 1, "dataset": known}) + "\n").encode())
    return known


def known_dataset(path: Path) -> str | None:
    """Return the identity of the site's data set, or None before its daemon was first started.

    Raises:
        IntegrityError: The file is damaged.
    """
    return _read_identity(path)


def _read_identity(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", where=path) from None
    try:
        value = json.loads(data)
    except ValueError:
        value = None
    found = value.get("dataset") if isinstance(value, dict) else None
    if not isinstance(found, str) or not _HASH.fullmatch(found):
        raise IntegrityError(
            "does not say which data the ledger is about", code=Code.LEDGER, where=path, hint="restore it"
        )
    return found


def _read_mark(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_BYTES).decode(errors="replace").strip()
    except OSError:
        return ""


def _digest(table: EncodedTable) -> str:
    """Return a digest of the rows and of whose they are, in order."""
    whole = sha256()
    for part in (table.codes, table.subjects):
        if part is None:
            continue
        whole.update(f"{part.dtype} {part.shape}\n".encode())
        for start in range(0, len(part), _BLOCK):
            whole.update(np.ascontiguousarray(part[start : start + _BLOCK]).tobytes())
    return whole.hexdigest()


def _stamp(address: str, base: Path) -> object:
    """Return what changes when a file of rows does; for any other source, what changes every 15 minutes."""
    found = _ADDRESS.match(address.strip())
    text = found["path"] if found else ""
    path = base / text
    if text and path.is_file():
        return _state(path)
    if text and path.is_dir():
        files = []
        for folder, _, names in os.walk(path):
            files += [(os.path.join(folder, name)) for name in names]  # noqa: PTH118 - a walk of strings
            if len(files) > _MOST_FILES:
                break
        else:
            return tuple((name, *_state(name)) for name in sorted(files))
    return int(time.monotonic() // _EVERY_S)


def _state(path: Path | str) -> tuple[int, ...]:
    at = os.stat(path)  # noqa: PTH116 - takes both
    return (at.st_mtime_ns, at.st_ctime_ns, at.st_size, at.st_ino)
