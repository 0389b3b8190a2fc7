"""Synthetic data into files and back: Parquet, CSV, and images as NPZ or one PNG sheet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.errors import UsageError
from fedgen.runs.atomic import replacing

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from fedgen.api.run import Run
    from fedgen.schema.table import ImageSchema

FORMATS: Final = ("parquet", "csv", "npz", "png")
_SHEET: Final = 100


def write_rows(run: Run, codes: np.ndarray, path: Path) -> None:
    """Write codes to a file whose suffix names the format; atomic.

    Raises:
        UsageError: The suffix is unknown, or images were asked of a table.
        ConfigError: The place cannot be written.
    """
    suffix = path.suffix.removeprefix(".")
    schema = run.study.data_schema
    if suffix not in FORMATS or (suffix in {"npz", "png"} and schema.kind != "image"):
        usable = FORMATS if schema.kind == "image" else FORMATS[:2]
        raise UsageError(
            f"cannot write .{suffix} for this schema", where=path, hint=f"use one of {', '.join(usable)}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        if suffix in {"parquet", "csv"}:
            _write_table(run.decode(codes), temporary, suffix)
        elif schema.kind == "image" and suffix == "npz":
            labels = codes[:, -1:] if schema.classes else np.empty((len(codes), 0), dtype=codes.dtype)
            with temporary.open("wb") as file:
                np.savez_compressed(file, images=to_images(codes, schema), labels=labels.reshape(-1))
        elif schema.kind == "image":
            _write_sheet(to_images(codes[:_SHEET], schema), schema, temporary)


def to_images(codes: np.ndarray, schema: ImageSchema) -> np.ndarray:
    """Return codes as pixels, ``(n, height, width)`` or ``(n, height, width, channels)``."""
    pixels = codes[:, : schema.height * schema.width * schema.channels]
    shape: tuple[int, ...] = (len(codes), schema.height, schema.width)
    if schema.channels > 1:
        shape = (*shape, schema.channels)
    return np.ascontiguousarray(pixels).reshape(shape).astype(np.uint8)


def _write_table(table: pa.Table, path: Path, suffix: str) -> None:
    if suffix == "parquet":
        import pyarrow.parquet as pq

        pq.write_table(table, path, compression="zstd")
        return
    import pyarrow.csv as pc

    pc.write_csv(table, path)


def _write_sheet(images: np.ndarray, schema: ImageSchema, path: Path) -> None:
    """Write up to a hundred images as one picture, ten in a row."""
    from fedgen.report.png import png

    columns = min(10, max(1, len(images)))
    rows = max(1, -(-len(images) // columns))
    sheet = np.zeros((rows * schema.height, columns * schema.width, schema.channels), dtype=np.uint8)
    scaled = (
        images.reshape(len(images), schema.height, schema.width, schema.channels).astype(np.uint16) * 255
    ) // max(1, schema.max_value)
    for number, image in enumerate(scaled):
        top, left = divmod(number, columns)
        sheet[
            top * schema.height : (top + 1) * schema.height, left * schema.width : (left + 1) * schema.width
        ] = image.astype(np.uint8)
    height, width, channels = sheet.shape
    path.write_bytes(png(sheet.tobytes(), height=height, width=width, channels=channels))
