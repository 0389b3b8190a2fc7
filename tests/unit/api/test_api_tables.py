"""Synthetic rows and images into files by their suffix."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from fedgen.api.tables import to_images, write_rows
from fedgen.errors import UsageError
from fedgen.schema.codec import Codec
from fedgen.schema.table import ImageSchema, Schema, parse_schema

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.api.run import Run

TABLE = parse_schema({"columns": [{"name": "n", "type": "integer", "min": 0, "max": 9}]})
GREY = parse_schema(
    {"kind": "image", "height": 2, "width": 3, "channels": 1, "max_value": 16, "classes": ["a", "b"]}
)
COLOUR = parse_schema({"kind": "image", "height": 2, "width": 2, "channels": 3, "max_value": 255})


class _Study:
    def __init__(self, schema: Schema) -> None:
        self.data_schema = schema


class _Run:
    """The part of a run that writing rows needs."""

    def __init__(self, schema: Schema) -> None:
        self.study = _Study(schema)

    def decode(self, codes: np.ndarray) -> Any:
        return Codec(self.study.data_schema).decode(codes, np.random.default_rng(0))


def _run(schema: Schema) -> Run:
    return cast("Run", _Run(schema))


def _image(schema: Schema) -> ImageSchema:
    assert isinstance(schema, ImageSchema)
    return schema


def _png(path: Path) -> tuple[int, int, int, bytes]:
    """Return width, height, colour type and raw rows of a PNG written without filters or interlace."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height, _depth, colour = struct.unpack(">IIBB", data[16:26])
    start = data.index(b"IDAT") + 4
    (size,) = struct.unpack(">I", data[start - 8 : start - 4])
    return width, height, colour, zlib.decompress(data[start : start + size])


def test_parquet_and_csv_hold_the_decoded_rows(tmp_path: Path) -> None:
    codes = np.arange(10, dtype=np.uint8).reshape(-1, 1)
    for name in ("rows.parquet", "rows.csv"):
        write_rows(_run(TABLE), codes, tmp_path / name)
    assert pq.read_table(tmp_path / "rows.parquet")["n"].to_pylist() == list(range(10))
    assert pc.read_csv(tmp_path / "rows.csv")["n"].to_pylist() == list(range(10))


@pytest.mark.parametrize("name", ["rows.npz", "rows.png", "rows.txt", "rows"])
def test_a_table_has_no_such_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="parquet, csv") as wrong:
        write_rows(_run(TABLE), np.zeros((1, 1), dtype=np.uint8), tmp_path / name)
    assert "npz" not in str(wrong.value.hint)
    assert list(tmp_path.iterdir()) == []


def test_images_as_npz_carry_pixels_and_labels(tmp_path: Path) -> None:
    codes = np.array([[0, 1, 2, 3, 4, 16, 1], [5, 5, 5, 5, 5, 5, 0]], dtype=np.uint8)
    write_rows(_run(GREY), codes, tmp_path / "made.npz")
    with np.load(tmp_path / "made.npz") as made:
        np.testing.assert_array_equal(made["images"], codes[:, :6].reshape(2, 2, 3))
        np.testing.assert_array_equal(made["labels"], [1, 0])
        assert made["images"].dtype == np.uint8


def test_images_without_classes_have_no_labels(tmp_path: Path) -> None:
    write_rows(_run(COLOUR), np.zeros((3, 12), dtype=np.uint8), tmp_path / "made.npz")
    with np.load(tmp_path / "made.npz") as made:
        assert made["images"].shape == (3, 2, 2, 3)
        assert made["labels"].size == 0


def test_a_sheet_shows_images_ten_in_a_row_at_full_range(tmp_path: Path) -> None:
    codes = np.zeros((12, 7), dtype=np.uint8)
    codes[11, :6] = 16
    write_rows(_run(GREY), codes, tmp_path / "sheet.png")
    width, height, colour, raw = _png(tmp_path / "sheet.png")
    assert (width, height, colour) == (30, 4, 0)
    pixels = np.frombuffer(raw, dtype=np.uint8).reshape(4, 31)[:, 1:]
    assert pixels[2:, 3:6].min() == 255  # the twelfth image: second row, second place
    assert pixels.sum() == 255 * 6


def test_a_sheet_in_colour_and_of_one_image(tmp_path: Path) -> None:
    write_rows(_run(COLOUR), np.full((1, 12), 200, dtype=np.uint8), tmp_path / "one.png")
    assert _png(tmp_path / "one.png")[:3] == (2, 2, 2)


def test_images_have_channels_only_where_there_are_several() -> None:
    assert to_images(np.zeros((4, 7), dtype=np.uint8), _image(GREY)).shape == (4, 2, 3)
    assert to_images(np.zeros((4, 12), dtype=np.uint8), _image(COLOUR)).shape == (4, 2, 2, 3)
    assert to_images(np.zeros((0, 12), dtype=np.uint8), _image(COLOUR)).shape == (0, 2, 2, 3)


def test_images_can_be_written_as_rows_too(tmp_path: Path) -> None:
    write_rows(_run(GREY), np.zeros((5, 7), dtype=np.uint8), tmp_path / "rows.parquet")
    assert pq.read_table(tmp_path / "rows.parquet").num_rows == 5


def test_a_failed_write_leaves_the_file_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "rows.csv"
    target.write_text("before")

    def fail(*_arguments: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(pc, "write_csv", fail)
    with pytest.raises(ValueError, match="broken"):
        write_rows(_run(TABLE), np.zeros((1, 1), dtype=np.uint8), target)
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
