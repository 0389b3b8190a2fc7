"""How much a site's daemon lets in: sizes, rates, times. What is over a limit is closed, and nothing is kept of it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one daemon.

    Attributes:
        request: Most bytes of one request.
        connections: Most connections at once.
        rate: Requests per second in the long run.
        burst: Requests at once after a quiet time.
        head_s: Seconds in which a request must have said how long it is.
        body_s: Seconds in which the rest must have come, whatever its size.
        bytes_per_s: A longer request gets as many more seconds as it takes at this pace.
        write_s: Seconds in which the relay must take the whole answer, and more at the same pace.
    """

    request: int = 2**26  # 16 million float32 weights
    connections: int = 4
    rate: float = 20.0
    burst: int = 40
    head_s: float = 5.0
    body_s: float = 10.0
    bytes_per_s: float = 2.0**22
    write_s: float = 10.0

    def seconds_for(self, size: int, base: float) -> float:
        """Return how long a message of ``size`` bytes may take."""
        return base + size / self.bytes_per_s


@dataclass(slots=True)
class TokenBucket:
    """Lets ``burst`` through at once, and ``rate`` a second in the long run.

    Guarantees:
        - In any ``t`` seconds at most ``burst + rate * t`` are let through, on whatever threads they come.

    Attributes:
        rate: Tokens a second, positive.
        burst: Most tokens that can be saved up.
        clock: Seconds that never go back.
    """

    rate: float
    burst: int
    clock: Callable[[], float] = time.monotonic
    _tokens: float = field(init=False)
    _last: float = field(init=False)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._tokens, self._last = float(self.burst), self.clock()

    def take(self) -> bool:
        """Return whether one more may pass now."""
        with self._lock:
            now = self.clock()
            self._tokens = min(self.burst, self._tokens + (now - self._last) * self.rate)
            self._last = now
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True
