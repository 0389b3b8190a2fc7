"""Gaussian noise from a CSPRNG, fast enough not to be the price of a small batch, and free of any global generator.

Box and Muller on an AES-256-CTR key stream: two normals from one radius and one angle of 32 bits each. Where 32 bits
of a radius are too few, in the tail beyond 3.7 σ and next to zero, another 32 follow, so the distribution is not
cut before 9.4 σ and has no atom at zero, where an observer of many steps would meet sums without noise.

The noise is float32, as the sums are: its tail is right, its last bits are those of floating point. Where an adversary
must be kept from those as well, use the integer samplers.

Source: Box and Muller (1958); on last bits, Mironov, "On significance of the least significant bits for differential
privacy" (2012).
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import torch

from fedgen._validate import non_negative
from fedgen.crypto.stream import KeyStream

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_BLOCK: Final = 2**17  # pairs at a time: few calls, and what is worked on stays in cache
_EDGE: Final = np.uint32(2**22)  # words this near to either end get 32 bits more: one in 512
_MIDDLE: Final = np.float32(0.5)
_MINUS_TWO_LOG: Final = np.float32(-2.0 * math.log(2.0))  # -2 log U from log2 U, NumPy's faster logarithm
_WORD: Final = np.float32(2.0**-32)
_HALF_TURN: Final = np.float32(math.pi * 2.0**-31)
_STD_RANGE: Final = (2.0**-60, 2.0**60)  # within it no normal underflows to zero or overflows in float32


_scratch = threading.local()


class NoiseSource:
    """Noise for one site or one coordinator, from a key of its own.

    Guarantees:
        - Every number comes from one AES-256-CTR key stream; no global generator is read or written.
        - No normal is exactly zero, and none is cut off before 9.4 standard deviations.
        - ``private`` is true only if the key came from the operating system.

    Edge cases:
        - One thread owns a source.
        - Tensors on another device are filled from the CPU.

    Args:
        stream: Where the bytes come from; owned by this source from now on.
    """

    __slots__ = ("stream",)

    def __init__(self, stream: KeyStream) -> None:
        self.stream = stream

    @classmethod
    def secure(cls) -> Self:
        """Return a source keyed by the operating system: the only kind that gives privacy."""
        return cls(KeyStream.from_os())

    @classmethod
    def insecure(cls, seed: int) -> Self:
        """Return a repeatable source for tests; whatever it is used for is not private."""
        return cls(KeyStream.insecure(seed))

    @property
    def private(self) -> bool:
        """True if nobody can repeat this noise."""
        return self.stream.secure

    def add_normal_(self, out: Tensor, std: float) -> None:
        """Add independent ``N(0, std²)`` to every item of ``out``.

        Edge cases:
            =========  ==================
            std = 0    nothing is added
            empty      nothing happens
            =========  ==================

        Args:
            out: One-dimensional, contiguous, float32, taking no gradient.
            std: Zero, or within [2^-60, 2^60].

        Raises:
            ValueError: ``out`` or ``std`` is not as described; ``out`` was not touched.
        """
        self._normal_(out, std, keep=True)

    def fill_normal_(self, out: Tensor, std: float) -> None:
        """Overwrite ``out`` with independent ``N(0, std²)``; otherwise as :meth:`add_normal_`."""
        self._normal_(out, std, keep=False)

    def uniforms(self, n: int) -> NDArray[np.float64]:
        """Return ``n`` independent uniforms on {1, ..., 2^53} / 2^53, so that ``P(U <= p)`` is ``p`` within 2^-53."""
        words = np.empty(n, np.uint64)
        self.stream.fill(words.data)
        return ((words >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53

    def generator(self) -> torch.Generator:
        """Return a generator of torch seeded from this source, for randomness that protects nobody.

        Latent codes, generated rows and the like; never noise and never sampling.
        """
        return torch.Generator().manual_seed(int.from_bytes(self.stream.bytes(8)) >> 1)

    def skellam(self, n: int, variance: float) -> NDArray[np.int64]:
        """Return ``n`` independent Skellam numbers; see :func:`fedgen.dpsgd.integer_noise.skellam`."""
        from fedgen.dpsgd.integer_noise import skellam

        return skellam(n, variance, self.stream)

    def discrete_gaussian(self, n: int, variance: float) -> NDArray[np.int64]:
        """Return ``n`` independent discrete Gaussians; see :func:`fedgen.dpsgd.integer_noise.discrete_gaussian`."""
        from fedgen.dpsgd.integer_noise import discrete_gaussian

        return discrete_gaussian(n, variance, self.stream)

    def _normal_(self, out: Tensor, std: float, *, keep: bool) -> None:
        """Write or add normals, a block of pairs at a time."""
        _check(out, std)
        if out.device.type != "cpu":
            staged = torch.empty(out.shape)
            self._normal_(staged, std, keep=False)
            moved = staged.to(out.device)
            _ = out.add_(moved) if keep else out.copy_(moved)
            return
        if std == 0:
            _ = None if keep else out.zero_()
            return
        numbers: NDArray[np.float32] = out.numpy()
        half = (len(numbers) + 1) // 2
        _reserve(min(half, _BLOCK))
        for start in range(0, half, _BLOCK):
            first = numbers[start : min(start + _BLOCK, half)]
            second = numbers[half + start : half + start + len(first)]
            self._pairs(first, second, std, keep=keep)

    def _pairs(
        self, first: NDArray[np.float32], second: NDArray[np.float32], std: float, *, keep: bool
    ) -> None:
        """Fill one block: cosines into ``first``, sines of the same angles into ``second``, at most one shorter.

        No transcendental function works in place: NumPy's vector loops do not take that path.
        """
        n = len(first)
        words = _scratch.words[: 2 * n]
        a, b, c = _scratch.floats[:, :n]
        self.stream.fill(words.data)
        self._log2_uniforms(words[:n], a, b)
        np.multiply(b, _MINUS_TWO_LOG, out=b)
        np.sqrt(b, out=c)  # the radius; its square would leave float32 if it held std
        np.multiply(c, np.float32(std), out=c)
        np.copyto(a, words[n:].view(np.int32), casting="unsafe")
        np.add(a, _MIDDLE, out=a)  # the middle of its cell, so that no sine is zero
        np.multiply(a, _HALF_TURN, out=a)  # the angle, in (-π, π)
        for turn, numbers in ((np.cos, first), (np.sin, second)):
            turn(a, out=b)
            if keep:
                np.multiply(b, c, out=b)
                np.add(numbers, b[: len(numbers)], out=numbers)
            else:
                np.multiply(b[: len(numbers)], c[: len(numbers)], out=numbers)

    def _log2_uniforms(
        self, words: NDArray[np.uint32], scratch: NDArray[np.float32], out: NDArray[np.float32]
    ) -> None:
        """Write ``log2 U`` of 32-bit uniforms, of 64-bit ones where 32 bits are coarser than float32."""
        np.copyto(scratch, words, casting="unsafe")
        np.multiply(scratch, _WORD, out=scratch)
        with np.errstate(divide="ignore"):  # a word of zeros is an edge, and replaced below
            np.log2(scratch, out=out)
        np.add(words, _EDGE, out=words)  # wraps, which brings both ends together
        edge = np.flatnonzero(words < 2 * _EDGE)
        if len(edge):
            more = np.frombuffer(self.stream.bytes(4 * len(edge)), np.uint32)
            out[edge] = _fine_log2(words[edge] - _EDGE, more)


def _reserve(pairs: int) -> None:
    """Make room for a block, once for each thread: a process with a thousand sites has two threads."""
    if getattr(_scratch, "pairs", 0) < pairs:
        _scratch.pairs = pairs
        _scratch.words = np.empty(2 * pairs, np.uint32)
        _scratch.floats = np.empty((3, pairs), np.float32)


def _fine_log2(high: NDArray[np.uint32], low: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Return ``log2 U`` for ``U = (2^32 high + low + 1/2) / 2^64``, with all digits at both ends of (0, 1)."""
    word = (high.astype(np.uint64) << np.uint64(32)) | low
    near_one = high >= _EDGE
    rest = np.where(near_one, ~word, word).astype(np.float64)
    tail = (rest + 0.5) * 2.0**-64
    return np.where(near_one, np.log1p(-tail) / math.log(2.0), np.log2(tail)).astype(np.float32)


def _check(out: Tensor, std: float) -> None:
    """Raise ``ValueError`` for a buffer that cannot be written in place or a scale that float32 cannot hold."""
    if out.dim() != 1 or out.dtype != torch.float32 or not out.is_contiguous() or out.requires_grad:
        raise ValueError("out must be a contiguous float32 vector that takes no gradient")
    non_negative(std=std)
    low, high = _STD_RANGE
    if std != 0 and not low <= std <= high:
        raise ValueError(f"std must be zero or lie in [{low}, {high}], not {std}")
