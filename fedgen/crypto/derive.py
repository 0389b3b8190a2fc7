"""Keys from secrets: HKDF-SHA-256 with a purpose that keeps every use apart from every other."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

if TYPE_CHECKING:
    from typing_extensions import Buffer

DOMAIN: Final = b"fedgen/v1/"
MAX_LENGTH: Final = 255 * 32  # RFC 5869, section 2.3
_LABEL: Final = re.compile(r"[a-z0-9]+([/-][a-z0-9]+)*")


def domain(label: str) -> bytes:
    """Return the byte prefix that separates one use of a key or hash from all others.

    Guarantees:
        - No prefix is the beginning of another: labels hold no NUL, and a NUL ends the prefix.

    Raises:
        ValueError: The label is not lower-case words joined by ``-`` or ``/``.
    """
    if not _LABEL.fullmatch(label):
        raise ValueError(f"a domain label is lower-case words joined by '-' or '/', not {label!r}")
    return DOMAIN + label.encode() + b"\0"


def hkdf(secret: Buffer, *, purpose: str, context: bytes = b"", length: int = 32) -> bytes:
    """Derive ``length`` bytes from a secret for one purpose.

    Guarantees:
        - Different purposes, or different contexts of one purpose, give independent outputs.
        - The same arguments give the same bytes on every machine and in every version.

    Edge cases:
        - ``context`` may hold any bytes: the purpose before it ends with a NUL and holds none.
        - A shorter output is the beginning of a longer one (HKDF), so name the purpose, not the length.

    Args:
        secret: High-entropy input, at least 16 bytes; a password does not belong here.
        purpose: Label of the use, such as ``"stream/insecure"``.
        context: What else binds the key: a run, a round, a name.
        length: Bytes wanted, 1 to 8160.

    Raises:
        ValueError: The secret is short, the label is malformed or the length is out of range.

    Source: RFC 5869 with an empty salt; ``info`` is the domain prefix followed by the context.
    """
    material = memoryview(secret).cast("B")
    if material.nbytes < 16:  # noqa: PLR2004 - 128 bits, the least anything here is worth
        raise ValueError("the secret must have at least 16 bytes")
    if not 1 <= length <= MAX_LENGTH:
        raise ValueError(f"length must be from 1 to {MAX_LENGTH}, not {length}")
    info = domain(purpose) + context
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=info).derive(material)
