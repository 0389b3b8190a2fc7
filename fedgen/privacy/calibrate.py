"""From a budget to a noise multiplier, and from a noise multiplier to the number of steps that fit.

Searches begin where the central limit of DP-SGD points, which is cheap and close but no bound; every answer
is checked by the accountant, which is one.
"""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Context
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from fedgen import _validate
from fedgen.errors import ConfigError
from fedgen.privacy._frontier import frontier
from fedgen.privacy._limit import first_noise
from fedgen.privacy.accountant import epsilon as epsilon_of
from fedgen.privacy.events import Event, PoissonGaussian, PoissonSkellam
from fedgen.privacy.units import Relation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

TIGHT: Final = 0.995
NOISE_MIN: Final = 0.1  # a study that needs less asks for no privacy worth the name
NOISE_MAX: Final = 1e5
_DIGITS: Final = 5
_STEP: Final = 1.0001  # the fifth digit
_TRIES: Final = 60


def noise_multiplier(
    q: float, steps: int, epsilon: float, delta: float, *, relation: Relation = Relation.ADD_OR_REMOVE
) -> float:
    """Return the smallest noise multiplier that keeps ``steps`` steps within (ε, δ), to five digits.

    Guarantees:
        - ``epsilon(((PoissonGaussian(q, result), steps),), delta).epsilon`` lies in [0.995, 1.0] ·
          ``epsilon``.
        - Rounded up, never down. (Where ε jumps by more than 0.5 % within the fifth digit, the upper side.)

    Args:
        q: Sampling rate in (0, 1].
        steps: Number of noised steps, at least 1.
        epsilon: Target, positive.
        delta: In (0, 1).
        relation: Which data sets are neighbours.

    Raises:
        ValueError: An argument is out of range or not finite.
        ConfigError: The target needs practically no noise, or more than any model survives.
    """
    _validate.probability(q=q)
    _validate.positive(steps=steps, epsilon=epsilon)
    _validate.open_probability(delta=delta)
    return _noise(float(q), steps, float(epsilon), float(delta), relation)


@lru_cache(maxsize=256)
def _noise(q: float, steps: int, target: float, delta: float, relation: Relation) -> float:
    """Return the cached noise multiplier."""

    def spent(sigma: float) -> float:
        return epsilon_of(((PoissonGaussian(q, sigma), steps),), delta, relation=relation).epsilon

    return _search(spent, first_noise(q, steps, target * (1 + TIGHT) / 2, delta, relation), target)


def skellam_variance(
    q: float,
    steps: int,
    epsilon: float,
    delta: float,
    *,
    l2: float,
    l1: float,
    relation: Relation = Relation.ADD_OR_REMOVE,
) -> float:
    """Return the smallest variance of Skellam noise that keeps ``steps`` steps within (ε, δ).

    Guarantees:
        - ``epsilon(((PoissonSkellam(q, result, l2, l1), steps),), delta).epsilon`` lies in [0.995, 1.0] ·
          ``epsilon``.
        - Its square root over ``l2`` has five digits, rounded up, never down. (Where ε jumps by more than 0.5 %
          within the fifth digit, as at q = 0.002 and δ = 1e-9, the upper side.)

    Edge cases:
        - It is the variance of the sum that an observer sees. With n shares of which c belong to colluders and d
          may be missing, each share needs it over ``n - c - d``.

    Args:
        q: Sampling rate in (0, 1]; 1 takes every unit.
        steps: Number of noised steps, at least 1.
        epsilon: Target, positive.
        delta: In (0, 1).
        l2: L2 sensitivity of the rounded vector in grid units; :func:`~fedgen.privacy.integers.after_rounding`.
        l1: Its L1 sensitivity.
        relation: Which data sets are neighbours.

    Returns:
        The variance of each coordinate, in grid units squared.

    Raises:
        ValueError: An argument is out of range or not finite.
        ConfigError: The target needs practically no noise, or more than any model survives.
    """
    _validate.probability(q=q)
    _validate.positive(steps=steps, epsilon=epsilon)
    _validate.open_probability(delta=delta)
    PoissonSkellam(q, l2 * l2, l2, l1)  # checks the sensitivities
    return _variance(float(q), steps, float(epsilon), float(delta), float(l2), float(l1), relation)


@lru_cache(maxsize=256)
def _variance(
    q: float, steps: int, target: float, delta: float, l2: float, l1: float, relation: Relation
) -> float:
    """Return the cached variance."""

    def spent(sigma: float) -> float:
        event = PoissonSkellam(q, (sigma * l2) ** 2, l2, l1)
        return epsilon_of(((event, steps),), delta, relation=relation).epsilon

    sigma = _search(spent, first_noise(q, steps, target * (1 + TIGHT) / 2, delta, relation), target)
    return (sigma * l2) ** 2


def _search(spent: Callable[[float], float], first: float, target: float) -> float:
    """Return the least noise multiplier, to five digits, at which ``spent`` is at most ``target``."""
    low: float | None = None  # the most noise known to be too little
    high: float | None = None  # the least noise known to be enough
    sigma, previous = first, None
    for _ in range(_TRIES):
        sigma = _rounded_up(_between(low, sigma, high))
        now = spent(sigma)
        if TIGHT * target <= now <= target:
            return sigma
        if now > target:
            if sigma >= NOISE_MAX:
                raise ConfigError(f"no noise multiplier up to {NOISE_MAX:g} is enough", hint=_MORE)
            low = sigma
        else:
            if sigma <= NOISE_MIN:
                raise ConfigError(
                    f"even a noise multiplier of {NOISE_MIN:g} stays below the target", hint=_LESS
                )
            high = sigma
        if low is not None and high is not None and high <= low * _STEP:
            return high
        sigma, previous = _next(sigma, now, previous, target), (sigma, now)
    raise ConfigError("no noise multiplier was found for this target", hint=_MORE)


def _between(low: float | None, sigma: float, high: float | None) -> float:
    """Return ``sigma`` if it lies inside what is known, else an end that was not tried, else the middle."""
    if math.isfinite(sigma) and (low is None or sigma > low) and (high is None or sigma < high):
        return min(max(sigma, NOISE_MIN), NOISE_MAX)
    if low is None:
        return NOISE_MIN
    return NOISE_MAX if high is None else math.sqrt(low * high)


_MORE: Final = "allow a larger epsilon, or fewer rounds, fewer local steps or a smaller batch"
_LESS: Final = "lower epsilon, and take a delta below one over the number of records"


def _next(sigma: float, now: float, previous: tuple[float, float] | None, target: float) -> float:
    """Return the secant step in log-log coordinates towards the middle of the tight bracket."""
    slope = -1.3
    if previous is not None and previous[0] != sigma and now > 0 and previous[1] > 0:
        slope = math.log(now / previous[1]) / math.log(sigma / previous[0])
    if now <= 0 or not math.isfinite(now) or slope >= -0.05:  # noqa: PLR2004 -- flat or noisy: let the bracket decide
        return math.nan
    return sigma * math.exp(math.log(target * (1 + TIGHT) / 2 / now) / slope)


def _rounded_up(value: float) -> float:
    """Return ``value`` rounded up to five significant digits."""
    return float(Context(prec=_DIGITS, rounding=ROUND_CEILING).create_decimal(repr(value)))


def allowed_steps(
    history: Iterable[tuple[Event, int]],
    event: Event,
    epsilon: float,
    delta: float,
    *,
    relation: Relation = Relation.ADD_OR_REMOVE,
) -> int:
    """Return how many times ``event`` still fits on top of ``history`` within (ε, δ).

    Guarantees:
        - The result fits: the accountant's bound of history and that many events is at most ``epsilon``.
        - One more does not, up to ten million events, where the search stops.

    Edge cases:
        ===================================  =========
        history alone exceeds ε              0
        the event costs nothing at this δ    ten million
        ===================================  =========

    Args:
        history: What was already done to the same rows.
        event: What would be done again and again.
        epsilon: Ceiling, positive.
        delta: In (0, 1).
        relation: Which data sets are neighbours.

    Raises:
        ValueError: An argument is out of range or not finite.
    """
    return frontier(history, event, epsilon, delta, relation=relation).most()
