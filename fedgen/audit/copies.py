"""Distance to the closest record: does the generator repeat people, or write new ones like them?

A distance is a sanity check and never a proof of privacy; the proof is the ε of the run. It is read against a
baseline: how near *held-out* people come to the training rows, who by construction were not copied from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.audit.basis import HELD_OUT_SENTENCE, TRAINING_SENTENCE, Basis, Share, share, subset
from fedgen.audit.nearer import MAX_REFERENCE, Nearer, nearer

if TYPE_CHECKING:
    from fedgen.audit.nearer import People
    from fedgen.audit.neighbours import Nearest

MAX_QUERIES: Final = 2_000


@dataclass(frozen=True, slots=True)
class Distances:
    """Distances from some rows to their nearest neighbour among others.

    Attributes:
        compared: ``"synthetic to training"`` and the like.
        median: In [0, 1].
        p05: 5th percentile, in [0, 1].
        queries: Rows from which distances were taken.
        reference: Rows among which the nearest was sought.
    """

    compared: str
    median: float
    p05: float
    queries: int
    reference: int


@dataclass(frozen=True, slots=True)
class Copies:
    """How near synthetic rows come to training rows, beside how near new people come.

    Attributes:
        measure: The distance in words.
        synthetic_to_training: Nearest training row of each synthetic row.
        holdout_to_training: The baseline: nearest training row of each held-out row.
        synthetic_to_holdout: Nearest held-out row of each synthetic row.
        nearer_training: Share of synthetic rows nearer to a training row than to a held-out row.
        equal_to_training: Share of synthetic rows equal to some training row in every column.
        holdout_equal_to_training: The same share for held-out rows: what chance alone gives.
        basis: Whose rows were read.
    """

    measure: str
    synthetic_to_training: Distances
    holdout_to_training: Distances | None
    synthetic_to_holdout: Distances | None
    nearer_training: Nearer | None
    equal_to_training: Share
    holdout_equal_to_training: Share | None
    basis: Basis


def copies(
    real: np.ndarray,
    synthetic: np.ndarray,
    holdout: np.ndarray | None,
    *,
    nearest: Nearest,
    measure: str,
    people: People | None = None,
    seed: int = 0,
) -> Copies:
    """Return how near synthetic rows come to training rows, beside the held-out baseline.

    Guarantees:
        - Shares of equal rows use every row; distances use at most ``MAX_QUERIES`` and ``MAX_REFERENCE``
          rows, drawn with ``seed``, and say how many.
        - ``nearer_training`` compares people, not rows, where they are known.

    Edge cases:
        ==============  =============================================
        no holdout      the three figures that need it are ``None``
        one row         works; every share is of one row
        ==============  =============================================

    Args:
        real: Training codes, shape ``(n, width)``, n >= 1.
        synthetic: Synthetic codes, shape ``(m, width)``, m >= 1.
        holdout: Held-out codes, shape ``(k, width)``, k >= 1, or None.
        nearest: A search of :mod:`fedgen.audit.neighbours`.
        measure: The distance in words.
        people: Whose each training and held-out row is; None if unknown.
        seed: For the choice of rows only; no privacy rests on it.
    """
    rng = np.random.default_rng(seed)
    queries = synthetic[subset(len(synthetic), MAX_QUERIES, rng)]
    training = real[subset(len(real), MAX_REFERENCE, rng)]
    to_training, _ = nearest(queries, training)
    baseline, to_holdout, side = None, None, None
    if holdout is not None:
        others = holdout[subset(len(holdout), MAX_REFERENCE, rng)]
        newcomers, _ = nearest(holdout[subset(len(holdout), MAX_QUERIES, rng)], training)
        baseline = _distances("held-out to training", newcomers, len(training))
        to_holdout = _distances("synthetic to held-out", nearest(queries, others)[0], len(others))
        side = nearer(queries, real, holdout, nearest, rng, people=people)
    return Copies(
        measure=measure,
        synthetic_to_training=_distances("synthetic to training", to_training, len(training)),
        holdout_to_training=baseline,
        synthetic_to_holdout=to_holdout,
        nearer_training=side,
        equal_to_training=_equal(synthetic, real),
        holdout_equal_to_training=None if holdout is None else _equal(holdout, real),
        basis=Basis(
            "synthetic rows against the training rows"
            if holdout is None
            else "synthetic, training and held-out rows",
            private=False,
            sentence=TRAINING_SENTENCE if holdout is None else HELD_OUT_SENTENCE,
        ),
    )


def _equal(rows: np.ndarray, reference: np.ndarray) -> Share:
    """Return the share of ``rows`` that occur in ``reference``."""
    dtype = np.result_type(rows, reference)
    known = {row.tobytes() for row in np.ascontiguousarray(reference, dtype=dtype)}
    hits = sum(row.tobytes() in known for row in np.ascontiguousarray(rows, dtype=dtype))
    return share(hits, len(rows))


def _distances(compared: str, found: np.ndarray, reference: int) -> Distances:
    """Return the median and 5th percentile of nearest distances."""
    median, p05 = np.quantile(found, (0.5, 0.05))
    return Distances(compared, float(median), float(p05), len(found), reference)
