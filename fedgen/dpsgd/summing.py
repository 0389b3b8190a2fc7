"""From what passed through the layers to one clipped sum: measure, clip, add."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, cast

import torch
from torch import Tensor

from fedgen.dpsgd.terms import NORM_ERROR, Outer, outer_norms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedgen.dpsgd.flat import FlatParameters
    from fedgen.dpsgd.tape import Tape
    from fedgen.dpsgd.terms import Term

_SCRATCH: Final = 2**21  # floats: 8 MB stay in cache, and come from the heap instead of being mapped anew

Passed = tuple[int, Tensor, Tensor]
"""Index of a layer, its input, and the gradient at its output."""


class ClippedSums:
    """Adds clipped sums of one tape's layers to flat vectors.

    Args:
        flat: The parameters.
        tape: Whose layers they belong to.
    """

    def __init__(self, flat: FlatParameters, tape: Tape) -> None:
        self._flat = flat
        self._layers = tape.layers
        self._places = tape.places
        self._out: Tensor | None = None
        self._targets: list[tuple[Tensor, Tensor | None]] = []
        self._bias_ones: dict[tuple[bool, ...], Tensor] = {}

    @torch.no_grad()
    def add_(self, out: Tensor, losses: Tensor, passed: list[Passed], bounds: float | Tensor) -> int:
        """Add every row's clipped gradient to ``out``, as many at a time as there is scratch room for.

        Args:
            out: A flat vector.
            losses: One value per row; rows where it is not finite are dropped.
            passed: What passed through the layers; used up.
            bounds: The norm bound, or one for each row.

        Returns:
            How many rows were dropped.
        """
        count = len(losses)
        self._aim(out)
        room = sum(self._layers[k].scratch(x, g) for k, x, g in passed)
        step = count if room * count <= _SCRATCH else max(1, _SCRATCH // room)
        if step >= count:
            return self._add_part_(losses, passed, bounds)
        dropped = 0
        for first in range(0, count, step):
            part = slice(first, first + step)
            own = bounds[part] if isinstance(bounds, Tensor) else bounds
            dropped += self._add_part_(losses[part], [(k, x[part], g[part]) for k, x, g in passed], own)
        return dropped

    def _add_part_(self, losses: Tensor, passed: list[Passed], bounds: float | Tensor) -> int:
        """Clip and sum some rows; those that are not finite leave every product before it is formed."""
        if not passed:
            return int((~losses.isfinite()).sum())
        indices = [k for k, _, _ in passed]
        terms, c, good = self.weigh(losses, passed, bounds)
        terms.reverse()
        for k in indices:  # each gradient goes as soon as it is added
            terms.pop().add_(c, *self._targets[k])
        return 0 if good is None else len(losses) - int(good.sum())

    def weigh(
        self, losses: Tensor, passed: list[Passed], bounds: float | Tensor
    ) -> tuple[list[Term], Tensor, Tensor | None]:
        """Return a term for each layer that passed, the rows' coefficients, and which rows count; None for all.

        Args:
            losses: One value per row.
            passed: What passed through the layers, at least one; used up.
            bounds: The norm bound, or one for each row.
        """
        square, terms = self._measure(passed)
        good = None
        if not math.isfinite(float(losses.sum() + square.sum())):
            good = losses.isfinite() & square.isfinite()
            passed[:] = [(k, _only(x, good), _only(g, good)) for k, x, g in passed]
            square, terms = self._measure(passed)
        passed.clear()
        c = coefficients(square, bounds)
        return terms, c if good is None else c.mul_(good), good

    def _measure(self, passed: Sequence[Passed]) -> tuple[Tensor, list[Term]]:
        """Return the squared gradient norm of every row, and one term per layer."""
        square: Tensor | None = None
        terms: list[Term] = []
        outer: list[Outer] = []
        biased: list[bool] = []
        for k, x, g in passed:
            layer = self._layers[k]
            part, term = layer.measure(x, g)
            terms.append(term)
            if isinstance(term, Outer):
                outer.append(term)
                biased.append(layer.bias is not None)
            elif part is not None:
                square = part if square is None else square.add_(part)
        if outer:
            part = outer_norms(outer, self._ones(tuple(biased), outer[0].g))
            square = part if square is None else square.add_(part)
        return cast("Tensor", square), terms

    def _ones(self, biased: tuple[bool, ...], like: Tensor) -> Tensor:
        """Return what the biases add to the squared norms of the inputs; the same in every step."""
        if biased not in self._bias_ones:
            self._bias_ones[biased] = like.new_tensor([[float(has)] for has in biased])
        return self._bias_ones[biased]

    def _aim(self, out: Tensor) -> None:
        """Cut ``out`` into one target per layer, once for as long as the caller reuses it."""
        if self._out is not out:
            views = self._flat.views(out)
            self._targets = [(views[w], None if b is None else views[b]) for w, b in self._places]
            self._out = out


def coefficients(square: Tensor, bounds: float | Tensor) -> Tensor:
    """Return ``min(1, bound / norm)`` for squared norms, which are used up; never more than that, and 0 for 0."""
    c = square.rsqrt_().mul_(bounds * (1.0 - NORM_ERROR)).clamp_(max=1.0)
    return (
        c.masked_fill_(bounds == 0, 0.0) if isinstance(bounds, Tensor) else c
    )  # 0 · ∞ where the norm is 0, too


def _only(rows: Tensor, good: Tensor) -> Tensor:
    """Return ``rows`` with zeros where ``good`` is false: zero times a NaN would still be a NaN."""
    if not rows.is_floating_point():
        return rows
    return torch.where(good.view(-1, *[1] * (rows.dim() - 1)), rows, 0.0)
