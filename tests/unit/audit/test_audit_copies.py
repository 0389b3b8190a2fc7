"""Copies are seen, fresh rows are not, and every figure says how many rows it rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedgen.audit.axes import axes_of
from fedgen.audit.copies import MAX_QUERIES, Copies, copies
from fedgen.audit.neighbours import euclidean, gower

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedgen.schema.table import TableSchema


def _report(
    synthetic: np.ndarray, real: np.ndarray, holdout: np.ndarray | None, schema: TableSchema
) -> Copies:
    return copies(real, synthetic, holdout, nearest=gower(axes_of(schema)), measure="Gower")


def test_copied_rows_are_seen_and_fresh_rows_are_not(
    schema: TableSchema, rows: Callable[..., np.ndarray]
) -> None:
    """Fixed seeds; how often chance would raise the alarm is measured in tests/statistical."""
    real, holdout, fresh = rows(900, 1), rows(300, 2), rows(600, 3)
    copied = _report(real[:600], real, holdout, schema)
    assert copied.equal_to_training.value == 1
    assert copied.nearer_training is not None
    assert copied.nearer_training.value > 0.6 > copied.nearer_training.chance_high
    assert copied.synthetic_to_training.median == 0
    honest = _report(fresh, real, holdout, schema)
    assert honest.nearer_training is not None
    band = honest.nearer_training
    assert band.chance_low < band.value < band.chance_high
    assert honest.holdout_to_training is not None
    assert honest.synthetic_to_training.median == pytest.approx(honest.holdout_to_training.median, rel=0.1)


def test_every_distance_says_how_many_rows_it_rests_on(
    schema: TableSchema, rows: Callable[..., np.ndarray]
) -> None:
    found = _report(rows(50, 3), rows(500, 1), rows(40, 2), schema)
    assert found.synthetic_to_holdout is not None
    assert found.synthetic_to_holdout.reference == 40
    assert found.synthetic_to_training.reference == 500


def test_equal_shares_use_every_row_and_distances_a_bounded_number(
    schema: TableSchema, rows: Callable[..., np.ndarray]
) -> None:
    found = _report(rows(MAX_QUERIES + 9, 1), rows(50, 2), None, schema)
    assert found.equal_to_training.of == MAX_QUERIES + 9
    assert found.synthetic_to_training.queries == MAX_QUERIES


def test_without_holdout_there_is_no_baseline(schema: TableSchema, rows: Callable[..., np.ndarray]) -> None:
    found = _report(rows(20, 1), rows(20, 2), None, schema)
    assert found.holdout_to_training is None
    assert found.synthetic_to_holdout is None
    assert found.nearer_training is None
    assert found.holdout_equal_to_training is None
    assert "training" in found.basis.data
    assert not found.basis.private


def test_one_row_each_works(schema: TableSchema, rows: Callable[..., np.ndarray]) -> None:
    row = rows(1, 1)
    found = _report(row, row, row, schema)
    assert found.nearer_training is not None
    assert (found.nearer_training.chance_low, found.nearer_training.chance_high) == (
        0,
        1,
    )  # one row says nothing
    assert found.equal_to_training.value == 1


def test_codes_of_two_widths_are_compared_by_value() -> None:
    wide, narrow = np.array([[300], [1]], dtype=np.uint16), np.array([[44], [1]], dtype=np.uint8)
    found = copies(wide, narrow, None, nearest=euclidean(400), measure="")
    assert found.equal_to_training.value == 0.5  # 300 is not 44, though their low bytes are
