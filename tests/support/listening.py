"""Looks at what a SuperLink's database ever held, as somebody who copies the file now and then would."""

from __future__ import annotations

import sqlite3
import threading
import zlib
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Listener(threading.Thread):
    """Keeps a copy of every object that stands in the database, until it is told to stop.

    Args:
        path: Of the database.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._path, self._stopping = path, threading.Event()
        self.objects: dict[str, bytes] = {}

    def run(self) -> None:
        while not self._stopping.wait(0.1):
            with suppress(sqlite3.Error):  # it may be restarting
                self._look()

    def _look(self) -> None:
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=1)) as raw:
            known = "SELECT object_id FROM objects WHERE length(content) > 0"
            new = [name for (name,) in raw.execute(known) if name not in self.objects]
            for name in new:
                row = raw.execute("SELECT content FROM objects WHERE object_id = ?", (name,)).fetchone()
                if row is not None and row[0]:
                    self.objects[name] = bytes(row[0])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self.join(10)

    def texts(self) -> Iterator[bytes]:
        """Yield every object, as it stands there and, where it is compressed, opened."""
        for content in self.objects.values():
            yield from opened(content)


def opened(content: bytes) -> Iterator[bytes]:
    """Yield a content and whatever deflate stream begins anywhere in its first kilobyte."""
    yield content
    for start in range(min(1024, len(content))):
        if content[start] != 0x78:
            continue
        with suppress(zlib.error):
            yield zlib.decompressobj().decompress(content[start:])


def everything(home: Path) -> bytes:
    """Return the bytes of the database's files as they are now: the rows and what was deleted and not overwritten."""
    return b"".join(path.read_bytes() for path in sorted(home.glob("superlink.db*")))
