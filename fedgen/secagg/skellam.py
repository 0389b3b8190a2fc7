"""Skellam numbers from a key stream, by table: a dozen nanoseconds each, where two Poisson numbers take three hundred.

The integers are cut into 2,048 cells of one width, a power of two near a fiftieth of the standard deviation. A cell
is drawn with probability proportional to its highest probability (alias method), a place in it uniformly, and the place
is kept with probability ``p(k) / highest``. Nearly all are kept without computing ``p(k)``, because
they pass against the lowest of the cell. Nothing is rounded to the grid afterwards, so shares add up.

A cell's chance is a whole number of 2^-64ths, never zero and never too few, and *highest* is what that chance stands
for. So the trial takes off exactly what rounding the chance has put on, and the error of a probability is relative to
it, in the tails too. Only this lets errors of a study's numbers be added up (docs/spec/secagg.md, Noise).

Sources: Walker, "An efficient method for generating discrete random variables with general distributions" (1977), as
set up by Vose (1991); NIST DLMF 10.41.3 for Bessel functions of large order.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from fedgen._validate import positive

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedgen.crypto.stream import KeyStream

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

MOST: Final = 2.0**60  # variances up to here keep every sum in 63 bits
_CELL_BITS: Final = 11
_CELLS: Final = 2**_CELL_BITS
_DIRECT: Final = 4096.0  # variance below which every integer is a cell, and 2,048 of them reach 16 deviations
_BLOCK: Final = 2**14  # numbers at a time, so that what is worked on stays in cache
_FRACTION: Final = np.uint64(2 ** (64 - _CELL_BITS) - 1)
_SHIFT: Final = np.uint64(64 - _CELL_BITS)


class _Table(NamedTuple):
    """What is looked up for one variance."""

    width_bits: int
    keep: NDArray[np.uint64]  # below it the cell itself is taken, else its alias; 53 bits
    alias: NDArray[np.intp]
    first: Integers  # the lowest integer of each cell
    surely: NDArray[np.uint32]  # words below it pass without computing anything
    log_most: Floats  # the log of the probability that the cell's chance stands for; none in it is higher


def add_skellam(values: Integers, variance: float, stream: KeyStream) -> None:
    """Add independent differences of two Poisson numbers of rate ``variance / 2`` each to every item of ``values``.

    Guarantees:
        - Each number's probability is within one part in 2^42 of the distribution's, but for numbers that together have
          a chance below 2^-100.
        - Sums of independent ones are Skellam with the sum of the variances: shares of noise add up exactly.
        - Memory beyond ``values`` does not grow with its length.

    Edge cases:
        - Sums beyond 63 bits wrap, as NumPy's do; the headroom proof is in ``fixed_point``.

    Args:
        values: One-dimensional, contiguous.
        variance: In (0, 2^60].
        stream: The source of bytes.

    Raises:
        ValueError: The variance is out of range.
    """
    positive(variance=variance)
    if variance > MOST:
        raise ValueError(f"variance must be at most 2^60, not {variance}")
    table = _table(variance)
    done = 0
    while done < len(values):
        left = len(values) - done
        drawn = _kept(min(_BLOCK, left + left // 32 + 16), variance, table, stream)[:left]
        values[done : done + len(drawn)] += drawn
        done += len(drawn)


def _kept(trials: int, variance: float, table: _Table, stream: KeyStream) -> Integers:
    """Return the numbers that were kept of so many trials."""
    words = np.frombuffer(stream.view(16 * trials), np.uint64)
    first, second = words[:trials], words[trials:]
    drawn = (first >> _SHIFT).astype(np.intp)
    cell = np.where((first & _FRACTION) < table.keep[drawn], drawn, table.alias[drawn])
    # The second word: 32 bits that decide, and 32 above them for the place in the cell, enough for 2^60.
    k = table.first[cell] + ((second >> np.uint64(32)) & np.uint64((1 << table.width_bits) - 1)).astype(
        np.int64
    )
    decides = second.astype(np.uint32)
    unsure = np.flatnonzero(decides >= table.surely[cell])
    if not len(unsure):
        return k
    more = np.frombuffer(stream.bytes(8 * len(unsure)), np.uint64) >> np.uint64(11)
    chance = (decides[unsure] + (more + 0.5) * 2.0**-53) * 2.0**-32
    passed = chance < np.exp(_log_pmf(k[unsure], variance) - table.log_most[cell[unsure]])
    keep = np.ones(trials, np.bool_)
    keep[unsure] = passed
    return k[keep]


@lru_cache(maxsize=16)
def _table(variance: float) -> _Table:
    """Return the tables for a variance; a study has one, so they are kept."""
    deviation = math.sqrt(variance)
    width_bits = 0 if variance < _DIRECT else max(0, math.floor(math.log2(deviation / 32.0)))
    width = 1 << width_bits
    first = (np.arange(_CELLS, dtype=np.int64) - _CELLS // 2) * width
    ends = _log_pmf(np.stack([first, first + (width - 1)]), variance)
    high, low = ends.max(axis=0), ends.min(axis=0)
    mass = np.exp(high - high.max())
    keep, alias = _aliases(mass / mass.sum())
    given = _given(keep, alias)
    log_most = given + (high - given).max()
    # A little lower than the ratio, so that the quick test never passes what the exact one would not.
    sure = np.floor(np.exp(low - log_most) * (2.0**32 - 2.0))
    return _Table(
        width_bits, keep, alias, first, np.clip(sure, 0.0, 2.0**32 - 2.0).astype(np.uint32), log_most
    )


def _given(keep: NDArray[np.uint64], alias: NDArray[np.intp]) -> Floats:
    """Return the logarithm of how many of the 2^64 first words lead to each cell, counted exactly."""
    count = [int(kept) for kept in keep]
    for kept, other in zip(keep, alias, strict=True):
        count[other] += 2**53 - int(kept)
    return np.array([math.log(words) for words in count])


def _aliases(chances: Floats) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """Return thresholds of 53 bits and aliases for these chances; each is rounded up, at the cost of its alias."""
    scaled = (chances * _CELLS).tolist()
    keep, alias = [1.0] * _CELLS, list(range(_CELLS))
    small = [i for i, value in enumerate(scaled) if value < 1.0]
    large = [i for i, value in enumerate(scaled) if value >= 1.0]
    while small and large:
        one, other = small.pop(), large[-1]
        keep[one], alias[one] = scaled[one], other
        scaled[other] -= 1.0 - scaled[one]
        if scaled[other] < 1.0:
            small.append(large.pop())
    # A cell that others were given to keeps what is left of its own; the rest of it is in what it was given.
    words = [min(2**53, math.floor(value * 2.0**53) + 1) for value in keep]
    return np.array(words, np.uint64), np.array(alias, np.intp)


def _log_pmf(k: NDArray[Any], variance: float) -> Floats:
    """Return the log probability of each integer: ``log(exp(-v) I_k(v))``."""
    order = np.abs(k.astype(np.float64))
    if variance < _DIRECT:
        from scipy.special import ive

        with np.errstate(divide="ignore"):  # far out the probability is zero in float64
            direct: Floats = np.log(ive(order, variance))
        return np.maximum(direct, -745.0)
    r = np.hypot(order, variance)
    p2 = np.square(order / r)
    terms = (
        1.0
        + (3.0 - 5.0 * p2) / (24.0 * r)
        + (81.0 - p2 * (462.0 - 385.0 * p2)) / (1152.0 * r * r)
        + (30375.0 - p2 * (369603.0 - p2 * (765765.0 - 425425.0 * p2))) / (414720.0 * r * r * r)
    )
    # r - v without cancellation; both parts are of the size of the result.
    exponent = np.square(order) / (r + variance) - order * np.arcsinh(order / variance)
    log_pmf: Floats = exponent - 0.5 * np.log(2.0 * math.pi * r) + np.log(terms)
    return log_pmf
