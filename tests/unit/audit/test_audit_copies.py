"""Nearest neighbours by hand, against brute force, and as an alarm that rings only when it should."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedgen.audit import copies as module
from fedgen.audit.axes import Axis, axes_of
from fedgen.audit.copies import MAX_QUERIES, Nearest, copies, euclidean, gower

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedgen.schema.table import TableSchema


def axis(k: int, *, ordered: bool, missing: bool = False) -> Axis:
    return Axis("x", k, ordered=ordered, missing=missing, labels=tuple(str(i) for i in range(k)))


def one(*codes: int) -> np.ndarray:
    return np.array(codes, dtype=np.uint8)[:, None]


def near(search: Nearest, queries: np.ndarray, reference: np.ndarray) -> tuple[list[float], list[int]]:
    distances, rows = search(queries, reference)
    return distances.tolist(), rows.tolist()


def test_gower_by_hand() -> None:
    assert near(gower((axis(5, ordered=True),)), one(0), one(4, 2)) == ([0.5], [1])
    assert near(gower((axis(5, ordered=False),)), one(0, 3), one(2, 3)) == ([1.0, 0.0], [0, 1])
    both = gower((axis(5, ordered=True), axis(2, ordered=False)))
    query, reference = np.array([[0, 0]], dtype=np.uint8), np.array([[1, 1], [4, 0]], dtype=np.uint8)
    assert near(both, query, reference) == ([0.5], [1])


def test_missing_is_far_from_values_and_equal_to_itself() -> None:
    search = gower((axis(4, ordered=True, missing=True),))
    assert near(search, one(3), one(0, 2)) == ([1.0], [0])
    assert near(search, one(3), one(3)) == ([0.0], [0])
    assert near(search, one(2), one(3)) == ([1.0], [0])


def test_a_column_of_one_level_adds_nothing() -> None:
    assert near(gower((axis(1, ordered=True),)), one(0), one(0)) == ([0.0], [0])


def test_blocks_change_nothing(
    monkeypatch: pytest.MonkeyPatch, schema: TableSchema, rows: Callable[..., np.ndarray]
) -> None:
    a, b = rows(70, 1), rows(90, 2)
    for search in (gower(axes_of(schema)), euclidean(255)):
        monkeypatch.setattr(module, "_BLOCK", 2**21)
        whole = near(search, a, b)
        monkeypatch.setattr(module, "_BLOCK", 130)
        assert near(search, a, b) == whole


def test_euclidean_is_the_root_mean_square_and_exact_at_zero() -> None:
    a = np.array([[0, 0, 0, 0], [255, 255, 255, 255], [3, 4, 0, 0]], dtype=np.uint8)
    assert near(euclidean(255), a, a) == ([0.0, 0.0, 0.0], [0, 1, 2])
    assert near(euclidean(255), a[1:2], a[0:1]) == ([1.0], [0])
    assert near(euclidean(1), a[2:3], a[0:1]) == ([2.5], [0])


def test_memory_is_bounded(schema: TableSchema) -> None:
    rng = np.random.default_rng(0)
    k = np.array(schema.cardinalities)
    a = (rng.random((400, 6)) * k).astype(np.uint8)
    b = (rng.random((40_000, 6)) * k).astype(np.uint8)
    search = gower(axes_of(schema))
    tracemalloc.start()
    search(a, b)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 * 2**20  # all pairs at once would be 64 MB of float32 for each column


def _report(
    synthetic: np.ndarray, real: np.ndarray, holdout: np.ndarray | None, schema: TableSchema
) -> module.Copies:
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


def test_ties_between_training_and_held_out_rows_are_fair() -> None:
    rng = np.random.default_rng(0)
    same = rng.integers(0, 2, (400, 1)).astype(np.uint8)
    shares = [
        copies(
            same, same, same, nearest=gower((axis(2, ordered=False),)), measure="", seed=seed
        ).nearer_training
        for seed in range(40)
    ]
    assert 0.3 < np.mean([found.value for found in shares if found]) < 0.7


def test_references_of_nearer_share_have_one_size(
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
