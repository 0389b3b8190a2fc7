"""What is said under distributed trust: whom it is against, the proved figure, and an estimate that says it is one."""

from __future__ import annotations

import json

import pytest

from fedgen.privacy.accountant import epsilon
from fedgen.privacy.estimate import gaussian_estimate
from fedgen.privacy.events import PoissonSkellam
from fedgen.privacy.plan import PrivacyPlan
from fedgen.privacy.statement import (
    DISJOINT,
    MASKED,
    PRESENT,
    REHEARSED,
    SEALED,
    UNSEEN,
    Facing,
    Statement,
    phrase,
    state,
    state_distributed,
)
from fedgen.privacy.units import Relation, Trust, Unit

L2, L1 = 70_000.0, 700_000.0


def event(shares: int) -> PoissonSkellam:
    return PoissonSkellam(0.1, shares * (2.0 * L2) ** 2 / 8, L2, L1)


class Plan:
    trust, relation, delta = Trust.DISTRIBUTED, Relation.ADD_OR_REMOVE, 1e-5
    event = event(8)

    def __init__(self, unit: Unit = Unit.RECORD) -> None:
        self.unit = unit


SPENT = {"city": ((event(8), 50),), "hill": ((event(8), 20), (event(8), 10)), "new": ()}
FACING = [Facing(0, event(9)), Facing(1, event(8)), Facing(3, event(6))]


def claims(unit: Unit = Unit.RECORD, *, assumed: int = 1, **more) -> tuple[Statement, ...]:
    return state_distributed(
        Plan(unit), SPENT, FACING, assumed=assumed, **{"withstood": 3, "least": 9, **more}
    )


def test_each_observer_is_named_with_the_figure_of_the_site_that_was_charged_most() -> None:
    for claim, facing in zip(claims(), FACING, strict=True):
        work = ((facing.event, 50),)
        assert claim.epsilon == epsilon(work, 1e-5).epsilon
        assert claim.estimate == gaussian_estimate(work, 1e-5)
        assert claim.estimate.about < claim.epsilon
        assert (claim.scope, claim.accountant, claim.proved) == ("union", "rdp", True)


def test_the_sentences_read_as_they_should() -> None:
    alone, curious, three = claims()
    proved, about = epsilon(((event(9), 50),), 1e-5).epsilon, alone.estimate
    assert about is not None
    assert alone.sentence() == (
        "Union: against everyone outside the site that holds the record, the coordinator included if no site helps it, "
        f"adding or removing one record is hidden up to {phrase(proved, 1e-5)} "
        "(proved with Rényi differential privacy; "
        f"about {phrase(about.about, 1e-5)} if it were Gaussian noise of the same variance: an estimate, not a bound)."
    )
    assert curious.against == "one curious site, and the coordinator with the help of one site"
    assert three.against == "the coordinator with the help of 3 sites, more than the study assumes"
    assert claims(assumed=3)[2].against == "the coordinator with the help of 3 sites"
    assert "which the study does not assume" in claims(assumed=0)[1].against
    assert claims(assumed=0, withstood=0)[1].against == "one curious site that does not help the coordinator"


def test_what_the_claims_rest_on() -> None:
    alone = claims()[0]
    assert alone.assumes[:2] == (SEALED, UNSEEN)
    assert "no sum of fewer than 9 sites is opened" in alone.assumes[2]
    assert DISJOINT in claims(Unit.PERSON)[0].assumes
    assert PRESENT in claims(Unit.SITE)[0].assumes
    assert MASKED in alone.assumes
    assert REHEARSED not in alone.assumes
    assert REHEARSED in claims(masked=False)[0].assumes
    assert MASKED not in claims(masked=False)[0].assumes


def test_noise_from_a_seed_promises_nothing() -> None:
    for claim in claims(private=False):
        assert claim.epsilon is None
        assert claim.estimate is None
        assert claim.sentence() == "Union: nothing is promised against anyone."


def test_nothing_charged_costs_nothing_and_what_the_plan_does_not_do_is_refused() -> None:
    free = state_distributed(Plan(), {"new": ()}, FACING, assumed=1, withstood=3, least=9)
    assert [claim.epsilon for claim in free] == [0.0, 0.0, 0.0]
    assert [claim.estimate for claim in free] == [None, None, None]
    for other in (event(9), event(4)):
        with pytest.raises(ValueError, match="charged"):
            state_distributed(
                Plan(), {**SPENT, "odd": ((other, 1),)}, FACING, assumed=1, withstood=3, least=9
            )


def test_json_says_that_an_estimate_is_none_and_leaves_it_out_where_there_is_none() -> None:
    told = json.loads(json.dumps(claims()[0].to_json()))
    assert told["estimate"]["bound"] is False
    assert told["estimate"]["about"] < told["epsilon"]
    plan = PrivacyPlan(
        unit=Unit.RECORD, trust=Trust.LOCAL, relation=Relation.ADD_OR_REMOVE, delta=1e-5, epsilon_allowed=None,
        q=0.05, sigma=1.25, clip=1.0, steps_per_round=1, rounds=2, expected_batch=3.0,
    )  # fmt: skip
    local = state(plan, {"a": ((plan.event, 2),)})[0]
    assert "estimate" not in local.to_json()
    assert "estimate" not in local.sentence()
