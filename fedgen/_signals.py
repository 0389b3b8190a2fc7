"""Signals that ask a process to end, heard by what runs in it."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ENDING: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def heard(stop: Callable[[], object], numbers: tuple[signal.Signals, ...] = ENDING) -> Iterator[None]:
    """Have signals call ``stop`` for the length of a block.

    Guarantees:
        - Whoever heard them before hears them again after it, however it ends.

    Args:
        stop: Called in the main thread between two instructions of it; it must not wait.
        numbers: The signals.

    Raises:
        ValueError: This is not the main thread.
    """
    before = {number: signal.signal(number, lambda *_: stop()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
