"""Append-only files of one JSON value per line, which a crash may tear at the end but nowhere else."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from fedgen.errors import IntegrityError
from fedgen.runs.atomic import storage

if TYPE_CHECKING:
    from pathlib import Path


def append_line(path: Path, value: Any, *, private: bool = False) -> None:
    """Append ``value`` as one line and flush it to the disk before returning.

    Guarantees:
        - A torn last line of an earlier crash is cut off first, so it never joins with this one.
        - If the disk is full, the file is cut back to what it held before.

    Args:
        path: The file; made if it is missing.
        value: What JSON can say.
        private: Whether only its owner may read a file that is made here; else those whom the umask lets.

    Raises:
        ValueError: A number is not finite.
        ConfigError: The disk is full or the file cannot be written.
    """
    line = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode() + b"\n"
    with storage(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600 if private else 0o666)
        try:
            whole = _end_of_last_whole_line(descriptor)
            os.ftruncate(descriptor, whole)
            try:
                _write_all(descriptor, line, whole)
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, whole)
                raise
        finally:
            os.close(descriptor)


def read_lines(path: Path) -> list[Any]:
    """Return the values of all whole lines; inverse of :func:`append_line`.

    Edge cases:
        ===============  ======================
        no such file     an empty list
        torn last line   left out
        ===============  ======================

    Raises:
        IntegrityError: A line before the last is not JSON: somebody else wrote in the file.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    values = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            values.append(json.loads(line))
        except ValueError as error:
            raise IntegrityError(f"line {number} is not one JSON value", where=path) from error
    return values


def _write_all(descriptor: int, line: bytes, offset: int) -> None:
    """Write every byte; the system may take them in parts."""
    written = 0
    while written < len(line):
        written += os.pwrite(descriptor, line[written:], offset + written)


def _end_of_last_whole_line(descriptor: int) -> int:
    """Return the offset after the last newline, reading back from the end."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - 65_536)
        position = os.pread(descriptor, end - start, start).rfind(b"\n")
        if position >= 0:
            return start + position + 1
        end = start
    return 0
