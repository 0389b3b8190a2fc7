"""Coded images as intensities in [0, 1] and a one-hot label, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedgen.models.layers import one_hot

if TYPE_CHECKING:
    from fedgen.schema.layout import ImageLayout


class Pixels:
    """The two readings of an image row: ``pixels`` codes, then the label's code if there are classes.

    Guarantees:
        - ``codes(*split(rows))`` is ``rows``: the greatest rounding error is far below half a code.

    Args:
        layout: Of the images.
    """

    def __init__(self, layout: ImageLayout) -> None:
        self.count = layout.pixels
        self.classes = layout.classes or 0
        self._top = float(layout.max_value)

    def split(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return intensities ``(B, pixels)`` and one-hot labels ``(B, classes)``, float32."""
        intensity = rows[:, : self.count].to(torch.float32) / self._top
        if not self.classes:
            return intensity, intensity[:, :0]
        return intensity, one_hot(self.labels(rows), self.classes)

    def labels(self, rows: Tensor) -> Tensor:
        """Return the label codes, int64, shape ``(B,)``; only where there are classes."""
        return rows[:, self.count].to(torch.int64)

    def codes(self, intensity: Tensor, labels: Tensor | None) -> Tensor:
        """Return int64 rows for intensities, rounded and clipped to the declared range, and labels."""
        codes = (intensity * self._top).round().clamp(0, self._top).to(torch.int64)
        return codes if labels is None else torch.cat((codes, labels.unsqueeze(1)), 1)
