"""Images as PNG data inside the page."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING, Final

from fedgen.report.svg import element

if TYPE_CHECKING:
    from markupsafe import Markup

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPE: Final = {1: 0, 3: 2}


def png(pixels: bytes, *, height: int, width: int, channels: int) -> bytes:
    """Return 8-bit pixels as a PNG file.

    Guarantees:
        - Pixels are stored, not compressed: the bytes are the same with every version of zlib.

    Args:
        pixels: ``height * width * channels`` bytes, row by row.
        height: At least one.
        width: At least one.
        channels: 1 (grey) or 3 (RGB).

    Raises:
        ValueError: The size does not fit, or channels is neither 1 nor 3.

    Source: W3C, "Portable Network Graphics (PNG) Specification", 3rd edition.
    """
    if channels not in _COLOUR_TYPE:
        raise ValueError(f"channels must be 1 or 3, not {channels}")
    if min(height, width) < 1 or len(pixels) != height * width * channels:
        raise ValueError(f"{len(pixels)} bytes are not {height} x {width} x {channels} pixels")
    line = width * channels
    rows = b"".join(b"\x00" + pixels[i * line : (i + 1) * line] for i in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPE[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in parts)


def picture(pixels: str, *, height: int, width: int, channels: int, alt: str) -> Markup:
    """Return an ``img`` element with the image inside.

    Edge cases:
        ==========================  =================================
        no pixels                   an empty place
        neither 1 nor 3 channels    the first channel, in grey
        ==========================  =================================

    Args:
        pixels: Base64 of the bytes, or an empty string.
        height: At least one.
        width: At least one.
        channels: Values of one pixel.
        alt: What is seen, for a screen reader.

    Raises:
        ValueError: The pixels do not fit the size, or are not base64.
    """
    if not pixels:
        return element("span", "none", class_="no-image", title=alt)
    values = base64.b64decode(pixels, validate=True)
    if channels not in _COLOUR_TYPE and len(values) == height * width * channels:
        values, channels = values[::channels], 1
    data = png(values, height=height, width=width, channels=channels)
    source = "data:image/png;base64," + base64.b64encode(data).decode("ascii")
    return element("img", src=source, alt=alt, width=width, height=height, class_="pixels")


def _chunk(kind: bytes, data: bytes) -> bytes:
    """Return one PNG chunk with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
