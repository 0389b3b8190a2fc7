"""The reference: per-row gradients by the hooks of Opacus, clipped and summed the plain way.

Many times slower than :mod:`fedgen.dpsgd.fused` and meant to be: two implementations that share nothing agree on
every sum. Opacus's ghost clipping is never used, for in 1.6 it does not clip a loss of shape ``(B, 1)``.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from fedgen.dpsgd.engine import Clipped, check_bounds, check_clip, check_losses, check_out, check_owner
from fedgen.dpsgd.terms import NORM_ERROR, squared_norms
from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from fedgen.dpsgd.flat import FlatParameters


class OpacusEngine:
    """An :class:`~fedgen.dpsgd.engine.Engine` on Opacus's gradient-sample hooks.

    Guarantees:
        - Those of :class:`~fedgen.dpsgd.engine.Engine`.
        - Between calls nothing of Opacus stays attached to the module.

    Edge cases:
        - Memory grows with rows times parameters.
        - What Opacus accepts is accepted, which is more than the fused engine has rules for; but a module in eval
          mode is refused, for Opacus would record nothing, and so are layers for which Opacus 1.6 is known to differ
          from torch.

    Args:
        flat: The parameters.
        module: The module that holds exactly these parameters.
        clip: The norm bound C.

    Raises:
        ConfigError: Opacus has no per-row gradients for the module.
        ValueError: ``clip`` is out of range.
    """

    def __init__(self, flat: FlatParameters, module: nn.Module, clip: float) -> None:
        check_clip(clip)
        check_owner(flat, module)
        self.flat = flat
        self.module = module
        self.clip = clip
        _refuse_known_faults(module)
        self._detach(self._attach())

    def clipped_sum_(
        self, out: Tensor, loss: Callable[[Tensor], Tensor], rows: Tensor, *, bounds: Tensor | None = None
    ) -> Clipped:
        """See :meth:`fedgen.dpsgd.engine.Engine.clipped_sum_`."""
        check_out(self.flat, out)
        self.flat.check()
        if not all(part.training for part in self.module.modules()):
            raise ConfigError("the module is in eval mode", hint="call module.train() before private steps")
        count = len(rows)
        check_bounds(bounds, out, count, self.clip)
        if count == 0:
            return Clipped(0, 0)
        held = [parameter.grad for parameter in self.flat.parameters]
        layouts = [part.register_forward_pre_hook(_canonical) for part in self.module.modules()]
        hooks = self._attach()
        try:
            for parameter in self.flat.parameters:
                parameter.grad = None
            with torch.enable_grad():
                losses = loss(rows)
                check_losses(losses, count)
                _backward(losses.sum())
            samples = [self._sample(k, count) for k in range(len(held))]
        finally:
            self._detach(hooks)
            for layout in layouts:
                layout.remove()
            for parameter, gradient in zip(self.flat.parameters, held, strict=True):
                parameter.grad = gradient
        with torch.no_grad():
            return self._add_(out, losses.detach(), samples, self.clip if bounds is None else bounds)

    def _attach(self) -> Any:
        """Attach the hooks that record per-row gradients of a summed loss."""
        from opacus.grad_sample import GradSampleHooks

        try:
            return GradSampleHooks(self.module, loss_reduction="sum", strict=True)
        except NotImplementedError as error:
            raise ConfigError(
                "Opacus has no per-row gradients for a layer that keeps buffers",
                hint="use GroupNorm or LayerNorm",
            ) from error

    def _detach(self, hooks: Any) -> None:
        """Remove the hooks and what they leave on layers, which an interrupted call would hand to the next."""
        hooks.cleanup()
        for layer in self.module.modules():
            for left in ("activations", "max_batch_len"):
                layer.__dict__.pop(left, None)

    def _sample(self, k: int, count: int) -> Tensor | None:
        """Return the per-row gradients of parameter ``k`` as a matrix, or None if no gradient reached it."""
        sample = getattr(self.flat.parameters[k], "grad_sample", None)
        if sample is None:
            return None
        if not isinstance(sample, torch.Tensor) or len(sample) != count:
            raise ConfigError(
                f"Opacus recorded no single gradient per row for parameter {self.flat.names[k]!r}",
                hint="use each layer once, with rows in the first dimension",
            )
        return sample.reshape(count, -1)

    def _add_(
        self, out: Tensor, losses: Tensor, samples: list[Tensor | None], bounds: float | Tensor
    ) -> Clipped:
        """Clip every row's whole gradient and add the sum, parameter by parameter."""
        square = torch.zeros_like(losses)
        for sample in samples:
            if sample is not None:
                square += squared_norms(sample)
        good = losses.isfinite() & square.isfinite()
        c = square.rsqrt().mul_(bounds * (1.0 - NORM_ERROR)).clamp_(max=1.0)
        if isinstance(bounds, torch.Tensor):
            c = torch.where(bounds > 0, c, 0.0)  # where the norm is zero as well, c is not a number
        c = torch.where(good, c, 0.0)
        for view, sample in zip(self.flat.views(out), samples, strict=True):
            if sample is not None:
                view.view(-1).addmv_(torch.where(good.unsqueeze(1), sample, 0.0).t(), c)
        return Clipped(len(losses), len(losses) - int(good.sum()))


def _refuse_known_faults(module: nn.Module) -> None:
    """Raise ``ConfigError`` for a layer whose per-row gradients in Opacus 1.6 are not those of torch."""
    for name, layer in module.named_modules():
        fault = None
        if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
            fault = "has a padding_idx, to which Opacus gives a gradient all the same"
        elif (
            isinstance(layer, nn.LayerNorm)
            and layer.elementwise_affine
            and getattr(layer, "bias", None) is None
        ):
            fault = "has no bias, which Opacus takes for granted"
        if fault:
            raise ConfigError(f"layer {name!r} ({type(layer).__name__}) {fault}", hint="use engine: fused")


def _canonical(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a layer's inputs in the one memory layout that Opacus reads right.

    Opacus 1.6 unfolds a convolution's input as if it were contiguous; in channels-last, which torch chooses by
    itself after a permute, its per-row gradients are silently wrong.
    """
    return tuple(x.contiguous() if isinstance(x, torch.Tensor) else x for x in inputs)


def _backward(total: Tensor) -> None:
    """Run the backward pass, without torch's remark that the first layer's input takes no gradient."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
        total.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
