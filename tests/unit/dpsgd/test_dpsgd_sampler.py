"""Poisson sampling: its edges; its distribution is tested under tests/statistical."""

from __future__ import annotations

import numpy as np
import pytest

from fedgen.crypto.stream import KeyStream
from fedgen.dpsgd.noise import NoiseSource
from fedgen.dpsgd.sampler import poisson_indices


def test_no_rows_give_an_empty_batch():
    assert poisson_indices(0, 0.5, NoiseSource.insecure(1)).tolist() == []
    assert poisson_indices(0, 1.0, NoiseSource.insecure(1)).dtype == np.int64


def test_a_rate_of_one_gives_all_rows():
    assert poisson_indices(5, 1.0, NoiseSource.insecure(1)).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("q", [1e-300, 1e-12, 1e-4, 0.5, 0.999999, 1 - 2**-53])
@pytest.mark.parametrize("n", [1, 7, 10_000])
def test_rows_are_ascending_distinct_and_in_range(n, q):
    rows = poisson_indices(n, q, NoiseSource.insecure(n))
    assert rows.dtype == np.int64
    assert bool((np.diff(rows) > 0).all())
    assert len(rows) == 0 or (rows[0] >= 0 and rows[-1] < n)


def test_a_tiny_rate_hardly_ever_draws():
    assert all(len(poisson_indices(1000, 1e-15, NoiseSource.insecure(s))) == 0 for s in range(50))


def test_a_rate_next_to_one_draws_nearly_all():
    assert len(poisson_indices(1000, 1 - 1e-15, NoiseSource.insecure(1))) == 1000


def test_a_key_stream_or_a_noise_source_may_be_given():
    stream = poisson_indices(1000, 0.1, KeyStream.insecure(4))
    source = poisson_indices(1000, 0.1, NoiseSource(KeyStream.insecure(4)))
    assert stream.tolist() == source.tolist()


def test_a_stream_goes_on_between_batches():
    source = NoiseSource.insecure(4)
    assert poisson_indices(1000, 0.1, source).tolist() != poisson_indices(1000, 0.1, source).tolist()


@pytest.mark.parametrize("q", [0.0, -0.1, 1.1, float("nan"), float("inf")])
def test_rates_that_are_no_probability_are_refused(q):
    with pytest.raises(ValueError, match="q must be"):
        poisson_indices(10, q, NoiseSource.insecure(1))


@pytest.mark.parametrize("n", [-1, 2**31 + 1])
def test_numbers_of_rows_out_of_range_are_refused(n):
    with pytest.raises(ValueError, match="n must be"):
        poisson_indices(n, 0.5, NoiseSource.insecure(1))
