"""Is it alive, and may it be asked to work? Answers in codes."""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

from fedgen.observe.words import Reason

if TYPE_CHECKING:
    from collections.abc import Callable


class Probes:
    """The parts of a daemon, and whether each is ready.

    Guarantees:
        - Not ready before the first part was told about: silence is not health.
        - What a part says is a :class:`Reason`; what a watched part raises becomes ``fault``, without its text.
        - Safe to use from several threads.
    """

    def __init__(self) -> None:
        self._parts: dict[str, Reason | None] = {}
        self._watched: dict[str, Callable[[], Reason | None]] = {}
        self._lock = Lock()

    def expect(self, *parts: str) -> None:
        """Name parts that have to become ready; until told otherwise they are ``starting``."""
        with self._lock:
            for part in parts:
                self._parts.setdefault(part, Reason.STARTING)

    def set(self, part: str, reason: Reason | None) -> None:
        """Say that a part is ready (None), or why it is not."""
        with self._lock:
            self._parts[part] = reason

    def watch(self, part: str, ask: Callable[[], Reason | None]) -> None:
        """Ask ``ask`` whenever readiness is asked for; it should answer within a second."""
        with self._lock:
            self._watched[part] = ask

    def reasons(self) -> tuple[Reason, ...]:
        """Return why the daemon is not ready, each reason once and sorted; empty when it is."""
        with self._lock:
            told, watched = dict(self._parts), dict(self._watched)
        if not told and not watched:
            return (Reason.STARTING,)
        said = set(told.values()) | {_answer(ask) for ask in watched.values()}
        return tuple(sorted(reason for reason in said if reason is not None))


def _answer(ask: Callable[[], Reason | None]) -> Reason | None:
    try:
        reason = ask()
        return None if reason is None else Reason(reason)
    except Exception:  # noqa: BLE001 - whatever it is, the part is not ready, and its text stays here
        return Reason.FAULT
