"""Fidelity by hand-made tables whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from fedgen.audit.axes import Axis
from fedgen.audit.fidelity import (
    MAX_PAIR_COLUMNS,
    PAIR_BINS,
    column_fits,
    earth_mover,
    marginal,
    pair_fit,
    total_variation,
)


def axis(k: int, *, ordered: bool = False, missing: bool = False, name: str = "x") -> Axis:
    return Axis(name, k, ordered=ordered, missing=missing, labels=tuple(str(i) for i in range(k)))


def column(*codes: int) -> np.ndarray:
    return np.array(codes, dtype=np.uint8)[:, None]


def test_total_variation_by_hand() -> None:
    assert total_variation(np.array([0.5, 0.5]), np.array([0.5, 0.5])) == 0
    assert total_variation(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1
    assert total_variation(np.array([0.75, 0.25]), np.array([0.25, 0.75])) == pytest.approx(0.5)


def test_marginal_of_no_row_is_zero() -> None:
    assert marginal(np.array([], dtype=np.int64), 3).tolist() == [0, 0, 0]


def test_earth_mover_counts_how_far_values_moved() -> None:
    five = axis(5, ordered=True)
    at = np.eye(5)
    assert earth_mover(at[0], at[4], five) == pytest.approx(1.0)
    assert earth_mover(at[0], at[1], five) == pytest.approx(0.25)
    assert earth_mover(at[2], at[2], five) == 0
    assert earth_mover(np.array([1.0]), np.array([1.0]), axis(1, ordered=True)) == 0


def test_earth_mover_sets_missing_values_apart() -> None:
    nullable = axis(3, ordered=True, missing=True)
    half = np.array([0.5, 0.0, 0.5])
    assert earth_mover(half, np.array([1.0, 0.0, 0.0]), nullable) == 0
    assert earth_mover(half, np.array([0.0, 0.0, 1.0]), nullable) is None


def test_equal_rows_score_one_and_disjoint_rows_zero() -> None:
    same = column_fits(column(0, 1, 2), column(2, 1, 0), (axis(3),), other=None)[0]
    assert same.shape == 1
    apart = column_fits(column(0, 0), column(1, 1), (axis(2),), other=None)[0]
    assert apart.shape == 0


def test_unordered_columns_have_no_distance() -> None:
    assert column_fits(column(0), column(0), (axis(2),), other=None)[0].distance is None
    assert column_fits(column(0), column(1), (axis(2, ordered=True),), other=None)[0].distance == 0


def test_constant_column_and_one_row_work() -> None:
    fit = column_fits(column(0), column(0, 0), (axis(1, ordered=True),), other=column(0))[0]
    assert (fit.shape, fit.distance, fit.floor) == (1, 1, 1)


def test_training_histograms_are_never_kept() -> None:
    kept = column_fits(column(0, 1), column(0, 1), (axis(2),), other=column(0, 0))[0]
    assert kept.reference == (0.5, 0.5)
    assert kept.floor == pytest.approx(0.5)
    dropped = column_fits(column(0, 1), column(0, 1), (axis(2),), other=None)[0]
    assert dropped.reference == ()
    assert dropped.floor is None


def test_pairs_see_what_single_columns_do_not() -> None:
    axes = (axis(2, name="a"), axis(2, name="b"))
    together = np.array([[0, 0], [1, 1]] * 50, dtype=np.uint8)
    opposite = np.array([[0, 1], [1, 0]] * 50, dtype=np.uint8)
    assert all(fit.shape == 1 for fit in column_fits(together, opposite, axes, other=None))
    fit = pair_fit(together, opposite, axes, other=None)
    assert fit is not None
    assert fit.mean == 1
    assert fit.tvd == ((0.0, 1.0), (1.0, 0.0))


def test_pair_floor_compares_training_with_held_out() -> None:
    axes = (axis(2), axis(2))
    codes = np.array([[0, 0], [1, 1]], dtype=np.uint8)
    fit = pair_fit(codes, codes, axes, other=codes[::-1])
    assert fit is not None
    assert fit.floor == 0
    without = pair_fit(codes, codes, axes, other=None)
    assert without is not None
    assert without.floor is None


def test_a_single_column_has_no_pairs() -> None:
    assert pair_fit(column(0), column(0), (axis(2),), other=None) is None


def test_many_columns_are_capped_and_the_label_stays() -> None:
    count = MAX_PAIR_COLUMNS + 5
    axes = tuple(axis(2, name=f"c{i}") for i in range(count))
    codes = np.zeros((3, count), dtype=np.uint8)
    fit = pair_fit(codes, codes, axes, other=None, label=count - 1)
    assert fit is not None
    assert len(fit.names) == MAX_PAIR_COLUMNS
    assert fit.of == count
    assert fit.names[-1] == f"c{count - 1}"
    assert "c0" in fit.names


def test_fine_ordered_columns_are_merged_for_pairs_and_missing_stays_apart() -> None:
    fine = axis(257, ordered=True, missing=True)
    other = axis(2)
    neighbours = np.array([[0, 0], [256, 0]], dtype=np.uint16), np.array([[1, 0], [256, 0]], dtype=np.uint16)
    fit = pair_fit(*neighbours, (fine, other), other=None)
    assert fit is not None
    assert fit.mean == 0  # codes 0 and 1 share a group of 256 / PAIR_BINS codes
    far = np.array([[256 // PAIR_BINS, 0], [255, 0]], dtype=np.uint16)
    fit = pair_fit(neighbours[0], far, (fine, other), other=None)
    assert fit is not None
    assert fit.mean == 1  # neither the first group nor missing is among them
