"""Laws of stacked sums, for any number of sites of any sizes, any network, any bound."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedgen.dpsgd.engine import make_engine
from fedgen.dpsgd.flat import FlatParameters
from fedgen.dpsgd.stacked import StackedEngine

seeds = st.integers(0, 2**31)
widths = st.lists(st.integers(1, 9), min_size=2, max_size=4)
sites = st.lists(st.integers(0, 6), min_size=1, max_size=6)
clips = st.floats(1e-6, 1e6)
scales = st.sampled_from([1e-12, 1e-3, 1.0, 1e3, 1e8])


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def dense(sizes: list[int], seed: int) -> nn.Module:
    layers: list[nn.Module] = []
    for k, (inputs, outputs) in enumerate(pairwise(sizes)):
        layers += [nn.Linear(inputs, outputs, bias=(seed + k) % 3 > 0), nn.LeakyReLU(0.1)]
    module = nn.Sequential(*layers)
    with torch.no_grad():
        for k, parameter in enumerate(module.parameters()):
            parameter.copy_(normal(*parameter.shape, seed=seed + k))
    return module


def loss_of(module: nn.Module):
    return lambda rows: module(rows).sin().sum(1)


@settings(max_examples=80, deadline=None)
@given(widths=widths, sizes=sites, seed=seeds, clip=clips, own=st.booleans())
def test_stacked_is_one_by_one(widths, sizes, seed, clip, own):
    module = dense(widths, seed)
    flat = FlatParameters(module)
    rows = normal(sum(sizes), widths[0], seed=seed)
    weights = normal(len(sizes), flat.size, seed=seed + 99) if own else None
    out = torch.zeros(len(sizes), flat.size)
    StackedEngine(flat, module, clip).clipped_sums_(out, loss_of(module), rows, sizes, weights=weights)
    engine, first = make_engine("fused", flat, module, clip), 0
    for site, size in enumerate(sizes):
        if weights is not None:
            flat.load_(weights[site])
        wanted = torch.zeros(flat.size)
        engine.clipped_sum_(wanted, loss_of(module), rows[first : first + size])
        first += size
        assert float((out[site] - wanted).norm()) <= 2e-5 * max(float(wanted.norm()), 1e-3 * min(clip, 1.0))


@settings(max_examples=60, deadline=None)
@given(widths=widths, sizes=sites, seed=seeds, clip=clips, scale=scales, own=st.booleans())
def test_a_row_moves_its_own_sites_sum_by_at_most_the_bound(widths, sizes, seed, clip, scale, own):
    module = dense(widths, seed)
    flat = FlatParameters(module)
    engine = StackedEngine(flat, module, clip)
    sizes = [sizes[0] + 1, *sizes[1:]]
    weights = normal(len(sizes), flat.size, seed=seed + 99) if own else None
    rows = normal(sum(sizes), widths[0], seed=seed)
    rows[0] *= scale
    with_it, without = (torch.zeros(len(sizes), flat.size) for _ in range(2))
    engine.clipped_sums_(with_it, loss_of(module), rows, sizes, weights=weights)
    sizes[0] -= 1
    engine.clipped_sums_(without, loss_of(module), rows[1:], sizes, weights=weights)
    moved = (with_it.double() - without.double()).norm(dim=1)
    assert float(moved[0]) <= clip * (1 + 1e-5)
    assert float(moved[1:].sum()) <= 1e-5 * clip * sum(sizes)
