"""A bound for each row, in both engines, against a loop over rows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedgen.dpsgd.engine import Clipped, make_engine
from fedgen.dpsgd.flat import FlatParameters

CLIP = 1.5


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 3, bias=False))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 6)), nn.Conv1d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 2)
    )


def loss_of(module: nn.Module):
    return lambda rows: module(rows).square().sum(1)


def looped(row_gradients, module, loss, rows, bounds) -> torch.Tensor:
    gradients = row_gradients(module, loss, rows)
    norms = gradients.norm(dim=1)
    coefficients = torch.where(norms > 0, (bounds.double() / norms).clamp(max=1.0), 0.0)
    return (gradients * coefficients.unsqueeze(1)).sum(0)


@pytest.fixture(params=["fused", "opacus"])
def name(request) -> str:
    return request.param


@pytest.mark.parametrize("make", [dense, convolutional])
def test_every_row_is_clipped_to_its_own_bound(name, make, filled, row_gradients):
    module = filled(make())
    loss, rows = loss_of(module), normal(7, 6)
    bounds = torch.tensor([CLIP, 1e-6, 0.0, 0.3, 1e-3, 0.75, CLIP])
    wanted = looped(row_gradients, module, loss, rows, bounds)
    flat = FlatParameters(module)
    out = torch.zeros(flat.size)
    seen = make_engine(name, flat, module, CLIP).clipped_sum_(out, loss, rows, bounds=bounds)
    assert seen == Clipped(7, 0)
    assert float((out.double() - wanted).norm() / wanted.norm()) < 2e-5


def test_bounds_all_equal_to_the_clip_change_nothing(name, filled):
    module = filled(dense())
    flat = FlatParameters(module)
    engine = make_engine(name, flat, module, 0.1)  # not a float32 number
    plain, bounded = torch.zeros(flat.size), torch.zeros(flat.size)
    engine.clipped_sum_(plain, loss_of(module), normal(7, 6))
    engine.clipped_sum_(bounded, loss_of(module), normal(7, 6), bounds=torch.full((7,), 0.1))
    assert torch.allclose(plain, bounded, rtol=1e-6, atol=1e-8)


def test_a_person_moves_the_sum_by_at_most_the_clip(name, filled):
    module = filled(dense())
    flat = FlatParameters(module)
    engine = make_engine(name, flat, module, CLIP)
    others, hers = normal(5, 6), normal(1, 6, seed=2).expand(4, 6) * 100  # her rows all pull the same way
    bounds = torch.cat([torch.full((5,), CLIP), torch.full((4,), CLIP / 4)])
    without, with_her, unbounded = (torch.zeros(flat.size) for _ in range(3))
    engine.clipped_sum_(without, loss_of(module), others)
    engine.clipped_sum_(with_her, loss_of(module), torch.cat([others, hers]), bounds=bounds)
    engine.clipped_sum_(unbounded, loss_of(module), torch.cat([others, hers]))
    assert float((with_her - without).norm()) <= CLIP * (1 + 1e-5)
    assert float((with_her - without).norm()) > 0.99 * CLIP  # and no less than she may
    assert float((unbounded - without).norm()) > 3.9 * CLIP  # the control: one bound for all is one per row


def test_a_bound_of_zero_on_a_gradient_of_zero_adds_zero(name, filled):
    module = filled(nn.LayerNorm(6))
    flat = FlatParameters(module)
    out = torch.ones(flat.size)
    loss = lambda rows: module(rows).sum(1) * 0.0  # noqa: E731
    seen = make_engine(name, flat, module, CLIP).clipped_sum_(out, loss, normal(3, 6), bounds=torch.zeros(3))
    assert seen == Clipped(3, 0)
    assert bool((out == 1).all())


def test_rows_that_are_not_finite_are_dropped_whatever_their_bound(name, filled):
    module = filled(dense())
    flat = FlatParameters(module)
    engine = make_engine(name, flat, module, CLIP)
    rows, bounds = normal(6, 6), torch.tensor([0.5, 0.5, 0.0, 0.0, 0.2, 0.1])
    good, found = torch.zeros(flat.size), torch.zeros(flat.size)
    engine.clipped_sum_(good, loss_of(module), rows[[0, 3, 4, 5]], bounds=bounds[[0, 3, 4, 5]])
    rows[1:3, 0] = float("nan")
    assert engine.clipped_sum_(found, loss_of(module), rows, bounds=bounds) == Clipped(6, 2)
    assert torch.allclose(good, found, atol=1e-6)


def test_bounds_follow_their_rows_into_parts(filled, row_gradients, monkeypatch):
    module = filled(convolutional())
    rows, bounds = normal(9, 6), torch.linspace(0.0, 1.0, 9)
    wanted = looped(row_gradients, module, loss_of(module), rows, bounds)
    flat = FlatParameters(module)
    out = torch.zeros(flat.size)
    monkeypatch.setattr("fedgen.dpsgd.summing._SCRATCH", 100)
    make_engine("fused", flat, module, 1.0).clipped_sum_(out, loss_of(module), rows, bounds=bounds)
    assert float((out.double() - wanted).norm() / wanted.norm()) < 2e-5


@pytest.mark.parametrize(
    "bounds",
    [
        torch.full((4,), 0.5),
        torch.full((5, 1), 0.5),
        torch.tensor(0.5),
        torch.full((5,), 0.5, dtype=torch.float64),
        torch.tensor([0.5, 0.5, -1e-6, 0.5, 0.5]),
        torch.tensor([0.5, 0.5, CLIP * 1.0001, 0.5, 0.5]),
        torch.tensor([0.5, 0.5, float("nan"), 0.5, 0.5]),
        torch.tensor([0.5, 0.5, float("inf"), 0.5, 0.5]),
    ],
    ids=["short", "column", "scalar", "double", "negative", "above", "nan", "inf"],
)
def test_bounds_that_do_not_fit_are_refused(name, bounds, filled):
    module = filled(dense())
    flat = FlatParameters(module)
    out = torch.ones(flat.size)
    with pytest.raises(ValueError, match="bounds must"):
        make_engine(name, flat, module, CLIP).clipped_sum_(out, loss_of(module), normal(5, 6), bounds=bounds)
    assert bool((out == 1).all())
