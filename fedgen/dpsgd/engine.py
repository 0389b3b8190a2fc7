"""Sums of clipped gradients: the one place where rows meet parameters.

A step of DP-SGD is ``noise into a buffer``, ``clipped_sum_ on top of it``, ``one update``. An :class:`Engine` does
the middle part and promises one thing: whatever a row holds, the sum moves by at most ``clip`` in Euclidean norm
when the row comes or goes. A row may be given a bound of its own: where a person has n rows in a batch and each is
bounded by ``clip / n``, the sum moves by at most ``clip`` when the person comes or goes, by the triangle inequality.

Source: Abadi et al., "Deep learning with differential privacy" (2016), Algorithm 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from fedgen._validate import positive
from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from fedgen.dpsgd.flat import FlatParameters

_CLIP_RANGE: Final = (1e-12, 1e12)  # outside of it squares leave float32


@dataclass(frozen=True, slots=True)
class Clipped:
    """What one call of an engine saw. Both numbers are exact, come from rows, and must stay where the rows are.

    Attributes:
        rows: How many rows were in the batch.
        dropped: How many of them had a loss or gradient that is not finite and therefore contributed zero.
    """

    rows: int
    dropped: int


class Engine(Protocol):
    """Adds ``Σ_i clip(∇loss_i, C)`` to a flat vector, or ``Σ_i clip(∇loss_i, bounds_i)``.

    Guarantees:
        - The sum moves by at most ``clip`` when a row is added or removed, and by at most ``Σ_i bounds_i`` when all
          rows i of a person are; float32 rounding of the sum itself aside.
        - A row whose loss or gradient is not finite contributes zero and is counted; the sum stays finite.
        - A parameter that no gradient reaches gets zero.
        - When a call raises, ``out`` is as it was.
    """

    flat: FlatParameters
    module: nn.Module
    clip: float

    def clipped_sum_(
        self, out: Tensor, loss: Callable[[Tensor], Tensor], rows: Tensor, *, bounds: Tensor | None = None
    ) -> Clipped:
        """Add the clipped gradients of ``loss(rows)`` to ``out``.

        Edge cases:
            ===================  ===============================================
            no rows              nothing is added and the loss is not called
            a very large batch   call once per part: sums of parts are the sum
            a bound of zero      the row adds zero
            ===================  ===============================================

        Args:
            out: Shape ``(flat.size,)``, float32, contiguous; noise may already be in it.
            loss: Returns one loss per row, shape ``(B,)``. The loss of a row may depend on that row only.
            rows: Shape ``(B, ...)``.
            bounds: Norm bound of each row, shape ``(B,)``, float32, each in [0, ``clip``]; None for ``clip``.

        Raises:
            ConfigError: The loss or the module cannot be clipped exactly.
            ValueError: ``out`` or ``bounds`` does not fit.
        """


def make_engine(name: str, flat: FlatParameters, module: nn.Module, clip: float) -> Engine:
    """Return the engine of that name.

    Args:
        name: ``"fused"``, or ``"opacus"`` for the slow reference.
        flat: The parameters to be privatised.
        module: The module that holds exactly these parameters.
        clip: The norm bound C, in units of the gradient of one row's loss.

    Raises:
        ConfigError: Unknown name, or a module the engine cannot clip exactly.
        ValueError: ``clip`` is out of range.
    """
    if name == "fused":
        from fedgen.dpsgd.fused import FusedEngine

        return FusedEngine(flat, module, clip)
    if name == "opacus":
        from fedgen.dpsgd.opacus_engine import OpacusEngine

        return OpacusEngine(flat, module, clip)
    raise ConfigError(f"unknown engine {name!r}", hint="use 'fused' or 'opacus'")


def check_clip(clip: float) -> None:
    """Raise ``ValueError`` unless ``clip`` is a norm bound float32 can keep."""
    positive(clip=clip)
    low, high = _CLIP_RANGE
    if not low <= clip <= high:
        raise ValueError(f"clip must lie in [{low}, {high}], not {clip}")


def check_owner(flat: FlatParameters, module: nn.Module) -> None:
    """Raise ``ConfigError`` unless ``module`` holds the parameters of ``flat`` and no others."""
    if {id(p) for p in module.parameters()} != {id(p) for p in flat.parameters}:
        raise ConfigError(
            "the module's parameters are not those of the flat vector",
            hint="make FlatParameters of the same module",
        )


def check_out(flat: FlatParameters, out: Tensor) -> None:
    """Raise ``ValueError`` unless sums can be written straight into ``out``."""
    if out.shape != (flat.size,) or out.dtype != flat.vector.dtype or not out.is_contiguous():
        raise ValueError(f"out must be contiguous float32 of shape ({flat.size},)")
    if out.requires_grad or out.device != flat.vector.device:
        raise ValueError("out must lie where the parameters do and take no gradient itself")


def check_bounds(bounds: Tensor | None, out: Tensor, rows: int, clip: float) -> None:
    """Raise ``ValueError`` unless ``bounds`` holds one bound for each row, none of them above ``clip``."""
    if bounds is None:
        return
    if bounds.shape != (rows,) or bounds.dtype != out.dtype or bounds.device != out.device:
        raise ValueError(f"bounds must be float32 of shape ({rows},), where the parameters lie")
    if not bool(((bounds >= 0) & (bounds <= clip)).all()):
        raise ValueError(f"bounds must lie in [0, {clip}], the engine's own bound")


def check_losses(losses: Tensor, rows: int) -> None:
    """Raise ``ConfigError`` unless there is exactly one loss per row.

    Another shape is never reshaped: a loss of shape ``(B, 1)`` times ``B`` coefficients is ``(B, B)``, which sums
    unclipped gradients and reports success.
    """
    if losses.shape != (rows,):
        raise ConfigError(
            f"the loss must have shape ({rows},), one value per row, not {tuple(losses.shape)}",
            hint="sum or squeeze all dimensions but the first",
        )
    if not losses.requires_grad:
        raise ConfigError("the loss reaches no parameter", hint="compute it from the module's output")
