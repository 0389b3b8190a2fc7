"""Files that are the old one or the new one, never half of each, and closed to others from their first byte on.

A file is written beside its target, flushed to the disk, renamed over the target, and the folder is flushed. What the
system says comes out as it came, as ``OSError``; :mod:`fedgen.runs.atomic` says the same in words for a person.
"""

from __future__ import annotations

import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEMPORARY: Final = ".writing"
_OWNER_ONLY: Final = 0o600


@contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a fresh path beside ``path`` for another writer to fill; put it in place if the block succeeds.

    Guarantees:
        - ``path`` holds its old content, or all of the new one, at every instant.
        - If the block or the disk fails, ``path`` is untouched and nothing is left beside it.
        - A link at ``path`` is replaced; what it points to is not touched.

    Edge cases:
        - A process that is killed leaves the file beside; :func:`sweep` takes it away.
        - If only the flush of the folder fails, the new file is in place, but a power cut may bring the old one back.

    Args:
        path: The target; its folder must exist. The fresh path has the same suffix.
        durable: Whether the disk has it before the block is left; False only in a simulation.

    Raises:
        OSError: The disk is full or the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{TEMPORARY}{path.suffix}")
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as written:
                os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    if durable:
        flush_folder(path.parent)


def write(path: Path, data: bytes | memoryview, *, private: bool, durable: bool = True) -> None:
    """Put ``data`` at ``path`` atomically; see :func:`replacing`.

    Args:
        path: The target; its folder must exist.
        data: All of it.
        private: Whether only its owner may read it; else those whom the umask lets.
        durable: See :func:`replacing`.

    Raises:
        OSError: The disk is full or the place cannot be written; the old file stays.
    """
    with (
        replacing(path, durable=durable) as temporary,
        new_private(temporary) if private else temporary.open("xb") as file,
    ):
        file.write(data)


def new_private(path: Path) -> BinaryIO:
    """Return a new, empty file that only its owner may ever read.

    Guarantees:
        - It has mode 0600, or less by the umask, from before its first byte.
        - What lies at ``path`` already, a link included, is neither followed nor overwritten.

    Raises:
        FileExistsError: Something lies there.
        OSError: The file cannot be made.
    """
    return os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, _OWNER_ONLY), "wb")


def create(path: Path, data: bytes) -> None:
    """Put a private file where nothing is; unlike a rename, this never takes the place of another one.

    Guarantees:
        - Of two processes that do this at once, one fails.
        - The disk has it before this returns; if the disk fails, nothing is left.

    Edge cases:
        - A process that is killed may leave the beginning of ``data``: whoever reads it must know it by its length or a
          check in it. :func:`replacing` leaves no such file, but the second of two processes would win.

    Raises:
        FileExistsError: Something lies there.
        OSError: The disk is full or the place cannot be written.
    """
    with new_private(path) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            flush_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                path.unlink()
            raise


def flush_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path, name: str = "*") -> None:
    """Remove what an earlier process was writing in ``folder`` when it was killed.

    Edge cases:
        - What a living process is writing there goes, too: whoever sweeps holds the folder alone, or names the one file
          that nobody else writes.

    Args:
        folder: Where.
        name: Of the file that was to be replaced; any, if left out.
    """
    for left in folder.glob(f".{name}.*{TEMPORARY}*"):
        with suppress(OSError):
            left.unlink()
