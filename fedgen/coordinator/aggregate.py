"""The sum of updates, folded as they arrive so that memory does not grow with the number of sites."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen._validate import positive
from fedgen.errors import Code, IntegrityError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LARGEST: Final = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Aggregate:
    """The weighted sum of the accepted updates.

    Attributes:
        total: Float64, shape ``(parameters,)``.
        weight: Sum of the weights, positive.
        sites: Names of the sites in the sum, in the order of their acceptance.
    """

    total: NDArray[np.float64]
    weight: float
    sites: tuple[str, ...]

    def mean(self) -> NDArray[np.float32]:
        """Return ``total / weight`` as float32."""
        return (self.total / self.weight).astype(np.float32)


class StreamingSum:
    """Folds float32 updates into one float64 sum.

    Guarantees:
        - One site counts at most once.
        - An update with a NaN, an infinity, a value over the limit or another length changes nothing and is
          refused.
        - Memory is one vector, whatever the number of sites.

    Args:
        parameters: Length every update must have.
    """

    def __init__(self, parameters: int) -> None:
        positive(parameters=parameters)
        self._total = np.zeros(parameters, dtype=np.float64)
        self._weight = 0.0
        self._sites: list[str] = []

    def add(self, site: str, update: memoryview | bytes, weight: float, *, limit: float = math.inf) -> None:
        """Fold one site's update.

        Args:
            site: The verified sender.
            update: Float32 little-endian bytes.
            weight: Positive; one in gradient exchange and with ``unit: site``, else the declared size.
            limit: Largest absolute value that makes sense. Finite values beyond it would overflow in the sum or
                in the optimizer's squares, and so let one site end everybody's training.

        Raises:
            IntegrityError: ``replayed``, ``wrong-shape`` or ``not-finite``; the sum is unchanged.
        """
        positive(weight=weight)
        vector = self.check(site, update, limit=limit)
        if weight == 1:
            self._total += vector
        else:
            self._total += weight * vector.astype(np.float64)
        self._weight += weight
        self._sites.append(site)

    def check(self, site: str, update: memoryview | bytes, *, limit: float = math.inf) -> NDArray[np.float32]:
        """Return an update's values if :meth:`add` would take it; the sum is unchanged.

        Raises:
            IntegrityError: As :meth:`add`.
        """
        if site in self._sites:
            raise IntegrityError("a second update from one site", code=Code.REPLAYED)
        if len(update) != 4 * len(self._total):
            raise IntegrityError("an update of another length", code=Code.WRONG_SHAPE)
        vector: NDArray[np.float32] = np.frombuffer(update, dtype="<f4")
        largest = float(np.abs(vector).max())  # a NaN among the values is the maximum
        if not largest <= min(limit, _LARGEST):
            raise IntegrityError(
                "an update with a NaN, an infinity or a value too large", code=Code.NOT_FINITE
            )
        return vector

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the sites in the sum so far."""
        return tuple(self._sites)

    def finish(self) -> Aggregate:
        """Return the sum; the fold is over."""
        return Aggregate(total=self._total, weight=self._weight, sites=tuple(self._sites))
