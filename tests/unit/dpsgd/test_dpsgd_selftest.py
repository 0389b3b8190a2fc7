"""The self-tests must pass on engines that clip and fail on those that do not."""

from __future__ import annotations

import math
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fedgen.dpsgd.engine import Clipped, make_engine
from fedgen.dpsgd.flat import FlatParameters
from fedgen.dpsgd.noise import NoiseSource
from fedgen.dpsgd.selftest import SelfTest, check_noise_scale, samples_needed, selftest, sensitivity

ROWS = 64


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def critic(filled):
    return filled(nn.Sequential(nn.Linear(16, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1)))


def column_loss(module: nn.Module):
    """A loss of shape (B, 1), as a critic with one logit gives it."""
    return lambda rows: (module(rows) - 1.0).square()


def row_loss(module: nn.Module):
    return lambda rows: column_loss(module)(rows).squeeze(1)


class GhostOfOpacus:
    """Opacus 1.6's own ghost clipping, with no guard in front of it."""

    def __init__(self, module: nn.Module, clip: float) -> None:
        self.flat, self.module, self.clip = FlatParameters(module), module, clip

    def clipped_sum_(self, out, loss, rows, *, bounds=None):
        from opacus.grad_sample import GradSampleHooksFastGradientClipping
        from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping

        hooks = GradSampleHooksFastGradientClipping(
            self.module, loss_reduction="sum", max_grad_norm=self.clip
        )
        parameters = self.flat.parameters
        optimizer = SimpleNamespace(zero_grad=lambda: [setattr(p, "grad", None) for p in parameters])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            DPTensorFastGradientClipping(hooks, optimizer, loss(rows), "sum").backward()
        hooks.cleanup()
        out += torch.cat([p.grad.flatten() for p in parameters])
        for parameter in parameters:
            parameter.grad = None
        return Clipped(len(rows), 0)


class Unclipped:
    """An engine that adds the plain gradient."""

    def __init__(self, module: nn.Module, clip: float) -> None:
        self.flat, self.module, self.clip = FlatParameters(module), module, clip

    def clipped_sum_(self, out, loss, rows, *, bounds=None):
        self.flat.add_gradient_(out, loss(rows).sum())
        return Clipped(len(rows), 0)


@pytest.mark.parametrize("name", ["fused", "opacus"])
@pytest.mark.parametrize("size", [1.0, 1e3, 1e8])
def test_one_outlier_moves_the_sum_by_at_most_the_bound(critic, name, size):
    engine = make_engine(name, FlatParameters(critic), critic, 1.0)
    moved = sensitivity(engine, row_loss(critic), 5 * normal(ROWS, 16), size * normal(1, 16, seed=2))
    assert 0.99 < moved <= 1.0 + 1e-6 * ROWS


def test_an_outlier_that_is_not_finite_moves_nothing(critic):
    engine = make_engine("fused", FlatParameters(critic), critic, 1.0)
    assert sensitivity(engine, row_loss(critic), normal(8, 16), torch.full((1, 16), float("nan"))) == 0.0


def test_sensitivity_catches_the_loss_of_shape_b_1(critic):
    # Negative control: coefficients (B,) times a loss (B, 1) are (B, B), and nothing is clipped any more.
    trap = sensitivity(
        GhostOfOpacus(critic, 1.0), column_loss(critic), 5 * normal(ROWS, 16), 1e3 * normal(1, 16)
    )
    assert trap > 1e4


def test_that_trap_is_the_shape_and_nothing_else(critic):
    fair = sensitivity(
        GhostOfOpacus(critic, 1.0), row_loss(critic), 5 * normal(ROWS, 16), 1e3 * normal(1, 16)
    )
    assert 0.99 < fair <= 1.0 + 1e-6 * ROWS


def test_sensitivity_catches_an_engine_that_does_not_clip(critic):
    assert sensitivity(Unclipped(critic, 1.0), row_loss(critic), normal(ROWS, 16), 1e3 * normal(1, 16)) > 1e4


def test_a_loss_that_draws_the_same_latents_each_time_may_be_used(filled):
    module = filled(nn.Linear(4, 2))
    engine = make_engine("fused", FlatParameters(module), module, 1.0)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        latents = torch.randn(len(rows), 2, generator=torch.Generator().manual_seed(3))
        return (module(rows) * latents).sum(1).square()

    assert sensitivity(engine, loss, normal(21, 4), 50 * normal(1, 4)) <= 1.0 + 1e-4


# ---- noise


def test_sample_sizes_are_the_smallest_that_do():
    from scipy.stats import chi2

    n, alpha, beta, fault = samples_needed(0.1, alpha=1e-3, beta=1e-2), 1e-3, 1e-2, 0.1

    def misses(m: int) -> float:
        low, high = chi2.ppf(alpha / 2, m), chi2.isf(alpha / 2, m)
        return max(chi2.sf(low / (1 - fault) ** 2, m), chi2.cdf(high / (1 + fault) ** 2, m))

    assert misses(n) <= beta < misses(n - 1)


def test_samples_grow_with_the_square_of_the_fault():
    assert samples_needed(0.01) / samples_needed(0.02) == pytest.approx(4.0, rel=0.05)


@pytest.mark.parametrize(
    "wrong", [{"fault": 0.0}, {"fault": 1.0}, {"fault": 0.1, "alpha": 0.0}, {"fault": 0.1, "beta": 1.0}]
)
def test_error_rates_must_be_probabilities(wrong):
    with pytest.raises(ValueError, match="between 0 and 1"):
        samples_needed(**wrong)


def test_right_noise_passes_and_noise_ten_percent_too_small_fails():
    source = NoiseSource.insecure(11)
    right = check_noise_scale(lambda out: source.add_normal_(out, 3.0), 3.0)
    assert right.passed
    assert right.samples == samples_needed(0.05)
    assert 0.95 < right.low < 1 < right.high < 1.05
    small = check_noise_scale(lambda out: source.add_normal_(out, 2.7), 3.0)
    assert not small.passed
    assert small.ratio == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("scale", [0.0, 0.95, 1.05, float("nan"), math.inf])
def test_noise_at_the_stated_fault_fails(scale):
    source = NoiseSource.insecure(12)

    def noise(out: torch.Tensor) -> None:
        source.add_normal_(out, 1.0)
        out.mul_(scale)

    assert not check_noise_scale(noise, 1.0).passed


def test_a_claim_of_no_noise_is_refused():
    with pytest.raises(ValueError, match="std must be positive"):
        check_noise_scale(lambda out: out, 0.0)


# ---- both together


def run(engine, loss, outlier_size: float, noise_scale: float = 1.0) -> SelfTest:
    honest = NoiseSource.insecure(13).add_normal_

    def noise(out, std):
        honest(out, noise_scale * std)

    return selftest(
        engine, loss, normal(ROWS, 16), outlier_size * normal(1, 16, seed=2), noise=noise, std=2.0
    )


@pytest.mark.parametrize("name", ["fused", "opacus"])
def test_a_sound_engine_and_source_pass(critic, name):
    engine = make_engine(name, FlatParameters(critic), critic, 1.0)
    found = run(engine, row_loss(critic), 1e3)
    assert found.passed
    assert found.moved <= 1.0 + 1e-4
    assert found.unclipped > 1e3
    assert not found.control.passed


def test_an_engine_that_does_not_clip_fails(critic):
    found = run(Unclipped(critic, 1.0), row_loss(critic), 1e3)
    assert not found.bounded
    assert not found.passed


def test_an_outlier_too_weak_to_tell_fails(critic):
    engine = make_engine("fused", FlatParameters(critic), critic, 1e6)
    found = run(engine, row_loss(critic), 1.0)
    assert found.moved <= found.clip
    assert not found.bounded


def test_noise_of_the_wrong_scale_fails(critic):
    engine = make_engine("fused", FlatParameters(critic), critic, 1.0)
    assert not run(engine, row_loss(critic), 1e3, noise_scale=0.9).passed
