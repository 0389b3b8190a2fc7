"""Every set of k rows of a person is equally likely, with error rates and controls that must fail.

alpha is 1e-6 for every test. The controls are choices people make instead: the first k rows, k rows in a row, and a
shuffle of the whole table done once.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from fedgen.dpsgd.noise import NoiseSource
from fedgen.dpsgd.persons import PersonIndex, bounded_rows

pytestmark = pytest.mark.statistical

ALPHA = 1e-6
DRAWS = 20_000


def chosen(rows: int, k: int, seed: int = 1) -> np.ndarray:
    """Return the rows that each of many persons of equally many rows gives, numbered within the person."""
    index = PersonIndex.of(np.repeat(np.arange(DRAWS), rows))
    used = bounded_rows(index, np.arange(DRAWS), k=k, clip=1.0, stream=NoiseSource.insecure(seed))
    return used.rows.reshape(DRAWS, k) % rows


def subset_p_value(sets: np.ndarray, rows: int) -> float:
    """Chi-square over all sets of k rows."""
    code = (1 << np.sort(sets, axis=1)).sum(1)
    every = [sum(1 << row for row in subset) for subset in combinations(range(rows), sets.shape[1])]
    counts = np.array([np.count_nonzero(code == one) for one in every])
    assert counts.sum() == len(sets)
    return float(stats.chisquare(counts).pvalue)


def row_p_value(sets: np.ndarray, rows: int) -> float:
    """Chi-square over rows, corrected for sets of k without repetition."""
    counts, share = np.bincount(sets.ravel(), minlength=rows), sets.shape[1] / rows
    variance = len(sets) * share * (1 - share) * rows / (rows - 1)
    return float(stats.chi2.sf(((counts - len(sets) * share) ** 2).sum() / variance, rows - 1))


@pytest.mark.parametrize(("rows", "k"), [(2, 1), (6, 3), (7, 1), (7, 6), (9, 4)])
def test_every_set_is_equally_likely(rows, k):
    assert subset_p_value(chosen(rows, k), rows) > ALPHA


@pytest.mark.parametrize(("rows", "k"), [(40, 39), (200, 10), (1000, 3)])
def test_every_row_is_equally_likely(rows, k):
    assert row_p_value(chosen(rows, k, seed=2), rows) > ALPHA


def test_persons_choose_independently():
    first = chosen(6, 3, seed=3)
    same = sum(set(a) == set(b) for a, b in zip(first[::2].tolist(), first[1::2].tolist(), strict=True))
    n, p = DRAWS // 2, 1 / 20
    assert 2 * float(stats.norm.sf(abs(same - n * p) / math.sqrt(n * p * (1 - p)))) > ALPHA


def test_control_the_first_rows_fail():
    first = np.tile(np.arange(3), (DRAWS, 1))
    assert subset_p_value(first, 6) < ALPHA
    assert row_p_value(first, 6) < ALPHA


def test_control_rows_side_by_side_fail():
    begin = np.random.default_rng(1).integers(6, size=(DRAWS, 1))
    blocks = (begin + np.arange(3)) % 6
    assert row_p_value(blocks, 6) > ALPHA  # each row alone is fine
    assert subset_p_value(blocks, 6) < ALPHA


def test_control_a_choice_that_favours_one_row_fails():
    rng = np.random.default_rng(2)
    weights = np.array([1.15, 1.0, 1.0, 1.0, 1.0, 1.0])
    keys = rng.exponential(size=(DRAWS, 6)) / weights
    assert subset_p_value(np.argsort(keys, axis=1)[:, :3], 6) < ALPHA
