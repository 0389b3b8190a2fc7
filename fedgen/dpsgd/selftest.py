"""Tests a user can run on the study's own model and engine, before any budget is spent.

Two claims carry every guarantee of DP-SGD: one unit (a row, or all rows of a person) moves the sum by at most C, and
the noise has the scale that was charged for. Both are checked from outside, with stated error rates, and each check
comes with a control that must fail; a check that cannot fail proves nothing.

Source: a chi-square test of variance, in its two-sided form.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import torch

from fedgen._validate import open_probability, positive

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from fedgen.dpsgd.engine import Engine

    Noise = Callable[[Tensor, float], object]

_ROUNDING: Final = 1e-6  # of C, per row: what float32 addition may move by itself
_CONTROL: Final = 0.9


@dataclass(frozen=True, slots=True)
class NoiseCheck:
    """The verdict on the scale of some noise.

    Attributes:
        samples: How many numbers were drawn.
        ratio: Standard deviation found, over the one claimed.
        low: Smallest ratio that passes.
        high: Largest ratio that passes.
    """

    samples: int
    ratio: float
    low: float
    high: float

    @property
    def passed(self) -> bool:
        """True if the noise may have the scale it claims."""
        return self.low <= self.ratio <= self.high


@dataclass(frozen=True, slots=True)
class SelfTest:
    """What :func:`selftest` found.

    Attributes:
        clip: The bound C.
        moved: How far one extreme unit moved the clipped sum.
        unclipped: How far it would have moved the sum without its bound: the control, which must exceed C.
        rows: How many other rows, or sites, took part.
        noise: The noise as it is.
        control: The same noise, 10 % too small, which must not pass.
    """

    clip: float
    moved: float
    unclipped: float
    rows: int
    noise: NoiseCheck
    control: NoiseCheck

    @property
    def bounded(self) -> bool:
        """True if the bounded sum moved by at most C, rounding aside, where the other one moved by more."""
        return self.moved <= self.clip * (1.0 + _ROUNDING * (self.rows + 1)) and self.unclipped > self.clip

    @property
    def passed(self) -> bool:
        """True if both claims hold and both controls failed."""
        return self.bounded and self.noise.passed and not self.control.passed


def sensitivity(
    engine: Engine,
    loss: Callable[[Tensor], Tensor],
    rows: Tensor,
    outlier: Tensor,
    *,
    bounds: Tensor | None = None,
) -> float:
    """Return how far the clipped sum moves when ``outlier`` joins ``rows``, noise off.

    Guarantees:
        - Both sums are taken over batches of the same shape, the outlier's loss being multiplied by zero in one of
          them, so a loss that draws latent codes may be used if it draws the same ones each time.

    Edge cases:
        - Float32 sums of B rows move by about 1e-6 B C on their own; compare with ``C * (1 + 1e-6 * B)``.

    Args:
        engine: The engine under test.
        loss: One loss per row, repeatable: seed its generator anew in every call.
        rows: Shape ``(B, ...)``.
        outlier: One row as extreme as its type allows, shape ``(1, ...)``, or all rows of one person.
        bounds: Norm bound of each row, the outlier's last; None for the engine's own.
    """
    both = torch.cat([rows, outlier])
    sums = []
    for last in (1.0, 0.0):
        sums.append(torch.zeros_like(engine.flat.vector))
        engine.clipped_sum_(sums[-1], _last_weighted(loss, last, len(outlier)), both, bounds=bounds)
    return float((sums[0].double() - sums[1].double()).norm())


@cache
def samples_needed(fault: float, *, alpha: float = 1e-6, beta: float = 1e-6) -> int:
    """Return the smallest n at which a chi-square test of variance sees a scale wrong by ``fault``.

    Args:
        fault: Relative error of the standard deviation, either way, in (0, 1).
        alpha: Chance of rejecting noise that is right.
        beta: Chance of passing noise that is wrong by ``fault``.
    """
    open_probability(fault=fault, alpha=alpha, beta=beta)
    high = 2
    while not _sees(high, fault, alpha, beta):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _sees(middle, fault, alpha, beta) else (middle, high)
    return high


def check_noise_scale(
    add_noise: Callable[[Tensor], object],
    std: float,
    *,
    fault: float = 0.05,
    alpha: float = 1e-6,
    beta: float = 1e-6,
) -> NoiseCheck:
    """Draw as many numbers as it takes and test their variance.

    Guarantees:
        - Noise of the right scale fails with probability ``alpha``; noise whose standard deviation is wrong by
          ``fault`` passes with probability at most ``beta``.

    Args:
        add_noise: Adds noise to a vector of zeros, in place.
        std: The standard deviation it claims, positive.
        fault: See :func:`samples_needed`.
        alpha: See :func:`samples_needed`.
        beta: See :func:`samples_needed`.
    """
    positive(std=std)
    n = samples_needed(fault, alpha=alpha, beta=beta)
    drawn = torch.zeros(n)
    add_noise(drawn)
    low, high = _accepted(n, alpha)
    ratio = float(drawn.double().div_(std).square_().sum() / n) ** 0.5
    return NoiseCheck(n, ratio, (low / n) ** 0.5, (high / n) ** 0.5)


def selftest(
    engine: Engine,
    loss: Callable[[Tensor], Tensor],
    rows: Tensor,
    outlier: Tensor,
    *,
    noise: Noise,
    std: float,
    bounds: Tensor | None = None,
) -> SelfTest:
    """Check both claims, and that both controls fail; see :class:`SelfTest`.

    The control of one row is its gradient without clipping. That of a person (``bounds``) is what people do instead:
    each of her rows clipped by itself.

    Args:
        engine: The study's engine on the study's model.
        loss: See :func:`sensitivity`.
        rows: See :func:`sensitivity`.
        outlier: See :func:`sensitivity`.
        noise: Adds the study's noise, of a given scale, to a vector; about forty thousand numbers are drawn and thrown
            away.
        std: The study's noise scale.
        bounds: See :func:`sensitivity`.
    """
    if bounds is None:
        own = torch.zeros_like(engine.flat.vector)
        engine.flat.add_gradient_(own, loss(torch.cat([rows, outlier]))[-1].sum())
        unclipped = float(own.double().norm())
    else:
        unclipped = sensitivity(engine, loss, rows, outlier)
    right, wrong = noise_checks(noise, std)
    return SelfTest(
        clip=engine.clip,
        moved=sensitivity(engine, loss, rows, outlier, bounds=bounds),
        unclipped=unclipped,
        rows=len(rows),
        noise=right,
        control=wrong,
    )


def noise_checks(noise: Noise, std: float) -> tuple[NoiseCheck, NoiseCheck]:
    """Return the check of this noise, and the control: the same noise 10 % too small, which must not pass."""
    return (
        check_noise_scale(lambda out: noise(out, std), std),
        check_noise_scale(lambda out: noise(out, _CONTROL * std), std),
    )


def _last_weighted(loss: Callable[[Tensor], Tensor], last: float, count: int) -> Callable[[Tensor], Tensor]:
    """Return ``loss`` with the values of the last ``count`` rows multiplied by ``last``."""

    def weighted(rows: Tensor) -> Tensor:
        losses = loss(rows)
        weight = torch.ones_like(losses)
        weight[-count:] = last
        return losses * weight

    return weighted


@cache
def _accepted(n: int, alpha: float) -> tuple[float, float]:
    """Return the interval that holds a chi-square of ``n`` degrees of freedom with probability 1 - alpha."""
    from scipy.stats import chi2

    return float(chi2.ppf(alpha / 2, n)), float(chi2.isf(alpha / 2, n))


def _sees(n: int, fault: float, alpha: float, beta: float) -> bool:
    """Return whether n numbers show a fault in either direction often enough."""
    from scipy.stats import chi2

    low, high = _accepted(n, alpha)
    small, large = (1 - fault) ** 2, (1 + fault) ** 2
    return bool(chi2.sf(low / small, n) <= beta and chi2.cdf(high / large, n) <= beta)
