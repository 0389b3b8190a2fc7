"""Cases that were written from the specification alone: what decides each stands beside it.

The engine decides them one by one, all at once, and with their events the other way round: order never matters (S2).
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from fedgen.policy.cases import decide_cases
from fedgen.policy.codes import CODES, RUN_ONLY, SYSTEM, Code, Verdict, verdict_of
from fedgen.policy.packs import load_packs

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "policy_cases.json").read_text(encoding="utf-8")
)
PACKS = load_packs(["gdpr", "ccpa"])
OF_RUNS = {Code.NOTICE_NOT_SERVED, Code.RISK_ASSESSMENT_MISSING, Code.DPIA_MISSING, *SYSTEM, *RUN_ONLY}


def holder(case, path):
    """Return what holds the last step of a dotted path, and that step."""
    *steps, last = (int(step) if step.isdigit() else step for step in path.split("."))
    for step in steps:
        case = case[step]
    return case, last


def built(vector):
    """Return a vector as a case: the base, what the vector sets, every event in full, less what it drops."""
    case = copy.deepcopy(VECTORS["base"]) | {"id": vector["id"], "law": vector["law"]}
    for path, value in vector["set"].items():
        place, last = holder(case, path)
        place[last] = copy.deepcopy(value)
    for key in ("consent_events", "rights_events"):
        full = [VECTORS[key[:-1]] | event for event in case[key]]
        case[key] = [
            {"event_id": f"{key}-{number}", "recorded_at": event["effective_at"]} | event
            for number, event in enumerate(full)
        ]
    for path in vector.get("drop", ()):
        place, last = holder(case, path)
        del place[last]
    return case


CASES = {vector["id"]: built(vector) for vector in VECTORS["cases"]}
ANSWERS = {answer["id"]: answer for answer in decide_cases(list(CASES.values()), PACKS)}


def test_every_case_stands_once():
    assert len(CASES) == len(VECTORS["cases"]) == len(ANSWERS) >= 500


@pytest.mark.parametrize("vector", VECTORS["cases"], ids=lambda vector: vector["id"])
def test_the_specification_decides(vector):
    answer = ANSWERS[vector["id"]]
    decision, code, *also = vector["expect"]
    assert (answer["decision"], answer["reason_code"]) == (decision, code), vector["why"]
    assert set(also) <= set(answer["also"]), vector["why"]
    if code == "ALLOW":
        assert all(verdict_of(Code(other)) is Verdict.ALLOW for other in answer["also"])


def test_the_order_of_events_and_of_laws_never_matters():
    def turned(case):
        law = case["law"][::-1] if isinstance(case["law"], list) else case["law"]
        events = {key: case[key][::-1] for key in ("consent_events", "rights_events")}
        return case | events | {"law": law}

    for answer in decide_cases([turned(case) for case in CASES.values()], PACKS):
        before = ANSWERS[answer["id"]]
        assert answer["decision"] == before["decision"], answer["id"]
        if isinstance(CASES[answer["id"]]["law"], str):
            assert answer == before


def test_a_case_alone_is_answered_as_among_others():
    for name in list(CASES)[::25]:
        assert decide_cases(CASES[name], PACKS) == [ANSWERS[name]]


def test_every_code_a_case_can_reach_is_reached():
    reached = {vector["expect"][1] for vector in VECTORS["cases"]}
    assert {str(code) for code in CODES if code not in OF_RUNS} == reached
