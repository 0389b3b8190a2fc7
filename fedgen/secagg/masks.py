"""From the secret of a pair to the masks of a turn: keys that are used once, and their expansion by AES-256-CTR.

::

    pair secret ──> turn secret ──> mask key ──> key stream, added by the lower site and subtracted by the higher
        │               └── may be opened by the server if one of the two drops out of this turn
        └─────────> share key: seals what one sends the other; never opened

A turn secret tells nothing about another turn's, and a mask key is bound to the whole transcript: study, run, round,
attempt, weights and participants. Two sites that were told different things hold masks that do not cancel.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedgen.crypto import chunks
from fedgen.crypto.derive import hkdf
from fedgen.crypto.stream import KeyStream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ring = NDArray[np.unsignedinteger[Any]]

TAG: Final = chunks.TAG
_BLOCK_BYTES: Final = 2**17  # of keystream at a time: it is added while it is in cache
_PREFIX: Final = bytes(chunks.PREFIX_BYTES)  # a box's key is used for that box alone


def turn_secret(pair: bytes, turn: int) -> bytes:
    """Return what a pair's masks of one turn come from; the pair's secret is bound to study, run and pair already."""
    return hkdf(pair, purpose="secagg/turn", context=struct.pack(">I", turn))


def mask_key(turn_key: bytes, transcript: bytes) -> bytes:
    """Return the key of the mask between two sites in one transcript."""
    return hkdf(turn_key, purpose="secagg/mask", context=transcript)


def self_key(seed: bytes, transcript: bytes) -> bytes:
    """Return the key of a site's own mask in one transcript."""
    return hkdf(seed, purpose="secagg/self-mask", context=transcript)


def share_key(pair: bytes, turn: int, sender: int, recipient: int) -> bytes:
    """Return the key that seals one site's shares for another in one turn."""
    return hkdf(pair, purpose="secagg/share", context=struct.pack(">IHH", turn, sender, recipient))


def backup_key(seed: bytes, members: bytes, turn: int, site: int) -> bytes:
    """Return the key of the box in which a site leaves its turn secrets, in case it drops out."""
    return hkdf(seed, purpose="secagg/backup", context=members + struct.pack(">IH", turn, site))


def add_streams(values: Ring, plus: list[bytes], minus: list[bytes]) -> None:
    """Add the key streams of some keys to ``values`` and subtract those of others, in the ring.

    Guarantees:
        - ``add_streams(v, a, b)`` and then ``add_streams(v, b, a)`` leave ``v`` as it was.
        - Memory beyond ``values`` does not grow with its length or with the keys.

    Args:
        values: One-dimensional, contiguous, unsigned, of 4 or 8 bytes an item.
        plus: 32 bytes each, used for one stream only.
        minus: Likewise.

    Source: NIST SP 800-38A, counter mode from zero; items are little-endian.
    """
    step = _BLOCK_BYTES // values.itemsize
    scratch = np.empty(min(step, len(values)), values.dtype.newbyteorder("<"))
    streams = [(np.add, KeyStream(key)) for key in plus] + [(np.subtract, KeyStream(key)) for key in minus]
    for start in range(0, len(values), step):
        block = values[start : start + step]
        words = scratch[: len(block)]
        for apply, stream in streams:
            stream.fill(words.data)
            apply(block, words, out=block)


def seal_once(key: bytes, body: bytes) -> bytes:
    """Encrypt a small body under a key that is used for nothing else; inverse of :func:`open_once`."""
    out = bytearray(chunks.sealed_size(len(body)))
    chunks.encrypt_into(key, _PREFIX, memoryview(body), memoryview(out))
    return bytes(out)


def open_once(key: bytes, sealed: bytes) -> bytes:
    """Decrypt what :func:`seal_once` made.

    Raises:
        IntegrityError: It was altered or sealed under another key (code ``bad-seal``).
    """
    out = bytearray(max(0, len(sealed) - TAG))
    chunks.decrypt_into(key, _PREFIX, memoryview(sealed), memoryview(out))
    return bytes(out)
