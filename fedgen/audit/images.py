"""Do synthetic images look like real ones: pixel by pixel and class by class."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedgen.audit.basis import Basis, against

if TYPE_CHECKING:
    from fedgen.schema.table import ImageSchema


@dataclass(frozen=True, slots=True)
class MeanImage:
    """The average image of one class.

    Attributes:
        label: The class.
        reference: Base64 of ``height * width * channels`` bytes, 0..255; empty when the class has no held-out
            image, or when the reference is the training rows.
        synthetic: The same of the synthetic images; empty when the class has none.
    """

    label: str
    reference: str
    synthetic: str


@dataclass(frozen=True, slots=True)
class ImageFit:
    """How well pixels are met.

    Attributes:
        height: In pixels.
        width: In pixels.
        channels: Values of one pixel.
        pixel_distance: Mean over pixels of the earth mover's distance between intensities, in [0, 1].
        floor: The same between training and held-out images, None without held-out images.
        means: One per class, or one in all when no class is declared.
        basis: Whose images were read.
    """

    height: int
    width: int
    channels: int
    pixel_distance: float
    floor: float | None
    means: tuple[MeanImage, ...]
    basis: Basis


def pixel_distance(a: np.ndarray, b: np.ndarray, max_value: int) -> float:
    """Return the mean over pixels of the earth mover's distance between two sets of intensities.

    Guarantees:
        - In [0, 1]; zero for equal sets; symmetric.

    Args:
        a: Pixel codes ``(n, pixels)``, n >= 1, each in ``0..max_value``.
        b: Pixel codes ``(m, pixels)``, m >= 1.
        max_value: The largest pixel value, at least one.
    """
    total = 0.0
    for j in range(a.shape[1]):
        p = np.bincount(a[:, j], minlength=max_value + 1) / len(a)
        q = np.bincount(b[:, j], minlength=max_value + 1) / len(b)
        total += float(np.abs(np.cumsum(p - q)[:-1]).sum()) / max_value
    return total / int(max(1, a.shape[1]))


def image_fit(
    synthetic: np.ndarray,
    reference: np.ndarray,
    schema: ImageSchema,
    *,
    other: np.ndarray | None,
) -> ImageFit:
    """Return how well synthetic images meet real ones.

    Args:
        synthetic: Codes ``(m, pixels)`` or, with classes, ``(m, pixels + 1)``; m >= 1.
        reference: Real codes: held-out images if ``other`` is given, else training images.
        schema: Shape and classes of the images.
        other: Training codes, for the floor; None when ``reference`` is the training images.
    """
    pixels, top, labels = schema.pixels, schema.max_value, schema.classes
    held_out = other is not None
    means = []
    for c, label in enumerate(labels or ("all images",)):
        real, made = (t[t[:, -1] == c] if labels else t for t in (reference, synthetic))
        means.append(
            MeanImage(label, _mean(real[:, :pixels], top) if held_out else "", _mean(made[:, :pixels], top))
        )
    return ImageFit(
        height=schema.height,
        width=schema.width,
        channels=schema.channels,
        pixel_distance=pixel_distance(synthetic[:, :pixels], reference[:, :pixels], top),
        floor=None if other is None else pixel_distance(other[:, :pixels], reference[:, :pixels], top),
        means=tuple(means),
        basis=against("held-out" if held_out else "training"),
    )


def _mean(images: np.ndarray, max_value: int) -> str:
    """Return the average image as base64 bytes, empty for no image."""
    if not len(images):
        return ""
    scaled = np.rint(images.mean(axis=0) * (255 / max_value)).astype(np.uint8)
    return base64.b64encode(scaled.tobytes()).decode("ascii")
