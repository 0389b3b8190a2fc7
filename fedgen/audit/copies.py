"""Distance to the closest record: does the generator repeat people, or write new ones like them?

A distance is a sanity check and never a proof of privacy; the proof is the ε of the run. It is read against a
baseline: how near *held-out* people come to the training rows, who by construction were not copied from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.audit.basis import HELD_OUT_SENTENCE, TRAINING_SENTENCE, Basis, Share, share, subset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedgen.audit.axes import Axis

MAX_QUERIES: Final = 2_000
MAX_REFERENCE: Final = 50_000
_BLOCK: Final = 2**21  # pairs held at once: 8 MiB of float32
_MISSING: Final = 2.0  # at least one away from every position in [0, 1]

_Z99: Final = 2.5758293035489004

Nearest = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Queries and references to, for each query, the distance and the index of its nearest reference."""


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
class Nearer:
    """How many synthetic rows lie nearer to a training row than to a held-out row.

    Attributes:
        value: The share, with as many training as held-out rows to choose from.
        chance_low: A generator that memorises nothing stays above this in 99 of 100 cases, and
        chance_high: below this.
        of: Synthetic rows looked at.
    """

    value: float
    chance_low: float
    chance_high: float
    of: int


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


def gower(axes: Sequence[Axis]) -> Nearest:
    """Return the nearest-neighbour search under Gower's distance on codes.

    Guarantees:
        - Distances lie in [0, 1]; zero exactly when all codes are equal; the first of equally near rows is found.
        - Memory beyond the inputs is bounded by a few blocks of 8 MiB whatever the row counts.

    Edge cases:
        ==============================  =========================
        both values missing             distance 0 in that column
        one value missing               distance 1 in that column
        ordered column with one level   distance 0 in that column
        ==============================  =========================

    Args:
        axes: The columns, in the order of the codes.

    Source: Gower (1971), "A general coefficient of similarity and some of its properties".
    """

    def search(queries: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        q, r = _positions(queries, axes), _positions(reference, axes)
        best, found = np.full(len(queries), np.inf), np.zeros(len(queries), dtype=np.int64)
        for rows, columns in _blocks(len(queries), len(reference)):
            total = np.zeros((rows.stop - rows.start, columns.stop - columns.start), dtype=np.float32)
            for j, axis in enumerate(axes):
                total += _column_distance(q[j][rows, None], r[j][None, columns], axis)
            _keep(best, found, rows, columns, total)
        return best / max(1, len(axes)), found

    return search


def euclidean(max_value: int) -> Nearest:
    """Return the nearest-neighbour search under the root-mean-square pixel difference, in [0, 1].

    Guarantees:
        - Zero exactly when two images are equal: sums of squared integers are exact in float64.
        - Memory beyond the inputs is bounded by a few blocks.

    Args:
        max_value: The largest pixel value, at least one.
    """

    def search(queries: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pixels = max(1, queries.shape[1])
        best, found = np.full(len(queries), np.inf), np.zeros(len(queries), dtype=np.int64)
        for rows, columns in _blocks(len(queries), len(reference), width=pixels):
            a, b = queries[rows].astype(np.float64), reference[columns].astype(np.float64)
            squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :] - 2.0 * (a @ b.T)
            _keep(best, found, rows, columns, squares)
        return np.sqrt(np.maximum(best, 0.0) / pixels) / max_value, found

    return search


def copies(
    real: np.ndarray,
    synthetic: np.ndarray,
    holdout: np.ndarray | None,
    *,
    nearest: Nearest,
    measure: str,
    seed: int = 0,
) -> Copies:
    """Return how near synthetic rows come to training rows, beside the held-out baseline.

    Guarantees:
        - Shares of equal rows use every row; distances use at most ``MAX_QUERIES`` and ``MAX_REFERENCE``
          rows, drawn with ``seed``, and say how many.
        - ``nearer_training`` offers as many training as held-out rows, in random order so that ties are fair,
          and its band is the one of a permutation of who was trained on.

    Edge cases:
        ==============  =============================================
        no holdout      the three figures that need it are ``None``
        one row         works; every share is of one row
        ==============  =============================================

    Args:
        real: Training codes, shape ``(n, width)``, n >= 1.
        synthetic: Synthetic codes, shape ``(m, width)``, m >= 1.
        holdout: Held-out codes, shape ``(k, width)``, k >= 1, or None.
        nearest: :func:`gower` or :func:`euclidean`.
        measure: The distance in words.
        seed: For the choice of rows only; no privacy rests on it.
    """
    rng = np.random.default_rng(seed)
    queries = synthetic[subset(len(synthetic), MAX_QUERIES, rng)]
    training = real[rng.permutation(subset(len(real), MAX_REFERENCE, rng))]
    to_training, _ = nearest(queries, training)
    baseline, to_holdout, nearer = None, None, None
    if holdout is not None:
        size = min(len(training), len(holdout), MAX_REFERENCE)
        others = holdout[subset(len(holdout), size, rng)]
        newcomers, _ = nearest(holdout[subset(len(holdout), MAX_QUERIES, rng)], training)
        baseline = _distances("held-out to training", newcomers, len(training))
        to_holdout = _distances("synthetic to held-out", nearest(queries, others)[0], size)
        nearer = _nearer(queries, training[:size], others, nearest, rng)
    return Copies(
        measure=measure,
        synthetic_to_training=_distances("synthetic to training", to_training, len(training)),
        holdout_to_training=baseline,
        synthetic_to_holdout=to_holdout,
        nearer_training=nearer,
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


def _nearer(
    queries: np.ndarray, training: np.ndarray, others: np.ndarray, nearest: Nearest, rng: np.random.Generator
) -> Nearer:
    """Return the share of queries whose nearest row is a training row, with the band chance alone gives.

    If nothing was memorised, the two halves are exchangeable: any half of all rows could have been the training
    rows. The share is a sum of the rows' weights (how many queries each is nearest to) over one half, and its
    variance over random halves is known exactly.

    Source: Cochran (1977), "Sampling Techniques", section 2.3 (a sum over a simple random sample).
    """
    total = 2 * len(training)
    order = rng.permutation(total)
    _, found = nearest(queries, np.concatenate([training, others])[order])
    weights = np.bincount(order[found], minlength=total) / len(queries)
    spread = float(((weights - weights.mean()) ** 2).sum())
    band = _Z99 * np.sqrt(total / (4 * (total - 1)) * spread)
    value = float(weights[: len(training)].sum())
    return Nearer(value, max(0.0, 0.5 - float(band)), min(1.0, 0.5 + float(band)), len(queries))


def _keep(best: np.ndarray, found: np.ndarray, rows: slice, columns: slice, distances: np.ndarray) -> None:
    """Note the nearest reference of a block where it is nearer than those of earlier blocks."""
    at = distances.argmin(axis=1)
    near = distances[np.arange(len(at)), at]
    nearer = near < best[rows]
    best[rows] = np.where(nearer, near, best[rows])
    found[rows] = np.where(nearer, at + columns.start, found[rows])


def _positions(codes: np.ndarray, axes: Sequence[Axis]) -> list[np.ndarray]:
    """Return each column as float32: places in [0, 1] if ordered, else the code."""
    out = []
    for j, axis in enumerate(axes):
        column = codes[:, j].astype(np.float32)
        if axis.ordered:
            place = column / np.float32(max(1, axis.levels - 1))
            column = (
                np.where(codes[:, j] == axis.levels, np.float32(_MISSING), place) if axis.missing else place
            )
        out.append(np.ascontiguousarray(column))
    return out


def _column_distance(a: np.ndarray, b: np.ndarray, axis: Axis) -> np.ndarray:
    """Return the distance in one column, broadcast."""
    distance: np.ndarray = np.abs(a - b) if axis.ordered else a != b
    if not axis.ordered:
        return distance
    return np.minimum(distance, np.float32(1.0), out=distance) if axis.missing else distance


def _blocks(queries: int, reference: int, *, width: int = 1) -> list[tuple[slice, slice]]:
    """Return the blocks in which all pairs are visited."""
    columns = max(1, min(reference, _BLOCK // 64, max(1, 2 * _BLOCK // width)))
    rows = max(1, min(queries, _BLOCK // columns))
    return [
        (slice(q, min(q + rows, queries)), slice(r, min(r + columns, reference)))
        for r in range(0, reference, columns)
        for q in range(0, queries, rows)
    ]


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
