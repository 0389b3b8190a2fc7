import math
from typing import Any

import pytest

from fedgen.errors import BudgetExhausted, Code, code_of
from fedgen.privacy.accountant import epsilon
from fedgen.privacy.budget import (
    Allow,
    Ceiling,
    Request,
    Spent,
    decide,
    noise_that_fits,
    rounds_left,
    weight,
)
from fedgen.privacy.calibrate import noise_multiplier
from fedgen.privacy.events import Composed, Gaussian, PoissonGaussian, PoissonSkellam

SIGMA = noise_multiplier(0.05, 200, 3.0, 1e-5)
STEP = PoissonGaussian(0.05, SIGMA)
STUDY = Ceiling(3.0, 1e-5, "study")
LIFE = Ceiling(4.0, 1e-5, "data")


def spent(study: int, others: int = 0) -> Spent:
    """What is reserved when this study took some steps and other studies took others of the same kind."""
    counts = ((STEP, study),) if study else ()
    whole = ((STEP, study + others),) if study + others else ()
    return Spent(data=whole, study=counts)


def test_a_calibrated_study_fits_to_its_last_round_and_not_much_further() -> None:
    request = Request(STEP, 4)
    for done in range(0, 200, 4):
        assert decide(spent(done), request, [STUDY]) == Allow(request)
    with pytest.raises(BudgetExhausted):
        decide(spent(204), request, [STUDY])


def test_nothing_is_allowed_without_a_ceiling() -> None:
    with pytest.raises(BudgetExhausted, match="no ceiling"):
        decide(Spent(), Request(STEP, 1), [])
    assert rounds_left(Spent(), Request(STEP, 1), []) == 0


def test_a_second_study_sees_what_the_first_spent() -> None:
    decide(spent(0, others=100), Request(STEP, 4, 50), [STUDY, LIFE])
    with pytest.raises(BudgetExhausted, match="data set in its life"):
        decide(spent(0, others=300), Request(STEP, 4, 50), [STUDY, LIFE])


def test_a_year_is_held_by_itself() -> None:
    year = Ceiling(3.0, 1e-5, "year")
    old = Spent(data=((STEP, 190),), year=())
    decide(old, Request(STEP, 4, 50), [STUDY, year])
    recent = Spent(data=((STEP, 190),), year=((STEP, 190),))
    with pytest.raises(BudgetExhausted, match="the data set in 365 days may spend") as caught:
        decide(recent, Request(STEP, 4, 50), [STUDY, year])
    assert caught.value.hint is not None
    assert caught.value.hint.endswith("of 50 rounds would still fit")
    assert rounds_left(recent, Request(STEP, 4), [STUDY, year]) < rounds_left(
        old, Request(STEP, 4), [STUDY, year]
    )


def test_more_noise_is_found_where_a_study_does_not_fit() -> None:
    history = Spent(data=((STEP, 200),))
    quieter = noise_that_fits(history, STEP, 200, [LIFE])
    assert quieter is not None
    assert quieter.sigma > STEP.sigma
    assert quieter.q == STEP.q

    def cost(sigma: float) -> float:
        return epsilon((*history.data, (PoissonGaussian(STEP.q, sigma), 200)), LIFE.delta).epsilon

    assert cost(quieter.sigma) <= LIFE.epsilon < cost(quieter.sigma / 1.02)


def test_more_noise_is_found_for_noise_in_whole_numbers_too() -> None:
    step = PoissonSkellam(0.1, 4.0 * 65_600.0**2, 65_600.0, 1.4e6)
    history = Spent(data=((step, 200),))
    quieter = noise_that_fits(history, step, 200, [LIFE])
    assert quieter is not None
    assert (quieter.q, quieter.l2, quieter.l1) == (step.q, step.l2, step.l1)

    def cost(part: float) -> float:
        event = PoissonSkellam(step.q, quieter.variance * part, step.l2, step.l1)
        return epsilon((*history.data, (event, 200)), LIFE.delta).epsilon

    assert step.variance < quieter.variance
    assert cost(1.0) <= LIFE.epsilon < cost(1 / 1.03**2)


def test_no_noise_is_enough_where_the_history_is_over_by_itself() -> None:
    assert noise_that_fits(Spent(data=((Gaussian(0.5), 1),)), STEP, 200, [LIFE]) is None


def test_histories_are_put_in_order_by_what_they_hold() -> None:
    one, two = ((STEP, 10),), ((STEP, 10), (Gaussian(8.0), 1))
    assert weight((), STUDY.relation) < weight(one, STUDY.relation) < weight(two, STUDY.relation)


def test_all_ceilings_must_hold() -> None:
    strict = Ceiling(0.2, 1e-5, "study")
    decide(Spent(), Request(STEP, 4), [LIFE])
    with pytest.raises(BudgetExhausted, match="study may spend"):
        decide(Spent(), Request(STEP, 40), [LIFE, strict])


def test_a_refusal_says_how_many_rounds_would_still_fit() -> None:
    with pytest.raises(BudgetExhausted) as caught:
        decide(spent(120), Request(STEP, 4, 50), [STUDY])
    assert caught.value.hint == "20 of 50 rounds would still fit"
    assert code_of(caught.value) is Code.BUDGET
    assert caught.value.exit_code == 5
    assert "ε = 3 at δ = 1e-05" in str(caught.value)


def test_a_refusal_says_when_only_a_shorter_round_would_fit() -> None:
    left = rounds_left(spent(180), Request(STEP, 1), [STUDY])
    assert 20 <= left < 24
    with pytest.raises(BudgetExhausted, match=f"one of {left} instead of 50 steps would"):
        decide(spent(180), Request(STEP, 50), [STUDY])
    with pytest.raises(BudgetExhausted, match=r"no round fits any more\)$"):
        decide(spent(400), Request(STEP, 4), [STUDY])


def test_what_is_left_is_what_decide_allows() -> None:
    for history in (Spent(), spent(101), Spent(data=((Gaussian(4.0), 1),)), spent(0, others=222)):
        left = rounds_left(history, Request(STEP, 4), [STUDY, LIFE])
        decide(history, Request(STEP, 4, left), [STUDY, LIFE])
        with pytest.raises(BudgetExhausted):
            decide(history, Request(STEP, 4, left + 1), [STUDY, LIFE])


def test_whatever_is_allowed_is_within_the_accountants_bound() -> None:
    history = ((Gaussian(6.0), 1), (PoissonGaussian(0.02, 1.1), 300))
    for rounds in (1, 10, 25, 40, 60):
        request = Request(STEP, 4, rounds)
        bound = epsilon([*history, (STEP, 4 * rounds)], LIFE.delta).epsilon
        try:
            decide(Spent(data=history), request, [LIFE])
        except BudgetExhausted:
            assert bound > LIFE.epsilon * 0.995
        else:
            assert bound <= LIFE.epsilon * 1.005


def test_a_history_already_over_refuses_everything() -> None:
    over = Spent(data=((Gaussian(0.5), 1),))
    assert rounds_left(over, Request(STEP, 1), [LIFE]) == 0
    with pytest.raises(BudgetExhausted, match="no round fits any more"):
        decide(over, Request(STEP, 1), [LIFE])


def test_a_composed_request_is_held_against_the_same_history() -> None:
    both = Composed(((STEP, 4), (Gaussian(50.0), 1)))
    decide(spent(40), Request(both, 1, 10), [STUDY])
    with pytest.raises(BudgetExhausted):
        decide(spent(40), Request(both, 1, 200), [STUDY])


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ((0.0, 1e-5, "study"), "epsilon"),
        ((math.inf, 1e-5, "study"), "epsilon"),
        ((1.0, 0.0, "study"), "delta"),
        ((1.0, 1e-5, "month"), "scope"),
    ],
)
def test_a_ceiling_that_is_none_cannot_be_made(fields: tuple[Any, ...], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Ceiling(*fields)


@pytest.mark.parametrize(("per_round", "rounds"), [(0, 1), (-1, 1), (1, 0)])
def test_a_request_for_nothing_cannot_be_made(per_round: int, rounds: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Request(STEP, per_round, rounds)
