"""What passes through the layers of a module while a loss runs.

For the time of one call every layer with parameters is replaced by its rule (:mod:`fedgen.dpsgd.layers`), which runs
it on detached parameters and notes its input and where its output lies in autograd's graph. Before and after, the
module is an ordinary one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from fedgen.dpsgd.convolution import Convolution, TransposedConvolution
from fedgen.dpsgd.layers import Dense, GroupNormalization, Layer, LayerNormalization, Lookup
from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fedgen.dpsgd.flat import FlatParameters

RULES: Final[dict[type[nn.Module], type[Layer]]] = {
    nn.Linear: Dense,
    nn.Conv1d: Convolution,
    nn.Conv2d: Convolution,
    nn.ConvTranspose2d: TransposedConvolution,
    nn.LayerNorm: LayerNormalization,
    nn.GroupNorm: GroupNormalization,
    nn.Embedding: Lookup,
}

Used = tuple[int, Tensor, GradientEdge]
"""Index of a layer, its input, and its output's place in the graph."""

_MIXES_ROWS: Final = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Tape:
    """Records one run of a module at a time.

    Args:
        flat: The parameters of ``module``.
        module: The module, every layer of which must have a rule.
        rules: The rules, by exact type of layer; a subclass may do anything in its forward.

    Raises:
        ConfigError: A layer without a rule, with options that have none, or that mixes rows.

    Attributes:
        layers: One rule per layer with parameters.
        places: Where each layer's weight and bias lie among the flat parameters.
        watch: Called with a layer's index and the gradient at its output whenever one is taken; None for silence.
    """

    def __init__(
        self, flat: FlatParameters, module: nn.Module, rules: Mapping[type[nn.Module], type[Layer]] = RULES
    ) -> None:
        self.layers = list(_layers(module, rules))
        index = {id(parameter): k for k, parameter in enumerate(flat.parameters)}
        self.places = [_place(layer.module, index) for layer in self.layers]
        self.watch: Callable[[int, Tensor], None] | None = None
        self._records: list[tuple[Tensor, int, GradientEdge] | None] = [None] * len(self.layers)
        self._recorders = [self._recorder(k, layer) for k, layer in enumerate(self.layers)]

    def run(self, call: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        """Return ``call(rows)``, with the rules in place of the layers' own forwards."""
        for layer, recorder in zip(self.layers, self._recorders, strict=True):
            # Straight into the instance: nn.Module.__setattr__ is slow and has nothing to add.
            layer.module.__dict__["forward"] = recorder
        try:
            return call(rows)
        finally:
            for layer in self.layers:
                del layer.module.__dict__["forward"]

    def used(self, count: int) -> list[Used]:
        """Return every layer that ran, or refuse inputs that have changed or lost their rows."""
        used = []
        for k, record in enumerate(self._records):
            if record is None:
                continue
            x, version, edge = record
            if x._version != version:  # noqa: SLF001 - as where it was recorded
                raise self.layers[k].refusal("has its input changed in place", "write to a new tensor")
            if len(x) != count:
                raise self.layers[k].refusal(
                    f"sees {len(x)} rows of a batch of {count}", "keep rows in the first dimension"
                )
            used.append((k, x, edge))
        return used

    def clear(self) -> None:
        """Forget the run."""
        self._records[:] = [None] * len(self._records)

    def _recorder(self, k: int, layer: Layer) -> Callable[[Tensor], Tensor]:
        """Return the forward of layer ``k`` while a loss runs."""
        run, records = layer.run, self._records

        def forward(x: Tensor) -> Tensor:
            if records[k] is not None:
                raise layer.refusal("is used twice in one forward pass", "give each use a layer of its own")
            if not x.requires_grad and x.is_floating_point():
                x = x.detach().requires_grad_()  # the graph begins here, for parameters take no gradient
            y = run(x)
            if not y.requires_grad:
                y.requires_grad_()  # a lookup, which has no input to begin with
            if self.watch is not None:
                y.register_hook(partial(self.watch, k))  # type: ignore[no-untyped-call] # torch leaves it untyped
            # The edge, not y: nothing needs its value, and y may go or be changed in place.
            records[k] = (x, x._version, get_gradient_edge(y))  # noqa: SLF001 - how autograd notices changes
            return y

        return forward


def _place(layer: Any, index: dict[int, int]) -> tuple[int, int | None]:
    """Return where a layer's weight and bias lie among the flat parameters."""
    bias = getattr(layer, "bias", None)
    return index[id(layer.weight)], None if bias is None else index[id(bias)]


def _layers(module: nn.Module, rules: Mapping[type[nn.Module], type[Layer]]) -> Iterator[Layer]:
    """Yield the rule of every layer that has parameters, or refuse the module."""
    known = ", ".join(kind.__name__ for kind in rules)
    for name, layer in module.named_modules():
        what = f"layer {name!r} ({type(layer).__name__})"
        if isinstance(layer, _MIXES_ROWS) or getattr(layer, "track_running_stats", False):
            raise ConfigError(f"{what} mixes the rows of a batch", hint="use GroupNorm or LayerNorm")
        own = {key for key, _ in layer.named_parameters(recurse=False)}
        if not own:
            continue
        rule = rules.get(type(layer))
        if rule is None or not own <= {"weight", "bias"} or "forward" in layer.__dict__:
            raise ConfigError(
                f"{what} has no clipping rule", hint=f"use unmodified {known}, or engine: opacus"
            )
        yield rule(name, layer)
