"""The random bytes behind noise, sampling and masks: an AES-256-CTR key stream from the operating system.

Everything that privacy rests on draws from a :class:`KeyStream`. A seeded one exists for tests and for runs
that say of themselves that they are not private; it is marked, and the mark cannot be removed.
"""

from __future__ import annotations

import builtins
import os
from typing import TYPE_CHECKING, Final, Self

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from fedgen.crypto.derive import hkdf
from fedgen.errors import FedgenError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import CipherContext
    from typing_extensions import Buffer

REKEY_BYTES: Final = 2**40  # 2^36 AES blocks: a distinguisher's advantage stays below 2^-57
_KEY_BYTES: Final = 32
_MAX_SEED: Final = 2**256
_ZEROS: Final = bytes(2**18)  # never written, so all its pages are one page that stays in cache


class KeyStream:
    """Random bytes by encrypting zeros with AES-256 in counter mode, fast enough to fill whole gradients.

    Guarantees:
        - A secure stream is keyed with 32 bytes from the operating system that exist nowhere else.
        - No byte of the stream is handed out twice, however it is split into calls.
        - A child process never repeats its parent's bytes: a secure stream takes a fresh key in the child,
          a seeded one refuses to go on.
        - ``secure`` is false for every stream that was given its key, and cannot be set.

    Edge cases:
        - Zero bytes may be asked for; nothing moves.
        - A secure stream takes a fresh key after 2^40 bytes.
        - One thread owns a stream. Two threads on one stream may raise ``RuntimeError``; give each its own.

    Args:
        key: 32 bytes, which makes the stream repeatable and not secure; without it, the operating system's.

    Source: NIST SP 800-38A section 6.5 (counter mode); the counter starts at zero under each fresh key.
    """

    __slots__ = ("_buffer", "_cipher", "_left", "_pid", "_secure")

    def __init__(self, key: builtins.bytes | None = None) -> None:
        self._secure = key is None
        self._buffer = bytearray()
        self._start(os.urandom(_KEY_BYTES) if key is None else key)

    @classmethod
    def from_os(cls) -> Self:
        """Return a stream keyed by the operating system's generator: the only kind that gives privacy."""
        return cls()

    @classmethod
    def insecure(cls, seed: int, *, label: str = "") -> Self:
        """Return a repeatable stream, for tests and for runs marked as not private.

        Args:
            seed: 0 to 2^256 - 1. Whoever knows it knows every byte.
            label: Separates streams of one seed, such as a site's name; streams of two labels are unrelated.

        Raises:
            ValueError: The seed is out of range.
        """
        if not 0 <= seed < _MAX_SEED:
            raise ValueError(f"seed must be from 0 to 2**256 - 1, not {seed}")
        key = hkdf(seed.to_bytes(_KEY_BYTES), purpose="stream/insecure", context=label.encode())
        return cls(key)

    @property
    def secure(self) -> bool:
        """True if the key came from the operating system and noise drawn here protects people."""
        return self._secure

    def fill(self, buffer: Buffer) -> None:
        """Overwrite a writable buffer, such as a NumPy array of integers, with the next bytes of the stream.

        Args:
            buffer: C-contiguous and writable, of any item type.

        Raises:
            TypeError: The buffer is read-only or not contiguous.
            FedgenError: A seeded stream was carried into a child process.
        """
        view = memoryview(buffer)
        if view.readonly or not view.c_contiguous:
            raise TypeError("a key stream fills writable, C-contiguous buffers only")
        if view.nbytes:
            self._write(view.cast("B"))

    def bytes(self, n: int) -> builtins.bytes:
        """Return the next ``n`` bytes of the stream.

        Raises:
            ValueError: ``n`` is negative.
            FedgenError: A seeded stream was carried into a child process.
        """
        fresh = bytearray(n)
        self.fill(fresh)
        return builtins.bytes(fresh)

    def view(self, n: int) -> memoryview:
        """Return the next ``n`` bytes in memory that the stream keeps and reuses.

        Guarantees:
            - No allocation, hence no page faults, unless ``n`` is the largest request so far.

        Edge cases:
            - The next call of ``view`` overwrites what an earlier one returned: use it or copy it first.

        Raises:
            ValueError: ``n`` is negative.
            FedgenError: A seeded stream was carried into a child process.
        """
        if n < 0:
            raise ValueError(f"n must be at least zero, not {n}")
        if n > len(self._buffer):
            # A new object: a view handed out before keeps the old memory alive, never dangles.
            self._buffer = bytearray(1 << (n - 1).bit_length())
        window = memoryview(self._buffer)[:n]
        self.fill(window)
        return window

    def __repr__(self) -> str:
        return f"KeyStream(secure={self._secure})"

    def __reduce__(self) -> str:
        raise TypeError("a key stream is not copied or pickled: two copies would give the same bytes")

    def _start(self, key: builtins.bytes) -> None:
        """Begin the stream of a key that was never used before."""
        self._cipher: CipherContext = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        self._left = REKEY_BYTES
        self._pid = os.getpid()

    def _write(self, out: memoryview) -> None:
        """Encrypt zeros into ``out``, after a fresh key if this process or this key must not go on."""
        forked = self._pid != os.getpid()
        if forked and not self._secure:
            raise FedgenError(
                "a seeded key stream was carried into a child process", hint="make a new one in the child"
            )
        if forked or (self._secure and self._left < out.nbytes):
            self._start(os.urandom(_KEY_BYTES))
        self._left -= out.nbytes
        step, whole = len(_ZEROS), len(out) - len(out) % len(_ZEROS)
        for start in range(0, whole, step):
            self._cipher.update_into(_ZEROS, out[start : start + step])
        if whole < len(out):
            self._cipher.update_into(memoryview(_ZEROS)[: len(out) - whole], out[whole:])
