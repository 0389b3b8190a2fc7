"""What recorded work costs: the upper bound on ε for any mixture of events.

The bound is dp_accounting's pessimistic privacy loss distribution on a grid that is halved until ε moves by
less than 1 %; Rényi DP is computed beside it and takes over where the grid would cost too much or δ is below
FFT rounding. Both are proved bounds, so the smaller is a proved bound. Work that holds integer noise has no
privacy loss distribution, so all of it is bounded by Rényi DP. Gaussian-DP (central-limit) figures are no
bounds and never leave :mod:`fedgen.privacy.calibrate`, where they only say where to begin a search; what
integer noise would cost if it were Gaussian is an :class:`~fedgen.privacy.estimate.Estimate`, never a figure.

Figures are cached by value. Nothing here belongs in a training loop.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Literal

from fedgen import _validate
from fedgen.privacy import _loss, _rdp
from fedgen.privacy.events import Event, Merged, merge
from fedgen.privacy.units import Relation

if TYPE_CHECKING:
    from collections.abc import Iterable

TOLERANCE: Final = 0.01
_HALVINGS: Final = 12
_KNOTS: Final = 32

Accountant = Literal["pld", "rdp"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A proved upper bound on ε, with who computed it.

    Attributes:
        epsilon: The bound; infinity when there is none.
        delta: The δ at which it holds.
        accountant: ``"pld"`` (privacy loss distribution) or ``"rdp"`` (Rényi).
        interval: Width of the grid of losses, or None for ``"rdp"``.
    """

    epsilon: float
    delta: float
    accountant: Accountant
    interval: float | None = None


def epsilon(
    counts: Iterable[tuple[Event, int]], delta: float, *, relation: Relation = Relation.ADD_OR_REMOVE
) -> Figure:
    """Return the upper bound on ε of all ``counts`` together.

    Guarantees:
        - An upper bound: the truth is never above it.
        - Depends on the work only: order and grouping of ``counts`` do not matter.
        - Any mixture has a figure. One event of integer noise makes the whole of it a Rényi figure, which is
          8 to 17 % looser for the other steps; two figures added up would be looser still.
        - Within 1 % of the finer grid, unless the cap on work stopped the halving; then looser, never lower.
        - The root logger and other users of dp_accounting are left as they were.

    Edge cases:
        ==============================  ===========
        no events                       0
        δ covers everything             0
        no bound is known               infinity
        ==============================  ===========

    Args:
        counts: Pairs of event and count; may mix kinds and repeat events.
        delta: In (0, 1).
        relation: Which data sets are neighbours. Events are recorded for clipped sums, which serve both.

    Raises:
        ValueError: ``delta`` is out of range or a count is not a positive whole number.
    """
    _validate.open_probability(delta=delta)
    return _epsilon(merge(counts), float(delta), relation)


@lru_cache(maxsize=4096)
def _epsilon(merged: Merged, delta: float, relation: Relation) -> Figure:
    """Return the cached bound of merged events."""
    if not merged:
        return Figure(0.0, delta, "pld")
    gridded = _loss.gridded(merged)
    if gridded is None or not _loss.measurable(gridded, relation):
        return _renyi(merged, delta, relation)
    figure, settled = _halved(gridded, delta, relation)
    if settled:
        return figure
    renyi = _renyi(merged, delta, relation)
    return renyi if renyi.epsilon < figure.epsilon else figure


def _halved(merged: _loss.GriddedWork, delta: float, relation: Relation) -> tuple[Figure, bool]:
    """Return the PLD figure, and whether halving its grid last moved it by less than 1 %."""
    interval = _loss.first_interval(merged, relation)
    while not _loss.affordable(merged, interval, relation):
        interval *= 2
    best = Figure(_loss.pld_epsilon(merged, delta, interval, relation), delta, "pld", interval)
    for _ in range(_HALVINGS):
        interval /= 2
        if not (_loss.reliable(merged, delta, interval) and _loss.affordable(merged, interval, relation)):
            return best, False
        finer = _loss.pld_epsilon(merged, delta, interval, relation)
        moved = abs(best.epsilon - finer)
        if finer <= best.epsilon:
            best = Figure(finer, delta, "pld", interval)
        if moved <= TOLERANCE * finer and finer < math.inf:
            return best, True
    return best, False


def epsilon_rdp(
    counts: Iterable[tuple[Event, int]], delta: float, *, relation: Relation = Relation.ADD_OR_REMOVE
) -> Figure:
    """Return the Rényi upper bound on ε: the second opinion, usually 8 to 17 % looser.

    Guarantees:
        - An upper bound: the truth is never above it.
        - Finite for every mixture. Poisson sampling under replace-one is bounded as one unit out and one in,
          and is loose.

    Args:
        counts: Pairs of event and count.
        delta: In (0, 1).
        relation: Which data sets are neighbours.

    Raises:
        ValueError: ``delta`` is out of range or a count is not a positive whole number.
    """
    _validate.open_probability(delta=delta)
    return _renyi(merge(counts), float(delta), relation)


@lru_cache(maxsize=1024)
def _renyi(merged: Merged, delta: float, relation: Relation) -> Figure:
    """Return the cached Rényi figure."""
    return Figure(_rdp.rdp_epsilon(merged, delta, relation), delta, "rdp")


class EpsilonCurve:
    """ε after n repetitions, cheap enough for a progress line: at most 32 figures for the whole curve.

    Guarantees:
        - ``at(n)`` is an upper bound on ε after ``n`` repetitions. The curve itself can be called, too.
        - Where n is a knot, the accountant's bound at n on the grid that settled for ``total``; elsewhere the
          next knot's. ``at(total)`` is exactly :func:`epsilon`.
        - Never falls as n grows.
        - Nothing is computed before it is asked for.

    Edge cases:
        ==============  =====================
        n = 0           0
        n > total       the accountant's own figure (rounds that were charged twice)
        ==============  =====================

    Args:
        event: What one step does.
        total: Number of repetitions at the end of the curve, at least 1.
        delta: In (0, 1).
        each: Steps in one repetition, e.g. the steps of a round.
        relation: Which data sets are neighbours.

    Raises:
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        event: Event,
        total: int,
        delta: float,
        *,
        each: int = 1,
        relation: Relation = Relation.ADD_OR_REMOVE,
    ) -> None:
        _validate.open_probability(delta=delta)
        _validate.positive(total=total, each=each)
        self._event, self._each, self._delta, self._relation = event, each, float(delta), relation
        self.total = total
        # Square spacing: ε grows like √n, so early knots are dense and a late step costs at most 3 %.
        self._knots = sorted({math.ceil(total * (i / _KNOTS) ** 2) for i in range(1, _KNOTS + 1)})

    @property
    def knots(self) -> tuple[int, ...]:
        """The repetitions at which the curve is exact, rising, the last one ``total``."""
        return tuple(self._knots)

    def at(self, n: int) -> float:
        """Return an upper bound on ε after ``n`` repetitions.

        Raises:
            ValueError: ``n`` is negative.
        """
        _validate.non_negative(n=n)
        if n == 0:
            return 0.0
        if n > self.total:
            return _epsilon(self._work(n), self._delta, self._relation).epsilon
        last = _epsilon(self._work(self.total), self._delta, self._relation)
        knot = self._knots[bisect.bisect_left(self._knots, n)]
        if knot == self.total:
            return last.epsilon
        # One grid for the whole curve: whatever settles at the end is fine enough before it, and half the
        # work.
        return min(last.epsilon, _on_grid(self._work(knot), last, self._relation))

    def __call__(self, n: int) -> float:
        """Return :meth:`at` ``n``."""
        return self.at(n)

    def _work(self, repetitions: int) -> Merged:
        """Return what ``repetitions`` do."""
        return merge(((self._event, repetitions * self._each),))


@lru_cache(maxsize=4096)
def _on_grid(merged: Merged, like: Figure, relation: Relation) -> float:
    """Return the bound of ``merged`` on the grid, or by the accountant, of ``like``."""
    gridded = _loss.gridded(merged)
    if like.interval is None or gridded is None:
        return _renyi(merged, like.delta, relation).epsilon
    return _loss.pld_epsilon(gridded, like.delta, like.interval, relation)
