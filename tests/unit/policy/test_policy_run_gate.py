"""The run gate: a run with every document passes; each document alone, once missing, refuses with its code."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import date

import pytest

from fedgen.policy.codes import RUN_ONLY, Code
from fedgen.policy.columns import Basis, Destination, Request
from fedgen.policy.packs import load_packs
from fedgen.policy.run_gate import GATE, SERVICE_TERMS, Dpia, Recipient, RunFacts, run_gate

PACKS = load_packs(["gdpr", "ccpa"])
AT = 1_777_885_200_000_000
NEXT_YEAR = 1_800_000_000_000_000  # 15 January 2027
REQUEST = Request("train_generator", "train", AT)
WORKER = Recipient("hosting", "processor", "c-1", "ab" * 32, True, SERVICE_TERMS)
COMPLETE = RunFacts(
    purpose="train_generator",
    bases=frozenset({Basis.CONSENT, Basis.LEGITIMATE_INTEREST}),
    destinations=(Destination("DE"), Destination("IN", safeguards=frozenset({"scc"}), tia=True)),
    joint_controllers=True,
    arrangement_id="a-1",
    recipients=(WORKER,),
    lia_id="lia-1",
    dpia=Dpia("dpia-1", high_residual_risk=False, review_by=date(2027, 6, 1)),
    needs_dpia=True,
    notice_version=3,
    notice_covers=True,
    research_derogation=True,
    research_safeguards_id="s-1",
    solely_automated=False,
    special_categories=True,
    special_condition="j",
    loosened=(),
    tls=True,
    encryption_at_rest=True,
    differential_privacy=True,
    serves_several=True,
    combines_clients=False,
    inputs_deidentified=True,
    needs_risk_assessment=True,
    risk_assessment_id="ra-1",
    admt=True,
    admt_notice_id="n-1",
    minors=True,
    minor_opt_ins_checked=True,
    content_mark="c2pa",
    content_mark_verified=True,
    breach_open=False,
    training_unlawful=False,
)


def refusals(facts, request=REQUEST):
    return {(refusal.rule, refusal.code) for refusal in run_gate(facts, PACKS, request)}


def test_a_run_with_every_document_starts_and_is_released():
    assert refusals(COMPLETE) == set()
    later = Request("train_generator", "release", NEXT_YEAR)
    assert refusals(replace(COMPLETE, releases=True, smallest_group=100), later) == set()


CHANGES = [
    ("G-6f", {"lia_id": None}),
    ("G-13", {"notice_version": 2}),
    ("G-13", {"notice_covers": None}),
    ("C-100n", {"notice_version": None}),
    ("G-22", {"solely_automated": None}),
    (
        "G-22",
        {"solely_automated": True, "automated_basis": "contract", "review_route_id": "r"},
    ),  # special category j
    ("G-89", {"research_safeguards_id": None}),
    ("G-9r", {"special_condition": None}),
    ("G-25", {"loosened": ("clip",)}),
    ("G-25", {"loosened": None}),
    ("G-26", {"arrangement_id": None}),
    ("G-28", {"recipients": (replace(WORKER, contract_id=None),)}),
    ("G-28", {"recipients": (replace(WORKER, subprocessors_known=None),)}),
    ("C-100d", {"recipients": (replace(WORKER, terms=SERVICE_TERMS - {"no_combining"}),)}),
    ("G-32", {"tls": False}),
    ("G-32", {"encryption_at_rest": None}),
    ("G-32", {"differential_privacy": False}),
    ("G-35", {"dpia": None}),
    ("G-35", {"dpia": Dpia("d", high_residual_risk=True)}),
    ("G-35", {"dpia": Dpia("d", high_residual_risk=False, review_by=date(2026, 5, 4))}),
    ("G-44", {"destinations": (Destination("IN"),)}),
    ("G-44", {"destinations": None}),
    ("G-44", {"destinations": (Destination("US"),)}),
    ("G-44t", {"destinations": (Destination("IN", safeguards=frozenset({"bcr"})),)}),
    ("C-7002", {"purpose": "advertising"}),
    ("C-7050", {"combines_clients": True}),
    ("C-7050", {"inputs_deidentified": False}),
    ("C-120r", {"minor_opt_ins_checked": None}),
    ("C-RA", {"risk_assessment_id": None}),
    ("E-28c", {"training_unlawful": True}),
    ("E-28c", {"training_unlawful": None}),
]
LATER = [
    ("C-ADMTr", {"admt_notice_id": None}),
    ("A-50", {"releases": True, "content_mark_verified": False}),
    ("C-140b", {"releases": True, "smallest_group": 99}),
    ("G-33", {"releases": True, "breach_open": True}),
]


@pytest.mark.parametrize(("rule", "change"), CHANGES)
def test_each_missing_document_refuses(rule, change):
    found = refusals(replace(COMPLETE, **change))
    assert (rule, GATE[rule].code) in found
    assert {name for name, _ in found} <= {rule, "C-100n", "G-13", "G-9r", "G-28", "C-100d"}


@pytest.mark.parametrize(("rule", "change"), LATER)
def test_each_missing_document_of_a_release_refuses(rule, change):
    request = Request("train_generator", "release", NEXT_YEAR)
    assert (rule, GATE[rule].code) in refusals(replace(COMPLETE, **change), request)
    assert refusals(COMPLETE, request) == set()


def test_every_gate_rule_and_every_code_of_the_gate_is_reached():
    assert {rule for rule, _ in CHANGES + LATER} == set(GATE)
    codes = {rule.code for rule in GATE.values()}
    assert codes >= RUN_ONLY | {Code.NOTICE_NOT_SERVED, Code.DPIA_MISSING, Code.RISK_ASSESSMENT_MISSING}


def test_nobody_said_means_no():
    empty = RunFacts("train_generator")
    assert all(getattr(empty, each.name) in {None, False, "train_generator"} for each in fields(empty))
    assert len(refusals(empty)) >= 15


def test_older_processing_has_until_the_end_of_2027():
    facts = replace(COMPLETE, risk_assessment_id=None, processing_since=date(2025, 1, 1))
    assert refusals(facts) == set()
    in_2028 = Request("train_generator", "train", 1_830_400_000_000_000)
    assert ("C-RA", Code.RISK_ASSESSMENT_MISSING) in refusals(
        replace(facts, dpia=Dpia("d", high_residual_risk=False)), in_2028
    )


def test_a_law_without_a_pack_refuses():
    [refusal] = run_gate(COMPLETE, {}, REQUEST, ["lgpd"])
    assert refusal.code is Code.NO_APPLICABLE_PACK
