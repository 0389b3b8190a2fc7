"""Files that are either the old one or the new one, never half of each, whatever stops the process.

A file is written beside its target, flushed to the disk, renamed over the target, and the folder is flushed.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEMPORARY: Final = ".writing"
_FULL: Final = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN: Final = {errno.EACCES, errno.EPERM, errno.EROFS}
_MISPLACED: Final = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST}


@contextmanager
def storage(where: Path) -> Iterator[None]:
    """Turn an ``OSError`` inside the block into one line about ``where``.

    Raises:
        ConfigError: The disk is full, the place cannot be written, or something else is in the way.
    """
    try:
        yield
    except OSError as error:
        raise storage_error(error, where) from error


def storage_error(error: OSError, where: Path) -> ConfigError:
    """Return what ``error`` means for a person who wanted to write ``where``."""
    if error.errno in _FULL:
        return ConfigError(
            "no room left to write", where=where, hint="free some space and resume; nothing was half-written"
        )
    if error.errno in _FORBIDDEN:
        return ConfigError("cannot be written", where=where, hint="choose another folder with --out")
    if error.errno in _MISPLACED:
        return ConfigError(
            "something else is in the way", where=where, hint="choose another folder with --out"
        )
    reason = os.strerror(error.errno).lower() if error.errno else "input or output failed"
    return ConfigError(f"cannot be written: {reason}", where=where)


def flush_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a fresh path beside ``path`` for another writer to fill; put it in place if the block succeeds.

    Guarantees:
        - ``path`` holds its old content, or all of the new one, at every instant.
        - If the block or the disk fails, ``path`` is untouched and nothing is left beside it.

    Args:
        path: The target; its folder must exist.

    Raises:
        ConfigError: The disk is full or the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{TEMPORARY}{path.suffix}")
    try:
        with storage(path):
            yield temporary
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
            temporary.replace(path)
            flush_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Put ``data`` at ``path`` atomically; see :func:`replacing`."""
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Put ``text`` at ``path`` atomically, as UTF-8; see :func:`replacing`."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Put ``value`` at ``path`` atomically, as readable JSON with a final newline.

    Raises:
        ValueError: A number is not finite; JSON has no word for it.
        ConfigError: See :func:`replacing`.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def sweep(folder: Path) -> None:
    """Remove what an earlier process was writing in ``folder`` when it was killed."""
    for left in folder.glob(f".*{TEMPORARY}*"):
        with suppress(OSError):
            left.unlink()
