"""Pixels and class means by hand."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fedgen.audit.images import image_fit, pixel_distance
from fedgen.schema.table import ImageSchema

if TYPE_CHECKING:
    from collections.abc import Callable


def test_pixel_distance_by_hand() -> None:
    dark, bright = np.zeros((5, 4), dtype=np.uint8), np.full((3, 4), 16, dtype=np.uint8)
    assert pixel_distance(dark, bright, 16) == 1
    assert pixel_distance(dark, dark[:2], 16) == 0
    half = dark.copy()
    half[:, :2] = 8
    assert pixel_distance(dark, half, 16) == pytest.approx(0.25)
    assert pixel_distance(half, dark, 16) == pytest.approx(0.25)


def test_class_means_are_scaled_to_a_byte(image_schema: ImageSchema) -> None:
    dark = np.zeros((2, 13), dtype=np.uint8)
    bright = np.full((2, 13), 16, dtype=np.uint8)
    bright[:, -1] = 1
    both = np.concatenate([dark, bright])
    fit = image_fit(both, both, image_schema, other=both)
    assert [m.label for m in fit.means] == ["dark", "bright"]
    assert base64.b64decode(fit.means[0].synthetic) == bytes(12)
    assert base64.b64decode(fit.means[1].reference) == b"\xff" * 12
    assert fit.floor == 0


def test_training_means_are_never_kept(image_schema: ImageSchema, images: Callable[..., np.ndarray]) -> None:
    fit = image_fit(images(20, 1), images(20, 2), image_schema, other=None)
    assert all(m.reference == "" for m in fit.means)
    assert all(m.synthetic for m in fit.means)
    assert fit.floor is None
    assert "training" in fit.basis.data


def test_a_class_without_images_is_empty(image_schema: ImageSchema) -> None:
    dark = np.zeros((2, 13), dtype=np.uint8)
    fit = image_fit(dark, dark, image_schema, other=dark)
    assert fit.means[1].synthetic == fit.means[1].reference == ""


def test_images_without_classes_have_one_mean() -> None:
    schema = ImageSchema(height=1, width=2, channels=3, max_value=255)
    pixels = np.zeros((4, 6), dtype=np.uint8)
    fit = image_fit(pixels, pixels, schema, other=pixels)
    assert len(fit.means) == 1
    assert (fit.height, fit.width, fit.channels) == (1, 2, 3)
