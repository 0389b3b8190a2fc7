"""Threads that survive a stuck task: when one is given up, another takes its place."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class Workers(Generic[T]):
    """A fixed number of live threads that run submitted calls in order.

    Guarantees:
        - Giving up a running call adds a thread, so later calls are not starved; the old thread ends with
          its call.
        - Threads are daemons: a call that never ends does not keep the process alive.

    Args:
        count: Live threads, at least one.
    """

    def __init__(self, count: int) -> None:
        self._tasks: SimpleQueue[tuple[Future[T], Callable[[], T]] | None] = SimpleQueue()
        self._given_up: set[Future[T]] = set()
        self._lock = threading.Lock()
        self._live = 0
        for _ in range(max(1, count)):
            self._start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Queue a call."""
        future: Future[T] = Future()
        self._tasks.put((future, call))
        return future

    def give_up(self, future: Future[T]) -> bool:
        """Stop waiting for a call; a running one loses its thread, a queued one is cancelled.

        Returns:
            Whether the call will never run.
        """
        if future.cancel():
            return True
        with self._lock:
            if future.done() or future in self._given_up:
                return False
            self._given_up.add(future)
        self._start()
        return False

    def close(self) -> None:
        """Let every idle thread end; running calls end with their process."""
        with self._lock:
            live = self._live
        for _ in range(live):
            self._tasks.put(None)

    def _start(self) -> None:
        with self._lock:
            self._live += 1
        threading.Thread(target=self._work, name="fedgen-site", daemon=True).start()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, call = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(call())
            except BaseException as error:  # noqa: BLE001 - the waiting side re-raises it
                future.set_exception(error)
            with self._lock:
                if future in self._given_up:
                    self._given_up.discard(future)
                    break
        with self._lock:
            self._live -= 1
