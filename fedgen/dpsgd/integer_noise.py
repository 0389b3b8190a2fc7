"""Integer noise for sums modulo a power of two: Skellam and discrete Gaussian, from the same key stream.

Both propose from a discrete Laplace distribution built of exact integer parts (uniform bits, and a geometric count of
whole scales) and accept with a probability computed in float64. No number is rounded to the grid afterwards, so
unlike with quantised floats the sum is the mechanism that was analysed.

Sources: Canonne, Kamath and Steinke, "The discrete Gaussian for differential privacy" (2020), Algorithms 2 and 3;
Agarwal, Kairouz and Liu, "The Skellam mechanism for differentially private federated learning" (2021); Loader, "Fast
and accurate computation of binomial probabilities" (2000) for the saddle-point form of the Poisson probabilities.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen._validate import positive

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from fedgen.crypto.stream import KeyStream

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

_MOST: Final = 2.0**60  # variances up to here keep every sum in 63 bits
_BLOCK: Final = 2**16
_TABLE_RATE: Final = 256.0  # below, a Poisson table is short; above, Stirling's series is exact in float64
_SMALL: Final = 0.05  # |x| below which (1 + x) log(1 + x) - x is summed as a series
_SERIES: Final = tuple((-1.0) ** j / (j * (j - 1)) for j in range(15, 1, -1))


def discrete_gaussian(n: int, variance: float, stream: KeyStream) -> NDArray[np.int64]:
    """Return ``n`` independent integers with probability proportional to ``exp(-k² / (2 variance))``.

    Guarantees:
        - Each number is within 2^-46 of the distribution in total variation.

    Edge cases:
        - The variance of the numbers is that of the parameter only when it is not small: at 1/4 it is 0.21.

    Args:
        n: How many.
        variance: The parameter σ², in (0, 2^60].
        stream: The source of bytes.

    Raises:
        ValueError: ``n`` or ``variance`` is out of range.
    """
    scale = _scale(n, variance)

    def log_weight(y: Integers) -> Floats:
        return -np.square(np.abs(y) - variance / scale) / (2.0 * variance)

    return _accepted(n, scale, log_weight, stream)


def skellam(n: int, variance: float, stream: KeyStream) -> NDArray[np.int64]:
    """Return ``n`` independent differences of two Poisson numbers of rate ``variance / 2`` each.

    Guarantees:
        - Each number is within 2^-43 of the distribution in total variation.
        - Sums of independent ones are Skellam with the sum of the variances: shares of noise add up exactly.

    Args:
        n: How many.
        variance: Their variance, in (0, 2^60].
        stream: The source of bytes.

    Raises:
        ValueError: ``n`` or ``variance`` is out of range.
    """
    _scale(n, variance)
    return _centred_poisson(n, variance / 2.0, stream) - _centred_poisson(n, variance / 2.0, stream)


def _scale(n: int, variance: float) -> int:
    """Return the power of two nearest to the standard deviation, on a log scale, or refuse the arguments."""
    if n < 0:
        raise ValueError(f"n must be at least zero, not {n}")
    positive(variance=variance)
    if variance > _MOST:
        raise ValueError(f"variance must be at most 2^60, not {variance}")
    return 1 << max(0, round(math.log2(variance) / 2.0))


def _uniforms(n: int, stream: KeyStream) -> Floats:
    """Return uniforms on {1, ..., 2^53} / 2^53."""
    words = np.empty(n, np.uint64)
    stream.fill(words.data)
    return ((words >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53


def _accepted(n: int, scale: int, log_weight: Callable[[Integers], Floats], stream: KeyStream) -> Integers:
    """Return integers with probability proportional to ``exp(log_weight(y) - |y| / scale)``.

    A proposal is ``±(u + scale * v)`` with ``u`` uniform below ``scale``, a power of two, and ``v`` geometric, so that
    ``P(v >= k) = exp(-k)``; what is left of ``exp(-|y| / scale)`` is ``exp(-u / scale)``, part of the acceptance.
    ``log_weight`` must not be positive.
    """
    out = np.empty(n, np.int64)
    done = 0
    while done < n:
        trials = min(_BLOCK, int((n - done) * 2.8) + 16)
        words = np.empty(trials, np.uint64)
        stream.fill(words.data)
        u = (words & np.uint64(scale - 1)).astype(np.int64)
        v = np.floor(-np.log(_uniforms(trials, stream))).astype(np.int64)
        negative = words >= np.uint64(2**63)
        size = u + scale * v
        y = np.where(negative, -size, size)
        chance = np.exp(log_weight(y) - u / scale)
        taken = y[(_uniforms(trials, stream) <= chance) & ~(negative & (size == 0))][: n - done]
        out[done : done + len(taken)] = taken
        done += len(taken)
    return out


def _centred_poisson(n: int, rate: float, stream: KeyStream) -> Integers:
    """Return Poisson numbers of a rate, less its whole part."""
    mode = math.floor(rate)
    if rate < _TABLE_RATE:
        # From the mode outwards by ratios of neighbours, which keep their digits; the scale comes from the sum.
        down = np.cumprod(np.arange(mode, 0, -1) / rate)[::-1]
        up = np.cumprod(rate / np.arange(mode + 1, mode + int(12.0 * math.sqrt(rate)) + 60))
        below = np.cumsum(np.concatenate([down, [1.0], up]))
        found = np.searchsorted(below / below[-1], _uniforms(n, stream))
        return found.astype(np.int64) - mode
    scale = _scale(n, rate)
    # The pmf is log-concave: its ratio to the proposal peaks once on each side, where its slope is 1 / scale.
    peaks = (rate * math.expm1(1.0 / scale), rate * math.expm1(-1.0 / scale), 0.0)
    near = np.array([math.floor(peak) + step for peak in peaks for step in (-2, -1, 0, 1, 2)])

    def log_ratio(y: Integers) -> Floats:
        log_pmf = _log_poisson(y.astype(np.float64) + (mode - rate), rate)
        return np.where(y > -0.75 * rate, log_pmf + np.abs(y) / scale, -np.inf)

    most = float(log_ratio(near).max()) + 1e-12
    return _accepted(n, scale, lambda y: log_ratio(y) - most, stream)


def _log_poisson(d: Floats, rate: float) -> Floats:
    """Return the log probability of ``k = rate + d`` without a common constant, accurate where it is not tiny."""
    k = np.maximum(rate + d, rate / 4.0)
    x = d / rate
    series = np.zeros_like(x)
    for coefficient in _SERIES:
        series = series * x + coefficient
    direct = (1.0 + x) * np.log1p(np.maximum(x, -0.75)) - x
    deviance = rate * np.where(np.abs(x) < _SMALL, series * x * x, direct)
    log_pmf: Floats = (
        -deviance - 0.5 * np.log(k / rate) - (1.0 / 12.0 - (1.0 / 360.0 - 1.0 / 1260.0 / k**2) / k**2) / k
    )
    return log_pmf
