"""A small table with every kind of column, and rows that follow one simple law."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fedgen.schema.codec import Codec
from fedgen.schema.table import ImageSchema, TableSchema, parse_schema

Rows = Callable[[int, int], np.ndarray]


@pytest.fixture(scope="session")
def schema() -> TableSchema:
    """Six kinds of column, two of them nullable, and a label."""
    found = parse_schema(
        {
            "label": "sick",
            "subject": "person",
            "columns": [
                {"name": "weight", "type": "continuous", "min": 40.0, "max": 140.0, "bins": 20},
                {"name": "visits", "type": "integer", "min": 0, "max": 9, "nullable": True},
                {"name": "ward", "type": "categorical", "categories": ["a", "b", "c"]},
                {"name": "grade", "type": "ordinal", "levels": ["low", "mid", "high"], "nullable": True},
                {"name": "since", "type": "date", "min": "2024-01-01", "max": "2024-01-10"},
                {"name": "sick", "type": "boolean"},
            ],
        }
    )
    assert isinstance(found, TableSchema)
    return found


@pytest.fixture(scope="session")
def rows(schema: TableSchema) -> Rows:
    """Draw codes in which the label follows the weight and the ward."""

    def draw(n: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        codes = np.stack([rng.integers(0, k, n) for k in schema.cardinalities], axis=1)
        score = codes[:, 0] / 19 + (codes[:, 2] == 1) + rng.normal(0, 0.3, n)
        codes[:, 5] = score > np.median(score)
        return codes.astype(Codec(schema).dtype)

    return draw


@pytest.fixture(scope="session")
def image_schema() -> ImageSchema:
    """Small grey images of two classes."""
    return ImageSchema(height=4, width=3, channels=1, max_value=16, classes=("dark", "bright"))


@pytest.fixture(scope="session")
def images(image_schema: ImageSchema) -> Rows:
    """Draw images whose brightness follows their class."""

    def draw(n: int, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        label = rng.integers(0, 2, n)
        pixels = np.clip(rng.normal(4 + 8 * label[:, None], 2, (n, 12)).round(), 0, 16)
        return np.concatenate([pixels, label[:, None]], axis=1).astype(np.uint8)

    return draw
