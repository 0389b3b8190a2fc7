"""Contribution bounding: its edges and its refusals; uniform choice is tested under tests/statistical."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedgen.crypto.stream import KeyStream
from fedgen.dpsgd.engine import make_engine
from fedgen.dpsgd.flat import FlatParameters
from fedgen.dpsgd.noise import NoiseSource
from fedgen.dpsgd.persons import PersonIndex, bounded_rows
from fedgen.dpsgd.sampler import poisson_indices

PERSONS = np.array([2, 0, 2, 2, 4, 0, 2])  # person 1 and person 3 have no rows


def source(seed: int = 1) -> NoiseSource:
    return NoiseSource.insecure(seed)


def drawn(*persons: int) -> np.ndarray:
    return np.array(persons, np.int64)


def test_an_index_lists_rows_person_by_person():
    index = PersonIndex.of(PERSONS)
    assert (index.persons, index.rows) == (5, 7)
    assert index.order.tolist() == [1, 5, 0, 2, 3, 6, 4]
    assert index.offsets.tolist() == [0, 2, 2, 6, 6, 7]


def test_an_index_cannot_be_written_to():
    index = PersonIndex.of(PERSONS)
    with pytest.raises(ValueError, match="read-only"):
        index.order[0] = 3
    with pytest.raises(ValueError, match="read-only"):
        index.offsets[0] = 3
    with pytest.raises(AttributeError):
        index.order = PERSONS


def test_an_index_without_rows():
    index = PersonIndex.of(np.zeros(0, np.int64), persons=3)
    assert (index.persons, index.rows) == (3, 0)
    assert len(bounded_rows(index, drawn(0, 2), k=2, clip=1.0, stream=source()).rows) == 0


@pytest.mark.parametrize(
    ("person", "persons"),
    [
        (np.array([0, -1]), None),
        (np.array([0, 3]), 3),
        (np.array([0.0, 1.0]), None),
        (np.array([[0, 1]]), None),
        (np.array([2**31]), None),
        (np.zeros(0, np.int64), -1),
    ],
)
def test_numbers_that_name_no_person_are_refused(person, persons):
    with pytest.raises(ValueError, match="person"):
        PersonIndex.of(person, persons=persons)


def test_persons_with_few_rows_give_all_of_them():
    used = bounded_rows(PersonIndex.of(PERSONS), drawn(0, 4), k=2, clip=1.0, stream=source())
    assert used.rows.tolist() == [1, 5, 4]
    assert used.bounds.tolist() == [0.5, 0.5, 1.0]
    assert used.bounds.dtype == np.float32


def test_persons_with_many_rows_give_k_different_ones():
    for seed in range(20):
        used = bounded_rows(PersonIndex.of(PERSONS), drawn(2, 4), k=3, clip=3.0, stream=source(seed))
        assert len(set(used.rows[:3].tolist())) == 3
        assert set(used.rows[:3].tolist()) < {0, 2, 3, 6}
        assert used.rows[3:].tolist() == [4]
        assert used.bounds.tolist() == [1.0, 1.0, 1.0, 3.0]


def test_the_choice_changes_from_step_to_step():
    index, noise = PersonIndex.of(np.zeros(1000, np.int64)), source()
    first, second = (bounded_rows(index, drawn(0), k=5, clip=1.0, stream=noise) for _ in range(2))
    assert set(first.rows.tolist()) != set(second.rows.tolist())


def test_a_key_stream_or_a_noise_source_may_be_given():
    index = PersonIndex.of(np.zeros(100, np.int64))
    one = bounded_rows(index, drawn(0), k=5, clip=1.0, stream=KeyStream.insecure(4))
    other = bounded_rows(index, drawn(0), k=5, clip=1.0, stream=source(4))
    assert one.rows.tolist() == other.rows.tolist()


@pytest.mark.parametrize(
    "wrong", [drawn(0, 0), drawn(2, 0), drawn(-1), drawn(5), np.array([0.0]), drawn(0)[None]]
)
def test_persons_drawn_twice_or_unknown_are_refused(wrong):
    with pytest.raises(ValueError, match="drawn must"):
        bounded_rows(PersonIndex.of(PERSONS), wrong, k=2, clip=1.0, stream=source())


@pytest.mark.parametrize("k", [0, -1, 2**20 + 1])
def test_bounds_on_rows_out_of_range_are_refused(k):
    with pytest.raises(ValueError, match="k must be"):
        bounded_rows(PersonIndex.of(PERSONS), drawn(0), k=k, clip=1.0, stream=source())


@pytest.mark.parametrize("clip", [0.0, -1.0, float("nan"), float("inf")])
def test_clips_that_bound_nothing_are_refused(clip):
    with pytest.raises(ValueError, match="clip must be"):
        bounded_rows(PersonIndex.of(PERSONS), drawn(0), k=2, clip=clip, stream=source())


@pytest.mark.parametrize("name", ["fused", "opacus"])
def test_a_whole_person_moves_the_sum_by_at_most_the_clip(name, filled):
    module = filled(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)))
    flat = FlatParameters(module)
    engine = make_engine(name, flat, module, 1.0)
    person = np.repeat(np.arange(6), [1, 9, 3, 40, 2, 5])
    rows = torch.randn(len(person), 4, generator=torch.Generator().manual_seed(1))
    rows[person == 3] = 50.0  # forty rows that all pull the same way
    index = PersonIndex.of(person)
    sums = []
    for persons in (drawn(0, 1, 2, 3, 5), drawn(0, 1, 2, 5)):
        others = bounded_rows(index, drawn(0, 1, 2, 5), k=4, clip=1.0, stream=source(7))
        hers = bounded_rows(index, np.intersect1d(persons, drawn(3)), k=4, clip=1.0, stream=source(8))
        used = np.concatenate([others.rows, hers.rows])
        bounds = torch.from_numpy(np.concatenate([others.bounds, hers.bounds]))
        sums.append(torch.zeros(flat.size))
        engine.clipped_sum_(sums[-1], lambda r: module(r).squeeze(1).square(), rows[used], bounds=bounds)
    moved = float((sums[0] - sums[1]).norm())
    assert 0.99 < moved <= 1.0 + 1e-5


def test_persons_are_sampled_as_rows_are():
    index = PersonIndex.of(np.arange(5000) % 1000)
    noise = source(3)
    chosen = poisson_indices(index.persons, 0.1, noise)
    used = bounded_rows(index, chosen, k=2, clip=1.0, stream=noise)
    assert np.unique(used.rows % 1000).tolist() == chosen.tolist()
