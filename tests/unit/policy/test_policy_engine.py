"""The engine over tables: golden masks, evidence, faults, fields, bits, and what it refuses to decide on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedgen.policy import engine as engine_module
from fedgen.policy.cases import read_case
from fedgen.policy.codes import CODES, NUMBER, Code, Verdict, verdict_of
from fedgen.policy.columns import NEVER, Records, Request
from fedgen.policy.engine import decide
from fedgen.policy.evidence import leaf_bytes, leaf_sha256, mask_sha256, round_summary
from fedgen.policy.packs import load_packs
from fedgen.policy.plain import consent_columns, record_columns, rights_columns, subject_columns
from fedgen.policy.standing import stand
from tests.support.policy_cases import case, consent
from tests.support.policy_worlds import LAWS, World
from tests.vectors.make_policy_vectors import vectors

PACKS = load_packs(LAWS)
VECTORS = Path(__file__).parents[2] / "vectors" / "policy_masks.json"


def test_golden_masks():
    assert vectors() == json.loads(VECTORS.read_text(encoding="utf-8"))


def test_counts_sum_and_permitted_is_allow():
    decision = World(3, 200).decide(PACKS)
    assert sum(decision.counts.values()) == 200
    assert decision.permitted.tolist() == [verdict_of(CODES[code]) is Verdict.ALLOW for code in decision.code]
    assert 0 < decision.permitted.sum() < 200


def test_the_order_of_rows_moves_the_answers_with_them():
    world = World(4, 120)
    before = world.decide(PACKS).code
    order = np.random.default_rng(4).permutation(120)
    world.records = [world.records[place] for place in order]
    assert world.decide(PACKS).code.tolist() == before[order].tolist()


def test_hits_name_the_rules_by_bit_and_the_first_names_the_code():
    decision = World(5, 200).decide(PACKS)
    for said in decision.laws:
        for row in range(200):
            hit = [rule for bit, rule in enumerate(said.rules) if int(said.hits[row]) >> bit & 1]
            assert said.code[row] == NUMBER[hit[0].code if hit else Code.ALLOW]
            assert [rule.precedence for rule in hit] == sorted(rule.precedence for rule in hit)


def test_a_rule_that_fails_quarantines_the_batch(monkeypatch):
    def broken(view, facts):
        raise ZeroDivisionError

    for bad in (broken, lambda *_: np.zeros(3, dtype=bool), lambda *_: None):
        failing = replace(engine_module.RULES["G-17"], test=bad)
        monkeypatch.setitem(engine_module.RULES, "G-17", failing)
        decision = World(5, 50).decide(PACKS)
        assert decision.laws[0].faults == ("G-17",)
        assert (decision.verdict == Verdict.QUARANTINE).all()


def test_an_empty_table_has_an_empty_decision():
    records = record_columns([])
    request = Request("train_generator", "train", 0)
    standing = stand(records.people, consent_columns([]), rights_columns([]), subject_columns([]), request)
    decision = decide(records, standing, request, PACKS)
    assert len(decision.code) == 0
    assert decision.counts == {}


def test_no_law_and_other_people_are_refused():
    one = read_case(case())
    standing = stand(one.records.people, one.consent, one.rights, one.subjects, one.request)
    with pytest.raises(ValueError, match="at least one law"):
        decide(one.records, standing, one.request, PACKS, [])
    other = read_case(case(subject={"subject_id": "s-9"}, record={"subject_id": "s-9"})).records
    with pytest.raises(ValueError, match="other people"):
        decide(other, standing, one.request, PACKS)


def test_columns_outside_the_purpose_are_dropped_or_deny():
    gdpr = PACKS["gdpr"]
    purpose = gdpr.pack.purposes["train_generator"].model_copy(update={"fields": ("age", "income")})
    pack = gdpr.pack.model_copy(update={"purposes": {**gdpr.pack.purposes, "train_generator": purpose}})
    packs = {"gdpr": replace(gdpr, pack=pack)}
    loose = read_case(case(request={"fields": ["age", "name"]})).decide(packs)
    assert loose.drop_fields == {"name"}
    assert CODES[loose.code[0]] is Code.ALLOW
    strict = read_case(case(request={"fields": ["age", "name"], "strict_fields": True})).decide(packs)
    assert CODES[strict.code[0]] is Code.PURPOSE_INCOMPATIBLE
    enough = read_case(case(request={"fields": ["age"], "strict_fields": True})).decide(packs)
    assert CODES[enough.code[0]] is Code.ALLOW


def test_direct_marketing_is_not_balanced():
    gdpr = PACKS["gdpr"]
    purpose = gdpr.pack.purposes["train_generator"].model_copy(update={"direct_marketing": True})
    pack = gdpr.pack.model_copy(update={"purposes": {**gdpr.pack.purposes, "train_generator": purpose}})
    events = [
        {"subject_id": "s-1", "type": kind, "effective_at": at, "recorded_at": at}
        for kind, at in (
            ("objection", "2026-02-01T00:00:00+00:00"),
            ("objection_rejected", "2026-03-01T00:00:00+00:00"),
        )
    ]
    one = read_case(case(rights_events=events))
    assert CODES[one.decide({"gdpr": replace(gdpr, pack=pack)}).code[0]] is Code.OBJECTED
    assert CODES[one.decide({"gdpr": gdpr}).code[0]] is Code.ALLOW


def test_needs_reconfirmation_is_told():
    late = consent(
        "withdrawn", effective_at="2026-01-01T00:00:00+00:00", recorded_at="2026-03-01T00:00:00+00:00"
    )
    one = read_case(case(consent_events=[consent(), late]))
    standing = stand(one.records.people, one.consent, one.rights, one.subjects, one.request)
    assert standing.needs_reconfirmation.tolist() == [True]
    for events in ([consent()], [consent(), consent("withdrawn", "2026-02-01T00:00:00+00:00")]):
        plain = read_case(case(consent_events=events))
        standing = stand(plain.records.people, plain.consent, plain.rights, plain.subjects, plain.request)
        assert standing.needs_reconfirmation.tolist() == [False]


def test_plain_records_are_records():
    people = np.array([b"a", b"b"])
    records = Records.plain(
        people, np.array([1, 0, 1]), collected_at=np.full(3, 10), collected_for=frozenset({"train_generator"})
    )
    assert len(records) == 3
    assert (records.retain_until == NEVER).all()


def test_the_mask_digest_is_of_these_rows_in_this_order():
    masks = [[], [False], [True], [True, False], [False, True], [True] + [False] * 7, [True] + [False] * 8]
    digests = {mask_sha256(np.array(mask, dtype=bool)) for mask in masks}
    assert len(digests) == len(masks)
    # SHA-256 of b"fedgen/policy/mask/1\0", eight bytes of 3, and 0b101, by hashlib.
    assert (
        mask_sha256(np.array([True, False, True]))
        == "ac5b9e6c64f5362cc078c6d383a794c45f0356b1b0fac3790de8e6d536a8c281"
    )


def test_a_round_summary_holds_no_person_and_one_byte_form():
    decision = World(6, 100).decide(PACKS)
    summary = round_summary(
        decision,
        run_uid="r",
        round_=3,
        client_ref="site-a",
        decided_at=decision.request.time,
        store_head_seq=41,
    )
    assert summary["n_considered"] == 100
    assert summary["n_allowed"] == int(decision.permitted.sum())
    assert sum(summary["reason_counts"].values()) == 100
    assert [pack["id"] for pack in summary["packs"]] == list(LAWS)
    assert b"s-00" not in leaf_bytes(summary)
    assert leaf_sha256(summary) == leaf_sha256(dict(reversed(summary.items())))
    assert leaf_sha256(summary) != leaf_sha256(summary | {"round": 4})
