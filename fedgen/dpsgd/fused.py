"""Exact flat clipping at the price of plain SGD: one forward, one backward, one weighted product per layer.

Autograd is asked for the gradients at the layers' outputs, and for nothing else: no hook, no Python in the backward
pass, no gradient of a parameter. From a layer's input and the gradient at its output follow the norm of every row's
gradient, the row's coefficient, and the weighted sum, which is written straight into the caller's buffer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from fedgen.dpsgd.engine import Clipped, check_clip, check_losses, check_out, check_owner
from fedgen.dpsgd.summing import ClippedSums, Passed
from fedgen.dpsgd.tape import Tape, Used
from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from fedgen.dpsgd.flat import FlatParameters


class FusedEngine:
    """An :class:`~fedgen.dpsgd.engine.Engine` with one backward pass and no per-row gradients.

    Guarantees:
        - Those of :class:`~fedgen.dpsgd.engine.Engine`; equal to a loop over rows within 2e-5 of the sum's norm.
        - Between calls the module is an ordinary module; nothing stays attached to it.
        - No global state: engines on different modules may run in different threads.

    Edge cases:
        - The first call on two or more rows takes one backward pass more: it proves that no row's loss depends on
          another row, that no parameter is used outside of its layer, and that the loss takes no gradients itself.
          Keep an engine as long as its module.
        - A layer that is not reached in a call contributes zero.
        - A row whose squared gradient leaves float32 is dropped like one that is not finite.

    Args:
        flat: The parameters.
        module: The module that holds exactly these parameters.
        clip: The norm bound C.

    Raises:
        ConfigError: A layer without a rule, with options that have none, or that mixes rows.
        ValueError: ``clip`` is out of range.
    """

    def __init__(self, flat: FlatParameters, module: nn.Module, clip: float) -> None:
        check_clip(clip)
        check_owner(flat, module)
        self.flat = flat
        self.module = module
        self.clip = clip
        self._tape = Tape(flat, module)
        self._sums = ClippedSums(flat, self._tape)
        self._early: list[int] = []  # layers whose gradient the loss itself took; watched until proved
        self._tape.watch = lambda k, _: self._early.append(k)

    def clipped_sum_(self, out: Tensor, loss: Callable[[Tensor], Tensor], rows: Tensor) -> Clipped:
        """See :meth:`fedgen.dpsgd.engine.Engine.clipped_sum_`."""
        check_out(self.flat, out)
        self.flat.check()
        count = len(rows)
        if count == 0:
            return Clipped(0, 0)
        try:
            with torch.enable_grad():
                losses = self._tape.run(loss, rows)
                check_losses(losses, count)
                used = self._tape.used(count)
                if self._tape.watch is not None:
                    self._prove(losses, used)
                passed = _passed(losses, used)
            return Clipped(count, self._sums.add_(out, losses.detach(), passed, self.clip))
        finally:
            self._tape.clear()
            self._early.clear()

    def _prove(self, losses: Tensor, used: Sequence[Used]) -> None:
        """Refuse a loss whose rows depend on each other, or that sees a parameter past its layer.

        The loss of the first half of the rows must have no gradient in the layers' outputs for the second half,
        nor in any parameter, for the rules do not let any through.
        """
        if self._early:
            raise ConfigError("the loss takes gradients itself", hint="use a loss without a gradient penalty")
        half = len(losses) // 2
        named = [
            pair for pair in zip(self.flat.names, self.flat.parameters, strict=True) if pair[1].requires_grad
        ]
        targets = [*(edge for _, _, edge in used), *(p for _, p in named)]
        found = _gradients(losses[:half], targets, keep=True)
        for (k, _, _), g in zip(used, found, strict=False):
            if g is not None and bool(((g[half:] != 0) & ~g[half:].isnan()).any()):
                raise self._tape.layers[k].refusal(
                    "lets the loss of a row depend on another", "compute each row's loss from that row alone"
                )
        for (name, _), g in zip(named, found[len(used) :], strict=True):
            if g is not None:
                raise ConfigError(f"parameter {name!r} is used outside of its layer", hint="call the layer")
        if half:
            self._tape.watch = None


def _passed(losses: Tensor, used: Sequence[Used]) -> list[Passed]:
    """Return what each layer took in and got back; layers that no gradient reached are left out."""
    gradients = _gradients(losses, [edge for _, _, edge in used])
    return [(k, x, g) for (k, x, _), g in zip(used, gradients, strict=True) if g is not None]


def _gradients(losses: Tensor, targets: Sequence[Any], *, keep: bool = False) -> tuple[Tensor | None, ...]:
    """Return the gradients of the summed losses, None where there is none."""
    return torch.autograd.grad(losses.sum(), targets, retain_graph=keep, allow_unused=True)
