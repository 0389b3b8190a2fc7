"""Laws of the clipped sum, for any small network, any rows, any bound."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedgen.dpsgd.engine import make_engine
from fedgen.dpsgd.flat import FlatParameters

seeds = st.integers(0, 2**31)
widths = st.lists(st.integers(1, 9), min_size=2, max_size=4)
clips = st.floats(1e-6, 1e6)
scales = st.sampled_from([1e-12, 1e-3, 1.0, 1e3, 1e8])


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def dense(sizes: list[int], seed: int) -> nn.Module:
    layers: list[nn.Module] = []
    for k, (inputs, outputs) in enumerate(pairwise(sizes)):
        layers += [nn.Linear(inputs, outputs, bias=(seed + k) % 3 > 0), nn.LeakyReLU(0.1)]
    return filled(nn.Sequential(*layers), seed)


def convolutional(sizes: list[int], seed: int) -> nn.Module:
    first, last = sizes[0], sizes[-1]
    return filled(
        nn.Sequential(
            nn.Unflatten(1, (1, -1)), nn.Conv1d(1, first, 2, padding=1), nn.GELU(), nn.Conv1d(first, last, 1)
        ),
        seed,
    )


def filled(module: nn.Module, seed: int) -> nn.Module:
    with torch.no_grad():
        for k, parameter in enumerate(module.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=seed + k))
    return module


def setting(make, sizes: list[int], seed: int, clip: float):
    module = make(sizes, seed)
    engine = make_engine("fused", FlatParameters(module), module, clip)
    weights = normal(200, seed=seed)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        out = module(rows).flatten(1)
        return (out * weights[: out.shape[1]]).sum(1) + out.square().sum(1)

    return engine, loss


def summed(engine, loss, rows: torch.Tensor) -> torch.Tensor:
    out = torch.zeros(engine.flat.size)
    engine.clipped_sum_(out, loss, rows)
    return out.double()


networks = st.sampled_from([dense, convolutional])


@settings(max_examples=60, deadline=None)
@given(make=networks, sizes=widths, seed=seeds, clip=clips, scale=scales)
def test_no_row_adds_more_than_the_bound(make, sizes, seed, clip, scale):
    engine, loss = setting(make, sizes, seed, clip)
    for row in (scale * normal(3, sizes[0], seed=seed)).split(1):
        assert float(summed(engine, loss, row).norm()) <= clip * (1 + 1e-6)


@settings(max_examples=40, deadline=None)
@given(make=networks, sizes=widths, seed=seeds, clip=clips, scale=scales)
def test_adding_a_row_moves_the_sum_by_at_most_the_bound(make, sizes, seed, clip, scale):
    engine, loss = setting(make, sizes, seed, clip)
    rows = normal(5, sizes[0], seed=seed)
    rows[-1] *= scale
    moved = (summed(engine, loss, rows) - summed(engine, loss, rows[:-1])).norm()
    assert float(moved) <= clip * (1 + 1e-5)


@settings(max_examples=60, deadline=None)
@given(
    make=networks,
    sizes=widths,
    seed=seeds,
    clip=clips,
    scale=scales,
    shares=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=6),
)
def test_rows_of_one_person_move_the_sum_by_at_most_their_bounds_together(
    make, sizes, seed, clip, scale, shares
):
    engine, loss = setting(make, sizes, seed, clip)
    rows = normal(4 + len(shares), sizes[0], seed=seed)
    rows[4:] *= scale
    bounds = torch.tensor([1.0] * 4 + shares) * clip
    bounds.clamp_(max=clip)
    found = torch.zeros(engine.flat.size)
    engine.clipped_sum_(found, loss, rows, bounds=bounds)
    moved = (found.double() - summed(engine, loss, rows[:4])).norm()
    assert float(moved) <= float(bounds[4:].double().sum()) + 1e-6 * clip * len(rows)


@settings(max_examples=40, deadline=None)
@given(make=networks, sizes=widths, seed=seeds, clip=clips)
def test_the_order_of_rows_does_not_matter(make, sizes, seed, clip):
    engine, loss = setting(make, sizes, seed, clip)
    rows = normal(6, sizes[0], seed=seed)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    one, other = summed(engine, loss, rows), summed(engine, loss, rows[order])
    assert float((one - other).norm()) <= 1e-5 * 6 * min(clip, float(one.norm()) + clip)


@settings(max_examples=40, deadline=None)
@given(
    make=networks,
    sizes=widths,
    seed=seeds,
    clip=clips,
    bad=st.sets(st.integers(0, 5), max_size=6),
    value=st.sampled_from([float("nan"), float("inf"), -float("inf")]),
)
def test_rows_that_are_not_finite_leave_the_others_alone(make, sizes, seed, clip, bad, value):
    engine, loss = setting(make, sizes, seed, clip)
    rows = normal(6, sizes[0], seed=seed)
    good = [k for k in range(6) if k not in bad]
    wanted = summed(engine, loss, rows[good])
    rows[sorted(bad), 0] = value
    out = torch.zeros(engine.flat.size)
    seen = engine.clipped_sum_(out, loss, rows)
    assert seen.dropped == len(bad)
    assert bool(out.isfinite().all())
    assert float((out.double() - wanted).norm()) <= 1e-5 * 6 * clip


@settings(max_examples=30, deadline=None)
@given(make=networks, sizes=widths, seed=seeds)
def test_a_bound_nobody_reaches_gives_the_plain_gradient(make, sizes, seed):
    engine, loss = setting(make, sizes, seed, 1e12)
    rows = normal(5, sizes[0], seed=seed)
    plain = torch.zeros(engine.flat.size)
    engine.flat.add_gradient_(plain, loss(rows).sum())
    found = summed(engine, loss, rows)
    assert float((found - plain.double()).norm()) <= 2e-5 * float(plain.double().norm()) + 1e-12


@settings(max_examples=30, deadline=None)
@given(make=networks, sizes=widths, seed=seeds, factor=st.floats(2.0, 100.0))
def test_clipped_rows_do_not_depend_on_the_size_of_the_loss(make, sizes, seed, factor):
    engine, loss = setting(make, sizes, seed, 1e-6)
    rows = normal(5, sizes[0], seed=seed)
    one, other = summed(engine, loss, rows), summed(engine, lambda r: factor * loss(r), rows)
    assert float((one - other).norm()) <= 1e-4 * 5 * 1e-6
