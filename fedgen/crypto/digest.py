"""SHA-256 as the package writes it: lower-case hex."""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer


def sha256_hex(data: Buffer) -> str:
    """Return the SHA-256 of a buffer's bytes as 64 lower-case hex digits.

    Edge cases:
        - An array is hashed as its bytes in memory: fix the item type and the byte order first.

    Args:
        data: Bytes, a memory view or a NumPy array; C-contiguous.

    Raises:
        TypeError: The buffer is not C-contiguous.

    Source: FIPS 180-4.
    """
    view = memoryview(data)
    if not view.c_contiguous:
        raise TypeError("only a C-contiguous buffer has one digest")
    return hashlib.sha256(view).hexdigest()


def same_digest(one: str, other: str) -> bool:
    """Compare two hex digests in time that does not depend on where they differ.

    Edge cases:
        - Text outside ASCII is never a digest and compares as different.
    """
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))
