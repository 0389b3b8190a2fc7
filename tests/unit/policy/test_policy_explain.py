"""Explanations: the decisive rule, the events that mattered, and remedies that the engine itself confirms."""

from __future__ import annotations

import pytest

from fedgen.policy.cases import read_case
from fedgen.policy.explain import explain
from fedgen.policy.packs import load_packs
from tests.support.policy_cases import artefact, case, consent, right
from tests.support.policy_worlds import LAWS, World

PACKS = load_packs(LAWS)


def told(one):
    read = read_case(one)
    return explain(read.records, 0, read.consent, read.rights, read.subjects, read.request, PACKS, read.laws)


def test_the_decisive_rule_its_citation_and_the_event_that_mattered():
    gone = consent("withdrawn", "2026-02-01T00:00:00+00:00")
    got = told(case(consent_events=[consent(), gone]))
    assert (got["decision"], got["reason_code"], got["rule"]) == ("deny", "CONSENT_WITHDRAWN", "G-7.3a")
    assert got["citation"] == "GDPR Art. 7(3)"
    assert [(event["kind"], event["matters"]) for event in got["events"]] == [
        ("given", False),
        ("withdrawn", True),
    ]
    assert ["a new consent to train_generator by the person"] in got["remedies"]


def test_two_hits_need_two_changes():
    one = case(consent_events=[], request={"destination": {"country": "IN", "safeguards": []}})
    got = told(one)
    assert [hit["code"] for hit in got["hits"]] == ["CONSENT_MISSING", "TRANSFER_NO_SAFEGUARD"]
    assert all(len(remedy) == 2 for remedy in got["remedies"])
    assert ["a new consent to train_generator by the person", "the destination is inside the EEA"] in got[
        "remedies"
    ]


def test_several_events_of_one_kind_matter_together():
    gone = [consent("withdrawn", f"2026-02-0{day}T00:00:00+00:00") for day in (1, 2)]
    got = told(case(consent_events=[consent(), *gone]))
    assert [event["matters"] for event in got["events"]] == [False, True, True]


@pytest.mark.parametrize(
    ("one", "remedy"),
    [
        (case(rights_events=[right("restriction")]), "the restriction is lifted"),
        (case(rights_events=[right("erasure_request")]), "the erasure request is cancelled"),
        (case(rights_events=[right("legal_hold", matter="m-1")]), "every legal hold is released"),
        (case(record={"special_categories": ["health"]}), "a new explicit consent to train_generator by the person"),
        (
            case("ccpa", rights_events=[right("gpc")], request={"is_sale_or_share": True}),
            "the person opts in to sale after a notice of the conflict",
        ),
        (
            case(record=artefact(anonymity_assessment=None), request={"operation": "release"}),
            "the artefact passes an anonymity assessment",
        ),
        (case(record={"legal_basis": "contract", "collected_for": []}), "a compatibility assessment is filed"),
        (case(record={"inaccurate": True}), "the record is corrected"),
    ],
)  # fmt: skip
def test_each_remedy_is_found(one, remedy):
    assert [remedy] in told(one)["remedies"]


def test_what_no_change_mends_has_no_remedy_and_what_is_allowed_needs_none():
    assert told(case(record={"collected_at": "2023-12-01T10:00:00+01:00"}))["remedies"] == []
    allowed = told(case())
    assert (allowed["decision"], allowed["rule"], allowed["remedies"]) == ("allow", None, [])


def test_what_was_not_known_is_not_shown():
    late = consent("withdrawn", "2026-06-01T00:00:00+00:00")
    assert [event["kind"] for event in told(case(consent_events=[consent(), late]))["events"]] == ["given"]


def test_a_row_of_a_table_is_explained_as_it_was_decided():
    world = World(8, 60)
    decision = world.decide(PACKS)
    records, consents, rights, subjects, request = world.columns()
    for row in range(0, 60, 7):
        got = explain(records, row, consents, rights, subjects, request, PACKS)
        assert got["reason_code"] == str(decision.hit_codes(row)[0])
        assert got["citation"] == decision.citation(row)
