"""All parameters of a module in one contiguous vector, so that noise, optimiser and update are single operations.

A step touches a few hundred thousand numbers; touching them once, in one call, is what makes a small batch cheap.
The parameters stay ordinary :class:`torch.nn.Parameter` objects: they become views of the vector.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


class FlatParameters:
    """The parameters of ``module`` as views of one float32 vector, in the order of ``named_parameters()``.

    Guarantees:
        - ``vector`` is contiguous and holds every parameter once; a change of it is a change of the module.
        - The parameters keep their values, shapes and identity.
        - A parameter that two modules share, or that is frozen, is refused: noise would reach it twice or against
          its owner's will.

    Edge cases:
        - After ``module.to(...)`` or any other replacement of ``parameter.data`` the views are gone; every use
          then raises instead of training a copy.

    Args:
        module: A module on one device with float32 parameters. It is changed in place.

    Raises:
        ConfigError: No parameters, a shared or frozen one, or one that is not dense float32.

    Attributes:
        vector: The parameters, shape ``(size,)``.
    """

    __slots__ = (
        "_addresses",
        "_gradient",
        "_parameters",
        "_sizes",
        "module",
        "names",
        "shapes",
        "size",
        "vector",
    )

    def __init__(self, module: nn.Module) -> None:
        named = _distinct_parameters(module)
        self.module = module
        self.names = tuple(name for name, _ in named)
        self.shapes = tuple(parameter.shape for _, parameter in named)
        self._parameters = tuple(parameter for _, parameter in named)
        self._sizes = tuple(parameter.numel() for parameter in self._parameters)
        self.size = sum(self._sizes)
        with torch.no_grad():
            self.vector = torch.cat([parameter.detach().reshape(-1) for parameter in self._parameters])
            for parameter, view in zip(self._parameters, self.views(self.vector), strict=True):
                parameter.data = view
        self._gradient: Tensor | None = None
        self._addresses = [parameter.data_ptr() for parameter in self._parameters]

    @property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """The module's own parameters, in the order of ``names``."""
        return self._parameters

    @property
    def gradient(self) -> Tensor:
        """A buffer of shape ``(size,)``, zeros at first, for whoever drives the steps; made when first used."""
        if self._gradient is None:
            self._gradient = torch.zeros_like(self.vector)
        return self._gradient

    def layout(self) -> list[tuple[str, tuple[int, ...]]]:
        """Return the name and shape of every parameter, in the order of the vector."""
        return [(name, tuple(shape)) for name, shape in zip(self.names, self.shapes, strict=True)]

    def views(self, vector: Tensor) -> list[Tensor]:
        """Return ``vector`` cut into one view per parameter.

        Args:
            vector: Shape ``(size,)``, contiguous.

        Raises:
            ValueError: The vector has another shape.
        """
        if vector.shape != (self.size,):
            raise ValueError(f"vector must have shape ({self.size},), not {tuple(vector.shape)}")
        parts = vector.split_with_sizes(self._sizes)
        return [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def load_(self, values: Tensor | NDArray[np.float32]) -> None:
        """Overwrite every parameter.

        Args:
            values: Shape ``(size,)``, finite.

        Raises:
            ValueError: Another shape, or a value that is not finite; nothing was changed.
            ConfigError: See :meth:`check`.
        """
        self.check()
        given = torch.as_tensor(values)
        if given.shape != (self.size,):
            raise ValueError(f"values must have shape ({self.size},), not {tuple(given.shape)}")
        if not math.isfinite(float(given.sum(dtype=torch.float64))):
            raise ValueError("values must be finite")
        with torch.no_grad():
            self.vector.copy_(given)

    def add_gradient_(self, out: Tensor, loss: Tensor) -> None:
        """Add the ordinary gradient of a scalar to ``out``: for terms that no row has touched.

        This is the second half of a two-optimiser GAN step: the critic's loss on a fixed number of generated rows
        is post-processing of released parameters, so its gradient joins the noised sum unclipped and unnoised.

        Args:
            out: Shape ``(size,)``; parameters the loss does not reach are left alone.
            loss: A scalar.

        Raises:
            ValueError: ``loss`` is not a scalar.
        """
        if loss.dim() != 0:
            raise ValueError(f"loss must be a scalar, not of shape {tuple(loss.shape)}")
        gradients = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        with torch.no_grad():
            for view, gradient in zip(self.views(out), gradients, strict=True):
                if gradient is not None:
                    view.add_(gradient)

    def as_parameter(self) -> nn.Parameter:
        """Return the vector as one parameter whose ``grad`` is ``gradient``, for an optimiser of torch.

        Edge cases:
            - ``optimizer.zero_grad()`` would drop the buffer; use ``flat.gradient.zero_()``.
        """
        parameter = nn.Parameter(self.vector)
        parameter.grad = self.gradient
        return parameter

    def check(self) -> None:
        """Raise ``ConfigError`` unless the module's parameters are still views of the vector."""
        if [parameter.data_ptr() for parameter in self._parameters] != self._addresses:
            raise ConfigError(
                "the module's parameters were moved after they were made flat",
                hint="move or convert the module first, then make FlatParameters",
            )


def _distinct_parameters(module: nn.Module) -> Sequence[tuple[str, nn.Parameter]]:
    """Return the named parameters of ``module``, or refuse those that cannot be privatised one by one."""
    named = list(module.named_parameters(remove_duplicate=False))
    if not named:
        raise ConfigError(f"{type(module).__name__} has no parameters")
    first: dict[int, str] = {}
    for name, parameter in named:
        other = first.setdefault(id(parameter), name)
        if other != name:
            raise ConfigError(
                f"parameter {name!r} is tied to {other!r}", hint="give each layer parameters of its own"
            )
        if not parameter.requires_grad:
            raise ConfigError(
                f"parameter {name!r} is frozen, and noise would move it",
                hint="make it a buffer or leave it out of the private module",
            )
        if parameter.dtype != torch.float32 or parameter.layout != torch.strided:
            raise ConfigError(f"parameter {name!r} must be dense float32, not {parameter.dtype}")
    return named
