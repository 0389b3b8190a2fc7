"""Laws of a budget: a ceiling is never passed, less is never refused where more is allowed, and scopes nest."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fedgen.errors import BudgetExhausted
from fedgen.privacy.accountant import epsilon
from fedgen.privacy.budget import Ceiling, Request, Scope, Spent, decide, rounds_left
from fedgen.privacy.events import Counts, Gaussian, PoissonGaussian

STEP = PoissonGaussian(0.05, 2.0)
OTHERS = (STEP, PoissonGaussian(0.1, 3.0), Gaussian(20.0))
COUNTS = st.tuples(*[st.integers(0, 60)] * len(OTHERS))
SCOPES: tuple[Scope, ...] = ("study", "year", "data")
CEILINGS = st.lists(
    st.builds(Ceiling, st.sampled_from([0.5, 1.0, 2.0]), st.just(1e-5), st.sampled_from(SCOPES)),
    min_size=1,
    max_size=3,
)
GRID = 1.006  # two figures may stand on grids that settled differently
FEW = settings(max_examples=15, deadline=None)


def counted(counts: tuple[int, ...]) -> Counts:
    """Return events with their counts, those that happened only."""
    return tuple((event, count) for event, count in zip(OTHERS, counts, strict=True) if count)


@st.composite
def histories(draw: Any) -> Spent:
    """A history in which a study, and a year, are parts of the whole."""
    study, rest, older = draw(COUNTS), draw(COUNTS), draw(COUNTS)
    year = tuple(a + b for a, b in zip(study, rest, strict=True))
    whole = tuple(a + b for a, b in zip(year, older, strict=True))
    return Spent(data=counted(whole), study=counted(study), year=counted(year))


def allowed(spent: Spent, rounds: int, ceilings: list[Ceiling]) -> bool:
    try:
        decide(spent, Request(STEP, 2, rounds), ceilings)
    except BudgetExhausted:
        return False
    return True


@FEW
@given(histories(), CEILINGS, st.integers(1, 60))
def test_what_is_allowed_passes_no_ceiling_of_any_scope(
    spent: Spent, ceilings: list[Ceiling], rounds: int
) -> None:
    if allowed(spent, rounds, ceilings):
        for ceiling in ceilings:
            work = (*spent.under(ceiling.scope), (STEP, 2 * rounds))
            assert epsilon(work, ceiling.delta).epsilon <= ceiling.epsilon * GRID
        assert rounds == 1 or allowed(spent, rounds - 1, ceilings)
        assert rounds_left(spent, Request(STEP, 2), ceilings) >= rounds
    else:
        assert rounds_left(spent, Request(STEP, 2), ceilings) < rounds


@FEW
@given(histories(), st.sampled_from([0.5, 1.0, 2.0]), st.integers(1, 60))
def test_a_ceiling_for_longer_is_never_the_looser_one(spent: Spent, limit: float, rounds: int) -> None:
    fits = [allowed(spent, rounds, [Ceiling(limit, 1e-5, scope)]) for scope in SCOPES]
    assert fits == sorted(fits, reverse=True)


@FEW
@given(histories(), CEILINGS, st.integers(1, 30))
def test_one_more_ceiling_never_allows_more(spent: Spent, ceilings: list[Ceiling], rounds: int) -> None:
    more = [*ceilings, Ceiling(0.7, 1e-5, "year")]
    assert rounds_left(spent, Request(STEP, 2), more) <= rounds_left(spent, Request(STEP, 2), ceilings)
    assert allowed(spent, rounds, ceilings) or not allowed(spent, rounds, more)
