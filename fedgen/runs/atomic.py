"""Whole files as :mod:`fedgen._files` writes them, with what goes wrong in one line for a person."""

from __future__ import annotations

import errno
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from fedgen import _files
from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
        hint = "check whose the folder is, and its mode; --out names another place where a command has it"
        return ConfigError("cannot be written", where=where, hint=hint)
    if error.errno in _MISPLACED:
        return ConfigError("something else is in the way", where=where, hint="move it, or name another place")
    reason = os.strerror(error.errno).lower() if error.errno else "input or output failed"
    return ConfigError(f"cannot be written: {reason}", where=where)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a fresh path beside ``path`` for another writer to fill; see :func:`fedgen._files.replacing`.

    Args:
        path: The target; its folder must exist.

    Raises:
        ConfigError: The disk is full or the place cannot be written.
    """
    with storage(path), _files.replacing(path) as temporary:
        yield temporary


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Put ``data`` at ``path`` atomically, for whom the umask lets read it.

    Raises:
        ConfigError: See :func:`replacing`.
    """
    with storage(path):
        _files.write(path, data, private=False)


def write_private(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` atomically, for its owner only from the first byte on.

    Raises:
        ConfigError: See :func:`replacing`.
    """
    with storage(path):
        _files.write(path, data, private=True)


def write_text(path: Path, text: str) -> None:
    """Put ``text`` at ``path`` atomically, as UTF-8; see :func:`write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any, *, private: bool = False, durable: bool = True) -> None:
    """Put ``value`` at ``path`` atomically, as readable JSON with a final newline.

    Args:
        path: The target; its folder must exist.
        value: What JSON can say.
        private: Whether only its owner may read it.
        durable: See :func:`fedgen._files.replacing`.

    Raises:
        ValueError: A number is not finite; JSON has no word for it.
        ConfigError: See :func:`replacing`.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with storage(path):
        _files.write(path, text.encode(), private=private, durable=durable)
