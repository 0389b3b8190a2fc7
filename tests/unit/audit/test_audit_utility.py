"""Train on synthetic, test on real: what helps, what does not, and every corner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedgen.audit.axes import Axis, axes_of
from fedgen.audit.utility import MAX_CLASSES, Utility, image_utility, table_utility

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedgen.schema.table import TableSchema


def judge(
    real: np.ndarray, synthetic: np.ndarray, holdout: np.ndarray, schema: TableSchema
) -> Utility | None:
    return table_utility(real, synthetic, holdout, axes_of(schema), schema.label_index or 0)


def score(found: Utility, trained_on: str, model: str = "logistic regression") -> float:
    area = next(s for s in found.scores if (s.trained_on, s.model) == (trained_on, model)).macro_auc
    assert area is not None
    return area


def test_good_rows_teach_and_shuffled_labels_do_not(
    schema: TableSchema, rows: Callable[..., np.ndarray]
) -> None:
    real, good, holdout = rows(800, 1), rows(800, 2), rows(600, 3)
    bad = good.copy()
    bad[:, 5] = np.random.default_rng(0).permutation(bad[:, 5])
    taught, misled = judge(real, good, holdout, schema), judge(real, bad, holdout, schema)
    assert taught is not None
    assert misled is not None
    for model in ("logistic regression", "tree ensemble"):
        assert score(taught, "synthetic", model) > 0.85
        assert abs(score(misled, "synthetic", model) - 0.5) < 0.15
        assert score(misled, "real", model) > 0.85
    assert taught.best("synthetic").macro_auc == max(
        s.macro_auc or 0 for s in taught.scores if s.trained_on == "synthetic"
    )
    assert 0.4 < taught.majority_accuracy < 0.6


def test_both_kinds_are_used_in_the_same_number(schema: TableSchema, rows: Callable[..., np.ndarray]) -> None:
    found = judge(rows(500, 1), rows(60, 2), rows(40, 3), schema)
    assert found is not None
    assert (found.train_rows, found.test_rows) == (60, 40)
    assert not found.basis.private


def test_same_arguments_same_result(schema: TableSchema, rows: Callable[..., np.ndarray]) -> None:
    tables = rows(200, 1), rows(200, 2), rows(100, 3)
    assert judge(*tables, schema) == judge(*tables, schema)


def test_synthetic_rows_of_one_class_guess(schema: TableSchema, rows: Callable[..., np.ndarray]) -> None:
    real, synthetic, holdout = rows(100, 1), rows(100, 2), rows(100, 3)
    synthetic[:, 5] = 1
    found = judge(real, synthetic, holdout, schema)
    assert found is not None
    assert score(found, "synthetic") == 0.5
    assert found.best("synthetic").accuracy == pytest.approx((holdout[:, 5] == 1).mean())


def test_test_rows_of_one_class_have_no_area(schema: TableSchema, rows: Callable[..., np.ndarray]) -> None:
    holdout = rows(50, 3)
    holdout[:, 5] = 0
    found = judge(rows(100, 1), rows(100, 2), holdout, schema)
    assert found is not None
    assert all(s.macro_auc is None for s in found.scores)
    assert found.best("real").accuracy >= 0


def test_a_class_only_the_test_rows_have_counts_as_guessed() -> None:
    axes = (
        Axis("x", 4, ordered=True, missing=False, labels=tuple("0123")),
        Axis("y", 3, ordered=False, missing=False, labels=tuple("abc")),
    )
    train = np.array([[0, 0], [3, 1]] * 30, dtype=np.uint8)
    test = np.array([[0, 0], [3, 1], [1, 2]] * 10, dtype=np.uint8)
    found = table_utility(train, train, test, axes, 1)
    assert found is not None
    best = found.best("real")
    assert best.accuracy == pytest.approx(2 / 3)
    assert best.macro_auc is not None
    assert 0.75 < best.macro_auc < 1


def test_fine_ordered_label_is_split_at_the_real_median() -> None:
    k = MAX_CLASSES + 10
    axes = (
        Axis("x", k, ordered=True, missing=False, labels=tuple(str(i) for i in range(k))),
        Axis("y", k + 1, ordered=True, missing=True, labels=tuple(str(i) for i in range(k + 1))),
    )
    rng = np.random.default_rng(0)
    x = rng.integers(0, k, 300)
    codes = np.stack([x, x], axis=1).astype(np.uint8)
    codes[:20, 1] = k  # no label: left out
    found = table_utility(codes, codes, codes, axes, 1)
    assert found is not None
    assert found.classes == 2
    assert found.train_rows == 280
    assert "median" in found.target
    assert score(found, "synthetic") > 0.99


def test_no_label_at_all_or_no_feature_gives_nothing() -> None:
    k = MAX_CLASSES + 5
    label = Axis("y", k + 1, ordered=True, missing=True, labels=tuple(str(i) for i in range(k + 1)))
    other = Axis("x", 2, ordered=False, missing=False, labels=("a", "b"))
    empty = np.array([[0, k]] * 5, dtype=np.uint8)
    assert table_utility(empty, empty, empty, (other, label), 1) is None
    alone = np.array([[0], [1]] * 5, dtype=np.uint8)
    assert table_utility(alone, alone, alone, (other,), 0) is None


def test_no_test_image_gives_nothing(images: Callable[..., np.ndarray]) -> None:
    assert image_utility(images(5, 1), images(5, 2), images(0, 3), max_value=16, classes=2) is None


def test_images_teach_their_class(images: Callable[..., np.ndarray]) -> None:
    found = image_utility(images(200, 1), images(200, 2), images(100, 3), max_value=16, classes=2)
    assert found is not None
    assert score(found, "synthetic") > 0.95
    noise = images(200, 2)
    noise[:, -1] = np.random.default_rng(1).integers(0, 2, 200)
    misled = image_utility(images(200, 1), noise, images(100, 3), max_value=16, classes=2)
    assert misled is not None
    assert score(misled, "synthetic") < score(found, "synthetic")
