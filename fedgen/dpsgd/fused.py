"""Exact flat clipping at the price of plain SGD: one forward, one backward, one weighted product per layer.

While the loss runs, every layer with parameters is replaced by its rule (:mod:`fedgen.dpsgd.layers`), which records
its input and output. Autograd then returns the gradients at those outputs, and nothing else: no hook, no Python in
the backward pass, no gradient of a parameter. From input and output gradient follow the norm of every row's gradient,
the row's coefficient, and the weighted sum, which is written straight into the caller's buffer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from fedgen.dpsgd.convolution import Convolution, TransposedConvolution
from fedgen.dpsgd.engine import Clipped, check_clip, check_losses, check_out, check_owner
from fedgen.dpsgd.layers import Dense, GroupNormalization, Layer, LayerNormalization, Lookup
from fedgen.dpsgd.terms import NORM_ERROR, Outer, outer_norms
from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fedgen.dpsgd.flat import FlatParameters
    from fedgen.dpsgd.terms import Term

RULES: Final[dict[type[nn.Module], type[Layer]]] = {
    nn.Linear: Dense,
    nn.Conv1d: Convolution,
    nn.Conv2d: Convolution,
    nn.ConvTranspose2d: TransposedConvolution,
    nn.LayerNorm: LayerNormalization,
    nn.GroupNorm: GroupNormalization,
    nn.Embedding: Lookup,
}
"""By exact type: a subclass may do anything in its forward."""

_MIXES_ROWS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


_SCRATCH: Final = 2**21  # floats: 8 MB stay in cache, and come from the heap instead of being mapped anew

_Record = tuple[
    Tensor, int, GradientEdge
]  # a layer's input, the input's version, where its output is in the graph
_Used = tuple[int, Tensor, GradientEdge]  # index of a layer, its input, its output
_Passed = tuple[int, Tensor, Tensor]  # index of a layer, its input, the gradient at its output


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
        self._bound = clip * (1.0 - NORM_ERROR)
        self._layers = list(_layers(module))
        index = {id(parameter): k for k, parameter in enumerate(flat.parameters)}
        self._places = [_places(layer.module, index) for layer in self._layers]
        self._tape: list[_Record | None] = [None] * len(self._layers)
        self._recorders = [self._recorder(k, layer) for k, layer in enumerate(self._layers)]
        self._out: Tensor | None = None
        self._targets: list[tuple[Tensor, Tensor | None]] = []
        self._bias_ones: dict[tuple[bool, ...], Tensor] = {}
        self._proved = False
        self._early: list[Tensor] = []

    def clipped_sum_(self, out: Tensor, loss: Callable[[Tensor], Tensor], rows: Tensor) -> Clipped:
        """See :meth:`fedgen.dpsgd.engine.Engine.clipped_sum_`."""
        check_out(self.flat, out)
        self.flat.check()
        count = len(rows)
        if count == 0:
            return Clipped(0, 0)
        try:
            with torch.enable_grad():
                losses = self._run(loss, rows)
                check_losses(losses, count)
                used = self._used(count)
                if not self._proved:
                    self._prove(losses, used)
                passed = _passed(losses, used)
            with torch.no_grad():
                return self._add_(out, losses.detach(), passed)
        finally:
            self._tape[:] = [None] * len(self._tape)
            self._early.clear()

    def _recorder(self, k: int, layer: Layer) -> Callable[[Tensor], Tensor]:
        """Return the forward of layer ``k`` while a loss runs."""
        run, tape = layer.run, self._tape

        def forward(x: Tensor) -> Tensor:
            if tape[k] is not None:
                raise layer.refusal("is used twice in one forward pass", "give each use a layer of its own")
            if not x.requires_grad and x.is_floating_point():
                x = (
                    x.detach().requires_grad_()
                )  # the graph begins at the first layer: parameters take no gradient
            y = run(x)
            if not y.requires_grad:
                y.requires_grad_()  # as above, for a lookup
            if not self._proved:
                y.register_hook(self._early.append)  # type: ignore[no-untyped-call] # torch leaves it untyped
            # The edge, not y: nothing needs its value, and y may go or be changed in place.
            tape[k] = (x, x._version, get_gradient_edge(y))  # noqa: SLF001 - how autograd notices such changes
            return y

        return forward

    def _run(self, loss: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """Call the loss with the rules in place of the layers' own forwards."""
        for layer, recorder in zip(self._layers, self._recorders, strict=True):
            # Straight into the instance: nn.Module.__setattr__ is slow and has nothing to add.
            layer.module.__dict__["forward"] = recorder
        try:
            return loss(rows)
        finally:
            for layer in self._layers:
                del layer.module.__dict__["forward"]

    def _used(self, count: int) -> list[_Used]:
        """Return index, input and output edge of every layer that ran, or refuse inputs that have changed."""
        used = []
        for k, record in enumerate(self._tape):
            if record is None:
                continue
            x, version, edge = record
            if x._version != version:  # noqa: SLF001 - as where it was recorded
                raise self._layers[k].refusal("has its input changed in place", "write to a new tensor")
            if len(x) != count:
                raise self._layers[k].refusal(
                    f"sees {len(x)} rows of a batch of {count}", "keep rows in the first dimension"
                )
            used.append((k, x, edge))
        return used

    def _prove(self, losses: Tensor, used: Sequence[_Used]) -> None:
        """Refuse a loss whose rows depend on each other, or that sees a parameter past its layer.

        The loss of the first half of the rows must have no gradient in the layers' outputs for the second half,
        nor in any parameter, for the rules do not let any through.
        """
        if self._early:
            raise ConfigError("the loss takes gradients itself", hint="use a loss without a gradient penalty")
        half = len(losses) // 2
        named = [
            (name, p)
            for name, p in zip(self.flat.names, self.flat.parameters, strict=True)
            if p.requires_grad
        ]
        targets = [*(edge for _, _, edge in used), *(p for _, p in named)]
        found = _gradients(losses[:half], targets, keep=True)
        for (k, _, _), g in zip(used, found, strict=False):
            if g is not None and bool(((g[half:] != 0) & ~g[half:].isnan()).any()):
                raise self._layers[k].refusal(
                    "lets the loss of a row depend on another", "compute each row's loss from that row alone"
                )
        for (name, _), g in zip(named, found[len(used) :], strict=True):
            if g is not None:
                raise ConfigError(f"parameter {name!r} is used outside of its layer", hint="call the layer")
        self._proved = half > 0

    def _measure(self, passed: Sequence[_Passed]) -> tuple[Tensor, list[Term]]:
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

    def _add_(self, out: Tensor, losses: Tensor, passed: list[_Passed]) -> Clipped:
        """Clip and sum, as many rows at a time as the layers have scratch room for."""
        count = len(losses)
        self._aim(out)
        room = sum(self._layers[k].scratch(x, g) for k, x, g in passed)
        step = count if room * count <= _SCRATCH else max(1, _SCRATCH // room)
        dropped = 0
        for first in range(0, count, step):
            part = slice(first, first + step)
            here = passed if step >= count else [(k, x[part], g[part]) for k, x, g in passed]
            dropped += self._add_part_(losses[part], here)
        return Clipped(count, dropped)

    def _add_part_(self, losses: Tensor, passed: list[_Passed]) -> int:
        """Clip and sum some rows; those that are not finite leave every product before it is formed.

        ``passed`` is used up.
        """
        if not passed:
            return int((~losses.isfinite()).sum())
        square, terms = self._measure(passed)
        dropped, good = 0, None
        if not math.isfinite(float(losses.sum() + square.sum())):
            good = losses.isfinite() & square.isfinite()
            dropped = len(losses) - int(good.sum())
            passed[:] = [(k, _only(x, good), _only(g, good)) for k, x, g in passed]
            square, terms = self._measure(passed)
        c = square.rsqrt_().mul_(self._bound).clamp_(max=1.0)
        if good is not None:
            c.mul_(good)
        indices = [k for k, _, _ in passed]
        passed.clear()  # and so on, so that each gradient goes as soon as it is added
        terms.reverse()
        for k in indices:
            terms.pop().add_(c, *self._targets[k])
        return dropped

    def _aim(self, out: Tensor) -> None:
        """Cut ``out`` into one target per layer, once for as long as the caller reuses it."""
        if self._out is not out:
            views = self.flat.views(out)
            self._targets = [(views[w], None if b is None else views[b]) for w, b in self._places]
            self._out = out


def _passed(losses: Tensor, used: list[_Used]) -> list[_Passed]:
    """Return what each layer took in and got back; layers that no gradient reached are left out."""
    gradients = _gradients(losses, [edge for _, _, edge in used])
    return [(k, x, g) for (k, x, _), g in zip(used, gradients, strict=True) if g is not None]


def _gradients(losses: Tensor, targets: Sequence[Any], *, keep: bool = False) -> tuple[Tensor | None, ...]:
    """Return the gradients of the summed losses, None where there is none."""
    return torch.autograd.grad(losses.sum(), targets, retain_graph=keep, allow_unused=True)


def _only(rows: Tensor, good: Tensor) -> Tensor:
    """Return ``rows`` with zeros where ``good`` is false: zero times a NaN would still be a NaN."""
    if not rows.is_floating_point():
        return rows
    return torch.where(good.view(-1, *[1] * (rows.dim() - 1)), rows, 0.0)


def _places(layer: Any, index: dict[int, int]) -> tuple[int, int | None]:
    """Return where a layer's weight and bias lie among the flat parameters."""
    bias = getattr(layer, "bias", None)
    return index[id(layer.weight)], None if bias is None else index[id(bias)]


def _layers(module: nn.Module) -> Iterator[Layer]:
    """Yield the rule of every layer that has parameters, or refuse the module."""
    known = ", ".join(kind.__name__ for kind in RULES)
    for name, layer in module.named_modules():
        what = f"layer {name!r} ({type(layer).__name__})"
        if isinstance(layer, _MIXES_ROWS) or getattr(layer, "track_running_stats", False):
            raise ConfigError(f"{what} mixes the rows of a batch", hint="use GroupNorm or LayerNorm")
        own = {key for key, _ in layer.named_parameters(recurse=False)}
        if not own:
            continue
        rule = RULES.get(type(layer))
        if rule is None or not own <= {"weight", "bias"} or "forward" in layer.__dict__:
            raise ConfigError(
                f"{what} has no clipping rule", hint=f"use unmodified {known}, or engine: opacus"
            )
        yield rule(name, layer)
