"""One process at a time in a run folder."""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from fedgen.errors import ConfigError
from fedgen.runs.atomic import storage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_NAME: Final = ".lock"


@contextmanager
def locked(
    root: Path, *, held: str = "another run is using this folder", hint: str = "wait for it, or use --out"
) -> Iterator[None]:
    """Hold the run folder ``root``, which is made if it is missing, for the length of the block.

    Guarantees:
        - Two processes never hold one folder; the system frees it when the holder ends, however it ends.

    Args:
        root: The folder.
        held: What is said where another process holds it.
        hint: What to do then.

    Raises:
        ConfigError: Another process holds it (named by its number), or the place cannot be written.
    """
    path = root / LOCK_NAME
    with storage(root):
        root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EACCES, errno.EAGAIN}:
                raise
            raise ConfigError(
                f"{held}{_holder(descriptor)}",
                where=root,
                hint=hint,
            ) from error
        with storage(path):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        # The file stays: removing it would let a third process lock a new file beside the one still held.
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    """Return who wrote the lock, as far as it can be read."""
    text = os.pread(descriptor, 32, 0).strip()
    return f" (process {int(text)})" if text.isdigit() else ""
