"""Whether a data set may be used once more: pure arithmetic over what was charged and what is allowed.

What was charged is every reserved event, settled or not, of every study on the data set. Ceilings belong to
the site: for one study, for any 365 days, for the life of the data. A study may bring a lower one, never a higher.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from fedgen import _validate
from fedgen.errors import BudgetExhausted
from fedgen.privacy import _limit
from fedgen.privacy._frontier import Frontier, frontier
from fedgen.privacy.accountant import epsilon as epsilon_of
from fedgen.privacy.calibrate import NOISE_MAX
from fedgen.privacy.events import Counts, Event, PoissonGaussian, PoissonSkellam, merge
from fedgen.privacy.statement import exceeded
from fedgen.privacy.units import Relation

if TYPE_CHECKING:
    from collections.abc import Iterable

YEAR_DAYS: Final = 365
_CLOSE: Final = 1.01
Noisy: TypeAlias = PoissonGaussian | PoissonSkellam
Scope = Literal["study", "year", "data"]
_PLACES: Final = {
    "study": "study",
    "year": f"data set in {YEAR_DAYS} days",
    "data": "data set in its life",
}


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What may be spent, and by whom.

    Args:
        epsilon: Positive.
        delta: In (0, 1).
        scope: ``"study"``: one study on the data set; ``"year"``: all studies together in any 365 days;
            ``"data"``: all studies together, for the life of the data.
        relation: Which data sets are neighbours.

    Raises:
        ValueError: A figure is out of range.
    """

    epsilon: float
    delta: float
    scope: Scope
    relation: Relation = Relation.ADD_OR_REMOVE

    def __post_init__(self) -> None:
        """Check the figures."""
        _validate.positive(epsilon=self.epsilon)
        _validate.open_probability(delta=self.delta)
        if self.scope not in _PLACES:
            raise ValueError(f"scope must be 'study', 'year' or 'data', not {self.scope!r}")


@dataclass(frozen=True, slots=True)
class Spent:
    """Everything reserved on one data set so far.

    Attributes:
        data: By all studies together.
        study: By the study that asks.
        year: By all studies together in the last 365 days; a part of ``data``.
    """

    data: Counts = ()
    study: Counts = ()
    year: Counts = ()

    def under(self, scope: Scope) -> Counts:
        """Return what counts against a ceiling of ``scope``."""
        return {"study": self.study, "year": self.year, "data": self.data}[scope]


@dataclass(frozen=True, slots=True)
class Request:
    """What would be done: ``rounds`` times ``per_round`` times ``event``.

    Raises:
        ValueError: A number is not positive.
    """

    event: Event
    per_round: int
    rounds: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        _validate.positive(per_round=self.per_round, rounds=self.rounds)


@dataclass(frozen=True, slots=True)
class Allow:
    """The request fits under every ceiling."""

    request: Request


def decide(spent: Spent, request: Request, ceilings: Iterable[Ceiling]) -> Allow:
    """Allow ``request`` if it fits under every ceiling.

    Guarantees:
        - Allowed only if, for every ceiling, the accountant's bound of all that was charged and all that is
          asked is at most the ceiling's ε at its δ.
        - If a request is allowed, every smaller one like it is.
        - Touches nothing: no clock, no file, no ledger.

    Edge cases:
        =================================  ==========================
        no ceilings                        refused: nothing allows it
        history already over a ceiling     refused
        =================================  ==========================

    Args:
        spent: What was reserved on the data set.
        request: What would be done.
        ceilings: What may be spent; all of them must hold.

    Raises:
        BudgetExhausted: It does not fit; the message says how many rounds still would.
    """
    limits = tuple(ceilings)
    if not limits:
        raise BudgetExhausted("no ceiling allows any use of this data set", hint="set one in the site file")
    for ceiling in limits:
        search, before = _search(spent, request.event, ceiling)
        if not search.fits(before + request.per_round * request.rounds):
            raise BudgetExhausted(
                exceeded(_PLACES[ceiling.scope], ceiling.epsilon, ceiling.delta),
                hint=_what_fits(spent, request, limits),
            )
    return Allow(request)


def rounds_left(spent: Spent, request: Request, ceilings: Iterable[Ceiling]) -> int:
    """Return how many rounds like ``request`` still fit under every ceiling; 0 without a ceiling."""
    return _steps_left(spent, request.event, tuple(ceilings)) // request.per_round


def noise_that_fits(spent: Spent, event: Noisy, steps: int, ceilings: Iterable[Ceiling]) -> Noisy | None:
    """Return ``event`` with so much more noise that ``steps`` of it fit under every ceiling.

    Guarantees:
        - What is returned fits; with a hundredth less noise it may not.

    Edge cases:
        - None where no noise up to 1e5 is enough, or the history alone is over a ceiling.
    """
    limits = tuple(ceilings)

    def fits(sigma: float) -> bool:
        work: Counts = ((_with(event, sigma), steps),)
        return all(
            epsilon_of((*spent.under(it.scope), *work), it.delta, relation=it.relation).epsilon <= it.epsilon
            for it in limits
        )

    low = high = event.sigma
    while not fits(high):
        low, high = high, high * 2
        if high > NOISE_MAX:
            return None
    while high > low * _CLOSE:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    return _with(event, high)


def _with(event: Noisy, sigma: float) -> Noisy:
    """Return ``event`` with the noise multiplier ``sigma``."""
    if isinstance(event, PoissonSkellam):
        return replace(event, variance=(sigma * event.l2) ** 2)
    return replace(event, sigma=sigma)


def weight(counts: Counts, relation: Relation) -> float:
    """Return a figure that puts histories in order cheaply, the heaviest last; it bounds nothing."""
    return _limit.mu_squared(merge(counts), relation)


def _what_fits(spent: Spent, request: Request, ceilings: tuple[Ceiling, ...]) -> str:
    """Return what would still fit, in words."""
    steps = _steps_left(spent, request.event, ceilings)
    rounds = steps // request.per_round
    if rounds:
        return f"{rounds} of {request.rounds} rounds would still fit"
    if steps:
        return f"no round fits any more; one of {steps} instead of {request.per_round} steps would"
    return "no round fits any more"


def _steps_left(spent: Spent, event: Event, ceilings: tuple[Ceiling, ...]) -> int:
    """Return how many more steps fit under every ceiling."""
    left = []
    for ceiling in ceilings:
        search, before = _search(spent, event, ceiling)
        left.append(search.most() - before)
    return max(min(left, default=0), 0)


def _search(spent: Spent, event: Event, ceiling: Ceiling) -> tuple[Frontier, int]:
    """Return the search along ``event``, and how many of it were charged already.

    The same event in the history counts as part of the request, so all rounds of a study share one search.
    """
    charged = dict(merge(spent.under(ceiling.scope)))
    unit = merge(((event, 1),))
    before = charged.pop(unit[0][0], 0) if len(unit) == 1 and unit[0][1] == 1 else 0
    others = tuple(charged.items())
    return frontier(others, event, ceiling.epsilon, ceiling.delta, relation=ceiling.relation), before
