"""The plan of distributed trust: enough noise at the fewest survivors, room in the ring, and who is charged what."""

from __future__ import annotations

import math
from typing import Any

import pytest

from fedgen.config.distributed import DistributedPlan, distributed_plan, most_units
from fedgen.config.secagg import SecaggSpec
from fedgen.config.training import PrivacySpec
from fedgen.errors import Code, ConfigError, IntegrityError
from fedgen.privacy.accountant import epsilon
from fedgen.privacy.calibrate import TIGHT
from fedgen.privacy.estimate import gaussian_estimate
from fedgen.privacy.plan import Evidence
from fedgen.privacy.units import Relation, Trust, Unit

NUMBERS: dict[str, Any] = {
    "sites": 10, "dimension": 500, "q": 0.1, "rounds": 40, "expected_batch": 400.0, "largest": 40.0
}  # fmt: skip


def privacy(**changes: Any) -> PrivacySpec:
    chosen = {"unit": "record", "trust": "distributed", "epsilon": 2.0, "delta": 1e-5, "clip": 1.5, **changes}
    return PrivacySpec.model_validate({key: value for key, value in chosen.items() if value is not None})


def made(
    secagg: dict[str, Any] | None = None, spec: PrivacySpec | None = None, **numbers: Any
) -> DistributedPlan:
    return distributed_plan(spec or privacy(), SecaggSpec(**(secagg or {})), **{**NUMBERS, **numbers})


@pytest.mark.parametrize(("dropouts", "colluders"), [(0, 0), (1, 0), (0, 2), (2, 1), (3, 1)])
def test_the_charged_figure_is_the_budget_at_the_fewest_survivors_with_the_colluders_assumed(
    dropouts: int, colluders: int
) -> None:
    plan = made({"dropouts": dropouts, "colluders": colluders})
    assert TIGHT * 2.0 <= plan.epsilon_of(40) <= 2.0
    noise = plan.point.noise
    left = (10 - dropouts - colluders) * noise.variance
    assert math.isclose(plan.event.variance, left, rel_tol=1e-12)
    assert math.isclose(plan.event.sigma, plan.sigma, rel_tol=1e-9)
    assert plan.least == 10 - dropouts
    assert math.isclose(plan.overprovisioning, math.sqrt(10 / (10 - dropouts - colluders)))
    assert plan.event_per_round() == (plan.event, 1)
    assert plan.curve().at(40) == plan.epsilon_of(40)


def test_fewer_sites_than_tolerated_would_cost_more_than_is_charged() -> None:
    # The control of the test above: with one survivor less the budget would not hold.
    plan = made({"dropouts": 2, "colluders": 1})
    short = type(plan.event)(plan.q, plan.event.variance * 6 / 7, plan.event.l2, plan.event.l1)
    assert epsilon(((short, 40),), 1e-5).epsilon > 2.0


def test_observers_who_know_more_shares_face_a_larger_figure() -> None:
    plan = made({"dropouts": 1, "colluders": 1})
    figures = {one.colluders: epsilon(((one.event, 40),), plan.delta).epsilon for one in plan.facing()}
    assert list(figures) == [0, 1, 3], (
        "the coordinator alone, one curious site, and all the protocol withstands"
    )
    assert figures[0] < figures[1] == plan.epsilon_of(40) < figures[3]
    assert plan.most_colluders == 2 * 7 - 10 - 1
    with pytest.raises(ValueError, match="colluders"):
        plan.against(-1)


@pytest.mark.parametrize(("sites", "withstood"), [(100, 33), (101, 2), (200, 2)])
def test_beyond_a_full_graph_no_more_colluders_are_spoken_of_than_it_is_made_for(
    sites: int, withstood: int
) -> None:
    """Of 200 sites 65 could not open two sets, but they could hold all that one site masks with."""
    plan = made({"dropouts": 5, "colluders": 2}, sites=sites, expected_batch=4.0 * sites)
    assert plan.most_colluders == withstood
    assert [one.colluders for one in plan.facing()] == sorted({0, 1, 2, withstood})


@pytest.mark.parametrize(("sites", "helped"), [(3, False), (4, True), (100, True), (101, False)])
def test_a_coordinator_with_one_sites_help_is_spoken_of_only_where_the_protocol_withstands_it(
    sites: int, *, helped: bool
) -> None:
    """Of three sites two agree: with the help of the third, two sets of survivors could be opened."""
    plan = made({}, sites=sites, expected_batch=4.0 * sites)
    claims = plan.state({"city": ((plan.event, 40),)})
    assert (plan.most_colluders >= 1) is helped
    curious = next(claim for claim in claims if claim.colluders == 1)
    assert ("with the help of one site" in curious.against) is helped
    assert "one curious site" in curious.against


def test_a_whole_site_is_clipped_as_one_and_sampled_always() -> None:
    plan = made(spec=privacy(unit="site"), q=1.0, expected_batch=10.0, largest=1.0)
    assert plan.point.grid.whole
    assert plan.point.grid.bound == 1.5
    assert plan.event.q == 1.0
    assert TIGHT * 2.0 <= plan.epsilon_of(40) <= 2.0


@pytest.mark.parametrize("unit", ["record", "person"])
def test_a_sum_has_room_for_ten_deviations_above_what_is_expected(unit: str) -> None:
    plan = made(spec=privacy(unit=unit))
    assert not plan.point.grid.whole
    assert plan.point.grid.bound == 1.5 * most_units(40.0)
    assert most_units(40.0) == 114
    assert plan.point.headroom_bits > 0


def test_given_noise_is_taken_as_given() -> None:
    plan = made({"dropouts": 1}, privacy(epsilon=None, noise_multiplier=3.0))
    assert plan.epsilon_allowed is None
    assert plan.sigma == 3.0
    assert math.isclose(plan.event.sigma, 3.0)
    assert math.isclose(
        plan.noise_std / plan.overprovisioning, 3.0 * plan.point.grid.l2 / plan.point.grid.scale
    )


def test_the_other_relation_costs_more_noise() -> None:
    twice = made(spec=privacy(relation="replace_one"))
    assert twice.sigma > made().sigma
    assert twice.relation is Relation.REPLACE_ONE
    assert twice.epsilon_of(40) <= 2.0


@pytest.mark.parametrize(
    ("secagg", "numbers", "key"),
    [
        ({}, {"sites": 2}, "data.sites.count"),
        ({"threshold": 5}, {}, "secagg.threshold"),
        ({"threshold": 11}, {}, "secagg.threshold"),
        ({"threshold": 6, "colluders": 2}, {}, "secagg.threshold"),
        ({"dropouts": 4}, {}, "secagg.dropouts"),
        ({"dropouts": 3, "threshold": 8}, {}, "secagg.dropouts"),
        ({"dropouts": 7, "colluders": 3}, {}, "secagg.colluders"),
        ({"ring": 32}, {"largest": 1e6}, "secagg.ring"),
        ({}, {"largest": 1e15}, "secagg.ring"),
        ({}, {"q": 0.0}, "privacy"),
    ],
)
def test_what_cannot_be_is_one_line_at_its_key(
    secagg: dict[str, Any], numbers: dict[str, Any], key: str
) -> None:
    with pytest.raises(ConfigError) as error:
        made(secagg, **numbers)
    assert error.value.key == key
    assert "\n" not in str(error.value)


def test_a_budget_no_noise_can_keep_names_epsilon() -> None:
    with pytest.raises(ConfigError) as error:
        made(spec=privacy(epsilon=1e-7, delta=1e-12), q=1.0, rounds=1_000_000)
    assert error.value.key == "privacy.epsilon"


def test_a_large_sum_takes_the_wide_ring_and_only_then() -> None:
    assert made().point.ring == 32
    assert made(largest=1e6).point.ring == 64
    assert made({"ring": 64}).point.ring == 64


def test_another_trust_has_no_shares() -> None:
    with pytest.raises(ConfigError) as error:
        made(spec=privacy(trust="central"))
    assert error.value.key == "privacy.trust"


def test_the_terms_are_the_plans_and_the_roster_must_fit() -> None:
    plan = made({"dropouts": 2, "colluders": 1, "recovery": "restart"})
    terms = plan.terms("11" * 32, "22" * 32, {f"b{i}": bytes([i]) * 32 for i in range(10)})
    assert (terms.threshold, terms.dropouts, terms.colluders, terms.dimension) == (7, 2, 1, 500)
    assert (terms.ring, terms.recovery.value, terms.least) == (32, "restart", plan.least)
    with pytest.raises(ValueError, match="roster"):
        plan.terms("11" * 32, "22" * 32, {"a": bytes(32)})


def test_what_was_not_bounded_as_charged_is_refused() -> None:
    plan = made()
    done = {"unit": Unit.RECORD, "steps": 1, "q": 0.1, "clip": 1.5, "noise_std": 0.0, "private": True}
    plan.check_bounded(Evidence(**done))
    for change in ({"unit": Unit.SITE}, {"steps": 2}, {"q": 0.2}, {"clip": 1.6}):
        with pytest.raises(IntegrityError) as error:
            plan.check_bounded(Evidence(**{**done, **change}))
        assert error.value.code is Code.FAULT


def test_the_statement_has_the_proved_figure_and_an_estimate_beside_it() -> None:
    plan = made({"dropouts": 1, "colluders": 1})
    spent = {"a": ((plan.event, 40),), "b": ((plan.event, 30),), "c": ()}
    alone, curious, more = plan.state(spent)
    assert [claim.epsilon for claim in (alone, curious, more)] == [
        epsilon(((plan.against(number).event, 40),), 1e-5).epsilon for number in (0, 1, 3)
    ]
    assert {claim.accountant for claim in (alone, curious, more)} == {"rdp"}
    assert curious.estimate == gaussian_estimate(((plan.event, 40),), 1e-5)
    assert all(claim.trust is Trust.DISTRIBUTED and claim.proved for claim in (alone, curious, more))
    assert "fewer than 9 sites" in " ".join(alone.assumes)
