"""Rényi differential privacy of merged events: one curve for each event, added up at fixed orders.

Write ``K(a) = (a - 1) · D(a)`` for the divergence ``D`` of order ``a``. Three facts carry every figure here:

- *Composition adds.* The curve of n equal steps is n times that of one, so a curve is computed once for an event,
  and a budget search costs a fraction of a millisecond for each further count.
- *K is convex, and K(1) = 0.* So between two whole orders the straight line between their K is a bound, and only
  whole orders need theory.
- *Poisson sampling at whole orders.* If Q is P moved by a vector, and the noise is symmetric, then the reflection
  that swaps them makes D((1 - q)P + qQ ‖ P) the worse of the two directions, and expanding the power gives
  ``K(n) = log Σ C(n, k) (1 - q)^(n-k) q^k exp(K₁(k))`` with K₁ of the step that takes everybody. So symmetric
  noise needs none of the factor of 3 that the general bound has.

dp_accounting supplies Laplace, the fractional orders of the sampled Gaussian, and the conversion to ε.

Sources: Mironov (2017), Proposition 3 and Corollary 4 (the weak triangle inequality); Mironov, Talwar, Zhang (2019),
Theorem 5 (the worse direction) and section 3.3; Zhu and Wang (2019), Theorem 5, for what holds without symmetry;
Canonne, Kamath, Steinke (2020), Proposition 12.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from fedgen.privacy.events import Gaussian, Laplace, Merged, PoissonGaussian, PoissonSkellam, Simple
from fedgen.privacy.integers import skellam_divergence
from fedgen.privacy.units import Relation

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# dp_accounting's orders, and some more between its last ones, where small ε have theirs.
WHOLE: Final = (*range(2, 64), *range(64, 128, 8), *range(128, 256, 16), *range(256, 512, 32))
WIDE: Final = (*range(512, 1024, 64), 1024)
FRACTIONS: Final = tuple(1 + tenth / 10 for tenth in range(1, 100) if tenth % 10)
ORDERS: Final = tuple(sorted((*FRACTIONS, *WHOLE, *WIDE)))
_KNOWN: Final = (*WHOLE, *WIDE)
_TWICE: Final = tuple(sorted({2 * n for n in _KNOWN} | {2 * n - 1 for n in _KNOWN}))  # to replace a unit
_MOST: Final = 2 * 1024
_ROUNDED_UP: Final = 1 + 1e-10  # logarithms of factorials are good to 1e-12
_SMALL: Final = 1e-6  # K of a fractional order is good to about 1e-15; below this it is not relied on
_FAINT: Final = 1e-3

_muted: ContextVar[bool] = ContextVar("fedgen_absl_muted", default=False)


class _Muting:
    """absl's logging module as dp_accounting sees it, silent inside :func:`_quiet` only."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        """Pass everything else through."""
        return getattr(self._real, name)

    def warning(self, *args: Any, **kwargs: Any) -> None:
        """Warn as before unless the caller is ours."""
        if not _muted.get():
            self._real.warning(*args, **kwargs)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence dp_accounting's notes about orders it left out; a line between whole orders stands in."""
    from dp_accounting.rdp import rdp_privacy_accountant as module

    if not isinstance(module.logging, _Muting):
        module.logging = _Muting(module.logging)
    token = _muted.set(True)
    try:
        yield
    finally:
        _muted.reset(token)


def rdp_epsilon(merged: Merged, delta: float, relation: Relation) -> float:
    """Return an upper bound on ε by Rényi differential privacy.

    Guarantees:
        - Every event has a curve under both relations, so any mixture has a figure.
        - The curve of an event is made once; every further count of it costs a fraction of a millisecond.

    Edge cases:
        =====================================  ==============================================================
        no events                              0
        Poisson sampling under replace-one     one unit out, then one in: loose, and never below the truth
        =====================================  ==============================================================
    """
    if not merged:
        return 0.0
    from dp_accounting.rdp import compute_epsilon

    total = sum(count * curve(event, relation) for event, count in merged)
    return float(compute_epsilon(ORDERS, total, delta)[0])


@lru_cache(maxsize=1024)
def curve(event: Simple, relation: Relation) -> Floats:
    """Return bounds on the Rényi divergence that ``event`` causes, at :data:`ORDERS`; read-only."""
    import numpy as np

    found = np.maximum(_curve(event, 2.0 if relation is Relation.REPLACE_ONE else 1.0), 0.0)
    found.setflags(write=False)
    return found


def _curve(event: Simple, moved: float) -> Floats:
    """Return the curve of ``event`` where one unit moves a sum by ``moved`` sensitivities."""
    import numpy as np

    if isinstance(event, Laplace):
        return _laplace(moved / event.scale)
    if isinstance(event, Gaussian):
        return np.array(ORDERS) * (moved**2 / (2.0 * event.sigma**2))
    if event.q == 1.0:
        return _between(_all_taken(event, moved))
    whole = _all_taken(event, 1.0)
    if moved > 1.0:
        return _between(_replaced(_sampled(whole, event.q, _TWICE)))
    bound = _between(_sampled(whole, event.q, _KNOWN))
    return np.minimum(bound, _fractions(event)) if isinstance(event, PoissonGaussian) else bound


def _laplace(loss: float) -> Floats:
    """Return the curve of one Laplace query of pure privacy ``loss``."""
    import dp_accounting as dpa
    import numpy as np

    if (
        loss < _FAINT
    ):  # the exact form loses its digits here; this bound is then tight (Bun and Steinke, 2016)
        return np.array(ORDERS) * (loss**2 / 2.0)
    accountant = dpa.rdp.RdpAccountant(ORDERS).compose(dpa.LaplaceDpEvent(1.0 / loss))
    return np.asarray(accountant.rdp)


def _all_taken(event: PoissonGaussian | PoissonSkellam, moved: float) -> Floats:
    """Return K at 0, 1, ..., 2048 of the step that takes every unit; K(0) = K(1) = 0."""
    import numpy as np

    orders = np.arange(_MOST + 1, dtype=np.float64)
    if isinstance(event, PoissonSkellam):
        divergence = skellam_divergence(orders, event.variance, moved * event.l2, moved * event.l1)
    else:
        divergence = orders * (moved**2 / (2.0 * event.sigma**2))
    found: Floats = (orders - 1.0) * divergence
    found[:2] = 0.0
    return found


def _sampled(whole: Floats, q: float, orders: tuple[int, ...]) -> Floats:
    """Return K of the Poisson-sampled step at ``orders``, zero elsewhere, from that of the step that takes all.

    The binomial weights sum to one, so ``exp(K) = 1 + Σ weight · (exp(K₁) - 1)``: a sum of positive terms, which keeps
    its digits where K is tiny.
    """
    import numpy as np
    from scipy.special import gammaln, logsumexp

    k = np.arange(2, _MOST + 1, dtype=np.float64)
    gain = whole[2:]
    with np.errstate(divide="ignore"):  # a loss of zero weighs nothing
        log_gain = gain + np.log(-np.expm1(-gain))
    fixed = k * math.log(q) + log_gain - gammaln(k + 1.0)
    found = np.zeros(_MOST + 1)
    for n in orders:
        some = slice(0, n - 1)
        log_terms = (
            fixed[some] + gammaln(n + 1.0) - gammaln(n - k[some] + 1.0) + (n - k[some]) * math.log1p(-q)
        )
        found[n] = np.logaddexp(0.0, logsumexp(log_terms)) * _ROUNDED_UP
    return found


def _replaced(one_more: Floats) -> Floats:
    """Return K for one unit replaced by another, from K for one unit added or removed.

    With the data set that lacks both between them, the weak triangle inequality gives
    ``D(n) ≤ (n - 1/2)/(n - 1) · D'(2n) + D'(2n - 1)``, whatever the mechanism is.
    """
    import numpy as np

    found = np.zeros(_MOST + 1)
    n = np.array(_KNOWN)
    found[n] = (n - 0.5) * one_more[2 * n] / (2 * n - 1) + (n - 1) * one_more[2 * n - 1] / (2 * n - 2)
    return found


def _between(whole: Floats) -> Floats:
    """Return the divergence at :data:`ORDERS` from K at whole orders, on straight lines between them."""
    import numpy as np

    orders, at = np.array(ORDERS), np.array((1, *_KNOWN))
    found: Floats = np.interp(orders, at, whole[at]) / (orders - 1.0)
    return found


def _fractions(event: PoissonGaussian) -> Floats:
    """Return what dp_accounting knows of the fractional orders, infinity elsewhere and where it loses digits."""
    import dp_accounting as dpa
    import numpy as np

    with _quiet():
        accountant = dpa.rdp.RdpAccountant(FRACTIONS)
        accountant.compose(dpa.PoissonSampledDpEvent(event.q, dpa.GaussianDpEvent(event.sigma)))
    orders = np.array(ORDERS)
    found = np.full(len(orders), np.inf)
    trusted = np.where((np.array(FRACTIONS) - 1.0) * accountant.rdp > _SMALL, accountant.rdp, np.inf)
    found[np.isin(orders, FRACTIONS)] = trusted
    return found
