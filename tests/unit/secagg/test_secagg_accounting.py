"""The whole mechanism on one coordinate, summed over the integers: sampling, rounding, shares, dropouts, colluders.

Nothing here is drawn and no bound is used: the probabilities of what an observer sees are added up from those of one
site's share, for two data sets that differ by one record, and the divergence is held against the event that is charged.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.special import gammaln, logsumexp

from fedgen.privacy import _rdp
from fedgen.privacy.units import Relation
from fedgen.secagg.fixed_point import FixedPoint, Grid
from fedgen.secagg.noise_shares import NoiseShares

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST = 600  # integers from -MOST to MOST
SITES, DROPOUTS, COLLUDERS = 5, 1, 2
BITS = 3  # a record moves the sum by at most eight steps, and by nine after rounding


def point(multiplier: float) -> FixedPoint:
    grid = Grid(dimension=1, clip=1.0, bound=4.0, bits=BITS, whole=False)
    noise = NoiseShares(
        sites=SITES, dropouts=DROPOUTS, colluders=COLLUDERS, multiplier=multiplier, sensitivity=grid.l2
    )
    return FixedPoint(grid=grid, noise=noise, ring=32)


def share(variance: float) -> NDArray[np.float64]:
    """Probabilities of one site's share: the sum over both Poisson numbers."""
    k, j = np.arange(MOST + 1)[:, None], np.arange(400)[None, :]
    log = (2 * j + k) * math.log(variance / 2) - gammaln(j + 1) - gammaln(j + k + 1)
    half = np.exp(logsumexp(log, axis=1) - variance)
    return np.concatenate([half[:0:-1], half])


def hidden(variance: float, shares: int) -> NDArray[np.float64]:
    """Probabilities of the sum of so many shares."""
    found = one = share(variance)
    for _ in range(shares - 1):
        found = np.convolve(found, one)[MOST:-MOST]
    return found


def seen(noise: NDArray[np.float64], sums: dict[float, float]) -> NDArray[np.float64]:
    """Probabilities of the rounded and noised sum, whose value before rounding has these chances."""
    found = np.zeros(len(noise))
    for value, chance in sums.items():
        down = math.floor(value)
        for whole, part in ((down, 1 - (value - down)), (down + 1, value - down)):
            found += chance * part * np.roll(noise, whole)
    return found


def sums(rows: list[float], q: float) -> dict[float, float]:
    """The chances of a Poisson sample's sum."""
    found: dict[float, float] = {}
    for drawn in product((0, 1), repeat=len(rows)):
        value = sum(row for row, taken in zip(rows, drawn, strict=True) if taken)
        chance = math.prod(q if taken else 1 - q for taken in drawn)
        found[value] = found.get(value, 0.0) + chance
    return found


def divergence(order: int, left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    middle = (
        np.minimum(left, right) > 1e-250
    )  # beyond, nothing is left that could matter or that float64 could hold
    return float(logsumexp(order * np.log(left[middle]) + (1 - order) * np.log(right[middle])) / (order - 1))


CASES = [([2.3, -5.9], 8.0), ([0.4], 7.5), ([], -8.0), ([3.7, 1.2, -0.6], 0.8)]


@pytest.mark.parametrize("q", [0.05, 0.4, 1.0])
@pytest.mark.parametrize("multiplier", [0.8, 1.5])
def test_what_is_charged_covers_what_the_colluders_assumed_can_see_at_the_fewest_survivors(
    q: float, multiplier: float
) -> None:
    made = point(multiplier)
    noise = hidden(made.noise.variance, SITES - DROPOUTS - COLLUDERS)
    assert math.isclose(float(noise @ np.arange(-MOST, MOST + 1) ** 2), made.noise.needed, rel_tol=1e-9)
    charged = _rdp.curve(made.event(q), Relation.ADD_OR_REMOVE)
    for (rows, more), order in product(CASES, (2, 3, 6)):
        without, with_it = seen(noise, sums(rows, q)), seen(noise, sums([*rows, more], q))
        bound = float(charged[_rdp.ORDERS.index(order)])
        assert divergence(order, with_it, without) <= bound
        assert divergence(order, without, with_it) <= bound


@pytest.mark.parametrize("q", [0.05, 0.4, 1.0])
def test_control_one_share_fewer_is_not_covered(q: float) -> None:
    made = point(1.5)
    noise = hidden(made.noise.variance, SITES - DROPOUTS - COLLUDERS - 1)
    without, with_it = seen(noise, sums([], q)), seen(noise, sums([8.0], q))
    bound = float(_rdp.curve(made.event(q), Relation.ADD_OR_REMOVE)[_rdp.ORDERS.index(2)])
    assert divergence(2, with_it, without) > bound


@pytest.mark.parametrize("helpers", [0, 1, 2, 3])
def test_every_observers_figure_is_that_of_the_shares_that_are_left(helpers: int) -> None:
    made = point(1.5)
    noise = hidden(made.noise.variance, SITES - DROPOUTS - helpers)
    bound = float(
        _rdp.curve(made.event(0.4, colluders=helpers), Relation.ADD_OR_REMOVE)[_rdp.ORDERS.index(3)]
    )
    without, with_it = seen(noise, sums([1.5], 0.4)), seen(noise, sums([1.5, 8.0], 0.4))
    assert divergence(3, with_it, without) <= bound
    assert bound <= 2.2 * divergence(3, with_it, without), "and no more than rounding and the proof add"
