"""The distribution of Gaussian noise, with error rates and controls that must fail.

alpha, the chance that right noise fails a test, is 1e-6; seeds are fixed, so in practice none does. Sizes follow from
what each test must see. Each control is noise that is wrong in one way, and must be caught.
"""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

from fedgen.dpsgd.noise import NoiseSource
from fedgen.dpsgd.selftest import check_noise_scale, samples_needed

pytestmark = pytest.mark.statistical

ALPHA = 1e-6
CELLS = 256


def normals(n: int, seed: int = 1, std: float = 1.0) -> np.ndarray:
    out = torch.zeros(n)
    NoiseSource.insecure(seed).add_normal_(out, std)
    return out.numpy().astype(np.float64)


def cell_p_value(numbers: np.ndarray, edges: np.ndarray) -> float:
    """Chi-square over cells of equal probability under N(0, 1)."""
    counts = np.bincount(np.searchsorted(edges, numbers), minlength=len(edges) + 1)
    return float(stats.chisquare(counts).pvalue)


EDGES = stats.norm.ppf(np.arange(1, CELLS) / CELLS)


@pytest.mark.parametrize("std", [1e-9, 1.0, 3.7, 1e9])
@pytest.mark.parametrize("fault", [0.1, 0.05, 0.01])
def test_scale(std, fault):
    # n is the smallest at which a scale wrong by `fault` passes with probability below 1e-6.
    source = NoiseSource.insecure(int(1 / fault))
    found = check_noise_scale(lambda out: source.add_normal_(out, std), std, fault=fault)
    assert found.samples == samples_needed(fault)
    assert found.passed


@pytest.mark.parametrize("wrong", [0.9, 0.95, 1.05, 1.1])
def test_scale_control_noise_too_small_or_too_large_fails(wrong):
    source = NoiseSource.insecure(2)
    assert not check_noise_scale(lambda out: source.add_normal_(out, wrong), 1.0).passed


def test_the_scale_test_is_right_about_its_own_error_rates():
    # At alpha = beta = 0.05 both errors are common enough to count: 1,000 tries, six standard deviations.
    tries, rate = 1000, 0.05
    source = NoiseSource.insecure(3)

    def failures(scale: float) -> int:
        add = lambda out: source.add_normal_(out, scale)  # noqa: E731
        return sum(
            not check_noise_scale(add, 1.0, fault=0.2, alpha=rate, beta=rate).passed for _ in range(tries)
        )

    spread = 6 * math.sqrt(rate * (1 - rate) / tries)
    assert abs(failures(1.0) / tries - rate) < spread
    assert failures(0.8) / tries > 1 - rate - spread
    assert failures(1.2) / tries > 1 - rate - spread


def test_shape_over_equal_cells():
    # 2^21 numbers in 256 cells: a cell off by 8 % in probability is seen with near certainty.
    assert cell_p_value(normals(2**21), EDGES) > ALPHA


@pytest.mark.parametrize(
    "wrong",
    [
        lambda rng, n: rng.standard_t(20, n) / math.sqrt(20 / 18),
        lambda rng, n: rng.laplace(0, math.sqrt(0.5), n),
        lambda rng, n: np.round(rng.normal(size=n) * 8) / 8,
        lambda rng, n: rng.uniform(-math.sqrt(3), math.sqrt(3), n),
    ],
    ids=["student", "laplace", "grid", "uniform"],
)
def test_shape_control_other_shapes_of_variance_one_fail(wrong):
    assert cell_p_value(wrong(np.random.default_rng(1), 2**21), EDGES) < ALPHA


@pytest.mark.parametrize("beyond", [3.0, 4.0, 4.8])
def test_tails_hold_the_right_share(beyond):
    # 2^24 numbers: about 13 on each side lie beyond 4.8, and 530 beyond 4, where half as many would be seen.
    n = 2**24
    numbers = torch.empty(n)
    NoiseSource.insecure(4).fill_normal_(numbers, 1.0)
    for side in (numbers > beyond, numbers < -beyond):
        assert stats.binomtest(int(side.sum()), n, float(stats.norm.sf(beyond))).pvalue > ALPHA


def test_tail_control_half_the_mass_fails():
    expected = 2**24 * float(stats.norm.sf(4.0))
    assert stats.binomtest(int(expected / 2), 2**24, float(stats.norm.sf(4.0))).pvalue < ALPHA


def test_radii_of_all_magnitudes_are_uniform():
    # Of a pair, exp(-r²/2) is uniform: tested on a log scale from both ends, past where 32 bits would end.
    n = 2**21
    numbers = normals(2 * n, seed=5)
    first, second = numbers[:n], numbers[n:]
    tail = np.exp(-(first**2 + second**2) / 2)
    for values in (tail, -np.expm1(-(first**2 + second**2) / 2)):
        levels = np.floor(-np.log2(np.clip(values, 2.0**-14, None))).astype(int)
        counts = np.bincount(np.minimum(levels, 13), minlength=14)
        expected = n * np.array([2.0 ** -(k + 1) for k in range(13)] + [2.0**-13])
        assert float(stats.chisquare(counts, expected).pvalue) > ALPHA


def test_angles_are_uniform_and_independent_of_radii():
    n = 2**20
    numbers = normals(2 * n, seed=6)
    first, second = numbers[:n], numbers[n:]
    angle = np.floor((np.arctan2(second, first) / (2 * math.pi) + 0.5) * 32).astype(int).clip(0, 31)
    radius = np.floor(np.exp(-(first**2 + second**2) / 2) * 32).astype(int).clip(0, 31)
    table = np.bincount(angle * 32 + radius, minlength=1024)
    assert float(stats.chisquare(table).pvalue) > ALPHA


@pytest.mark.parametrize("lag", [1, 2, 2**16, 2**17, 2**18, 2**19])
def test_numbers_at_a_distance_are_uncorrelated(lag):
    n = 2**20
    numbers = normals(n + lag, seed=7)
    for f in (lambda v: v, np.abs, np.square):
        correlation = float(np.corrcoef(f(numbers[:n]), f(numbers[lag:]))[0, 1])
        assert abs(correlation) < stats.norm.isf(ALPHA / 2) / math.sqrt(n) * 1.2


def test_correlation_control_a_stream_used_twice_fails():
    noise, again = normals(2**12, seed=8), normals(2**12, seed=8)
    assert abs(float(np.corrcoef(noise, again)[0, 1])) > 0.99


def test_two_secure_sources_are_uncorrelated():
    n = 2**18
    pair = []
    for _ in range(2):
        out = torch.empty(n)
        NoiseSource.secure().fill_normal_(out, 1.0)
        pair.append(out.numpy().astype(np.float64))
    assert abs(float(np.corrcoef(*pair)[0, 1])) < stats.norm.isf(ALPHA / 2) / math.sqrt(n)


def test_added_noise_has_the_scale_wherever_it_is_added():
    # The sum of clipped gradients does not change the noise on it.
    source = NoiseSource.insecure(9)

    def on_top(out: torch.Tensor) -> None:
        base = torch.linspace(-3.0, 3.0, len(out))
        out.copy_(base)
        source.add_normal_(out, 2.0)
        out.sub_(base)

    assert check_noise_scale(on_top, 2.0).passed


def test_noise_in_pieces_has_the_scale_too():
    source = NoiseSource.insecure(10)

    def pieces(out: torch.Tensor) -> None:
        for part in out.split(777):
            source.add_normal_(part, 1.0)

    assert check_noise_scale(pieces, 1.0).passed


def test_scale_control_a_step_that_forgets_half_of_the_vector_fails():
    source = NoiseSource.insecure(11)
    halved = SimpleNamespace(add_normal_=lambda out, std: source.add_normal_(out[: len(out) // 2], std))
    assert not check_noise_scale(lambda out: halved.add_normal_(out, 1.0), 1.0).passed
