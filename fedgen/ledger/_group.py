"""Group commit: threads that wait on one ledger share one transaction, and so one wait for the disk.

Whoever gets the lock first leads: it acts for everybody who is waiting, in the order they came, and commits once.
While it waits for the disk the next group gathers, so nobody ever waits for company.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

Means = TypeVar("Means")
Result = TypeVar("Result")
_MOST: Final = 256


@dataclass(slots=True, eq=False)
class _Turn:
    """What one thread wants done, and what came of it."""

    act: Callable[[Any], Any]
    result: Any = None
    fault: Exception | None = None
    done: bool = False


class Group(Generic[Means]):
    """Lets threads act inside shared transactions.

    Guarantees:
        - :meth:`take` returns only after the transaction that holds the act has committed.
        - Acts run one at a time, in the order they were asked for; each sees what the ones before it did.
        - An act that raises fails alone; if the transaction itself fails, every act in it fails with that error.
        - A thread that is interrupted takes nobody with it: the others act again in a transaction of their own.

    Args:
        lock: Held while acting; reentrant.
        begin: Begins a transaction that commits at the end of the block.
        fatal: Whether an error of one act means that the transaction is lost.
    """

    def __init__(
        self,
        lock: AbstractContextManager[Any],
        begin: Callable[[], AbstractContextManager[Means]],
        fatal: Callable[[Exception], bool],
    ) -> None:
        self._lock, self._begin, self._fatal = lock, begin, fatal
        self._waiting: deque[_Turn] = deque()

    def take(self, act: Callable[[Means], Result]) -> Result:
        """Run ``act`` in a transaction, perhaps with others', perhaps in another thread; return its result."""
        turn = _Turn(act)
        self._waiting.append(turn)
        with self._lock:
            while not turn.done:
                self._lead(turn)
        if turn.fault is not None:
            raise turn.fault
        result: Result = turn.result
        return result

    def _lead(self, own: _Turn) -> None:
        """Run one transaction for everybody who waits."""
        turns: list[_Turn] = []
        try:
            with self._begin() as means:
                while self._waiting and len(turns) < _MOST:
                    turns.append(self._waiting.popleft())
                    self._act(turns[-1], means)
        except Exception as error:  # noqa: BLE001 -- handed to every thread whose act was in it
            for turn in turns or self._everybody():
                turn.fault, turn.done = turn.fault or error, True
        except BaseException:
            self._waiting.extendleft(turn for turn in reversed(turns) if turn is not own)
            raise
        else:
            for turn in turns:
                turn.done = True

    def _act(self, turn: _Turn, means: Means) -> None:
        """Run one act; what it raises is its own, unless the transaction is lost with it."""
        turn.fault = None
        try:
            turn.result = turn.act(means)
        except Exception as error:
            if self._fatal(error):
                raise
            turn.fault = error

    def _everybody(self) -> list[_Turn]:
        """Return everybody who waits, and forget them."""
        turns = list(self._waiting)
        for turn in turns:
            self._waiting.remove(turn)
        return turns
