"""Shares of noise have the distribution that is charged, and rounding is unbiased.

alpha is 1e-6 for each test, fixed seeds. Variances: 653,000 numbers see one that is 1.8 % off with probability above
1 - 1e-6. Shapes: 400,000 numbers over about sixty cells see one cell that is off by 20 % likewise. A test computes both
from the distributions. Each test has a control that fails.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from scipy import special, stats

from fedgen.crypto.stream import KeyStream
from fedgen.secagg.fixed_point import Grid, plan
from fedgen.secagg.skellam import _log_pmf, _table, add_skellam

pytestmark = pytest.mark.statistical

ALPHA = 1e-6
N = 400_000
VARIANCES = [0.05, 0.7, 3.0, 37.0, 511.5, 4095.9, 4096.1, 1e5, 123_456_789.0]


def draw(n: int, variance: float, seed: int) -> np.ndarray:
    values = np.zeros(n, np.int64)
    add_skellam(values, variance, KeyStream.insecure(seed))
    return values


def cells(variance: float) -> tuple[np.ndarray, np.ndarray]:
    """Return edges of cells of about a sixtieth each, and their exact chances, by scipy's Bessel functions."""
    deviation = math.sqrt(variance)
    quantiles = stats.norm.ppf(np.arange(1, 60) / 60)
    edges = np.unique(np.floor(quantiles * deviation).astype(np.int64))
    below = stats.skellam.cdf(edges, variance / 2, variance / 2)
    return edges, np.diff(np.concatenate([[0.0], below, [1.0]]))


def shape_p(numbers: np.ndarray, variance: float) -> float:
    edges, chances = cells(variance)
    counts = np.bincount(np.searchsorted(edges, numbers), minlength=len(chances))
    keep = chances * len(numbers) > 5
    expected = np.append(chances[keep], chances[~keep].sum()) * len(numbers)
    counts = np.append(counts[keep], counts[~keep].sum())
    fits = expected > 1e-9
    return float(
        stats.chisquare(counts[fits], expected[fits] * (counts[fits].sum() / expected[fits].sum())).pvalue
    )


def variance_p(numbers: np.ndarray, variance: float) -> float:
    """Two-sided p of the mean square, by its own kurtosis: Var X² = 2 v² + v for a Skellam number."""
    z = (np.mean(numbers.astype(np.float64) ** 2) - variance) / math.sqrt(
        (2 * variance**2 + variance) / len(numbers)
    )
    return float(2 * stats.norm.sf(abs(z)))


@pytest.mark.parametrize("variance", VARIANCES)
def test_skellam_numbers_have_their_shape_and_variance(variance: float) -> None:
    numbers = draw(N, variance, int(variance * 10))
    if variance < 1e7:  # beyond, scipy's distribution function loses digits
        assert shape_p(numbers, variance) > ALPHA
    assert variance_p(numbers, variance) > ALPHA


@pytest.mark.parametrize("variance", [2.0**30, 2.0**45, 2.0**60])
def test_large_variances_are_normal_to_within_what_can_be_seen(variance: float) -> None:
    numbers = draw(N, variance, 5)
    assert float(stats.kstest(np.sort(numbers / math.sqrt(variance)), "norm").pvalue) > ALPHA
    assert variance_p(numbers, variance) > ALPHA


@pytest.mark.parametrize("variance", [3.0, 4096.1, 2.0**40])
def test_signs_balance_last_bits_are_even_and_tails_are_there(variance: float) -> None:
    numbers = draw(N, variance, 6)
    assert stats.binomtest(int((numbers > 0).sum()), int((numbers != 0).sum()), 0.5).pvalue > ALPHA
    if variance > 100:
        assert stats.binomtest(int((numbers & 1).sum()), N, 0.5).pvalue > ALPHA
        far = int((np.abs(numbers) > 3.5 * math.sqrt(variance)).sum())
        chance = float(2 * stats.norm.sf(3.5))
        assert stats.binomtest(far, N, chance * 1.05, alternative="less").pvalue > ALPHA
        assert stats.binomtest(far, N, chance * 0.95, alternative="greater").pvalue > ALPHA


@pytest.mark.parametrize("variance", [4096.1, 1e5, 1e7, 2.0**32, 2.0**50])
def test_the_probabilities_are_those_of_the_bessel_functions(variance: float) -> None:
    k = np.unique(np.linspace(0, 9 * math.sqrt(variance), 500).astype(np.int64))
    if variance < 2**31:  # beyond, scipy's functions give nan
        assert np.allclose(_log_pmf(k, variance), np.log(special.ive(k, variance)), rtol=0, atol=1e-10)
    assert np.array_equal(_log_pmf(k, variance), _log_pmf(-k, variance))
    near = np.arange(-40, 41)  # sums of neighbours, by the recurrence I(k-1) - I(k+1) = 2k I(k) / v
    pmf = np.exp(_log_pmf(near, variance) - _log_pmf(np.array([0]), variance))
    left, right = pmf[:-2] - pmf[2:], 2 * near[1:-1] * pmf[1:-1] / variance
    assert np.allclose(left, right, rtol=0, atol=1e-13)


@pytest.mark.parametrize("variance", VARIANCES)
def test_the_table_gives_every_cell_its_chance_and_reaches_far(variance: float) -> None:
    table = _table(variance)
    share = table.keep.astype(np.float64) * 2.0**-53
    got = share.copy()
    np.add.at(got, table.alias, 1 - share)
    wanted = np.exp(table.log_most - table.log_most.max())
    assert np.allclose(got / got.sum(), wanted / wanted.sum(), rtol=1e-9, atol=1e-15)
    assert -table.first[0] >= 12 * math.sqrt(variance)


def log_chance(k: int, variance: float) -> Decimal:
    """Return the log probability of ``k`` by its power series: no table, no float."""
    with localcontext(prec=50):
        half = Decimal(variance) / 2
        term = total = half**k / math.factorial(k)
        j = 0
        while j <= variance or term > total * Decimal("1e-45"):
            j += 1
            term *= half * half / (j * (j + k))
            total += term
        return total.ln() - Decimal(variance)


@pytest.mark.parametrize("variance", [0.05, 3.0, 511.5, 4095.9, 4096.1])
def test_every_probability_is_right_to_one_part_in_2_42_in_the_tails_too(variance: float) -> None:
    """What the table makes of 2^64 first words and a trial, beside the Bessel function's series in fifty digits."""
    table = _table(variance)
    words = [int(kept) for kept in table.keep]
    for kept, other in zip(table.keep, table.alias, strict=True):
        words[other] += 2**53 - int(kept)
    assert sum(words) == 2**64
    assert min(words) > 0, "no cell is out of reach"
    off, likely = [], []
    for cell in (*range(1022, 1027), *range(300, 1748, 37)):
        k = int(table.first[cell])
        exact = log_chance(abs(k), variance)
        if exact < -100 * math.log(2):
            continue
        taken = float(_log_pmf(np.array([k]), variance)[0]) - float(table.log_most[cell])
        assert taken <= 2.0**-44, "a trial passes with a chance of at most one"
        off.append(float(Decimal(words[cell]).ln() + Decimal(taken) - exact))
        likely.append(words[cell] / 2**64)
    assert max(off) - min(off) <= 2.0**-42
    old = [2.0**-64 / chance for chance in likely]  # control: a chance of 2^-64ths that no trial puts right
    assert variance < 3 or max(old) > 2.0**-30


def test_shares_of_ten_sites_add_up_to_the_noise_that_is_charged() -> None:
    point = plan(dimension=653_000, clip=1.0, multiplier=1.0, sites=10, dropouts=2, colluders=1, bound=20.0)
    total = np.zeros(653_000, np.int64)
    for site in range(8):  # two dropped out
        point.noise.add_share(total, KeyStream.insecure(site))
    assert variance_p(total, point.noise.hidden(8)) > ALPHA
    one = np.zeros(653_000, np.int64)
    point.noise.add_share(one, KeyStream.insecure(0))
    left = total - one  # what the server with one colluder faces
    assert variance_p(left, point.noise.needed) > ALPHA
    assert float(np.mean(left.astype(np.float64) ** 2)) > 0.99 * point.noise.needed


def test_the_power_is_what_is_stated() -> None:
    spread = math.sqrt(2 / 653_000)
    assert stats.norm.sf(stats.norm.isf(ALPHA / 2) - 0.018 / spread) > 1 - ALPHA
    assert stats.ncx2.sf(stats.chi2.isf(ALPHA, 59), 59, 0.2**2 * N / 60) > 1 - ALPHA


def test_control_noise_that_is_wrong_is_seen() -> None:
    for off in (0.982, 1.018):
        assert variance_p(draw(653_000, 1e5 * off, 1), 1e5) < ALPHA
    rounded = np.rint(np.random.default_rng(1).normal(0, math.sqrt(3.0), N)).astype(np.int64)
    assert shape_p(rounded, 3.0) < ALPHA
    assert shape_p(2 * draw(N, 37.0 / 4, 1), 37.0) < ALPHA  # the right variance on half of the integers


def test_rounding_is_unbiased() -> None:
    """The mean of 2,000 roundings of each of 300 items: a shift of one part in fifty of a step is seen."""
    grid = Grid(dimension=300, clip=10.0, bound=1000.0, bits=6, whole=False)
    update = np.random.default_rng(3).normal(0, 0.3, 300).astype(np.float32)
    stream = KeyStream.insecure(9)
    exact = update.astype(np.float64) * grid.scale
    drawn = np.stack([grid.encode(update, stream) for _ in range(2000)])
    assert np.abs(drawn - exact).max() < 1.0 + 1e-6
    fraction = exact - np.floor(exact)
    z = (drawn.mean(axis=0) - exact) / np.sqrt(np.maximum(fraction * (1 - fraction), 1e-4) / 2000)
    assert float(stats.chi2.sf(float(np.square(z).sum()), 300)) > ALPHA
    nearest = (np.rint(exact) - exact) / np.sqrt(np.maximum(fraction * (1 - fraction), 1e-4) / 2000)
    assert float(stats.chi2.sf(float(np.square(nearest).sum()), 300)) < ALPHA  # control: rounding to nearest
