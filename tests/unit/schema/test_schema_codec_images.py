"""The codec on images: the direct path and the table of pixels agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fedgen.errors import DataError
from fedgen.schema.codec import Codec
from fedgen.schema.table import ImageSchema

GREY = Codec(ImageSchema(height=2, width=3, max_value=16, classes=("0", "1", "2")))
COLOUR = Codec(ImageSchema(height=2, width=3, channels=3))
PIXELS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


def test_codes_are_the_pixels_and_the_label_is_last() -> None:
    encoded = GREY.encode_images(PIXELS, np.array([2, 0]))
    assert encoded.codes.tolist() == [[0, 1, 2, 3, 4, 5, 2], [6, 7, 8, 9, 10, 11, 0]]
    assert encoded.codes.dtype == GREY.dtype == np.uint8
    assert encoded.clamped == {}


@pytest.mark.parametrize("shape", [(2, 6), (2, 2, 3), (2, 2, 3, 1)])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_any_shape_and_type_of_the_same_pixels_is_the_same(shape: Any, dtype: Any) -> None:
    codes = GREY.encode_images(PIXELS.reshape(shape).astype(dtype), ["2", "0"]).codes
    assert np.array_equal(codes, GREY.encode_images(PIXELS, np.array([2, 0])).codes)


def test_channels_stand_together() -> None:
    pixels = np.arange(18, dtype=np.uint8).reshape(1, 2, 3, 3)
    assert COLOUR.encode_images(pixels).codes.tolist() == [list(range(18))]


@pytest.mark.parametrize("codec", [GREY, COLOUR])
def test_decode_is_the_inverse(codec: Any) -> None:
    schema = codec.schema
    rng = np.random.default_rng(1)
    codes = np.stack([rng.integers(0, k, 20) for k in schema.cardinalities], axis=1).astype(codec.dtype)
    pixels, labels = codec.decode_images(codes)
    assert pixels.shape == (20, schema.height, schema.width, schema.channels)
    names = None if labels is None else [schema.classes[label] for label in labels]
    assert np.array_equal(codec.encode_images(pixels, names).codes, codes)
    assert np.array_equal(codec.encode(codec.decode(codes, rng)).codes, codes)


def test_pixels_out_of_bounds_are_clamped_and_counted() -> None:
    pixels = np.array([[0, 17, 16, -1, 0, 99], [0, 200, 0, 0, 0, 0]])
    encoded = GREY.encode_images(pixels, [0, 1])
    assert encoded.codes[:, :6].tolist() == [[0, 16, 16, 0, 0, 16], [0, 16, 0, 0, 0, 0]]
    assert encoded.clamped == {"p1": 2, "p3": 1, "p5": 1}


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_a_pixel_that_is_not_whole_is_refused(value: Any) -> None:
    pixels = np.zeros((3, 6))
    pixels[1, 4] = value
    with pytest.raises(DataError, match=r"^p4: row 12: a pixel that is not a whole number$"):
        GREY.encode_images(pixels, [0, 0, 0], first_row=10)


def test_a_class_that_is_not_declared_is_refused() -> None:
    with pytest.raises(DataError, match=r"^label: row 2: not among the declared names"):
        GREY.encode_images(PIXELS, [0, 3])


@pytest.mark.parametrize(
    ("codec", "pixels", "labels", "says"),
    [
        (GREY, PIXELS.reshape(2, 3, 2), [0, 0], "shape"),
        (COLOUR, PIXELS, None, "shape"),
        (GREY, PIXELS.astype(str), [0, 0], "numbers"),
        (GREY, PIXELS, None, "labels"),
        (GREY, PIXELS, [0], "labels"),
        (COLOUR, np.zeros((1, 18)), [0], "labels"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(codec: Any, pixels: Any, labels: Any, says: Any) -> None:
    with pytest.raises(ValueError, match=says):
        codec.encode_images(pixels, labels)


def test_deep_pixels_take_two_bytes() -> None:
    codec = Codec(ImageSchema(height=1, width=1, max_value=4095))
    assert codec.encode_images(np.array([[4095]])).codes.dtype == np.uint16
