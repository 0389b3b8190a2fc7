"""What integer noise would cost if it were Gaussian of the same variance: a number to read, not one to rely on.

The bound for integer noise comes from Rényi DP, which is 8 to 17 % looser than a privacy loss distribution for the same
Gaussian steps. This figure says how much of a bound is that looseness. It is no bound: on a coarse grid the truth lies
above it where little privacy loss counts, and below it where much does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from fedgen.privacy.accountant import epsilon
from fedgen.privacy.events import Composed, Event, PoissonGaussian, PoissonSkellam
from fedgen.privacy.units import Relation

if TYPE_CHECKING:
    from collections.abc import Iterable

BASIS: Final = "Gaussian noise of the same variance"


@dataclass(frozen=True, slots=True)
class Estimate:
    """About what ε would be; not a bound, and not a :class:`~fedgen.privacy.accountant.Figure`.

    It has no attribute ``epsilon`` and no ``accountant``, so whatever takes a figure fails on it: a type checker
    before the program runs, and Python when it does.

    Attributes:
        about: The approximation of ε; may lie below the truth.
        delta: The δ it is for.
        basis: What was put in the place of what was done.
    """

    about: float
    delta: float
    basis: Literal["Gaussian noise of the same variance"] = BASIS


def gaussian_estimate(
    counts: Iterable[tuple[Event, int]], delta: float, *, relation: Relation = Relation.ADD_OR_REMOVE
) -> Estimate:
    """Return about what ``counts`` would cost if their integer noise were Gaussian.

    Guarantees:
        - Tends to the exact ε of what was done as the variances grow.

    Edge cases:
        - Work without integer noise: the accountant's own figure.

    Args:
        counts: Pairs of event and count.
        delta: In (0, 1).
        relation: Which data sets are neighbours.

    Raises:
        ValueError: ``delta`` is out of range or a count is not a positive whole number.
    """
    smooth = [(_smooth(event), count) for event, count in counts]
    return Estimate(epsilon(smooth, delta, relation=relation).epsilon, float(delta))


def _smooth(event: Event) -> Event:
    """Return ``event`` with Gaussian noise in the place of Skellam noise."""
    if isinstance(event, Composed):
        return Composed(tuple((_smooth(part), count) for part, count in event.parts))
    return PoissonGaussian(event.q, event.sigma) if isinstance(event, PoissonSkellam) else event
