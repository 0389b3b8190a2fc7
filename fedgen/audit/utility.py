"""Is synthetic data of use? Train a classifier on it, test it on people it never saw.

The same classifiers are trained on as many real rows, so the difference is the price of synthesis, and a
guess of the commonest class shows what no skill at all would reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from fedgen.audit.basis import HELD_OUT_SENTENCE, Basis, subset
from fedgen.audit.classifiers import auc, logistic, one_hot, trees

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fedgen.audit.axes import Axis
    from fedgen.audit.classifiers import Classifier, Features

    Pipeline = tuple[Classifier, Callable[[np.ndarray], Features]]

MAX_TRAIN: Final = 20_000
MAX_TEST: Final = 20_000
MAX_CLASSES: Final = 10  # an ordered label with more levels is split in two at the real median

TrainedOn = Literal["synthetic", "real"]


@dataclass(frozen=True, slots=True)
class Score:
    """One classifier, tested on held-out real rows.

    Attributes:
        model: ``"logistic regression"`` or ``"tree ensemble"``.
        trained_on: Which rows taught it.
        accuracy: In [0, 1].
        macro_auc: Mean one-against-rest area under the ROC curve; None if the test rows hold one class.
    """

    model: str
    trained_on: TrainedOn
    accuracy: float
    macro_auc: float | None


@dataclass(frozen=True, slots=True)
class Utility:
    """Train on synthetic, test on real, beside train on real, test on real.

    Attributes:
        label: The declared label column.
        target: What was predicted, in words.
        classes: How many classes the target has.
        train_rows: Rows that taught each classifier; the same number, synthetic and real.
        test_rows: Held-out rows.
        majority_accuracy: Accuracy of always saying the commonest class of the real training rows.
        scores: One per classifier and kind of training row.
        basis: Whose rows were read.
    """

    label: str
    target: str
    classes: int
    train_rows: int
    test_rows: int
    majority_accuracy: float
    scores: tuple[Score, ...]
    basis: Basis

    def best(self, trained_on: TrainedOn) -> Score:
        """Return the score with the highest area (or accuracy, where there is none) of one kind."""
        mine = [s for s in self.scores if s.trained_on == trained_on]
        return max(mine, key=lambda s: (s.macro_auc or 0.0, s.accuracy))


@dataclass(frozen=True, slots=True)
class _Task:
    """Training and test rows of one prediction task."""

    real: np.ndarray
    synthetic: np.ndarray
    test: np.ndarray
    real_target: np.ndarray
    synthetic_target: np.ndarray
    test_target: np.ndarray


def table_utility(
    real: np.ndarray,
    synthetic: np.ndarray,
    holdout: np.ndarray,
    axes: Sequence[Axis],
    label: int,
    *,
    seed: int = 0,
) -> Utility | None:
    """Return how well classifiers taught by synthetic rows predict the label of held-out people.

    Guarantees:
        - Both kinds of training row are used in the same number, at most ``MAX_TRAIN``.
        - The result is a function of the arguments.

    Edge cases:
        =====================================  ==========================================
        training rows of one class             that class is always predicted, AUC 1/2
        a class only in the test rows          it counts as wrong, AUC 1/2
        test rows of one class                 ``macro_auc`` is None
        no row with a label on some side       None
        label of more than ``MAX_CLASSES``     split in two at the real median, if ordered
        =====================================  ==========================================

    Args:
        real: Training codes ``(n, d)``.
        synthetic: Synthetic codes ``(m, d)``.
        holdout: Held-out codes ``(k, d)``.
        axes: The ``d`` columns.
        label: Index of the label among them.
        seed: For the choice of rows and the trees; no privacy rests on it.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    target, words, classes = _target(real[:, label], axes[label])
    task = _task(real, synthetic, holdout, target=lambda codes: target(codes[:, label]), seed=seed)
    if task is None:
        return None
    features = [(j, axis) for j, axis in enumerate(axes) if j != label]
    models: dict[str, Pipeline] = {
        "logistic regression": (logistic, lambda codes: one_hot(codes, features)),
        "tree ensemble": (trees, lambda codes: codes[:, [j for j, _ in features]]),
    }
    if not features:
        return None
    return _utility(task, models, label=axes[label].name, target=words, classes=classes, seed=seed)


def image_utility(
    real: np.ndarray,
    synthetic: np.ndarray,
    holdout: np.ndarray,
    *,
    max_value: int,
    classes: int,
    at_most: int = 4_000,
    seed: int = 0,
) -> Utility | None:
    """Return how well a classifier taught by synthetic images reads the class of held-out images.

    Args:
        real: Training codes ``(n, pixels + 1)``, the class last.
        synthetic: Synthetic codes.
        holdout: Held-out codes.
        max_value: The largest pixel value.
        classes: Number of declared classes.
        at_most: Training images of each kind.
        seed: For the choice of images.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    task = _task(
        real, synthetic, holdout, target=lambda c: c[:, -1].astype(np.int64), seed=seed, at_most=at_most
    )
    if task is None:
        return None
    models: dict[str, Pipeline] = {"logistic regression": (logistic, lambda codes: codes[:, :-1] / max_value)}
    return _utility(task, models, label="class", target="the declared class", classes=classes, seed=seed)


def _target(real: np.ndarray, axis: Axis) -> tuple[Callable[[np.ndarray], np.ndarray], str, int]:
    """Return codes -> classes (-1: no label), what is predicted in words, and the number of classes."""
    if not axis.ordered or axis.levels <= MAX_CLASSES:
        return lambda codes: codes.astype(np.int64), f"{axis.name}, as declared", axis.cardinality
    values = real[real < axis.levels]
    cut = int(np.median(values)) if len(values) else 0

    def split(codes: np.ndarray) -> np.ndarray:
        classes: np.ndarray = (codes > cut).astype(np.int64)
        return np.where(codes >= axis.levels, -1, classes)

    return split, f"{axis.name} above {axis.labels[cut]} (the median of the real training rows)", 2


def _task(
    real: np.ndarray,
    synthetic: np.ndarray,
    holdout: np.ndarray,
    *,
    target: Callable[[np.ndarray], np.ndarray],
    seed: int,
    at_most: int = MAX_TRAIN,
) -> _Task | None:
    """Return as many labelled training rows of both kinds, and the test rows; None if any is empty."""
    rng = np.random.default_rng(seed)
    tables = [table[target(table) >= 0] for table in (real, synthetic, holdout)]
    rows = min(len(tables[0]), len(tables[1]), at_most)
    if not rows or not len(tables[2]):
        return None
    sizes = (rows, rows, MAX_TEST)
    a, b, c = (t[subset(len(t), n, rng)] for t, n in zip(tables, sizes, strict=True))
    return _Task(a, b, c, target(a), target(b), target(c))


def _utility(
    task: _Task,
    models: Mapping[str, Pipeline],
    *,
    label: str,
    target: str,
    classes: int,
    seed: int,
) -> Utility:
    """Train and test every model on both kinds of rows."""
    scores = []
    for name, (fit, features) in models.items():
        test = features(task.test)
        kinds: tuple[tuple[TrainedOn, np.ndarray, np.ndarray], ...] = (
            ("synthetic", task.synthetic, task.synthetic_target),
            ("real", task.real, task.real_target),
        )
        for kind, rows, wanted in kinds:
            chances = np.zeros((len(task.test), classes))
            present = np.unique(wanted)
            if len(present) == 1:
                chances[:, present[0]] = 1.0
            else:
                chances[:, present] = fit(features(rows), wanted, test, seed)
            scores.append(_score(name, kind, chances, task.test_target))
    commonest = np.bincount(task.real_target).argmax()
    return Utility(
        label=label,
        target=target,
        classes=classes,
        train_rows=len(task.real),
        test_rows=len(task.test),
        majority_accuracy=float((task.test_target == commonest).mean()),
        scores=tuple(scores),
        basis=Basis("classifiers tested on held-out real rows", private=False, sentence=HELD_OUT_SENTENCE),
    )


def _score(model: str, trained_on: TrainedOn, chances: np.ndarray, wanted: np.ndarray) -> Score:
    """Return accuracy and macro AUC of class probabilities, shape ``(n, classes)``."""
    present = [c for c in np.unique(wanted) if (wanted != c).any()]
    areas = [auc(chances[:, c], wanted == c) for c in present]
    accuracy = float((chances.argmax(axis=1) == wanted).mean())
    return Score(model, trained_on, accuracy, float(np.mean(areas)) if areas else None)
