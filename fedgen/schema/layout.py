"""What a model needs to know of a schema: sizes and order, no names, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from fedgen.schema.table import ImageSchema, TableSchema


@dataclass(frozen=True, slots=True)
class TableLayout:
    """The codes of a table.

    Args:
        cardinalities: Number of codes of each column; the last code may mean a missing value.
        ordered: Whether neighbouring codes are neighbouring values, for each column.
        label: Position of the column to condition on, or None.

    Raises:
        ValueError: No column, an empty column, unequal lengths, or a label outside the columns.
    """

    cardinalities: tuple[int, ...]
    ordered: tuple[bool, ...]
    label: int | None = None

    def __post_init__(self) -> None:
        if not self.cardinalities or min(self.cardinalities) < 1:
            raise ValueError("cardinalities must be positive, one for each column")
        if len(self.ordered) != len(self.cardinalities):
            raise ValueError("ordered must have one entry for each column")
        if self.label is not None and not 0 <= self.label < len(self.cardinalities):
            raise ValueError("label must be the position of a column")

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.cardinalities)

    @property
    def row_width(self) -> int:
        """Codes in one row: the number of columns."""
        return len(self.cardinalities)


@dataclass(frozen=True, slots=True)
class ImageLayout:
    """The codes of an image: its pixels in the order height, width, channel, and then its label.

    Args:
        height: Rows of pixels.
        width: Columns of pixels, not of codes; see ``row_width``.
        channels: Values of one pixel.
        max_value: Largest value of a pixel; the smallest is 0.
        classes: Number of labels, or None if the images have none.

    Raises:
        ValueError: A size below one.
    """

    height: int
    width: int
    channels: int
    max_value: int
    classes: int | None = None

    def __post_init__(self) -> None:
        if min(self.height, self.width, self.channels, self.max_value, self.classes or 1) < 1:
            raise ValueError("height, width, channels, max_value and classes must be positive")

    @property
    def pixels(self) -> int:
        """Values in one image."""
        return self.height * self.width * self.channels

    @property
    def row_width(self) -> int:
        """Codes in one row: the pixels, and the label if there is one."""
        return self.pixels + (1 if self.classes else 0)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of codes of each pixel, and of the label if there is one."""
        return (*(self.max_value + 1,) * self.pixels, *((self.classes,) if self.classes else ()))

    @property
    def label(self) -> int | None:
        """Position of the label's code: the last one."""
        return self.pixels if self.classes else None


Layout: TypeAlias = TableLayout | ImageLayout


def layout_of(schema: TableSchema | ImageSchema) -> TableLayout | ImageLayout:
    """Return the layout of the codes of ``schema``; no name or bound of a column is in it."""
    if schema.kind == "image":
        return ImageLayout(
            height=schema.height,
            width=schema.width,
            channels=schema.channels,
            max_value=schema.max_value,
            classes=len(schema.classes) if schema.classes else None,
        )
    return TableLayout(
        cardinalities=schema.cardinalities,
        ordered=tuple(column.ordered for column in schema.columns),
        label=schema.label_index,
    )
