"""Cutting a vector and gluing it are inverse, whatever the module looks like."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedgen.dpsgd.flat import FlatParameters
from fedgen.dpsgd.noise import NoiseSource
from fedgen.dpsgd.sampler import poisson_indices

shapes = st.lists(st.lists(st.integers(1, 5), min_size=0, max_size=4).map(tuple), min_size=1, max_size=6)


def module_of(sizes: list[tuple[int, ...]], seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    return nn.ParameterList([nn.Parameter(torch.randn(size, generator=generator)) for size in sizes])


@settings(max_examples=80, deadline=None)
@given(sizes=shapes, seed=st.integers(0, 2**31))
def test_views_put_together_are_the_vector(sizes, seed):
    module = module_of(sizes, seed)
    before = [p.detach().clone() for p in module.parameters()]
    flat = FlatParameters(module)
    assert flat.size == sum(p.numel() for p in before)
    assert torch.equal(torch.cat([view.flatten() for view in flat.views(flat.vector)]), flat.vector)
    for parameter, value in zip(module.parameters(), before, strict=True):
        assert torch.equal(parameter, value)


@settings(max_examples=60, deadline=None)
@given(sizes=shapes, seed=st.integers(0, 2**31))
def test_load_is_the_inverse_of_reading(sizes, seed):
    one, other = FlatParameters(module_of(sizes, seed)), FlatParameters(module_of(sizes, seed + 1))
    other.load_(one.vector.numpy())
    assert torch.equal(other.vector, one.vector)
    for mine, theirs in zip(one.parameters, other.parameters, strict=True):
        assert torch.equal(mine, theirs)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(0, 400_000), std=st.sampled_from([1e-6, 1.0, 1e6]), seed=st.integers(0, 2**31))
def test_noise_is_finite_and_never_zero_at_any_length(n, std, seed):
    out = torch.zeros(n)
    NoiseSource.insecure(seed).add_normal_(out, std)
    assert bool((out != 0).all())
    assert bool((out.abs() < 9.5 * std).all())


@settings(max_examples=100, deadline=None)
@given(n=st.integers(0, 5000), q=st.floats(1e-9, 1.0), seed=st.integers(0, 2**31))
def test_a_batch_is_a_set_of_rows(n, q, seed):
    rows = poisson_indices(n, q, NoiseSource.insecure(seed))
    assert len(np.unique(rows)) == len(rows)
    assert bool(((rows >= 0) & (rows < n)).all())


@settings(max_examples=50, deadline=None)
@given(
    n=st.integers(0, 300),
    exponent=st.floats(-20.0, 59.0),
    kind=st.sampled_from(["skellam", "discrete_gaussian"]),
    seed=st.integers(0, 2**31),
)
def test_integer_noise_is_whole_and_within_forty_deviations(n, exponent, kind, seed):
    numbers = getattr(NoiseSource.insecure(seed), kind)(n, 2.0**exponent)
    assert numbers.dtype == np.int64
    assert numbers.shape == (n,)
    assert bool((np.abs(numbers) <= 60 + 40 * 2.0 ** (exponent / 2)).all())
