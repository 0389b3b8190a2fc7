"""The central limit of DP-SGD: where a search begins, and nothing else.

Gaussian-DP figures understate ε by up to a quarter at small noise (measured). They are estimates, so this
module is private, and nothing that is stored, shown or compared with a budget comes from it.

Source: Dong, Roth, Su (2019), Gaussian differential privacy; Bu, Dong, Long, Su (2020), Corollary for Poisson
sampling.
"""

from __future__ import annotations

import math
from typing import Final

from fedgen.privacy.events import SIGMA_MIN, Gaussian, Laplace, Merged
from fedgen.privacy.units import Relation

_EXP_MAX: Final = 700.0


def mu_squared(merged: Merged, relation: Relation) -> float:
    """Return μ² of the Gaussian-DP limit of merged events; squares add under composition."""
    factor = 4.0 if relation is Relation.REPLACE_ONE else 1.0
    total = 0.0
    for event, count in merged:
        if isinstance(event, Laplace):
            total += count * factor / event.scale**2
        elif isinstance(event, Gaussian) or event.q == 1.0:
            total += count * factor / event.sigma**2
        else:  # Skellam noise counts as the Gaussian that it tends to
            total += count * event.q**2 * math.expm1(min(factor / event.sigma**2, _EXP_MAX))
    return total


def first_noise(q: float, steps: int, epsilon: float, delta: float, relation: Relation) -> float:
    """Return the noise multiplier at which the Gaussian-DP limit of the steps is (ε, δ)."""
    factor = 4.0 if relation is Relation.REPLACE_ONE else 1.0
    mu = mu_of(epsilon, delta)
    if q == 1.0:
        return math.sqrt(factor * steps) / mu
    drawn = q**2 * steps  # underflows to zero where next to nobody is ever drawn
    return max(SIGMA_MIN, math.sqrt(factor / math.log1p(mu**2 / drawn))) if drawn > 0.0 else SIGMA_MIN


def mu_of(epsilon: float, delta: float) -> float:
    """Return μ such that μ-Gaussian-DP is (ε, δ)-DP, by bisection."""
    low, high = 1e-9, 2.0
    while _delta_of(high, epsilon) < delta:
        low, high = high, high * 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _delta_of(middle, epsilon) < delta else (low, middle)
    return low


def _delta_of(mu: float, epsilon: float) -> float:
    """Return δ(ε) of μ-Gaussian-DP; Balle and Wang (2018), Theorem 8."""
    root = math.sqrt(2)
    above = math.erfc((epsilon / mu - mu / 2) / root) / 2
    tail = math.erfc((epsilon / mu + mu / 2) / root) / 2
    return above - math.exp(min(epsilon, _EXP_MAX)) * tail
