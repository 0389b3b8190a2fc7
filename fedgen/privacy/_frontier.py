"""Where a ceiling lies: how many repetitions of an event fit on top of a history, found as far as asked."""

from __future__ import annotations

import math
from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Final

from fedgen import _validate
from fedgen.privacy import _limit
from fedgen.privacy.accountant import epsilon as epsilon_of
from fedgen.privacy.events import Event, Merged, merge

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fedgen.privacy.units import Relation

STEPS_MAX: Final = 10**7
_SECANTS: Final = 20
_REACHES: Final = 3


def frontier(
    history: Iterable[tuple[Event, int]], event: Event, epsilon: float, delta: float, *, relation: Relation
) -> Frontier:
    """Return the shared search for how often ``event`` fits on top of ``history``.

    Raises:
        ValueError: An argument is out of range or not finite.
    """
    _validate.positive(epsilon=epsilon)
    _validate.open_probability(delta=delta)
    return _frontier(merge(history), event, float(epsilon), float(delta), relation)


@lru_cache(maxsize=256)
def _frontier(history: Merged, event: Event, epsilon: float, delta: float, relation: Relation) -> Frontier:
    """Return the cached search."""
    return Frontier(history, event, epsilon, delta, relation)


class Frontier:
    """The largest number of repetitions known to fit, the smallest known not to, and a search between them.

    Guarantees:
        - Never contradicts itself: if n fits, so does every smaller number. (A grid that settles differently
          at n than at a larger total cannot refuse a round below a total that fits.)
        - ``fits`` costs a figure only between the two known ends; a run whose whole length was found to fit
          asks the accountant no more.
        - Safe to share between threads.
    """

    def __init__(
        self, history: Merged, event: Event, epsilon: float, delta: float, relation: Relation
    ) -> None:
        self._history, self._event, self._relation = history, event, relation
        self._epsilon, self._delta = epsilon, delta
        self._per_event = _limit.mu_squared(merge(((event, 1),)), relation)
        # The history in repetitions of the event: ε is close to a power of this sum.
        self._before = _limit.mu_squared(history, relation) / self._per_event
        self._seen: list[tuple[int, float]] = []
        self._low, self._high = -1, STEPS_MAX + 1
        self._lock = Lock()

    def fits(self, n: int) -> bool:
        """Return whether ``n`` events fit on top of the history."""
        with self._lock:
            for _ in range(_REACHES):
                ahead = int(self._predicted() * 0.99)
                # A first question about most of what could fit is answered as asked; it is a whole study.
                whole = not self._seen and 4 * n >= ahead
                if whole or not self._low < n < ahead < self._high:
                    break
                self._probe(ahead)  # reach ahead, so that the next rounds need not ask
            if self._low < n < self._high:
                self._probe(n)
            return n <= self._low

    def most(self) -> int:
        """Return the largest number of events that fits, at most ten million."""
        with self._lock:
            if self._low < 0 and self._high > 0:
                self._probe(0)
            tries = 0
            while 0 <= self._low < self._high - 1:
                tries += 1
                guess = self._predicted() if tries <= _SECANTS else math.nan
                middle = (self._low + self._high) // 2
                n = math.floor(guess) if math.isfinite(guess) else middle
                self._probe(min(max(n, self._low + 1), self._high - 1))
            return max(self._low, 0)

    def _probe(self, n: int) -> None:
        """Ask the accountant about ``n`` events and move the end it settles."""
        work = (*self._history, (self._event, n)) if n else self._history
        figure = epsilon_of(work, self._delta, relation=self._relation).epsilon
        self._seen = [*self._seen[-1:], (n, figure)]
        if figure <= self._epsilon:
            self._low = max(self._low, n)
        else:
            self._high = min(self._high, n)

    def _predicted(self) -> float:
        """Return where a power law through the last figures meets the ceiling, or the central limit."""
        points = [(n + self._before, figure) for n, figure in self._seen if 0 < figure < math.inf]
        points = [(work, figure) for work, figure in points if work > 0]
        if not points:
            mu = _limit.mu_of(self._epsilon, self._delta)
            return min(max(mu**2 / self._per_event - self._before, 0.0), float(STEPS_MAX))
        slope = 0.6
        if len(points) > 1 and points[0][0] != points[1][0]:
            slope = math.log(points[1][1] / points[0][1]) / math.log(points[1][0] / points[0][0])
        work, figure = points[-1]
        exponent = math.log(self._epsilon / figure) / min(max(slope, 0.1), 10.0)
        return min(work * math.exp(min(exponent, 40.0)) - self._before, float(STEPS_MAX))
