"""Layouts: what a model sees of a schema, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from fedgen.schema.columns import Boolean, Categorical, Integer
from fedgen.schema.layout import ImageLayout, TableLayout, layout_of
from fedgen.schema.table import ImageSchema, TableSchema


def test_layout_of_a_table() -> None:
    columns = (
        Integer(name="secret-name", min=0, max=9, nullable=True),
        Categorical(name="b", categories=("x", "y")),
        Boolean(name="c"),
    )
    layout = layout_of(TableSchema(columns=columns, label="c"))
    assert layout == TableLayout(cardinalities=(11, 2, 2), ordered=(True, False, False), label=2)
    assert layout.width == layout.row_width == 3
    assert "secret-name" not in repr(layout)


def test_layout_of_images() -> None:
    layout = layout_of(ImageSchema(height=8, width=7, channels=3, max_value=16, classes=("a", "b")))
    assert layout == ImageLayout(height=8, width=7, channels=3, max_value=16, classes=2)
    assert (layout.pixels, layout.row_width, layout.label) == (168, 169, 168)
    assert layout.cardinalities == (17,) * 168 + (2,)


def test_images_without_classes_have_no_label() -> None:
    layout = layout_of(ImageSchema(height=2, width=2))
    assert (layout.row_width, layout.label, layout.classes) == (4, None, None)


def test_layout_agrees_with_its_schema() -> None:
    for schema in (
        TableSchema(columns=(Boolean(name="a"),)),
        ImageSchema(height=2, width=2, classes=("x",)),
    ):
        layout = layout_of(schema)
        assert layout.cardinalities == schema.cardinalities
        assert layout.label == schema.label_index
        assert layout.row_width == len(schema.names)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TableLayout((), ()),
        lambda: TableLayout((2, 0), (True, True)),
        lambda: TableLayout((2, 2), (True,)),
        lambda: TableLayout((2, 2), (True, True), label=2),
        lambda: ImageLayout(0, 1, 1, 1),
        lambda: ImageLayout(1, 1, 1, 0),
    ],
)
def test_a_layout_that_cannot_be_is_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="must"):
        make()
