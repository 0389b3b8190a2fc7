"""Two plain classifiers and the area under the curve; scikit-learn is imported when first used."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from fedgen.errors import MissingExtra

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fedgen.audit.axes import Axis

Features = Any  # a NumPy array or a SciPy sparse matrix
Classifier = Callable[[Features, np.ndarray, Features, int], np.ndarray]


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the area under the ROC curve: how often a positive outranks a negative, ties one half.

    Args:
        scores: Shape ``(n,)``.
        positive: Bool, shape ``(n,)``, with both kinds present.

    Raises:
        ValueError: One kind is absent.

    Source: Hanley and McNeil (1982), "The meaning and use of the area under a ROC curve".
    """
    negatives = np.sort(scores[~positive])
    if not len(negatives) or positive.all() or not positive.any():
        raise ValueError("both positives and negatives are needed")
    below = np.searchsorted(negatives, scores[positive], side="left")
    upto = np.searchsorted(negatives, scores[positive], side="right")
    return float((below + upto).mean() / (2 * len(negatives)))


def one_hot(codes: np.ndarray, features: Sequence[tuple[int, Axis]]) -> Features:
    """Return every code as its own 0/1 feature, with the place of ordered columns beside it.

    Args:
        codes: Shape ``(n, d)``.
        features: The columns to use: index and axis, at least one.

    Returns:
        A sparse matrix with ``n`` rows.
    """
    from scipy import sparse

    blocks = []
    for j, axis in features:
        column = codes[:, j].astype(np.int64)
        ones = np.ones(len(column))
        rows = np.arange(len(column))
        blocks.append(sparse.csr_matrix((ones, (rows, column)), shape=(len(column), axis.cardinality)))
        if axis.ordered and axis.levels > 1:
            place = np.where(column < axis.levels, column / (axis.levels - 1), 0.0)
            blocks.append(sparse.csr_matrix(place[:, None]))
    return sparse.hstack(blocks, format="csr")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep linear algebra to one thread: small products gain nothing, and on a busy machine spinning costs minutes."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        yield


def logistic(rows: Features, wanted: np.ndarray, test: Features, seed: int) -> np.ndarray:
    """Return the test rows' class probabilities under a logistic regression.

    Guarantees:
        - One column per class of ``wanted``, in ascending order.

    Args:
        rows: Features that teach, ``n`` rows.
        wanted: Their classes, shape ``(n,)``, at least two different.
        test: Features to judge, ``k`` rows.
        seed: Of the fit.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    try:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise MissingExtra("audit", needed_for="train on synthetic, test on real") from error
    model = LogisticRegression(max_iter=100, tol=1e-3, random_state=seed)
    with warnings.catch_warnings(), _one_thread():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a scorer stopped early is still a fair scorer
        model.fit(rows, wanted)
        chances: np.ndarray = model.predict_proba(test)
    return chances


def trees(rows: Features, wanted: np.ndarray, test: Features, seed: int) -> np.ndarray:
    """Return the test rows' class probabilities under a small ensemble of trees.

    Guarantees:
        - One column per class of ``wanted``, in ascending order.

    Args:
        rows: Features that teach, ``n`` rows.
        wanted: Their classes, shape ``(n,)``, at least two different.
        test: Features to judge, ``k`` rows.
        seed: Of the fit.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    try:
        from sklearn.ensemble import ExtraTreesClassifier
    except ImportError as error:
        raise MissingExtra("audit", needed_for="train on synthetic, test on real") from error
    model = ExtraTreesClassifier(n_estimators=60, min_samples_leaf=5, n_jobs=1, random_state=seed)
    model.fit(rows, wanted)
    chances: np.ndarray = model.predict_proba(test)
    return chances
