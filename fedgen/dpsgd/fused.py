"""Exact flat clipping at the price of plain SGD: one forward, one backward, one weighted product per layer.

Autograd is asked for the gradients at the layers' outputs, and for nothing else: no hook, no Python in the backward
pass, no gradient of a parameter. From a layer's input and the gradient at its output follow the norm of every row's
gradient, the row's coefficient, and the weighted sum, which is written straight into the caller's buffer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from fedgen.dpsgd.engine import Clipped, check_bounds, check_clip, check_losses, check_out, check_owner
from fedgen.dpsgd.proof import Proof, gradients
from fedgen.dpsgd.summing import ClippedSums, Passed
from fedgen.dpsgd.tape import Tape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from fedgen.dpsgd.flat import FlatParameters
    from fedgen.dpsgd.tape import Used


class FusedEngine:
    """An :class:`~fedgen.dpsgd.engine.Engine` with one backward pass and no per-row gradients.

    Guarantees:
        - Those of :class:`~fedgen.dpsgd.engine.Engine`; equal to a loop over rows within 2e-5 of the sum's norm.
        - Between calls the module is an ordinary module; nothing stays attached to it.
        - No global state: engines on different modules may run in different threads.

    Edge cases:
        - The first call on two or more rows takes two backward passes more: they prove that no row's loss depends on
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
        self._proof = Proof(flat, self._tape)

    def clipped_sum_(
        self, out: Tensor, loss: Callable[[Tensor], Tensor], rows: Tensor, *, bounds: Tensor | None = None
    ) -> Clipped:
        """See :meth:`fedgen.dpsgd.engine.Engine.clipped_sum_`."""
        check_out(self.flat, out)
        self.flat.check()
        count = len(rows)
        check_bounds(bounds, out, count, self.clip)
        if count == 0:
            return Clipped(0, 0)
        try:
            with torch.enable_grad():
                losses = self._tape.run(loss, rows)
                check_losses(losses, count)
                used = self._tape.used(count)
                if self._proof.pending:
                    self._proof.check(losses, used, torch.arange(count, device=losses.device) < count // 2)
                passed = passed_through(losses, used)
            own = self.clip if bounds is None else bounds
            return Clipped(count, self._sums.add_(out, losses.detach(), passed, own))
        finally:
            self._tape.clear()
            self._proof.forget()


def passed_through(losses: Tensor, used: Sequence[Used]) -> list[Passed]:
    """Return what each layer took in and got back; layers that no gradient reached are left out."""
    found = gradients(losses, [edge for _, _, edge in used])
    return [(k, x, g) for (k, x, _), g in zip(used, found, strict=True) if g is not None]
