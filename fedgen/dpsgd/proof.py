"""What is proved about a loss before its rows are clipped apart: that they can be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from fedgen.dpsgd.flat import FlatParameters
    from fedgen.dpsgd.tape import Tape, Used


class Proof:
    """Watches a tape until one batch has shown that its loss can be clipped row by row.

    Args:
        flat: The parameters.
        tape: Where the loss is recorded.
    """

    def __init__(self, flat: FlatParameters, tape: Tape) -> None:
        self._flat = flat
        self._tape = tape
        self._early: list[int] = []  # layers whose gradient the loss itself took
        tape.watch = lambda k, _: self._early.append(k)

    @property
    def pending(self) -> bool:
        """True until a batch of two rows or more has passed."""
        return self._tape.watch is not None

    def check(self, losses: Tensor, used: Sequence[Used], some: Tensor) -> None:
        """Refuse a loss whose rows depend on each other, or that sees a parameter past its layer.

        The loss of some rows must have no gradient in the layers' outputs for the others, nor the other way round,
        nor in any parameter, for the rules do not let any through.

        Args:
            losses: One per row.
            used: The layers that ran.
            some: Which rows to set against the others, shape ``(B,)``; none of them proves half of it.

        Raises:
            ConfigError: As above.
        """
        if self._early:
            raise ConfigError("the loss takes gradients itself", hint="use a loss without a gradient penalty")
        for part in (some, ~some) if bool(some.any()) else (~some,):
            self._check(losses[part], used, ~part)
        if bool(some.any()):
            self._tape.watch = None

    def _check(self, losses: Tensor, used: Sequence[Used], others: Tensor) -> None:
        """Refuse losses that have a gradient in the layers' outputs for other rows, or in a parameter."""
        named = [
            pair
            for pair in zip(self._flat.names, self._flat.parameters, strict=True)
            if pair[1].requires_grad
        ]
        targets = [*(edge for _, _, edge in used), *(p for _, p in named)]
        found = gradients(losses, targets, keep=True)
        for (k, _, _), g in zip(used, found, strict=False):
            if g is not None and _reaches(g, others):
                raise self._tape.layers[k].refusal(
                    "lets the loss of a row depend on another", "compute each row's loss from that row alone"
                )
        for (name, _), g in zip(named, found[len(used) :], strict=True):
            if g is not None:
                raise ConfigError(f"parameter {name!r} is used outside of its layer", hint="call the layer")

    def forget(self) -> None:
        """Forget what the last loss did."""
        self._early.clear()


def _reaches(g: Tensor, rows: Tensor) -> bool:
    """Return whether some of ``rows`` have a gradient; what is not a number says nothing, for zero times ∞ is that."""
    largest = torch.linalg.vector_norm(g.reshape(len(g), -1), ord=math.inf, dim=1)
    suspects = g[
        rows & (largest != 0)
    ]  # none, as a rule: a copy of all would double the peak of a first step
    return bool(((suspects != 0) & ~suspects.isnan()).any())


def gradients(losses: Tensor, targets: Sequence[Any], *, keep: bool = False) -> tuple[Tensor | None, ...]:
    """Return the gradients of the summed losses, None where there is none."""
    return torch.autograd.grad(losses.sum(), targets, retain_graph=keep, allow_unused=True)
