"""Exact Poisson sampling: every row is in a batch with probability q, whatever the other rows do.

This is the sampling that the accountant charges for. A shuffled pass over the data is not: for one epoch at σ = 0.6
it can cost more than twice the ε that Poisson accounting reports.

Source: Chua et al., "How private are DP-SGD implementations?" (2024) for the gap; gaps between successes of
independent trials are geometric (Fan, Muller and Rezucha, 1962).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen._validate import probability
from fedgen.dpsgd.noise import NoiseSource

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedgen.crypto.stream import KeyStream

_MOST_ROWS: Final = 2**31  # sums of clipped gaps stay in 63 bits


def poisson_indices(n: int, q: float, stream: KeyStream | NoiseSource) -> NDArray[np.int64]:
    """Return the rows of one batch, in ascending order.

    Guarantees:
        - Each of ``n`` rows is included independently with probability ``q``; the chance of any gap between
          included rows is exact within 2^-52.
        - Bytes come from ``stream`` only, about eight per included row.

    Edge cases:
        =====  ========
        n = 0  empty
        q = 1  all rows
        =====  ========

    Args:
        n: How many rows there are, 0 to 2^31.
        q: The sampling rate in (0, 1], from the study; never a function of how many rows are permitted today.
        stream: The source of uniforms.

    Raises:
        ValueError: ``n`` or ``q`` is out of range.
    """
    probability(q=q)
    if not 0 <= n <= _MOST_ROWS:
        raise ValueError(f"n must be from 0 to {_MOST_ROWS}, not {n}")
    if q == 1 or n == 0:
        return np.arange(n)
    source = stream if isinstance(stream, NoiseSource) else NoiseSource(stream)
    log_miss = math.log1p(-q)
    parts: list[NDArray[np.int64]] = []
    last = -1
    while last < n:
        mean = (n - last) * q
        uniforms = source.uniforms(int(mean + 4.0 * math.sqrt(mean)) + 8)
        # P(gap > k) = P(U <= (1 - q)^k) = (1 - q)^k; a gap past the end needs no exact value.
        gaps = np.minimum(np.log(uniforms) / log_miss, n).astype(np.int64) + 1
        parts.append(last + np.cumsum(gaps))
        last = int(parts[-1][-1])
    rows = np.concatenate(parts)
    return rows[: np.searchsorted(rows, n)]
