import json
import math
from decimal import Decimal
from pathlib import Path

import pytest

import fedgen.privacy
from fedgen.privacy.accountant import epsilon
from fedgen.privacy.events import Counts, PoissonGaussian
from fedgen.privacy.plan import PrivacyPlan
from fedgen.privacy.statement import (
    DISJOINT,
    ONE_NAME,
    PRESENT,
    SEALED,
    TRUSTED,
    UNSEEN,
    UNSEEN_PERSONS,
    asking_for,
    at_most,
    ceilings_in_words,
    phrase,
    rounded_down,
    rounded_up,
    short_spent,
    so_far,
    state,
)
from fedgen.privacy.units import Relation, Trust, Unit

STEP = PoissonGaussian(0.05, 1.25)
SPENT: dict[str, Counts] = {"st-mary": ((STEP, 100),), "city": ((STEP, 80), (STEP, 60)), "new": ()}

whole = pytest.mark.parametrize("trust", [Trust.LOCAL, Trust.CENTRAL])  # noise that one party adds whole


def plan(trust: Trust, unit: Unit = Unit.RECORD, relation: Relation = Relation.ADD_OR_REMOVE) -> PrivacyPlan:
    return PrivacyPlan(
        unit=unit,
        trust=trust,
        relation=relation,
        delta=1e-5,
        epsilon_allowed=None,
        q=0.05,
        sigma=1.25,
        clip=1.0,
        steps_per_round=1,
        rounds=200,
        expected_batch=32.0,
    )


def test_local_trust_states_every_site_against_everyone_and_the_union_at_the_largest() -> None:
    city, new, mary, union = state(plan(Trust.LOCAL), SPENT)
    assert [claim.scope for claim in (city, new, mary, union)] == [
        "site city",
        "site new",
        "site st-mary",
        "union",
    ]
    assert city.epsilon == epsilon([(STEP, 140)], 1e-5).epsilon
    assert mary.epsilon == epsilon([(STEP, 100)], 1e-5).epsilon
    assert new.epsilon == 0.0
    assert union.epsilon == city.epsilon
    assert DISJOINT in union.assumes
    assert DISJOINT not in city.assumes
    assert all(claim.proved and "the coordinator included" in claim.against for claim in (city, union))


def test_central_trust_states_the_union_and_what_the_coordinator_sees() -> None:
    union, coordinator = state(plan(Trust.CENTRAL), SPENT)
    assert union.scope == "union"
    assert union.against == "everyone but the coordinator"
    assert union.epsilon == epsilon([(STEP, 140)], 1e-5).epsilon
    assert union.assumes == (SEALED, UNSEEN, TRUSTED)
    assert coordinator.epsilon is None
    assert not coordinator.proved
    assert coordinator.sentence() == (
        "Coordinator: nothing is promised against the coordinator, which sees every site's clear sum."
    )


def test_a_person_may_be_in_one_site_only() -> None:
    assert DISJOINT in state(plan(Trust.CENTRAL, Unit.PERSON), SPENT)[0].assumes


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("unit", list(Unit))
def test_noise_in_shares_is_not_stated_as_if_nobody_knew_a_share(unit: Unit, private) -> None:
    with pytest.raises(ValueError, match="state_distributed"):
        state(plan(Trust.DISTRIBUTED, unit), SPENT, private=private)


def test_what_a_claim_rests_on_names_its_own_unit() -> None:
    city = {unit: state(plan(Trust.LOCAL, unit), SPENT)[0] for unit in Unit}
    assert city[Unit.RECORD].assumes == (SEALED, UNSEEN)
    assert city[Unit.PERSON].assumes == (SEALED, UNSEEN_PERSONS, ONE_NAME)
    assert city[Unit.SITE].assumes == (SEALED, PRESENT)
    assert "records were drawn" not in " ".join(city[Unit.PERSON].assumes + city[Unit.SITE].assumes)


@whole
def test_a_claim_about_a_site_never_says_that_its_presence_is_hidden(trust: Trust) -> None:
    claims = [claim for claim in state(plan(trust, Unit.SITE), SPENT) if claim.proved]
    for claim in claims:
        assert PRESENT in claim.assumes
        assert "declared size" in PRESENT, "the roster tells it to everybody"
        assert DISJOINT not in claim.assumes, "sites are disjoint by themselves"
        assert "all records of a whole site at once" in claim.sentence()
        assert "adding or removing a whole site" not in claim.sentence()


def test_sentences_of_persons_and_sites_read_as_they_should() -> None:
    def union(trust: Trust, unit: Unit) -> str:
        claims = state(plan(trust, unit), {"city": ((STEP, 50),)})
        return next(claim.sentence() for claim in claims if claim.scope == "union").split(" is hidden")[0]

    assert union(Trust.LOCAL, Unit.PERSON) == (
        "Union: against everyone outside the site that holds the person's records, the coordinator included, "
        "adding or removing all records of one person"
    )
    assert union(Trust.CENTRAL, Unit.PERSON) == (
        "Union: against everyone but the coordinator, adding or removing all records of one person"
    )
    assert union(Trust.LOCAL, Unit.SITE) == (
        "Union: against everyone outside the site, the coordinator included, "
        "adding or removing all records of a whole site at once"
    )
    assert union(Trust.CENTRAL, Unit.SITE) == (
        "Union: against everyone but the coordinator, adding or removing all records of a whole site at once"
    )
    clear = state(plan(Trust.CENTRAL, Unit.SITE), SPENT)[-1].sentence()
    assert clear.endswith("the coordinator, which sees every site's clear update.")


def test_seeded_noise_promises_nothing_and_shows_no_number() -> None:
    for trust in (Trust.LOCAL, Trust.CENTRAL):
        for claim in state(plan(trust), SPENT, private=False):
            assert claim.epsilon is None
            assert not claim.proved
            assert claim.accountant == "none"
            assert "nothing is promised" in claim.sentence()
            assert "ε" not in claim.sentence()


def test_a_run_without_sites_states_nothing_spent() -> None:
    (union,) = state(plan(Trust.LOCAL), {})
    assert union.epsilon == 0.0


@whole
@pytest.mark.parametrize("unit", list(Unit))
@pytest.mark.parametrize("relation", list(Relation))
def test_every_sentence_is_complete(trust: Trust, unit: Unit, relation: Relation) -> None:
    claim = state(plan(trust, unit, relation), {"city": ((STEP, 50),)})[0]
    words = {Unit.RECORD: "one record", Unit.PERSON: "one person", Unit.SITE: "a whole site"}[unit]
    change = "adding or removing" if relation is Relation.ADD_OR_REMOVE else "replacing"
    assert claim.epsilon is not None
    for part in (words, change, claim.against, phrase(claim.epsilon, 1e-5), "proved"):
        assert part in claim.sentence()


def test_the_json_of_a_statement_holds_every_field() -> None:
    claim = state(plan(Trust.LOCAL), SPENT)[0]
    value = claim.to_json()
    assert json.loads(json.dumps(value)) == value
    assert set(value) == {
        "unit", "relation", "trust", "scope", "against", "epsilon",
        "delta", "accountant", "proved", "assumes", "sentence",
    }  # fmt: skip
    assert (value["unit"], value["trust"], value["relation"]) == ("record", "local", "add_or_remove")


def test_figures_in_words_are_never_understated() -> None:
    assert rounded_up(2.981) == "2.99"
    assert rounded_up(2.98) == "2.98"
    assert rounded_up(2.9800000001) == "2.99"
    assert rounded_up(0.0) == "0"
    assert rounded_up(math.inf) == "unbounded"
    assert phrase(2.981, 1e-5) == "ε = 2.99 at δ = 1e-05"
    for value in (0.1, 1 / 3, 2.7182818, 1234.5, 1e-7, 99.999):
        assert Decimal(rounded_up(value)) >= Decimal(repr(value))


def test_a_progress_line_says_what_was_spent_of_what_is_allowed() -> None:
    assert "0.912" in short_spent(0.9113, 2.0)
    assert "of 2" in short_spent(0.9113, 2.0)
    assert "of" not in short_spent(0.9113, None)
    assert short_spent(None, None) == "not private"


def test_what_a_data_set_has_spent_and_may_spend_is_put_into_words() -> None:
    assert so_far(0.0, 1.231, 2.981, 1e-5) == (
        "ε at most 0 by this study, 1.24 in 365 days, 2.99 in all, at δ = 1e-05"
    )
    assert ceilings_in_words(3.0, None, 9.0, 1e-6) == (
        "ε at most 3 for one study, 9 for the life of the data, at δ = 1e-06"
    )
    assert ceilings_in_words(None, None, None, 1e-6) == "no ceiling"
    assert at_most(2.981) == "ε at most 2.99"


def test_what_may_still_be_asked_for_is_never_overstated() -> None:
    assert asking_for(2.699) == "privacy.epsilon 2.6"
    for value in (0.1, 1 / 3, 2.7182818, 1234.5, 1e-7, 99.999):
        assert Decimal(rounded_down(value)) <= Decimal(repr(value))


def test_no_other_module_of_the_privacy_core_writes_an_epsilon() -> None:
    folder = Path(fedgen.privacy.__file__).parent
    for path in folder.glob("*.py"):
        code = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines() if 'f"' in line)
        if path.name != "statement.py":
            assert "ε" not in code, path.name
