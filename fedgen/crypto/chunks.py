"""A large body under AES-256-GCM, chunk by chunk: each is authentic by itself, in its place, and as the last.

The nonce of a chunk is ``prefix (7) | counter (4, big-endian) | last (1)``. A chunk moved, dropped or added
meets another counter, and a cut body has no chunk whose nonce says "last". Spec: docs/spec/envelope.md.

Source: Hoang, Reyhanitabar, Rogaway, Vizár, "Online Authenticated-Encryption and its Nonce-Reuse
Misuse-Resistance" (2015), the STREAM construction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedgen.errors import Code, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK: Final = 2**20
TAG: Final = 16
KEY_BYTES: Final = 32
PREFIX_BYTES: Final = 7
_MAX_CHUNKS: Final = 2**32


def sealed_size(size: int, *, chunk: int = CHUNK) -> int:
    """Return how long a body of ``size`` bytes is once encrypted; an empty body is one empty chunk."""
    return size + TAG * max(1, -(-size // chunk))


def encrypt_into(key: bytes, prefix: bytes, body: memoryview, out: memoryview, *, chunk: int = CHUNK) -> None:
    """Encrypt ``body`` into ``out``; inverse of :func:`decrypt_into`.

    Args:
        key: 32 bytes, used for this body and no other.
        prefix: 7 bytes, the beginning of every nonce.
        body: Bytes.
        out: Exactly ``sealed_size(len(body))`` writable bytes that do not overlap ``body``.
        chunk: Plaintext bytes per chunk; only tests and vectors use another than 1 MiB.

    Raises:
        ValueError: ``out`` has another length, or there are more than 2^32 chunks.
    """
    if len(out) != sealed_size(len(body), chunk=chunk):
        raise ValueError("out does not have the length of the encrypted body")
    cipher = AESGCM(key)
    for nonce, clear, sealed in _places(prefix, len(body), chunk):
        cipher.encrypt_into(nonce, body[clear], None, out[sealed])


def decrypt_into(
    key: bytes, prefix: bytes, sealed: memoryview, out: memoryview, *, chunk: int = CHUNK
) -> None:
    """Decrypt ``sealed`` into ``out``; inverse of :func:`encrypt_into`.

    Edge cases:
        - After an error ``out`` may hold some chunks of clear text: throw it away.

    Args:
        key: See :func:`encrypt_into`.
        prefix: See :func:`encrypt_into`.
        sealed: Exactly ``sealed_size(len(out))`` bytes.
        out: Writable bytes, as many as the body had.
        chunk: See :func:`encrypt_into`.

    Raises:
        IntegrityError: A chunk is altered, moved, missing or added (code ``bad-seal``).
    """
    if len(sealed) != sealed_size(len(out), chunk=chunk):
        raise IntegrityError("the sealed body does not have its declared length", code=Code.BAD_SEAL)
    cipher = AESGCM(key)
    try:
        for nonce, clear, cut in _places(prefix, len(out), chunk):
            cipher.decrypt_into(nonce, sealed[cut], None, out[clear])
    except InvalidTag:
        raise IntegrityError("a chunk of the sealed body is not authentic", code=Code.BAD_SEAL) from None


def _places(prefix: bytes, size: int, chunk: int) -> Iterator[tuple[bytes, slice, slice]]:
    """Yield nonce, place in the clear body and place in the sealed body of each chunk."""
    count = max(1, -(-size // chunk))
    if count > _MAX_CHUNKS:
        raise ValueError("too many chunks for a four-byte counter")
    for index in range(count):
        last = index == count - 1
        clear = slice(index * chunk, size if last else (index + 1) * chunk)
        start = index * (chunk + TAG)
        nonce = prefix + index.to_bytes(4, "big") + (b"\1" if last else b"\0")
        yield nonce, clear, slice(start, start + clear.stop - clear.start + TAG)
