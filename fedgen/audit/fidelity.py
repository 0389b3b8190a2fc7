"""Do synthetic rows look like real ones, one column at a time and two at a time?

Every score works on codes, that is on the bins and categories a person declared, so no bound is read from a
row. Each comes with a floor: the same distance between two sets of *real* rows, which no generator can be
asked to beat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedgen.audit.axes import Axis

MAX_PAIR_COLUMNS: Final = 64
PAIR_BINS: Final = 32  # ordered columns with more codes are merged to this many groups of adjacent codes


@dataclass(frozen=True, slots=True)
class ColumnFit:
    """How well one column's distribution is met.

    Attributes:
        name: Declared name.
        ordered: Whether the codes have an order.
        missing: Whether the last code means "missing".
        shape: 1 - total variation distance over the declared codes; 1 is perfect.
        distance: 1 - earth mover's distance along the codes, as a share of their range; ordered columns only.
        floor: ``shape`` between training and held-out real rows, None without held-out rows.
        labels: One per code.
        synthetic: Share of synthetic rows in each code.
        reference: Share of held-out rows in each code; empty when the reference is the training rows, so that
            no exact training histogram is written to a file.
    """

    name: str
    ordered: bool
    missing: bool
    shape: float
    distance: float | None
    floor: float | None
    labels: tuple[str, ...]
    synthetic: tuple[float, ...]
    reference: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PairFit:
    """How well pairs of columns are met.

    Attributes:
        names: The columns compared, at most ``MAX_PAIR_COLUMNS``.
        of: How many columns the schema has.
        tvd: Total variation distance of each pair's two-way table, shape ``(d, d)``, zero on the diagonal.
        floor: Mean of the same between training and held-out rows, None without held-out rows.
    """

    names: tuple[str, ...]
    of: int
    tvd: tuple[tuple[float, ...], ...]
    floor: float | None

    @property
    def mean(self) -> float:
        """Return the mean over all pairs."""
        square = np.asarray(self.tvd)
        return float(square[np.triu_indices(len(self.names), 1)].mean())


def total_variation(p: np.ndarray, q: np.ndarray) -> float:
    """Return half the L1 distance of two distributions, in [0, 1].

    Guarantees:
        - Symmetric; zero for equal distributions; one for disjoint ones.
    """
    return min(1.0, float(np.abs(p - q).sum()) / 2)


def marginal(codes: np.ndarray, cardinality: int) -> np.ndarray:
    """Return the share of rows in each code, float64 ``(cardinality,)``; all zero for no rows."""
    counts = np.bincount(codes, minlength=cardinality)
    return counts / max(1, len(codes))


def earth_mover(p: np.ndarray, q: np.ndarray, axis: Axis) -> float | None:
    """Return the earth mover's distance along an ordered axis as a share of its range, missing values apart.

    Edge cases:
        =========================  =====
        one level                  0
        a side with only missing   None
        =========================  =====
    """
    p, q = p[: axis.levels], q[: axis.levels]
    if p.sum() == 0 or q.sum() == 0:
        return None
    gaps = np.abs(np.cumsum(p / p.sum()) - np.cumsum(q / q.sum()))[:-1]
    return float(min(1.0, gaps.mean())) if len(gaps) else 0.0


def column_fits(
    synthetic: np.ndarray,
    reference: np.ndarray,
    axes: Sequence[Axis],
    *,
    other: np.ndarray | None,
) -> tuple[ColumnFit, ...]:
    """Return the fit of every column.

    Args:
        synthetic: Codes ``(m, d)``, m >= 1.
        reference: Real codes ``(n, d)``, n >= 1: held-out rows if ``other`` is given, else training rows.
        axes: The ``d`` columns.
        other: Training codes, for the floor; None when ``reference`` is the training rows.
    """
    fits = []
    for j, axis in enumerate(axes):
        p = marginal(synthetic[:, j], axis.cardinality)
        q = marginal(reference[:, j], axis.cardinality)
        moved = earth_mover(p, q, axis) if axis.ordered else None
        held_out = other is not None
        fits.append(
            ColumnFit(
                name=axis.name,
                ordered=axis.ordered,
                missing=axis.missing,
                shape=1 - total_variation(p, q),
                distance=None if moved is None else 1 - moved,
                floor=None
                if other is None
                else 1 - total_variation(marginal(other[:, j], axis.cardinality), q),
                labels=axis.labels,
                synthetic=tuple(p.tolist()),
                reference=tuple(q.tolist()) if held_out else (),
            )
        )
    return tuple(fits)


def pair_fit(
    synthetic: np.ndarray,
    reference: np.ndarray,
    axes: Sequence[Axis],
    *,
    other: np.ndarray | None,
    label: int | None = None,
) -> PairFit | None:
    """Return the fit of the pairs of columns, or None with fewer than two columns.

    Guarantees:
        - At most ``MAX_PAIR_COLUMNS`` columns take part: the label, then the others in declared order.
        - Ordered columns of more than ``PAIR_BINS`` codes are merged to that many groups of adjacent codes.

    Args:
        synthetic: Codes ``(m, d)``, m >= 1.
        reference: Real codes ``(n, d)``, n >= 1.
        axes: The ``d`` columns.
        other: Training codes, for the floor, or None.
        label: Index of the label column, which is never left out.
    """
    if len(axes) < 2:  # noqa: PLR2004 - a pair
        return None
    chosen = _chosen(len(axes), label)
    tables = [t for t in (synthetic, reference, other) if t is not None]
    merged = [[_merged(table[:, j], axes[j]) for j in chosen] for table in tables]
    sizes = [_groups(axes[j]) for j in chosen]
    d = len(chosen)
    square, floors = np.zeros((d, d)), []
    for a in range(d):
        for b in range(a + 1, d):
            p, q, *r = (_two_way(m[a], m[b], sizes[a], sizes[b]) for m in merged)
            square[a, b] = square[b, a] = total_variation(p, q)
            floors += [total_variation(t, q) for t in r]
    return PairFit(
        names=tuple(axes[j].name for j in chosen),
        of=len(axes),
        tvd=tuple(tuple(row) for row in square.tolist()),
        floor=float(np.mean(floors)) if floors else None,
    )


def _chosen(columns: int, label: int | None) -> list[int]:
    """Return the indices of the columns whose pairs are compared, in declared order."""
    order = sorted(range(columns), key=lambda j: (j != label, j))
    return sorted(order[:MAX_PAIR_COLUMNS])


def _groups(axis: Axis) -> int:
    """Return how many codes :func:`_merged` leaves."""
    return min(axis.cardinality, PAIR_BINS + axis.missing) if axis.ordered else axis.cardinality


def _merged(codes: np.ndarray, axis: Axis) -> np.ndarray:
    """Return int64 codes with adjacent levels merged to at most ``PAIR_BINS`` groups; missing stays apart."""
    wide = codes.astype(np.int64)
    if not axis.ordered or axis.levels <= PAIR_BINS:
        return wide
    return np.where(wide >= axis.levels, PAIR_BINS, wide * PAIR_BINS // axis.levels)


def _two_way(a: np.ndarray, b: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Return the flattened two-way table of shares."""
    return marginal(a * columns + b, rows * columns)
