"""What is publicly known of a data set: its columns and bounds, or the shape of its images."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

from pydantic import Field, StrictInt, TypeAdapter, ValidationError, model_validator

from fedgen.errors import ConfigError
from fedgen.messages import canonical
from fedgen.schema.columns import (
    FILL_IN,
    MAX_STATES,
    Categorical,
    Column,
    Declared,
    Integer,
    Labels,
    Marker,
    Name,
    Ordinal,
    Prose,
    check_unique,
)
from fedgen.schema.explain import Flaw, explain
from fedgen.schema.lines import Key, Lines, dotted
from fedgen.schema.yamlsource import load_yaml

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGE_LABEL: Final = "label"
MAX_PIXELS: Final = 2**20

Side: TypeAlias = Annotated[StrictInt, Field(ge=1, le=4096)]


class _Shared(Declared):
    """What both kinds of schema share."""

    subject: Name | None = None
    description: Prose = ""
    missing: Annotated[tuple[Marker, ...], Field(max_length=64)] = ("",)

    def digest(self) -> str:
        """Return the SHA-256 of the schema's canonical JSON, hex."""
        return hashlib.sha256(canonical(self.model_dump(mode="json"))).hexdigest()


class TableSchema(_Shared):
    """The columns of a table that are modelled.

    Guarantees:
        - Equal schemas have equal digests, however their files were written.
        - The column of the subject is never among the modelled ones.

    Attributes:
        columns: The modelled columns, in the order of the codes.
        label: The column to condition on, if any.
        subject: The column of the source that says whose row it is; never modelled, never released.
        description: For people; part of the digest.
        missing: The texts that mean "no value"; ``""`` if nothing is declared. A marker that is a number also
            matches typed numbers.
    """

    kind: Literal["table"] = "table"
    columns: Annotated[tuple[Column, ...], Field(min_length=1)]
    label: Name | None = None

    @model_validator(mode="after")
    def _names_agree(self) -> TableSchema:
        check_unique(self.names, "columns", "name")
        check_unique(self.missing, "missing")
        if self.label is not None and self.label not in self.names:
            raise Flaw("the label is not among the columns", key=("label",))
        if self.subject in self.names:
            index = self.names.index(str(self.subject))
            raise Flaw("the subject must not be modelled", key=("columns", index), hint="remove this column")
        for index, column in enumerate(self.columns):
            self._check_markers(index, column)
        return self

    def _check_markers(self, index: int, column: Column) -> None:
        match column:
            case Categorical():
                key, labels = "categories", column.categories
            case Ordinal():
                key, labels = "levels", column.levels
            case _:
                return
        for position, label in enumerate(labels):
            if label in self.missing:
                raise Flaw(
                    "this text is declared to mean a missing value",
                    key=("columns", index, key, position),
                    hint="take it out of `missing`, or out of here and declare nullable: true",
                )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the modelled columns."""
        return tuple(column.name for column in self.columns)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of codes of each column, a missing value included."""
        return tuple(column.cardinality for column in self.columns)

    @property
    def label_index(self) -> int | None:
        """Position of the label among the columns."""
        return None if self.label is None else self.names.index(self.label)


class ImageSchema(_Shared):
    """Images of one shape, and their classes; a row is its pixels and then its label.

    Guarantees:
        - Pixel ``p[(y * width + x) * channels + c]`` is row ``y`` from the top, column ``x`` from the left.

    Attributes:
        height: Rows of pixels, 1 to 4,096.
        width: Columns of pixels, 1 to 4,096.
        channels: Values of one pixel: 1 is grey, 3 is colour.
        max_value: Largest value of a pixel, 1 to 65,534; the smallest is 0.
        classes: The names of the labels, in the order of their codes; None if the images have none.
        subject: See :class:`TableSchema`.
        description: See :class:`TableSchema`.
        missing: See :class:`TableSchema`; a pixel may not be missing.
    """

    kind: Literal["image"] = "image"
    height: Side
    width: Side
    channels: Annotated[StrictInt, Field(ge=1, le=16)] = 1
    max_value: Annotated[StrictInt, Field(ge=1, le=MAX_STATES - 1)] = 255
    classes: Labels | None = None

    @model_validator(mode="after")
    def _parts_agree(self) -> ImageSchema:
        if self.pixels > MAX_PIXELS:
            raise Flaw(f"more than {MAX_PIXELS} values in one image", key=("height",))
        check_unique(self.missing, "missing")
        check_unique(self.classes or (), "classes")
        if self.subject in self.names:
            raise Flaw("the subject must not be a pixel or the label", key=("subject",))
        for index, label in enumerate(self.classes or ()):
            if label in self.missing:
                raise Flaw("this text is declared to mean a missing value", key=("classes", index))
        return self

    @property
    def pixels(self) -> int:
        """Values in one image."""
        return self.height * self.width * self.channels

    @property
    def label(self) -> str | None:
        """Name of the label's column, if the images have classes."""
        return IMAGE_LABEL if self.classes else None

    @property
    def columns(self) -> tuple[Column, ...]:
        """The images as the columns of a table: ``p0 ..`` and ``label``."""
        pixels = (
            Integer(name=f"p{i}", min=0, max=self.max_value, bins=self.max_value + 1)
            for i in range(self.pixels)
        )
        label = (Categorical(name=IMAGE_LABEL, categories=self.classes),) if self.classes else ()
        return (*pixels, *label)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of a table of such images."""
        return (*(f"p{i}" for i in range(self.pixels)), *((IMAGE_LABEL,) if self.classes else ()))

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of codes of each column."""
        return (*(self.max_value + 1,) * self.pixels, *((len(self.classes),) if self.classes else ()))

    @property
    def label_index(self) -> int | None:
        """Position of the label: the last column."""
        return self.pixels if self.classes else None


Schema: TypeAlias = Annotated[TableSchema | ImageSchema, Field(discriminator="kind")]
_SCHEMA: Final[TypeAdapter[TableSchema | ImageSchema]] = TypeAdapter(Schema)


def load_schema(path: str | Path) -> TableSchema | ImageSchema:
    """Return the schema that a YAML, JSON or TOML file declares.

    Guarantees:
        - Only this file is read; no row of any data set.
        - A draft is refused until each of its ``FILL-IN`` marks is replaced.

    Args:
        path: The file.

    Raises:
        ConfigError: With file, line, key and a hint; an unknown key gets the nearest known name.
    """
    data, lines = load_yaml(path)
    return parse_schema(data, where=path, lines=lines)


def parse_schema(
    data: Any, *, where: str | Path | None = None, lines: Lines | None = None
) -> TableSchema | ImageSchema:
    """Return the schema in a value read from JSON or YAML; inverse of ``model_dump(mode="json")``.

    Args:
        data: A mapping of plain values; without ``kind`` it is a table.
        where: The file it came from.
        lines: The lines of its keys.

    Raises:
        ConfigError: As :func:`load_schema`.
    """
    lines = lines or Lines()
    marks = list(_marks(data, ()))
    if marks:
        raise _unfilled(marks, lines, where)
    try:
        return _SCHEMA.validate_python({"kind": "table", **data} if isinstance(data, dict) else data)
    except ValidationError as error:
        problem = explain(error, lines, where, Schema)
    raise problem


_HINTS: Final = {
    "type": "one of continuous, integer, categorical, ordinal, boolean, date",
    "min": "the smallest value that can occur, from the form or the standard, never from the rows",
    "max": "the largest value that can occur, from the form or the standard, never from the rows",
    "categories": "every name that can occur, as a list: [a, b]",
    "levels": "every name that can occur, lowest first, as a list: [low, high]",
    "subject": "the column that says whose row it is, or null if there is none",
}


def _marks(value: Any, path: Key) -> Iterator[Key]:
    """Yield the path of each value that a draft left to a person."""
    if isinstance(value, str) and value.strip() == FILL_IN:
        yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _marks(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _marks(inner, (*path, index))


def _unfilled(marks: list[Key], lines: Lines, where: str | Path | None) -> ConfigError:
    key = marks[0]
    field = next((part for part in reversed(key) if isinstance(part, str)), "")
    places = "1 place is" if len(marks) == 1 else f"{len(marks)} places are"
    hint = _HINTS.get(field, "replace the mark by what is publicly known")
    return ConfigError(
        f"still says {FILL_IN}; {places} left to fill in",
        where=where,
        line=lines.of(key),
        key=dotted(key),
        hint=hint,
    )
