"""PNG data that any reader accepts, and the same bytes everywhere."""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from fedgen.report.png import picture, png

if TYPE_CHECKING:
    from collections.abc import Callable


def _read(data: bytes) -> tuple[int, int, int, bytes]:
    """Read a PNG by its specification: width, height, colour type, unfiltered rows."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, chunks = 8, {}
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + size
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert (depth, rest) == (8, [0, 0, 0])
    assert chunks[b"IEND"] == b""
    return width, height, colour, zlib.decompress(chunks[b"IDAT"])


@pytest.mark.parametrize(("channels", "colour"), [(1, 0), (3, 2)])
def test_pixels_come_back(channels: int, colour: int) -> None:
    height, width = 3, 5
    pixels = bytes(range(height * width * channels))
    line = width * channels
    found = _read(png(pixels, height=height, width=width, channels=channels))
    assert found[:3] == (width, height, colour)
    rows = [found[3][i * (line + 1) : (i + 1) * (line + 1)] for i in range(height)]
    assert all(row[0] == 0 for row in rows)
    assert b"".join(row[1:] for row in rows) == pixels


def test_bytes_are_pinned() -> None:
    """Stored, not compressed: no version of zlib may change a report."""
    data = png(bytes(range(16)), height=4, width=4, channels=1)
    assert (
        hashlib.sha256(data).hexdigest() == "103aa2a82097c7a47a08bcb1ffcc14b82b2a001a1ad4fd1e548114bcadafe2b6"
    )


@pytest.mark.parametrize(("size", "shape"), [(5, (2, 2, 1)), (0, (0, 0, 1)), (8, (2, 2, 2)), (4, (2, 2, 3))])
def test_a_wrong_size_is_refused(size: int, shape: tuple[int, int, int]) -> None:
    height, width, channels = shape
    with pytest.raises(ValueError, match=r"pixels|channels"):
        png(bytes(size), height=height, width=width, channels=channels)


def test_picture_is_inside_the_page_and_described(parse: Callable[..., Any]) -> None:
    found = parse(picture(base64.b64encode(bytes(4)).decode(), height=2, width=2, channels=1, alt="<a>"))
    assert found.tag == "img"
    assert found.get("src").startswith("data:image/png;base64,")
    assert found.get("alt") == "<a>"


def test_other_channels_show_the_first_in_grey(parse: Callable[..., Any]) -> None:
    two = base64.b64encode(bytes([10, 99, 20, 99])).decode()
    found = parse(picture(two, height=1, width=2, channels=2, alt="x"))
    data = base64.b64decode(found.get("src").partition(",")[2])
    assert _read(data)[2:] == (0, b"\x00" + bytes([10, 20]))
    with pytest.raises(ValueError, match="channels"):
        picture(two, height=2, width=2, channels=2, alt="x")


def test_no_pixels_leave_a_named_gap(parse: Callable[..., Any]) -> None:
    found = parse(picture("", height=2, width=2, channels=1, alt="x"))
    assert (found.tag, found.get("title")) == ("span", "x")


def test_what_is_not_base64_is_refused() -> None:
    with pytest.raises(ValueError, match=r"base64|padding|Only"):
        picture("!!", height=1, width=1, channels=1, alt="x")
