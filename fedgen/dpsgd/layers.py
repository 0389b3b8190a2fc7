"""The layers that can be clipped in one backward pass, one rule each; convolutions are next door.

For every layer here the gradient of example ``i`` is known from what went in (``x``) and what came back (``g``, the
gradient of the loss with respect to the layer's output), both of which autograd has at hand anyway. A rule runs the
layer on detached parameters, so that autograd never forms the summed and unclipped gradient, and turns ``x`` and
``g`` into a :class:`~fedgen.dpsgd.terms.Term`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from fedgen.dpsgd.terms import Formed, Outer, Scattered, over_positions, scratch_over_positions
from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from fedgen.dpsgd.terms import Term


class Layer(ABC):
    """The rule of one layer of a module.

    Args:
        name: The layer's dotted name, for messages.
        module: The layer itself; its parameters must keep their storage.

    Raises:
        ConfigError: The layer's options have no exact rule.
    """

    def __init__(self, name: str, module: Any) -> None:
        self.name = name
        self.module = module
        self.weight: Tensor = module.weight.detach()
        bias = getattr(module, "bias", None)
        self.bias: Tensor | None = None if bias is None else bias.detach()

    @abstractmethod
    def run(self, x: Tensor) -> Tensor:
        """Return what the layer returns, on parameters that take no gradient."""

    @abstractmethod
    def measure(self, x: Tensor, g: Tensor) -> tuple[Tensor | None, Term]:
        """Return the squared gradient norm of every row, shape ``(B,)``, and the term to be summed.

        An :class:`~fedgen.dpsgd.terms.Outer` comes without norms: those of all layers are computed together.
        """

    def scratch(self, x: Tensor, g: Tensor) -> int:  # noqa: ARG002 - for those that need some
        """Return how many floats per row measuring takes beyond ``x`` and ``g``, if that can be many."""
        return 0

    def refusal(self, what: str, hint: str) -> ConfigError:
        """Return the error that names this layer."""
        return ConfigError(f"layer {self.name!r} ({type(self.module).__name__}) {what}", hint=hint)


class Dense(Layer):
    """Linear on ``(B, features)`` or ``(B, positions..., features)``."""

    def run(self, x: Tensor) -> Tensor:
        """See :class:`Layer`."""
        return functional.linear(x, self.weight, self.bias)

    def measure(self, x: Tensor, g: Tensor) -> tuple[Tensor | None, Term]:
        """See :class:`Layer`."""
        if x.dim() == 2:  # noqa: PLR2004 - (B, features)
            return None, Outer(g, x)
        g, x = g.flatten(1, -2).transpose(1, 2), x.flatten(1, -2).transpose(1, 2)
        return over_positions(g, x, bias=None if self.bias is None else g.sum(2))

    def scratch(self, x: Tensor, g: Tensor) -> int:  # noqa: ARG002 - the signature is the base's
        """See :class:`Layer`."""
        if x.dim() == 2:  # noqa: PLR2004 - as in measure
            return 0
        outs, width = self.weight.shape
        return scratch_over_positions(outs, width, x[0].numel() // width)


class LayerNormalization(Layer):
    """LayerNorm over trailing dimensions: the weight meets the normalised input item by item."""

    def run(self, x: Tensor) -> Tensor:
        """See :class:`Layer`."""
        if x.dim() <= len(self.module.normalized_shape):
            raise self.refusal("would normalise across rows", "give it a batch dimension of its own")
        return functional.layer_norm(x, self.module.normalized_shape, self.weight, self.bias, self.module.eps)

    def measure(self, x: Tensor, g: Tensor) -> tuple[Tensor, Term]:
        """See :class:`Layer`."""
        normal = functional.layer_norm(x, self.module.normalized_shape, None, None, self.module.eps)
        shape = (len(x), -1, self.weight.numel())
        weight = (g * normal).reshape(shape).sum(1)
        bias = None if self.bias is None else g.reshape(shape).sum(1)
        return Formed.measured(weight.unsqueeze(1), bias)


class GroupNormalization(Layer):
    """GroupNorm on ``(B, channels, ...)``: as LayerNorm, one weight per channel."""

    def run(self, x: Tensor) -> Tensor:
        """See :class:`Layer`."""
        return functional.group_norm(x, self.module.num_groups, self.weight, self.bias, self.module.eps)

    def measure(self, x: Tensor, g: Tensor) -> tuple[Tensor, Term]:
        """See :class:`Layer`."""
        normal = functional.group_norm(x, self.module.num_groups, None, None, self.module.eps)
        shape = (len(x), self.weight.numel(), -1)
        weight = (g * normal).reshape(shape).sum(2)
        bias = None if self.bias is None else g.reshape(shape).sum(2)
        return Formed.measured(weight.unsqueeze(1), bias)


class Lookup(Layer):
    """Embedding of ``(B, ...)`` indices: a row's gradient touches only the entries it looked up."""

    def __init__(self, name: str, module: Any) -> None:
        super().__init__(name, module)
        if module.max_norm is not None:
            raise self.refusal("renormalises its weight while reading rows", "set max_norm to None")
        if module.scale_grad_by_freq:
            raise self.refusal("scales by counts over the batch", "set scale_grad_by_freq to False")
        if module.sparse:
            raise self.refusal("makes sparse gradients", "set sparse to False")

    def run(self, x: Tensor) -> Tensor:
        """See :class:`Layer`."""
        return functional.embedding(x, self.weight)

    def measure(self, x: Tensor, g: Tensor) -> tuple[Tensor, Term]:
        """See :class:`Layer`."""
        rows, (entries, width) = len(x), self.weight.shape
        index, g = x.reshape(rows, -1), g.reshape(rows, -1, width)
        if self.module.padding_idx is not None:
            g = g * (index != self.module.padding_idx).unsqueeze(2)
        row = torch.arange(rows, device=x.device).unsqueeze(1)
        return Scattered.measured(g.flatten(0, 1), (row * entries + index).flatten(), rows, entries)
