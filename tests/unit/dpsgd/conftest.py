"""A slow, obvious reference: one backward pass per row, clipped in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable


def _filled(module: nn.Module, seed: int = 0, scale: float = 0.4) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0.0, scale, generator=generator)
    return module


def _row_gradients(module: nn.Module, loss: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    parameters = list(module.parameters())
    gradients = []
    for row in rows.split(1):
        parts = torch.autograd.grad(loss(row).sum(), parameters, allow_unused=True)
        flat = [
            torch.zeros_like(p) if part is None else part for p, part in zip(parameters, parts, strict=True)
        ]
        gradients.append(torch.cat([part.flatten() for part in flat]).double())
    return torch.stack(gradients)


def _looped(module: nn.Module, loss: Callable[[Tensor], Tensor], rows: Tensor, clip: float) -> Tensor:
    gradients = _row_gradients(module, loss, rows)
    norms = gradients.norm(dim=1, keepdim=True)
    return (gradients * (clip / norms).clamp(max=1.0)).sum(0)


@pytest.fixture
def filled() -> Callable[..., nn.Module]:
    """Return a function that fills a module from a seed, without the global generator."""
    return _filled


@pytest.fixture
def looped() -> Callable[..., Tensor]:
    """Return ``(module, loss, rows, clip) -> clipped sum`` by a loop over rows."""
    return _looped


@pytest.fixture
def row_gradients() -> Callable[..., Tensor]:
    """Return ``(module, loss, rows) -> (B, P)`` float64 gradients by a loop over rows."""
    return _row_gradients
