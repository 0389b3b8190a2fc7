"""The engine over tables and an independent evaluator, one case at a time, agree on every code and every hit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fedgen.policy.codes import CODES
from fedgen.policy.packs import load_packs
from tests.support import policy_oracle
from tests.support.policy_worlds import LAWS, World, facts

SIZE = 200


def disagreements(seeds, packs):
    """Return how many cases differ, and every code that was seen."""
    differ, seen = 0, set()
    for seed in seeds:
        world = World(seed, SIZE)
        decision = world.decide(packs)
        assert all(not said.faults for said in decision.laws)
        for number in range(SIZE):
            case = world.case(number)
            hits = set().union(*(policy_oracle.decide(case, law, facts()[law])[1] for law in LAWS))
            want = policy_oracle.decide_all(case, LAWS, facts())
            got = str(CODES[decision.code[number]])
            told = {str(code) for code in decision.hit_codes(number)} - {"ALLOW"}
            differ += want != got or hits != told
            seen.add(got)
    return differ, seen


def test_both_agree_on_four_thousand_cases():
    differ, seen = disagreements(range(20), load_packs(LAWS))
    assert differ == 0
    assert len(seen) > 22


@pytest.mark.slow
def test_both_agree_on_a_hundred_thousand_cases():
    differ, seen = disagreements(range(1000, 1500), load_packs(LAWS))
    assert differ == 0
    assert len(seen) >= 30


def test_a_pack_with_one_fact_changed_is_noticed():
    packs = load_packs(LAWS)
    gdpr = packs["gdpr"]
    purpose = gdpr.pack.purposes["train_generator"].model_copy(update={"min_notice_version": 4})
    changed = gdpr.pack.model_copy(update={"purposes": {**gdpr.pack.purposes, "train_generator": purpose}})
    assert disagreements(range(5), packs | {"gdpr": replace(gdpr, pack=changed)})[0] > 0
