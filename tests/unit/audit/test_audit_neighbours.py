"""Nearest neighbours by hand, in blocks, and in bounded memory."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np

from fedgen.audit import neighbours as module
from fedgen.audit.axes import Axis, axes_of
from fedgen.audit.neighbours import Nearest, euclidean, gower

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

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
