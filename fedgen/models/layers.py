"""Layers and row encodings that all models share: plain modules, each with exact per-row gradients.

No batch norm (it mixes rows) and nothing in place (a hook would see overwritten activations).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedgen.schema.layout import TableLayout

_LOWEST: Final = -80.0  # exp of it is still a normal float32, so the logarithm below stays finite


def unset(kind: type[nn.Module], *shape: int, **options: int | bool) -> Any:
    """Return a layer whose weights are not drawn: construction must not move the global generator.

    ``torch.nn.utils.skip_init`` does the same by way of the meta device, which imports sympy: half a second.
    """
    silent = type(kind.__name__, (kind,), {"reset_parameters": lambda _self: None})
    layer: nn.Module = silent(*shape, **options)
    layer.__class__ = kind  # the engine's rules go by exact type
    return layer


def blocks(x: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """Return the columns of ``x`` cut into neighbouring blocks of the given widths."""
    cut: tuple[Tensor, ...] = x.split(list(sizes), 1)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return cut


def linear(inputs: int, outputs: int, *, bias: bool = True, gain: float = 1.0) -> nn.Linear:
    """Return a ``Linear`` with unset weights; ``init_`` scales them by ``gain``."""
    layer: nn.Linear = unset(nn.Linear, inputs, outputs, bias=bias)
    layer.gain = gain  # type: ignore[assignment]  # a plain float beside the parameters, read by init_
    return layer


class Mlp(nn.Module):
    """Linear layers with a nonlinearity after each but the last.

    Args:
        widths: Input, hidden and output widths, at least two.
        gain: Scale of the last layer's first weights.
        active: How many of the inputs are not zero in any row (one per column of a one-hot row); None means
            all.
        leaky: LeakyReLU(0.2) in place of ReLU: critics keep a gradient everywhere.
    """

    def __init__(
        self, widths: Sequence[int], *, gain: float = 1.0, active: int | None = None, leaky: bool = False
    ) -> None:
        super().__init__()
        gains = [1.0] * (len(widths) - 1)
        gains[0] *= 1.0 if active is None else (widths[0] / active) ** 0.5
        gains[-1] *= gain
        self.layers = nn.ModuleList(
            linear(a, b, gain=scale) for (a, b), scale in zip(pairwise(widths), gains, strict=True)
        )
        self.slope = 0.2 if leaky else 0.0

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, widths[0])`` to ``(B, widths[-1])``."""
        last = len(self.layers) - 1
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i < last:
                x = functional.leaky_relu(x, self.slope)
        return x


class LabelPrior(nn.Module):
    """A distribution over labels, whose logits are the weights of one Linear fed with ones.

    Being a Linear, it is covered by per-row clipping like any other layer.

    Args:
        classes: Number of labels, K.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.logits = linear(1, classes, bias=False, gain=0.0)

    def forward(self, n: int) -> Tensor:
        """Return the logits once per row, shape ``(n, K)``."""
        logits: Tensor = self.logits(torch.ones(n, 1))
        return logits

    def loss(self, labels: Tensor) -> Tensor:
        """Return the cross-entropy of each label, shape ``(B,)``, in nats."""
        return functional.cross_entropy(self(len(labels)), labels, reduction="none")

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` labels, int64; no gradient flows."""
        with torch.no_grad():
            chances = self.logits.weight.reshape(-1).softmax(0)
            return torch.multinomial(chances, n, replacement=True, generator=generator) if n else _no_codes()


class Columns:
    """Positions of declared columns in one-hot rows; the label, if any, comes first.

    Args:
        layout: Of the rows.
    """

    def __init__(self, layout: TableLayout) -> None:
        first = [] if layout.label is None else [layout.label]
        order = [*first, *(j for j in range(layout.width) if j != layout.label)]
        self.sizes = [layout.cardinalities[j] for j in order]
        self.total = sum(self.sizes)
        self.classes = self.sizes[0] if first else 0
        self.order = torch.tensor(order, dtype=torch.int64)
        self.inverse = torch.argsort(self.order)
        sizes = torch.tensor(self.sizes, dtype=torch.int64)
        self.offsets = sizes.cumsum(0) - sizes
        self.members = torch.zeros(self.total, len(order))
        self.members[torch.arange(self.total), torch.repeat_interleave(torch.arange(len(order)), sizes)] = 1.0

    def places(self, rows: Tensor) -> Tensor:
        """Return for each code of ``(B, width)`` rows its position among all codes, label first."""
        return rows.to(torch.int64)[:, self.order] + self.offsets

    def codes(self, places: Tensor) -> Tensor:
        """Return the rows at ``places``; inverse of :meth:`places`."""
        return (places - self.offsets)[:, self.inverse]

    def one_hot(self, places: Tensor) -> Tensor:
        """Return float32 one-hot rows, shape ``(B, total)``, by one scatter."""
        return torch.zeros(len(places), self.total).scatter_(1, places, 1.0)

    def log_likelihood(self, logits: Tensor, places: Tensor) -> Tensor:
        """Return Σ over columns of the log-softmax at each code, without a loop over columns.

        Guarantees:
            - Equal to a softmax per column while a column's best logit is within 80 of its row's best.
            - Finite for finite logits.

        Args:
            logits: Of all columns side by side, shape ``(B, total)``.
            places: From :meth:`places`.

        Returns:
            Shape ``(B,)``, in nats.
        """
        best = logits.detach().amax(1, keepdim=True)
        sums = (logits - best).clamp_min(_LOWEST).exp() @ self.members
        return (logits.gather(1, places) - best - sums.log()).sum(1)


def draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one code per row from softmax(logits), shape ``(B, K)`` to ``(B,)`` int64."""
    if not len(logits):
        return _no_codes()
    return torch.multinomial(logits.softmax(1), 1, generator=generator).squeeze(1)


def one_hot(codes: Tensor, classes: int) -> Tensor:
    """Return ``(B,)`` int64 codes as float32 one-hot rows ``(B, classes)``; no columns if that is 0."""
    empty = torch.zeros(len(codes), classes)
    return empty.scatter_(1, codes.unsqueeze(1), 1.0) if classes else empty


def _no_codes() -> Tensor:
    return torch.zeros(0, dtype=torch.int64)
