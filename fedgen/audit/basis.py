"""Whose rows a figure was computed from, and whether a privacy statement covers it."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Final, Literal

import numpy as np

Reference = Literal["held-out", "training"]


@dataclass(frozen=True, slots=True)
class Basis:
    """What a figure was computed from; every metric of an evaluation carries one.

    Attributes:
        data: The rows that were compared, in words.
        private: True when the figure follows from released, noised outputs alone.
        sentence: Who may see the figure and why, in one sentence.
    """

    data: str
    private: bool
    sentence: str


HELD_OUT_SENTENCE: Final = (
    "Held-out rows, not covered by ε: for simulations and the data-protection officer only."
)
TRAINING_SENTENCE: Final = (
    "Training rows, not covered by ε in this use: for simulations and the data-protection officer only."
)


def against(reference: Reference) -> Basis:
    """Return the basis of a figure that compares synthetic rows with ``reference`` rows.

    Guarantees:
        - Never private: either kind of real row is read without noise.
    """
    if reference == "held-out":
        return Basis("synthetic rows against held-out real rows", private=False, sentence=HELD_OUT_SENTENCE)
    return Basis("synthetic rows against the training rows", private=False, sentence=TRAINING_SENTENCE)


@dataclass(frozen=True, slots=True)
class Share:
    """A share of rows with its 99 % interval.

    Attributes:
        value: In [0, 1].
        low: Lower end of the Wilson interval.
        high: Upper end of the Wilson interval.
        of: How many rows were looked at.
    """

    value: float
    low: float
    high: float
    of: int


def share(hits: int, of: int) -> Share:
    """Return ``hits / of`` with its Wilson 99 % interval.

    Guarantees:
        - ``0 <= low <= value <= high <= 1``.

    Args:
        hits: Number of hits.
        of: Number of rows, at least one.

    Raises:
        ValueError: ``of`` is below one, or ``hits`` is outside ``[0, of]``.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    if of < 1 or not 0 <= hits <= of:
        raise ValueError(f"hits must lie in [0, {of}] and of be at least 1")
    z2 = 2.5758293035489004**2
    p = hits / of
    centre = (p + z2 / (2 * of)) / (1 + z2 / of)
    half = sqrt(z2) * sqrt(p * (1 - p) / of + z2 / (4 * of * of)) / (1 + z2 / of)
    return Share(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)), of)


def subset(rows: int, at_most: int, rng: np.random.Generator) -> np.ndarray:
    """Return the sorted indices of at most ``at_most`` of ``rows`` rows, drawn without replacement."""
    if rows <= at_most:
        return np.arange(rows)
    return np.sort(rng.choice(rows, at_most, replace=False))
