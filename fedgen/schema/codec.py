"""Rows to integer codes and back: an exact inverse up to the declared bins.

Every column becomes codes ``0 .. K-1`` by what its schema declares, so that no bound, bin or name is ever
learned from a row. ``encode(decode(codes)) == codes`` for all codes; ``decode`` draws the value inside a bin
uniformly.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from fedgen.errors import DataError
from fedgen.schema.cells import Markers, Place, plain
from fedgen.schema.coders import Coder, coder_of
from fedgen.schema.columns import Categorical, Integer
from fedgen.schema.explain import nearest
from fedgen.schema.table import IMAGE_LABEL, ImageSchema, TableSchema

if TYPE_CHECKING:
    from collections.abc import Sequence

Codes: TypeAlias = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]

_BYTE: Final = 256
_BATCH: Final = 2**17  # rows at a time: bounds the memory of what lies between Arrow and the codes


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows as codes.

    Args:
        codes: Shape ``(rows, width)``, C order, uint8 or uint16.
        clamped: Column to the number of its values outside the declared bounds; only columns that had some.
    """

    codes: Codes
    clamped: dict[str, int]


class Codec:
    """The one way between the rows of a table, or images, and the codes a model reads.

    Guarantees:
        - ``encode(decode(codes, rng)).codes`` equals ``codes`` for all codes within the cardinalities.
        - A value in bounds falls into the bin that holds it; one outside falls into the nearest bin, and is
          counted.
        - Text and typed columns of equal values have equal codes.
        - No message holds a value of a row.

    Args:
        schema: What is declared of the data.
    """

    def __init__(self, schema: TableSchema | ImageSchema) -> None:
        self.schema = schema
        self.width = len(schema.names)
        wide = max(schema.cardinalities) > _BYTE
        self.dtype: np.dtype[np.uint8] | np.dtype[np.uint16] = (
            np.dtype(np.uint16) if wide else np.dtype(np.uint8)
        )
        self._markers = Markers(schema.missing)
        self._coders = _coders(schema)

    def encode(self, table: Any, first_row: int = 0) -> Encoded:
        """Return the codes of a table or a batch of it.

        Edge cases:
            ==============================  ===============================================
            no rows                         an array of shape ``(0, width)``
            the subject's column            may be there, and is not read
            columns in another order        found by name
            NaN in a nullable column        a missing value, like null
            ==============================  ===============================================

        Args:
            table: ``pyarrow.Table`` or ``RecordBatch``; images as columns ``p0 ..`` and ``label``.
            first_row: Rows of the source before this batch, for the row numbers in messages.

        Raises:
            DataError: A column is missing, unknown or stored as another type; a cell is not of its declared
                kind, infinite, not a declared name, or missing where the column is not nullable.
        """
        self._check_names(table.schema.names)
        codes = np.empty((table.num_rows, self.width), self.dtype)
        clamped: Counter[str] = Counter()
        start = 0
        for batch in table.to_batches(_BATCH) if isinstance(table, pa.Table) else [table]:
            rows = codes[start : start + batch.num_rows]
            for index, (name, coder) in enumerate(self._coders):
                place = Place(name, first_row + start, self._markers)
                rows[:, index], outside = coder.encode(plain(batch.column(name)), place)
                clamped[name] += outside
            start += batch.num_rows
        return Encoded(codes, {name: count for name, count in clamped.items() if count})

    def decode(self, codes: npt.NDArray[Any], rng: np.random.Generator) -> Any:
        """Return a ``pyarrow.Table`` with one value drawn for each code; inverse of :meth:`encode`.

        Args:
            codes: Integers, shape ``(rows, width)``, each below the cardinality of its column.
            rng: Draws the value inside a bin; the codes are what was protected, so it is not a secret.

        Raises:
            ValueError: The shape, the type or a code does not fit the schema.
        """
        self._check_codes(codes)
        arrays = [
            coder.decode(codes[:, i].astype(np.int64), rng) for i, (_, coder) in enumerate(self._coders)
        ]
        return pa.Table.from_arrays(arrays, names=list(self.schema.names))

    def encode_images(self, pixels: npt.NDArray[Any], labels: Any = None, first_row: int = 0) -> Encoded:
        """Return the codes of images; the label is the last code.

        Args:
            pixels: Whole numbers of any dtype, shape ``(rows, pixels)``, ``(rows, height, width)`` or
                ``(rows, height, width, channels)``.
            labels: The class of each image by its name, as text or whole numbers; None if there are none.
            first_row: As in :meth:`encode`.

        Raises:
            DataError: A pixel is not a whole number, or a label is not a declared class.
            ValueError: The schema is not of images, or a shape does not fit it.
        """
        schema = self._image_schema()
        flat = self._flat(pixels)
        codes = np.empty((len(flat), self.width), self.dtype)
        clamped = self._fill_pixels(codes, flat, first_row)
        if (labels is None) is bool(schema.classes) or (labels is not None and len(labels) != len(flat)):
            raise ValueError("labels must be given for each image, if and only if the schema has classes")
        if labels is not None:
            name, coder = self._coders[-1]
            values = plain(pa.array(labels))
            codes[:, -1], _ = coder.encode(values, Place(name, first_row, self._markers))
        return Encoded(codes, clamped)

    def decode_images(self, codes: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
        """Return pixels of shape ``(rows, height, width, channels)`` and the codes of the classes, if any.

        Inverse of :meth:`encode_images`, but for the names of the classes: ``schema.classes[code]``.

        Raises:
            ValueError: The schema is not of images, or the codes do not fit it.
        """
        schema = self._image_schema()
        self._check_codes(codes)
        shape = (len(codes), schema.height, schema.width, schema.channels)
        pixels = codes[:, : schema.pixels].astype(self.dtype).reshape(shape)
        return pixels, codes[:, -1].astype(self.dtype) if schema.classes else None

    def _image_schema(self) -> ImageSchema:
        if not isinstance(self.schema, ImageSchema):
            raise ValueError("this schema declares a table, not images")  # noqa: TRY004 - its type is right, its kind is not
        return self.schema

    def _flat(self, pixels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        schema = self._image_schema()
        shape = (schema.height, schema.width, schema.channels)
        fitting = [(schema.pixels,), shape, *([shape[:2]] if schema.channels == 1 else [])]
        if pixels.shape[1:] not in fitting:
            raise ValueError(f"images must have the shape {shape}, not {pixels.shape[1:]}")
        if pixels.dtype.kind not in "uif":
            raise ValueError(f"pixels must be numbers, not {pixels.dtype}")
        return pixels.reshape(len(pixels), schema.pixels)

    def _fill_pixels(self, codes: Codes, flat: npt.NDArray[Any], first_row: int) -> dict[str, int]:
        schema = self._image_schema()
        if flat.dtype.kind == "f":
            misfit = ~np.isfinite(flat) | (np.trunc(flat) != flat)
            if misfit.any():
                row, pixel = np.argwhere(misfit)[0]
                raise Place(f"p{pixel}", first_row, self._markers).fault(
                    int(row), "a pixel that is not a whole number"
                )
        outside = ((flat < 0) | (flat > schema.max_value)).sum(axis=0)
        codes[:, : schema.pixels] = np.clip(flat, 0, schema.max_value)
        return {f"p{i}": int(outside[i]) for i in np.flatnonzero(outside)}

    def _check_names(self, found: Sequence[str]) -> None:
        wanted, present = self.schema.names, set(found)
        if len(present) != len(found):
            twice = next(name for i, name in enumerate(found) if name in found[:i])
            raise DataError("this column stands twice in the table", key=twice)
        for name in wanted:
            if name not in present:
                guess = nearest(name, found)
                hint = f"did you mean {guess!r}?" if guess else "is this the table of this schema?"
                raise DataError("the table has no such column", key=name, hint=hint)
        unknown = sorted(present.difference(wanted, (self.schema.subject,)))
        if unknown:
            raise DataError("not a column of the schema", key=unknown[0], hint="declare it, or leave it out")

    def _check_codes(self, codes: npt.NDArray[Any]) -> None:
        if codes.ndim != 2 or codes.shape[1] != self.width or codes.dtype.kind not in "ui":  # noqa: PLR2004 - a table has two
            raise ValueError(f"codes must be integers of the shape (rows, {self.width})")
        if len(codes) and (codes.min() < 0 or (codes.max(axis=0) >= self.schema.cardinalities).any()):
            raise ValueError("each code must be at least zero and below the cardinality of its column")


def _coders(schema: TableSchema | ImageSchema) -> tuple[tuple[str, Coder], ...]:
    """Return name and coder of each column; all pixels share one."""
    if isinstance(schema, TableSchema):
        return tuple((column.name, coder_of(column)) for column in schema.columns)
    pixel = coder_of(Integer(name="p", min=0, max=schema.max_value, bins=schema.max_value + 1))
    pixels = tuple((f"p{i}", pixel) for i in range(schema.pixels))
    if schema.classes is None:
        return pixels
    return (*pixels, (IMAGE_LABEL, coder_of(Categorical(name=IMAGE_LABEL, categories=schema.classes))))
