"""What a learner did since it was given weights, counted where it is done and not where it was asked for.

A plan charges for steps, a rate, a bound and a noise. Whoever copies these from the study into the evidence proves
nothing; a learner that skipped a step, or added less noise, would pass. So the learner counts.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fedgen.privacy.plan import Evidence

if TYPE_CHECKING:
    from fedgen.privacy.units import Unit


class Tally:
    """Counts bounded sums.

    Guarantees:
        - Of settings that differ between sums, the evidence has the one that reveals most: the largest rate and
          bound, the smallest noise, and a private source only if all were.

    Edge cases:
        - Nothing was done: no steps, which no plan charges.

    Args:
        unit: What the sums bound as a whole.
    """

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self.reset()

    def reset(self) -> None:
        """Forget everything; weights were loaded."""
        self._steps, self._rate, self._clip = 0, 0.0, 0.0
        self._noise_std, self._private = math.inf, True

    def add(self, *, rate: float, clip: float, noise_std: float, private: bool) -> None:
        """Count one bounded sum, whether or not anything was drawn for it.

        Args:
            rate: The rate its sample was drawn with.
            clip: The bound on what one unit added to it.
            noise_std: The noise that was added to it, zero for none.
            private: Whether sample and noise came from the operating system's randomness.
        """
        self._steps += 1
        self._rate, self._clip = max(self._rate, rate), max(self._clip, clip)
        self._noise_std = min(self._noise_std, noise_std)
        self._private = self._private and private

    def evidence(self) -> Evidence:
        """Return what was counted since the last :meth:`reset`."""
        return Evidence(
            unit=self._unit,
            steps=self._steps,
            q=self._rate,
            clip=self._clip,
            noise_std=self._noise_std if self._steps else 0.0,
            private=self._private,
        )
