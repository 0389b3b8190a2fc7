"""Shamir's secret sharing over the field of 2^255 - 19: any ``threshold`` shares give the secret, fewer give nothing.

Plain Python integers: a share costs one multiplication per coefficient, and the weights that put a secret together
are computed once for all secrets held by the same sites. Python's arithmetic is not constant in time; what is shared
here is drawn afresh for each turn and used once, so there is nothing to average a timing over.

Source: Shamir, "How to share a secret" (1979).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fedgen.errors import Code, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedgen.crypto.stream import KeyStream

PRIME: Final = 2**255 - 19
BYTES: Final = 32
_TOP: Final = 2**255


def element(stream: KeyStream) -> int:
    """Return a uniform element of the field."""
    while True:
        drawn = int.from_bytes(stream.bytes(BYTES), "little") % _TOP
        if drawn < PRIME:
            return drawn


def to_bytes(value: int) -> bytes:
    """Return 32 little-endian bytes; inverse of :func:`from_bytes`."""
    return value.to_bytes(BYTES, "little")


def from_bytes(data: bytes) -> int:
    """Return the element in 32 little-endian bytes; inverse of :func:`to_bytes`.

    Raises:
        IntegrityError: Not 32 bytes, or not below the prime: one element has one form (code ``malformed``).
    """
    value = int.from_bytes(data, "little")
    if len(data) != BYTES or value >= PRIME:
        raise IntegrityError("not an element of the field", code=Code.MALFORMED)
    return value


def split(secret: int, threshold: int, points: Sequence[int], stream: KeyStream) -> list[int]:
    """Return one share of ``secret`` for each point; inverse of :func:`weights` with :func:`combine`.

    Guarantees:
        - Any ``threshold`` shares determine the secret; fewer are independent of it.

    Args:
        secret: An element of the field.
        threshold: 1 to ``len(points)``.
        points: Different, from 1 to the prime less one.
        stream: Where the coefficients come from.

    Raises:
        ValueError: An argument is out of range.
    """
    if not 0 <= secret < PRIME:
        raise ValueError("the secret must be an element of the field")
    _check_points(points)
    if not 1 <= threshold <= len(points):
        raise ValueError(f"threshold must be from 1 to {len(points)}, not {threshold}")
    rest = [element(stream) for _ in range(threshold - 1)]
    shares = []
    for x in points:
        y = 0
        for coefficient in rest:
            y = (y + coefficient) * x % PRIME
        shares.append((y + secret) % PRIME)
    return shares


def weights(points: Sequence[int]) -> list[int]:
    """Return the Lagrange weights of these points at zero, for :func:`combine`.

    Raises:
        ValueError: Points repeat or are out of range.
    """
    _check_points(points)
    tops, bottoms = [], []
    for i, x in enumerate(points):
        top = bottom = 1
        for j, other in enumerate(points):
            if i != j:
                top = top * other % PRIME
                bottom = bottom * (other - x) % PRIME
        tops.append(top)
        bottoms.append(bottom)
    return [top * pow(bottom, -1, PRIME) % PRIME for top, bottom in zip(tops, bottoms, strict=True)]


def combine(lagrange: Sequence[int], shares: Sequence[int]) -> int:
    """Return the secret at zero from as many shares as its threshold, or more.

    Edge cases:
        - Too few shares, or a false one, give some other element: check the result against its commitment.

    Args:
        lagrange: From :func:`weights`, in the order of the shares.
        shares: The shares at those points.
    """
    return sum(w * s for w, s in zip(lagrange, shares, strict=True)) % PRIME


def _check_points(points: Sequence[int]) -> None:
    """Raise unless the points are different and none is zero, where the secret lies."""
    if len(set(points)) != len(points) or not all(0 < x < PRIME for x in points):
        raise ValueError("points must differ and lie between 1 and the prime")
