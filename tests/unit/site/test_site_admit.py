"""Whether a site takes part: its own rules against what is asked, and whatever is missing means no."""

from __future__ import annotations

from typing import Any

import pytest
from support.federation import Desk, small_study

from fedgen.errors import BudgetExhausted, Code, FedgenError, IntegrityError, Refused, code_of
from fedgen.schema.table import parse_schema
from fedgen.site.admit import Admission, admit
from fedgen.site.rules import SiteRules

OPEN = {"name": "site-01", "min_cohort": 1, "consent_required": False}


def _admit(desk: Desk, join: dict[str, Any] | None = None, **rules: Any) -> Admission:
    return admit(desk.invitation(**(join or {})), SiteRules(**{**OPEN, **rules}))


def _code(error: pytest.ExceptionInfo[FedgenError]) -> Code:
    return code_of(error.value)


def test_the_plan_and_sizes_are_the_sites_own_reckoning() -> None:
    desk = Desk(small_study(rows=40, training={"sample_rate": 0.25}))
    admission = _admit(desk)
    assert admission.study == desk.study
    assert admission.run == desk.run
    assert admission.sampled == 40
    assert admission.expected_batch == 10
    assert (admission.plan.q, admission.plan.sigma, admission.plan.rounds) == (0.25, 1.0, 3)
    assert admission.coordinator_sealing_key == desk.sealing.public


def test_a_text_that_is_not_what_its_hash_says_is_refused() -> None:
    desk, other = Desk(small_study()), small_study(training={"rounds": 4})
    with pytest.raises(Refused) as error:
        _admit(desk, {"study": other.canonical()})
    assert _code(error) is Code.WRONG_STUDY


@pytest.mark.parametrize("text", ["", "{", "null", "[]", '{"format":1}', "\ud7ff"])
def test_a_text_that_is_no_study_is_refused(text: str) -> None:
    with pytest.raises(Refused) as error:
        _admit(Desk(small_study()), {"study": text})
    assert _code(error) is Code.STUDY_REFUSED


def test_a_text_that_merely_means_the_same_is_refused() -> None:
    desk = Desk(small_study())
    with pytest.raises(IntegrityError) as error:
        _admit(desk, {"study": desk.study.canonical().replace(",", ", ", 1)})
    assert _code(error) is Code.MALFORMED


def test_a_rate_that_does_not_follow_from_the_roster_is_refused() -> None:
    desk = Desk(small_study(training={"sample_rate": None, "batch": 10}))
    forged = desk.study.canonical().replace('"sample_rate":0.25,', '"sample_rate":0.01,')
    assert forged != desk.study.canonical()
    with pytest.raises(Refused) as error:
        _admit(desk, {"study": forged})
    assert _code(error) is Code.STUDY_REFUSED


def test_a_roster_without_the_site_is_refused() -> None:
    with pytest.raises(Refused) as error:
        _admit(Desk(small_study()), name="site-99")
    assert _code(error) is Code.STUDY_REFUSED


def test_only_the_sites_own_schema_is_served() -> None:
    desk = Desk(small_study())
    own = desk.study.data_schema.digest()
    assert _admit(desk, schema_digest=own).study == desk.study
    other = parse_schema({"columns": [{"name": "visits", "type": "integer", "min": 0, "max": 9}]})
    with pytest.raises(Refused) as error:
        _admit(desk, schema_digest=other.digest())
    assert _code(error) is Code.STUDY_REFUSED


@pytest.mark.parametrize(
    ("allowed", "fits"),
    [(None, True), ({"train_generator"}, True), ({"train_generator", "research"}, True), (set(), False)],
)
def test_only_the_sites_own_purposes_are_served(allowed: set[str] | None, fits: bool) -> None:  # noqa: FBT001 - a row
    purposes = None if allowed is None else frozenset(allowed)
    desk = Desk(small_study())
    if fits:
        assert _admit(desk, purposes=purposes).study == desk.study
        return
    with pytest.raises(Refused) as error:
        _admit(desk, purposes=purposes)
    assert _code(error) is Code.STUDY_REFUSED


@pytest.mark.parametrize("wanted", ["train_generatoR", "marketing"])
def test_a_purpose_is_compared_letter_by_letter(wanted: str) -> None:
    with pytest.raises(Refused):
        _admit(Desk(small_study(policy={"purpose": wanted})), purposes=frozenset({"train_generator"}))


def test_a_larger_delta_than_the_sites_is_refused() -> None:
    desk = Desk(small_study(privacy={"delta": 1e-5}))
    assert _admit(desk, delta=1e-5).plan.delta == 1e-5
    with pytest.raises(Refused) as error:
        _admit(desk, delta=1e-6)
    assert _code(error) is Code.STUDY_REFUSED


def test_a_study_that_may_spend_more_than_one_study_may_is_refused() -> None:
    desk = Desk(small_study())
    cost = _admit(desk).plan.epsilon_of(3)
    assert _admit(desk, epsilon_per_study=cost, delta=1e-5).plan.epsilon_of(3) == cost
    with pytest.raises(BudgetExhausted) as error:
        _admit(desk, epsilon_per_study=0.99 * cost, delta=1e-5)
    assert _code(error) is Code.BUDGET


@pytest.mark.parametrize("key", ["epsilon_per_study", "epsilon_per_year", "epsilon_life"])
def test_a_study_that_no_ceiling_would_ever_allow_is_refused_in_advance(key: str) -> None:
    desk = Desk(small_study())
    cost = _admit(desk).plan.epsilon_of(3)
    assert _admit(desk, **{key: cost}, delta=1e-5).plan.epsilon_of(3) == cost
    with pytest.raises(BudgetExhausted) as error:
        _admit(desk, **{key: 0.99 * cost}, delta=1e-5)
    assert error.value.key == f"ceilings.{key}"
    assert _code(error) is Code.BUDGET


def test_a_calibrated_study_is_held_to_what_it_may_spend() -> None:
    desk = Desk(small_study(privacy={"noise_multiplier": None, "epsilon": 2.0}))
    assert _admit(desk, epsilon_per_study=2.0, delta=1e-5).plan.epsilon_allowed == 2.0
    with pytest.raises(BudgetExhausted):
        _admit(desk, epsilon_per_study=1.9, delta=1e-5)


def test_seeded_noise_is_obeyed_in_a_simulation_only() -> None:
    desk = Desk(small_study(privacy={"insecure_seed": 0}))
    assert _admit(desk, simulated=True).study.study.privacy.insecure_seed == 0
    with pytest.raises(Refused) as error:
        _admit(desk, simulated=False)
    assert _code(error) is Code.STUDY_REFUSED


@pytest.mark.parametrize(
    ("asked", "own", "taken"), [(7, 7, True), (8, 7, False), (None, 7, False), (7, None, False)]
)
def test_a_site_that_rehearses_serves_its_own_seed_and_nothing_private(
    asked: int | None, own: int | None, *, taken: bool
) -> None:
    desk = Desk(small_study(privacy={} if asked is None else {"insecure_seed": asked}))
    if taken:
        assert _admit(desk, rehearsal_seed=own).study.study.privacy.insecure_seed == asked
        return
    with pytest.raises(Refused) as error:
        _admit(desk, rehearsal_seed=own)
    assert _code(error) is Code.STUDY_REFUSED


@pytest.mark.parametrize("key", ["0", "00", "ab" * 32, "ff" * 1216])
def test_a_sealing_key_to_which_nothing_can_be_sealed_is_refused(key: str) -> None:
    with pytest.raises(IntegrityError) as error:
        _admit(Desk(small_study()), {"sealing_key": key})
    assert _code(error) is Code.MALFORMED
