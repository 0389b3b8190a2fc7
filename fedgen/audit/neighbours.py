"""The nearest row among many, by a distance on declared codes or on pixels; in blocks, so memory is bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedgen.audit.axes import Axis

_BLOCK: Final = 2**21  # pairs held at once: 8 MiB of float32
_MISSING: Final = 2.0  # at least one away from every position in [0, 1]

Nearest = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Queries and references to, for each query, the distance and the index of its nearest reference."""


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
