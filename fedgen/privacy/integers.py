"""What integer noise costs: the Rényi divergence of the Skellam mechanism, and how far rounding moves a vector.

Only Skellam noise is an event. A sum of discrete Gaussians is no discrete Gaussian, so its bound needs the number of
shares, the dimension and an error term; a sum of Skellam numbers is a Skellam number, and shares cost nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fedgen import _validate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def skellam_divergence(
    orders: NDArray[np.float64], variance: float, l2: float, l1: float
) -> NDArray[np.float64]:
    """Return an upper bound on the Rényi divergence between Skellam noise and itself moved by an integer vector.

    Guarantees:
        - Holds in both directions (the noise is symmetric), and for a vector of any length.
        - Tends to the Gaussian's ``order · l2² / (2 variance)`` from above as the variance grows.

    Edge cases:
        - The entries of an integer vector are at most their squares, so ``l1`` above ``l2²`` counts as ``l2²``.

    Args:
        orders: Integer orders, each at least 2: the theorem is for integers.
        variance: Of each coordinate, positive.
        l2: Most that the vector measures in L2.
        l1: Most that it measures in L1.

    Source: Agarwal, Kairouz, Liu (2021), Theorem 3.5, summed over independent coordinates.
    """
    import numpy as np

    square = l2 * l2
    largest = min(l1, square)
    first = ((2.0 * orders - 1.0) * square + 6.0 * largest) / (4.0 * variance * variance)
    second = 3.0 * largest / (2.0 * variance)
    return orders * (square / (2.0 * variance)) + np.minimum(first, second)


def after_rounding(norm: float, dimension: int) -> tuple[float, float]:
    """Return the L2 and the L1 sensitivity of a vector whose entries are rounded up or down at random.

    The vector may be a sum over many units, rounded once: let ``u`` be uniform in [0, 1) and round ``x`` to
    ``floor(x + u)``, which is the larger neighbour with the probability that stochastic rounding gives it. With the
    same ``u`` on both sides, a unit that moves ``x`` by ``g`` moves the rounded vector by an integer less than 1
    away from ``g`` in each entry; and whoever does not see ``u`` knows no more than one who does.

    Guarantees:
        - Holds for every vector, with certainty: nothing is charged to δ and nothing is drawn again.

    Edge cases:
        - Coarse grids are dear: the rounding adds √dimension to a norm of ``clip · scale``. At 2^16 grid units to a
          clip norm and a million coordinates that is 1.6 %.

    Args:
        norm: L2 sensitivity before rounding in grid units: clip times scale.
        dimension: Number of coordinates, at least 1.

    Returns:
        ``(l2, l1)`` for :class:`~fedgen.privacy.events.PoissonSkellam`.

    Raises:
        ValueError: An argument is not positive and finite.
    """
    _validate.positive(norm=norm, dimension=dimension)
    l2 = norm + math.sqrt(dimension)
    return l2, min(math.sqrt(dimension) * l2, l2 * l2)
