"""Privacy loss distributions of merged events, by dp_accounting, which is imported late because it takes seconds.

Integer noise has none, because its worst direction in many dimensions is not known: see :mod:`fedgen.privacy._rdp`.
"""

from __future__ import annotations

import math
from functools import lru_cache, reduce
from typing import Any, Final, TypeAlias

from fedgen.privacy.events import Gaussian, Laplace, Merged, PoissonGaussian
from fedgen.privacy.units import Relation

Gridded: TypeAlias = PoissonGaussian | Gaussian | Laplace
GriddedWork: TypeAlias = tuple[tuple[Gridded, int], ...]

POINTS_MAX: Final = 2**17  # grid points of one step: about 0.7 s of CPU at most
TOTAL_MAX: Final = 2**22  # grid points of a whole composition
TAIL: Final = 1e-15  # mass moved to infinity when a tail is cut: pessimistic
_CHUNK: Final = 1024  # compositions done at once
_ROUNDING: Final = 2.0**-53
_EXCESS: Final = (
    2.0**-38
)  # mass above one, times the grid's width, that a sampled step has (measured, q down to 1e-8)
_LEAST_VARIANCE: Final = 1e-200  # of a loss; its grid's points stay numbers, and so do their squares
_EXCESS_MAX: Final = 64.0  # of a composition, as a logarithm; at 709 its powers overflow


def gridded(merged: Merged) -> GriddedWork | None:
    """Return ``merged`` if every event in it has a privacy loss distribution, else None."""
    found = tuple((event, count) for event, count in merged if isinstance(event, Gridded))
    return found if len(found) == len(merged) else None


def _sensitivity(relation: Relation) -> float:
    """Return how far one unit can move a sum of clipped units, in clip norms."""
    return 2.0 if relation is Relation.REPLACE_ONE else 1.0


def _steps(event: Gridded, count: int) -> int:
    """Return how many grid convolutions ``count`` of ``event`` are; Gaussians add up in closed form."""
    return 1 if isinstance(event, Gaussian) else count


def _variance(event: Gridded, count: int, relation: Relation) -> float:
    """Return an estimate of the variance of the privacy loss of all ``count`` events together."""
    if isinstance(event, Laplace):
        return count * (_sensitivity(relation) / event.scale) ** 2
    precision = (_sensitivity(relation) / event.sigma) ** 2
    if isinstance(event, Gaussian):
        return count * precision
    amplified = event.q**2 * math.expm1(min(precision, 600.0))
    return count * min(amplified, event.q * (precision**2 / 4 + precision))


def _reach(event: Gridded, count: int, relation: Relation) -> float:
    """Return an estimate of the width of one step's privacy loss; ten deviations hold all but e⁻⁵⁰."""
    if isinstance(event, Laplace):
        return 2 * _sensitivity(relation) / event.scale
    inverse = _sensitivity(relation) / event.sigma
    if isinstance(event, Gaussian):
        return 20 * inverse * math.sqrt(count)
    largest = 10 * inverse + inverse**2 / 2
    above = math.log1p(event.q * math.expm1(largest)) if largest < 600 else largest + math.log(event.q)  # noqa: PLR2004 -- exp overflows at 709
    return max(above, 0.0) + min(largest, -math.log1p(-event.q))


def measurable(merged: GriddedWork, relation: Relation) -> bool:
    """Return whether the loss of a step is large enough for a grid: at a rate of 1e-170 its square is no number."""
    return sum(_variance(event, count, relation) for event, count in merged) > _LEAST_VARIANCE


def first_interval(merged: GriddedWork, relation: Relation) -> float:
    """Return the grid to begin with: a quarter of the root mean square loss of one step, as a power of two.

    The error of a connect-the-dots grid of width h grows with (h / that loss)²: 0.6 % of ε at a quarter, 0.15
    % at an eighth (measured), whatever q, sigma and the number of steps are.
    """
    variance = sum(_variance(event, count, relation) for event, count in merged)
    steps = sum(_steps(event, count) for event, count in merged)
    # Where few steps have losses at single points, as Laplace has at its two ends, the grid moves those up by as
    # much as its width: a sixty-fourth of the whole loss is enough, and 4,096 points of one step always are.
    reach = max(_reach(event, count, relation) for event, count in merged)
    width = min(math.sqrt(variance / steps) / 4, max(math.sqrt(variance) / 64, reach / 4096))
    return 2.0 ** math.floor(math.log2(width))


def affordable(merged: GriddedWork, interval: float, relation: Relation) -> bool:
    """Return whether a grid of width ``interval`` stays inside the cap on work."""
    variance = sum(_variance(event, count, relation) for event, count in merged)
    reach = max(_reach(event, count, relation) for event, count in merged)
    return reach / interval <= POINTS_MAX and 20 * math.sqrt(variance) / interval <= TOTAL_MAX


def reliable(merged: GriddedWork, delta: float, interval: float) -> bool:
    """Return whether FFT rounding stays far below ``delta``, and the mass of all steps within what a float holds.

    Connecting the dots of a very fine grid rounds mass up. That is pessimistic, until millions of steps at a tiny
    rate raise it to a power that overflows.
    """
    sampled = sum(count for event, count in merged if isinstance(event, PoissonGaussian))
    return _slack(merged) <= delta / 4 and sampled * _EXCESS / interval <= _EXCESS_MAX


def _slack(merged: GriddedWork) -> float:
    """Return the probability that FFT rounding and cut tails may have moved, generously."""
    return sum(_steps(event, count) for event, count in merged) * _ROUNDING + 4 * TAIL * len(merged)


def pld_epsilon(merged: GriddedWork, delta: float, interval: float, relation: Relation) -> float:
    """Return an upper bound on ε by privacy loss distributions on a grid of width ``interval``.

    Guarantees:
        - Pessimistic: rounding of losses, cut tails and FFT rounding all move it upwards.

    Edge cases:
        ==========================  =========
        no events                   0
        δ below FFT rounding        infinity
        10⁷ steps at a tiny rate    infinity
        ==========================  =========

    Source: Doroshenko, Ghazi, Kamath, Kumar, Manurangsi (2022), "Connect the Dots".
    """
    if not merged:
        return 0.0
    if not reliable(merged, delta, interval):
        return math.inf
    try:
        parts = [_composed(event, count, interval, relation) for event, count in merged]
        total = reduce(lambda left, right: left.compose(right, TAIL), parts)
        return float(total.get_epsilon_for_delta(delta - _slack(merged)))
    except OverflowError:  # exp of the loss of absurdly little noise
        return math.inf


def _composed(event: Gridded, count: int, interval: float, relation: Relation) -> Any:
    """Return the loss distribution of ``count`` times ``event``."""
    if isinstance(event, Gaussian):
        return _one(Gaussian(event.sigma), count, interval, relation)
    one = _one(event, 1, interval, relation)
    whole, rest = divmod(count, _CHUNK)
    if not whole:
        return one.self_compose(rest, TAIL)
    # In chunks, because dp_accounting raises the size of a sparse distribution to the count as an integer.
    chunk = one.self_compose(_CHUNK, TAIL / whole)
    result = chunk.self_compose(whole, TAIL) if whole > 1 else chunk
    return result.compose(one.self_compose(rest, TAIL), TAIL) if rest else result


@lru_cache(maxsize=8)
def _one(event: Gridded, count: int, interval: float, relation: Relation) -> Any:
    """Return the loss distribution of one step (or of ``count`` Gaussians, which are one)."""
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import privacy_loss_distribution as pld

    if isinstance(event, Laplace):
        return pld.from_laplace_mechanism(
            event.scale / _sensitivity(relation), value_discretization_interval=interval
        )
    replace = relation is Relation.REPLACE_ONE
    return pld.from_gaussian_mechanism(
        event.sigma / math.sqrt(count),
        value_discretization_interval=interval,
        sampling_prob=event.q if isinstance(event, PoissonGaussian) else 1.0,
        neighboring_relation=NeighboringRelation.REPLACE_ONE
        if replace
        else NeighboringRelation.ADD_OR_REMOVE_ONE,
    )
