"""The distribution of Poisson batches, with error rates and controls that must fail.

alpha is 1e-6 for every test. The controls are the samplers people use instead: a shuffled pass with batches of fixed
size, a rate that is off by a few percent, and rows whose chances depend on where they are.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fedgen.dpsgd.noise import NoiseSource
from fedgen.dpsgd.sampler import poisson_indices

pytestmark = pytest.mark.statistical

ALPHA = 1e-6
ROWS = 500
BATCHES = 4000
RATES = [0.002, 0.064, 0.5, 0.97]


def poisson(q: float, seed: int = 1) -> list[np.ndarray]:
    source = NoiseSource.insecure(seed)
    return [poisson_indices(ROWS, q, source) for _ in range(BATCHES)]


def shuffled(q: float) -> list[np.ndarray]:
    rng, size, batches = np.random.default_rng(1), int(ROWS * q), []
    while len(batches) < BATCHES:
        order = rng.permutation(ROWS)
        batches += [order[k : k + size] for k in range(0, ROWS - size + 1, size)]
    return batches[:BATCHES]


def mask(batches: list[np.ndarray]) -> np.ndarray:
    chosen = np.zeros((len(batches), ROWS), bool)
    for k, batch in enumerate(batches):
        chosen[k, batch] = True
    return chosen


def frequency_p_value(batches: list[np.ndarray], q: float) -> float:
    """Chi-square over rows: how often was each included?"""
    counts = mask(batches).sum(0)
    statistic = float(np.sum((counts - BATCHES * q) ** 2) / (BATCHES * q * (1 - q)))
    return 2 * min(float(stats.chi2.cdf(statistic, ROWS)), float(stats.chi2.sf(statistic, ROWS)))


def size_variance_p_value(batches: list[np.ndarray], q: float) -> float:
    """Chi-square test that batch sizes have the variance n q (1 - q); by its own variance, for sizes are discrete."""
    sizes = np.array([len(batch) for batch in batches], float)
    claimed = ROWS * q * (1 - q)
    ratio = float(np.mean((sizes - ROWS * q) ** 2)) / claimed
    kurtosis = 3 + (1 - 6 * q * (1 - q)) / claimed
    return 2 * float(stats.norm.sf(abs(ratio - 1) / math.sqrt((kurtosis - 1) / len(sizes))))


def size_p_value(batches: list[np.ndarray], q: float) -> float:
    """Chi-square that batch sizes are binomial."""
    levels = np.unique(stats.binom.ppf(np.linspace(0.02, 0.98, 25), ROWS, q))
    expected = np.diff(np.concatenate([[0.0], stats.binom.cdf(levels, ROWS, q), [1.0]])) * BATCHES
    counts = np.bincount(np.searchsorted(levels, [len(batch) for batch in batches]), minlength=len(expected))
    return float(stats.chisquare(counts, expected).pvalue)


def pair_p_value(batches: list[np.ndarray], q: float, distance: int) -> float:
    """Are rows at a distance included together as often as independence says?"""
    chosen = mask(batches)
    together = int((chosen[:, :-distance] & chosen[:, distance:]).sum())
    n = BATCHES * (ROWS - distance)
    # overlapping pairs are correlated by q^3 - q^4 each way
    variance = n * (q**2 * (1 - q**2) + 2 * (q**3 - q**4))
    return 2 * float(stats.norm.sf(abs(together - n * q**2) / math.sqrt(variance)))


@pytest.mark.parametrize("q", RATES)
def test_every_row_is_included_at_the_rate(q):
    assert frequency_p_value(poisson(q), q) > ALPHA


@pytest.mark.parametrize("q", RATES)
def test_batch_sizes_are_binomial(q):
    batches = poisson(q, seed=2)
    assert size_variance_p_value(batches, q) > ALPHA
    assert size_p_value(batches, q) > ALPHA


@pytest.mark.parametrize("distance", [1, 2, 17, 250])
@pytest.mark.parametrize("q", [0.064, 0.5])
def test_rows_are_included_independently(q, distance):
    assert pair_p_value(poisson(q, seed=3), q, distance) > ALPHA


@pytest.mark.parametrize("q", [0.064, 0.5])
def test_successive_batches_are_independent(q):
    chosen = mask(poisson(q, seed=4))
    both = int((chosen[:-1] & chosen[1:]).sum())
    n = (BATCHES - 1) * ROWS
    variance = n * (q**2 * (1 - q**2) + 2 * (q**3 - q**4))
    assert 2 * float(stats.norm.sf(abs(both - n * q**2) / math.sqrt(variance))) > ALPHA


def test_gaps_are_geometric():
    q = 0.01
    source = NoiseSource.insecure(5)
    rows = np.concatenate([poisson_indices(100_000, q, source) + k * 100_000 for k in range(20)])
    gaps = np.diff(rows)
    levels = np.unique(stats.geom.ppf(np.linspace(0.01, 0.99, 60), q))
    expected = np.diff(np.concatenate([[0.0], stats.geom.cdf(levels, q), [1.0]])) * len(gaps)
    counts = np.bincount(np.searchsorted(levels, gaps), minlength=len(expected))
    assert float(stats.chisquare(counts, expected).pvalue) > ALPHA


def test_control_a_shuffled_sampler_of_fixed_size_fails():
    batches = shuffled(0.064)
    assert size_variance_p_value(batches, 0.064) < ALPHA
    assert size_p_value(batches, 0.064) < ALPHA
    assert frequency_p_value(batches, 0.064) < ALPHA  # every row equally often: far too even


def test_control_successive_shuffled_batches_fail():
    chosen = mask(shuffled(0.064))
    both, n, q = int((chosen[:-1] & chosen[1:]).sum()), (BATCHES - 1) * ROWS, 0.064
    variance = n * (q**2 * (1 - q**2) + 2 * (q**3 - q**4))
    assert 2 * float(stats.norm.sf(abs(both - n * q**2) / math.sqrt(variance))) < ALPHA


def test_control_a_rate_three_percent_off_fails():
    # 500 rows x 4,000 batches at q = 0.5 see 3 % in the variance of frequencies with near certainty.
    assert frequency_p_value(poisson(0.515), 0.5) < ALPHA


def test_control_rows_with_unequal_chances_fail():
    rng = np.random.default_rng(2)
    chances = np.linspace(0.057, 0.071, ROWS)
    batches = [np.flatnonzero(rng.random(ROWS) < chances) for _ in range(BATCHES)]
    assert frequency_p_value(batches, 0.064) < ALPHA


def test_control_rows_drawn_in_pairs_fail():
    rng = np.random.default_rng(3)
    batches = [np.flatnonzero(np.repeat(rng.random(ROWS // 2) < 0.064, 2)) for _ in range(BATCHES)]
    assert frequency_p_value(batches, 0.064) > ALPHA  # each row alone is fine
    assert pair_p_value(batches, 0.064, 1) < ALPHA
