"""The area under the curve by hand, the features, and what happens without scikit-learn."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedgen.audit.axes import Axis
from fedgen.audit.classifiers import auc, logistic, one_hot, trees
from fedgen.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Callable


def test_area_by_hand() -> None:
    positive = np.array([False, False, True, True])
    assert auc(np.array([0.1, 0.2, 0.3, 0.4]), positive) == 1
    assert auc(np.array([0.4, 0.3, 0.2, 0.1]), positive) == 0
    assert auc(np.array([0.5, 0.5, 0.5, 0.5]), positive) == 0.5
    assert auc(np.array([0.1, 0.3, 0.3, 0.4]), positive) == pytest.approx(0.875)


def test_area_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 20, 500) / 20, rng.random(500) < 0.3
    assert auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))


@pytest.mark.parametrize("positive", [[True, True], [False, False]])
def test_area_needs_both_kinds(positive: list[bool]) -> None:
    with pytest.raises(ValueError, match="both"):
        auc(np.array([0.1, 0.2]), np.array(positive))


def test_features_are_one_hot_with_places_of_ordered_columns() -> None:
    plain = Axis("a", 3, ordered=False, missing=False, labels=("x", "y", "z"))
    ordered = Axis("b", 4, ordered=True, missing=True, labels=("0", "1", "2", "?"))
    codes = np.array([[2, 1], [0, 3]], dtype=np.uint8)
    found = one_hot(codes, [(0, plain), (1, ordered)]).toarray()
    assert found.tolist() == [[0, 0, 1, 0, 1, 0, 0, 0.5], [1, 0, 0, 0, 0, 0, 1, 0.0]]


@pytest.mark.parametrize("fit", [logistic, trees])
def test_classifiers_learn_and_repeat(fit: Callable[..., np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    x = rng.random((200, 3))
    y = np.where(x[:, 0] > 0.5, 4, 1)
    chances = fit(x, y, x, 0)
    assert chances.shape == (200, 2)
    assert ((chances[:, 1] > 0.5) == (y == 4)).mean() > 0.9
    assert np.array_equal(chances, fit(x, y, x, 0))


@pytest.mark.parametrize(("fit", "module"), [(logistic, "sklearn.linear_model"), (trees, "sklearn.ensemble")])
def test_missing_library_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, fit: Callable[..., np.ndarray], module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    x = np.zeros((2, 1))
    with pytest.raises(MissingExtra, match=r"fedgen\[audit\]"):
        fit(x, np.array([0, 1]), x, 0)
