"""Skellam and discrete Gaussian against their exact probabilities, with controls that must fail.

alpha is 1e-6 per test; 200,000 numbers over about fifty cells see a cell that is off by 10 % with near certainty.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from fedgen.crypto.stream import KeyStream
from fedgen.dpsgd.integer_noise import _centred_poisson, _log_poisson, discrete_gaussian, skellam

pytestmark = pytest.mark.statistical

ALPHA = 1e-6
N = 200_000


def discrete_gaussian_pmf(variance: float) -> tuple[np.ndarray, np.ndarray]:
    reach = math.ceil(10 * math.sqrt(variance)) + 5
    ks = np.arange(-reach, reach + 1)
    weights = np.exp(-(ks**2) / (2 * variance))
    return ks, weights / weights.sum()


def skellam_pmf(variance: float) -> tuple[np.ndarray, np.ndarray]:
    reach = math.ceil(10 * math.sqrt(variance)) + 20
    ks = np.arange(-reach, reach + 1)
    return ks, special.ive(np.abs(ks), variance)


def rounded_gaussian(n: int, variance: float, _: KeyStream) -> np.ndarray:
    return np.rint(np.random.default_rng(1).normal(0, math.sqrt(variance), n)).astype(np.int64)


def p_value(numbers: np.ndarray, ks: np.ndarray, pmf: np.ndarray) -> float:
    """Chi-square over cells of neighbouring integers that hold at least about 1 % each."""
    cell = np.minimum((np.cumsum(pmf) - pmf / 2) * 64, 63).astype(int)
    cell = np.unique(cell, return_inverse=True)[1]
    expected = np.bincount(cell, pmf) * len(numbers)
    counts = np.bincount(cell[np.clip(numbers - ks[0], 0, len(ks) - 1)], minlength=len(expected))
    keep = expected > 5
    expected, counts = (
        np.append(expected[keep], expected[~keep].sum()),
        np.append(counts[keep], counts[~keep].sum()),
    )
    keep = expected > 1e-9
    expected = expected[keep] * (len(numbers) / expected[keep].sum())
    return float(stats.chisquare(counts[keep], expected).pvalue)


VARIANCES = [0.05, 0.25, 1.0, 3.0, 37.0, 511.0, 513.0, 600.5, 1e4, 123_456.7]


@pytest.mark.parametrize("variance", VARIANCES)
def test_discrete_gaussian(variance):
    numbers = discrete_gaussian(N, variance, KeyStream.insecure(int(variance * 100)))
    assert p_value(numbers, *discrete_gaussian_pmf(variance)) > ALPHA


@pytest.mark.parametrize("variance", VARIANCES)
def test_skellam(variance):
    numbers = skellam(N, variance, KeyStream.insecure(int(variance * 100)))
    assert p_value(numbers, *skellam_pmf(variance)) > ALPHA


@pytest.mark.parametrize("variance", [2.0**32, 2.0**45, 2.0**60])
@pytest.mark.parametrize("sampler", [discrete_gaussian, skellam])
def test_large_variances_are_normal_to_within_what_can_be_seen(sampler, variance):
    scaled = np.sort(sampler(N, variance, KeyStream.insecure(3)) / math.sqrt(variance))
    assert float(stats.kstest(scaled, "norm").pvalue) > ALPHA
    ratio = float(np.mean(scaled**2))
    assert stats.chi2.ppf(ALPHA / 2, N) < ratio * N < stats.chi2.isf(ALPHA / 2, N)


@pytest.mark.parametrize("sampler", [discrete_gaussian, skellam])
@pytest.mark.parametrize("variance", [1.0, 600.5, 2.0**40])
def test_last_bits_are_even_and_signs_balanced(sampler, variance):
    numbers = sampler(N, variance, KeyStream.insecure(4))
    assert stats.binomtest(int((numbers > 0).sum()), int((numbers != 0).sum()), 0.5).pvalue > ALPHA
    if variance > 100:
        assert stats.binomtest(int((numbers & 1).sum()), N, 0.5).pvalue > ALPHA


def test_shares_of_skellam_add_up_exactly():
    stream = KeyStream.insecure(5)
    total = sum(skellam(N, 7.3, stream) for _ in range(5))
    assert p_value(total, *skellam_pmf(5 * 7.3)) > ALPHA


def test_control_shares_of_discrete_gaussian_need_not():
    # 3 shares of variance 1/9: only nearly a discrete Gaussian, and the test can tell.
    stream = KeyStream.insecure(6)
    total = sum(discrete_gaussian(N, 1 / 9, stream) for _ in range(3))
    assert p_value(total, *discrete_gaussian_pmf(1 / 3)) < ALPHA


def test_control_rounded_normals_fail():
    assert p_value(rounded_gaussian(N, 0.5, None), *discrete_gaussian_pmf(0.5)) < ALPHA
    assert p_value(rounded_gaussian(N, 0.5, None), *skellam_pmf(0.5)) < ALPHA


def test_control_a_variance_five_percent_off_fails():
    numbers = skellam(N, 95.0, KeyStream.insecure(7))
    assert p_value(numbers, *skellam_pmf(100.0)) < ALPHA


def test_control_one_law_is_not_the_other():
    numbers = skellam(N, 2.0, KeyStream.insecure(8))
    assert p_value(numbers, *discrete_gaussian_pmf(2.0)) < ALPHA


@pytest.mark.parametrize("rate", [0.01, 3.0, 255.9, 256.0, 300.25, 5000.75])
def test_poisson_numbers_less_the_whole_part_of_their_rate(rate):
    numbers = _centred_poisson(N, rate, KeyStream.insecure(9)) + math.floor(rate)
    ks = np.arange(math.ceil(rate + 12 * math.sqrt(rate)) + 20)
    assert p_value(numbers, ks, stats.poisson.pmf(ks, rate)) > ALPHA


@pytest.mark.parametrize("rate", [256.0, 1000.5, 50_000.25])
def test_poisson_probabilities_have_all_their_digits(rate):
    ks = np.arange(int(rate - 9 * math.sqrt(rate)), int(rate + 9 * math.sqrt(rate)))
    log_pmf = _log_poisson(ks - rate, rate)
    # Ratios of neighbours are exact: p(k + 1) / p(k) = rate / (k + 1).
    steps = np.diff(log_pmf) - np.log(rate / (ks[:-1] + 1.0))
    assert float(np.abs(steps).max()) < 2e-12


@pytest.mark.parametrize("variance", [0.0, -1.0, float("nan"), float("inf"), 2.0**61])
@pytest.mark.parametrize("sampler", [discrete_gaussian, skellam])
def test_variances_out_of_range_are_refused(sampler, variance):
    with pytest.raises(ValueError, match="variance"):
        sampler(5, variance, KeyStream.insecure(1))


@pytest.mark.parametrize("sampler", [discrete_gaussian, skellam])
def test_a_negative_count_is_refused_and_zero_is_empty(sampler):
    with pytest.raises(ValueError, match="n must be"):
        sampler(-1, 1.0, KeyStream.insecure(1))
    assert sampler(0, 1.0, KeyStream.insecure(1)).tolist() == []
