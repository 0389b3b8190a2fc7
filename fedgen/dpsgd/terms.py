"""What one layer gives to a batch: per-example gradients in the cheapest form that can be measured and summed.

A term is made together with the squared norms of its rows; ``add_`` then adds ``Σ c_i gradient_i`` to views of the
flat sum. A norm is below the truth by at most :data:`NORM_ERROR`, which the engine takes off the bound.

Sources: Goodfellow, "Efficient per-example gradient computations" (2015) for one position; Bu, Mao and Xu, "Scalable
and efficient training of large convolutional neural networks with differential privacy" (2022) for the choice between
Gram matrices and formed gradients over many positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

NORM_ERROR: Final = 2.0**-18
"""Relative: no norm is computed lower than this below the truth, however the numbers of a row conspire."""

GRAM_POSITIONS: Final = 32
"""Above this many positions Gram matrices lose too many digits to cancellation; the gradient is formed instead."""

_RUN: Final = (
    1024  # `vector_norm` adds up without correction: up to 1e-9 of relative error per item of a constant row
)
_LOST: Final = 2.0**-125  # the most a float32 square loses to underflow
_GRAM_ERROR: Final = 2.0**-22  # rounding in a Gram sum, as a share of (Σ_t ‖g_t‖‖u_t‖)²
_GRAM_TRUST: Final = 2.0**-6  # a sum below this share of that has cancelled: form the gradient of such a row


class Term(Protocol):
    """The gradients of one layer for every row of a batch."""

    def add_(self, c: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        """Add the row gradients weighted by ``c``, shape ``(B,)``, to ``weight`` and ``bias`` in place."""


def squared_norms(rows: Tensor) -> Tensor:
    """Return ``‖row‖²`` of a matrix, to about one part in a million whatever the numbers are."""
    if rows.shape[1] > _RUN:
        return rows.square().sum(1)  # adds pairwise
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms.square_()


@dataclass(slots=True)
class Outer:
    """One position: the weight gradient of a row is ``g_i x_iᵀ``, for ``g`` of ``(B, O)`` and ``x`` of ``(B, P)``."""

    g: Tensor
    x: Tensor

    def add_(self, c: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        """See :class:`Term`."""
        weight.addmm_((self.g * c.unsqueeze(1)).t(), self.x)
        if bias is not None:
            bias.addmv_(self.g.t(), c)


def outer_norms(terms: Sequence[Outer], ones: Tensor) -> Tensor:
    """Return ``Σ_layers ‖g_i‖² (‖x_i‖² + 1)`` for every row: all small arithmetic at once, for it is what costs.

    Args:
        terms: One per layer.
        ones: One where the layer has a bias, else zero; shape ``(layers, 1)``.
    """
    g = torch.stack([_norms(term.g) for term in terms])
    x = torch.stack([_norms(term.x) for term in terms])
    lost = _LOST * max(max(term.g.shape[1], term.x.shape[1]) for term in terms)
    return g.square_().add_(lost).mul_(x.square_().add_(ones).add_(lost)).sum(0)


def _norms(rows: Tensor) -> Tensor:
    """Return ``‖row‖`` of a matrix; see :func:`squared_norms`."""
    if rows.shape[1] > _RUN:
        return rows.square().sum(1).sqrt_()
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms


@dataclass(slots=True)
class Formed:
    """Row gradients written out, shape ``(B, O, P)``: what is measured is exactly what is summed."""

    weight: Tensor
    bias: Tensor | None

    @classmethod
    def measured(cls, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Formed]:
        """Return squared norms and the term for ``weight`` of shape ``(B, O, P)`` and ``bias`` of shape ``(B, O)``."""
        square = squared_norms(weight.flatten(0, 1)).view(weight.shape[:2]).sum(1)
        if bias is not None:
            square.add_(squared_norms(bias))
        return square, cls(weight, bias)

    def add_(self, c: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        """See :class:`Term`."""
        weight.view(-1).addmv_(self.weight.flatten(1).t(), c)
        if bias is not None and self.bias is not None:
            bias.view(-1).addmv_(self.bias.t(), c)


@dataclass(slots=True)
class Factored:
    """Few positions: the weight gradient of a row is ``Σ_t g_it u_itᵀ``, measured by Gram matrices."""

    g: Tensor
    u: Tensor
    bias: Tensor | None

    @classmethod
    def measured(cls, g: Tensor, u: Tensor, bias: Tensor | None) -> tuple[Tensor, Factored]:
        """Return squared norms, plus the most that rounding can have taken off them, and the term."""
        gram_g, gram_u = torch.bmm(g.transpose(1, 2), g), torch.bmm(u.transpose(1, 2), u)
        square = (gram_g * gram_u).sum((1, 2))
        g2, u2 = gram_g.diagonal(dim1=1, dim2=2), gram_u.diagonal(dim1=1, dim2=2)
        reach = (g2 * u2).sqrt().sum(1).square_()
        cancelled = (square < reach * _GRAM_TRUST).nonzero().squeeze(1)
        if len(cancelled):
            formed = torch.bmm(g[cancelled], u[cancelled].transpose(1, 2))
            square[cancelled] = Formed.measured(formed, None)[0]
            reach[cancelled] *= _GRAM_ERROR
        lost = g2.sum(1).mul_(u.shape[1]).add_(u2.sum(1), alpha=g.shape[1]).mul_(_LOST * g.shape[2])
        square.add_(reach, alpha=_GRAM_ERROR).add_(lost)
        if bias is not None:
            square.add_(squared_norms(bias))
        return square, cls(g, u, bias)

    def add_(self, c: Tensor, weight: Tensor, bias: Tensor | None) -> None:
        """See :class:`Term`."""
        scaled = (self.g * c.view(-1, 1, 1)).transpose(0, 1).flatten(1)
        weight.view(len(scaled), -1).addmm_(scaled, self.u.transpose(1, 2).flatten(0, 1))
        if bias is not None and self.bias is not None:
            bias.view(-1).addmv_(self.bias.t(), c)


@dataclass(slots=True)
class Scattered:
    """Looked-up entries: the gradient of a row is zero but for a few entries, each summed before it is measured."""

    gradient: Tensor
    row: Tensor
    entry: Tensor

    @classmethod
    def measured(cls, g: Tensor, key: Tensor, rows: int, entries: int) -> tuple[Tensor, Scattered]:
        """Return squared norms and the term for ``g`` of shape ``(N, width)`` and keys ``row * entries + entry``."""
        distinct, place = torch.unique(key, return_inverse=True)
        gradient = g.new_zeros(len(distinct), g.shape[1]).index_add_(0, place, g)
        row = distinct.div(entries, rounding_mode="floor")
        square = g.new_zeros(rows, dtype=torch.float64).index_add_(0, row, squared_norms(gradient).double())
        return square.to(g.dtype), cls(gradient, row, distinct.remainder(entries))

    def add_(self, c: Tensor, weight: Tensor, bias: Tensor | None) -> None:  # noqa: ARG002 - an embedding has none
        """See :class:`Term`."""
        weight.index_add_(0, self.entry, self.gradient * c[self.row].unsqueeze(1))


def over_positions(g: Tensor, u: Tensor, *, bias: Tensor | None, groups: int = 1) -> tuple[Tensor, Term]:
    """Return squared norms and the term of a layer that meets its weight at many positions.

    Args:
        g: One factor of the weight's gradient, shape ``(B, O, T)``.
        u: The other, shape ``(B, P * groups, T)``.
        bias: The bias gradients, if there is a bias; shape ``(B, channels)``.
        groups: Blocks of channels that do not see each other.
    """
    rows, outs, positions = g.shape
    width = u.shape[1] // groups
    if _by_gram(outs, width, positions, groups):
        return Factored.measured(g, u, bias)
    left = g.reshape(rows * groups, outs // groups, positions)
    right = u.reshape(rows * groups, width, positions)
    formed = torch.bmm(left, right.transpose(1, 2)).view(rows, outs, width)
    return Formed.measured(formed, bias)


def scratch_over_positions(outs: int, width: int, positions: int, *, groups: int = 1) -> int:
    """Return how many floats per row :func:`over_positions` works with, patches included."""
    own = 2 * positions**2 if _by_gram(outs, width, positions, groups) else outs * width
    return own + (outs + width * groups) * positions


def _by_gram(outs: int, width: int, positions: int, groups: int) -> bool:
    """Return whether Gram matrices of the positions are exact enough and smaller than the gradient."""
    return groups == 1 and positions <= GRAM_POSITIONS and 2 * positions**2 < outs * width
