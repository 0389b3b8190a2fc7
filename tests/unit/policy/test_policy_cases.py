"""Cases: every reason code by example, what is malformed, several laws, identities, and a light start."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from fedgen.policy.cases import decide_cases
from fedgen.policy.codes import CODES, RUN_ONLY, SYSTEM, Code
from fedgen.policy.packs import load_packs
from tests.support.policy_cases import artefact, case, consent, right

PACKS = load_packs(["gdpr", "ccpa"])
SALE = {"is_sale_or_share": True}
ISS = {"information_society_service": True}
DEIDENTIFIED = {"reasonable_measures": True, "public_commitment": True, "contractual_no_reid": True}
IN_FUTURE = {"time": "2027-02-01T00:00:00+00:00"}


def answer(one):
    [result] = decide_cases([one], PACKS)
    return result


EXAMPLES = {
    Code.ALLOW: (case(), "allow"),
    Code.ARTEFACT_LINEAGE_REVOKED: (
        case(record=artefact("checkpoint", lineage_revoked_records=2, anonymity_assessment=None)), "erase",
    ),
    Code.ARTEFACT_RETENTION_EXPIRED: (case(record=artefact(retain_until="2026-05-04T09:00:00+00:00")), "erase"),
    Code.CHILD_PARENTAL_CONSENT_REQUIRED: (case(subject={"birth_date": "2012-01-01"}, request=ISS), "deny"),
    Code.CONSENT_EXPIRED: (case(consent_events=[consent(valid_until="2026-05-04T09:00:00+00:00")]), "deny"),
    Code.CONSENT_INVALIDATED: (
        case(consent_events=[consent(), consent("invalidated", "2026-02-01T00:00:00+00:00")]), "deny",
    ),
    Code.CONSENT_MISSING: (case(consent_events=[]), "deny"),
    Code.CONSENT_REFUSED: (case(consent_events=[consent("refused")]), "deny"),
    Code.CONSENT_SUPERSEDED: (case(consent_events=[consent(notice_version=2)]), "deny"),
    Code.CONSENT_WITHDRAWN: (
        case(consent_events=[consent(), consent("withdrawn", "2026-02-01T00:00:00+00:00")]), "deny",
    ),
    Code.CONSENT_WITHDRAWN_NO_OTHER_BASIS: (
        case(
            consent_events=[consent(), consent("withdrawn", "2026-02-01T00:00:00+00:00")],
            request={"operation": "retain"},
        ),
        "erase",
    ),
    Code.ERASURE_EXCEPTION_LIMITED_USE: (
        case(rights_events=[right("erasure_request", exception="17(3)(b)")]), "deny",
    ),
    Code.ERASURE_EXCEPTION_RETAIN: (
        case(rights_events=[right("erasure_request", exception="17(3)(b)")], request={"operation": "retain"}),
        "allow",
    ),
    Code.ERASURE_REQUESTED: (case(rights_events=[right("erasure_request")]), "erase"),
    Code.LEGAL_HOLD_NO_USE: (case(rights_events=[right("legal_hold"), right("erasure_request")]), "deny"),
    Code.LEGAL_HOLD_RETAIN: (
        case(rights_events=[right("legal_hold"), right("erasure_request")], request={"operation": "retain"}), "allow",
    ),
    Code.MALFORMED_RECORD: (case(record={"collected_at": "2025-12-01T10:00:00"}), "quarantine"),
    Code.MINOR_OPT_IN_REQUIRED: (case("ccpa", subject={"birth_date": "2012-01-01"}, request=SALE), "deny"),
    Code.NO_APPLICABLE_PACK: (case("lgpd"), "deny"),
    Code.NO_LAWFUL_BASIS: (case(record={"legal_basis": None}), "deny"),
    Code.OBJECTED: (
        case(record={"legal_basis": "legitimate_interest"}, rights_events=[right("objection")]), "deny",
    ),
    Code.OPTED_OUT_SALE_SHARE: (case("ccpa", rights_events=[right("gpc")], request=SALE), "deny"),
    Code.OUT_OF_SCOPE_DEIDENTIFIED: (case("ccpa", record={"deidentified": DEIDENTIFIED}), "allow"),
    Code.PROCESSING_RESTRICTED: (case(rights_events=[right("restriction")]), "deny"),
    Code.PURPOSE_INCOMPATIBLE: (
        case(record={"legal_basis": "contract", "collected_for": ["service_analytics"]}), "deny",
    ),
    Code.PURPOSE_NOT_CONSENTED: (case(consent_events=[consent(purpose="service_analytics")]), "deny"),
    Code.PURPOSE_NOT_DISCLOSED: (case("ccpa", consent_events=[], record={"collected_for": []}), "deny"),
    Code.RELEASE_ANONYMITY_FAILED: (
        case(
            record=artefact(
                anonymity_assessment={"result": "failed", "assessed_at": "2026-04-01T00:00:00+00:00", "method": "m"}
            ),
            request={"operation": "release"},
        ),
        "deny",
    ),
    Code.RELEASE_ANONYMITY_NOT_SHOWN: (
        case(record=artefact(anonymity_assessment=None), request={"operation": "release"}), "deny",
    ),
    Code.RETENTION_EXPIRED: (case(record={"collected_at": "2023-12-01T10:00:00+01:00"}), "erase"),
    Code.SENSITIVE_USE_LIMITED: (
        case("ccpa", rights_events=[right("limit_sensitive")], record={"sensitive_pi": True}), "deny",
    ),
    Code.SPECIAL_CATEGORY_NO_CONDITION: (case(record={"special_categories": ["health"]}), "deny"),
    Code.SUBJECT_AMBIGUOUS: (
        case(subject_index=[{"subject_id": "s-1", "birth_date": "1991-01-01"}]), "quarantine",
    ),
    Code.TRANSFER_NO_SAFEGUARD: (case(request={"destination": {"country": "IN", "safeguards": []}}), "deny"),
    Code.TRANSFER_TIA_MISSING: (case(request={"destination": {"country": "IN", "safeguards": ["scc"]}}), "deny"),
    Code.ADMT_OPTED_OUT: (
        case(
            "ccpa", rights_events=[right("admt_opt_out")],
            request=IN_FUTURE | {"operation": "decide", "significant_decision": True},
        ),
        "deny",
    ),
}  # fmt: skip
# These stand at the gate of a run or on the system's own footing: test_policy_run_gate and test_policy_packs.
ELSEWHERE = {Code.NOTICE_NOT_SERVED, Code.RISK_ASSESSMENT_MISSING, Code.DPIA_MISSING} | SYSTEM | RUN_ONLY


def test_every_code_has_its_example():
    assert set(EXAMPLES) | ELSEWHERE == set(CODES)
    assert not set(EXAMPLES) & ELSEWHERE


@pytest.mark.parametrize("code", EXAMPLES)
def test_each_code_is_reached(code):
    one, decision = EXAMPLES[code]
    got = answer(one)
    assert (got["decision"], got["reason_code"]) == (decision, str(code))
    assert list(got) == ["id", "decision", "reason_code", "also", "citation"]
    assert bool(got["citation"]) == (code not in {Code.ALLOW, Code.NO_APPLICABLE_PACK})


def test_one_object_is_a_list_of_one():
    assert [each["reason_code"] for each in decide_cases(case(), PACKS)] == ["ALLOW"]


def test_other_hits_are_told_and_the_first_is_not_repeated():
    one = case(consent_events=[], rights_events=[right("legal_hold"), right("erasure_request")])
    got = answer(one)
    assert got["reason_code"] == "LEGAL_HOLD_NO_USE"
    assert got["also"] == ["ERASURE_REQUESTED", "CONSENT_MISSING"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"record": {"legal_basis": None}}, "NO_LAWFUL_BASIS"),  # deny beats CCPA's allow
        (
            {"record": {"collected_at": "2023-12-01T10:00:00+01:00"}},
            "RETENTION_EXPIRED",
        ),  # GDPR erases, CCPA has 3 years
        (
            {"record": {"legal_basis": None, "retention_rule": "disclosed_12m"}},
            "MALFORMED_RECORD",
        ),  # quarantine wins
    ],
)
def test_the_strictest_of_several_laws_decides(change, code):
    assert answer(case(["ccpa", "gdpr"], **change))["reason_code"] == code
    assert answer(case(["gdpr", "ccpa"], **change))["reason_code"] == code


def test_an_unknown_law_among_known_ones_denies():
    assert answer(case(["gdpr", "lgpd"]))["reason_code"] == "NO_APPLICABLE_PACK"


@pytest.mark.parametrize(
    "broken",
    [
        None, 7, "x", [], {}, {"id": 3}, {"law": "gdpr"},
        case(record={"collected_at": None}), case(record={"type": "tape"}), case(record={"legal_basis": "because"}),
        case(record={"retention_rule": "for_ever"}), case(record={"subject_id": "somebody-else"}),
        case(record={"collected_at": "2026-05-04T11:05:00.000001+02:00"}),
        case(record={"collected_for": "train_generator"}), case(request={"time": "2026-05-04T11:00:00"}),
        case(request={"operation": "sell"}), case(request={"time": None}),
        case(request={"destination": "DE"}), case(request={"is_sale_or_share": "no"}),
        case(consent_events=[consent("maybe")]), case(consent_events=[consent(given_by="a friend")]),
        case(consent_events=[consent(effective_at="2026-01-10T09:00:00")]), case(consent_events=[consent(), {}]),
        case(consent_events=[consent(notice_version="3")]), case(consent_events=[consent(purpose="*")]),
        case(consent_events=[consent(valid_untl="2026-02-01T00:00:00+00:00")]),
        case(rights_events=[right("forget_me")]), case(rights_events={"type": "gpc"}),
        case(subject={"timezone": "Europe/Atlantis"}), case(subject={"birth_date": "1984-02-30"}),
        case(subject={"aliases": "s-2"}), case(law=None), case(law=[3]),
        case(record=artefact(retain_until=None)), case(record=artefact(anonymity_assessment={"result": "perhaps"})),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_quarantined_and_never_crashes(broken):
    [got] = decide_cases([broken], PACKS)
    assert (got["decision"], got["reason_code"]) == ("quarantine", "MALFORMED_RECORD")


def test_a_record_five_minutes_early_passes():
    assert answer(case(record={"collected_at": "2026-05-04T11:05:00+02:00"}))["reason_code"] == "ALLOW"


def test_an_unreadable_event_counts_from_when_it_was_known():
    later = consent("maybe", "2026-05-04T11:00:00.000001+02:00")
    assert answer(case(consent_events=[consent(), later]))["reason_code"] == "ALLOW"


def test_no_law_is_no_pack():
    assert answer(case([]))["reason_code"] == "NO_APPLICABLE_PACK"


def test_a_withdrawal_under_another_name_of_the_same_person_counts():
    one = case(
        subject={"aliases": ["device-9"]},
        consent_events=[consent(), consent("withdrawn", "2026-02-01T00:00:00+00:00", subject_id="device-9")],
    )
    assert answer(one)["reason_code"] == "CONSENT_WITHDRAWN"
    one["record"]["subject_id"] = "device-9"
    assert answer(one)["reason_code"] == "CONSENT_WITHDRAWN"


def test_events_of_somebody_else_do_not_count():
    other = consent("withdrawn", "2026-02-01T00:00:00+00:00", subject_id="s-2")
    assert answer(case(consent_events=[consent(), other]))["reason_code"] == "ALLOW"


@pytest.mark.parametrize(
    ("index", "code"),
    [
        ([{"subject_id": "s-1", "birth_date": "1984-03-09"}], "ALLOW"),  # the same person again
        ([{"subject_id": "s-1", "birth_date": "1990-01-01"}], "SUBJECT_AMBIGUOUS"),
        ([{"subject_id": "s-2", "aliases": ["s-1"], "birth_date": "1990-01-01"}], "SUBJECT_AMBIGUOUS"),
        ({"s-1": {"birth_date": "1990-01-01"}}, "SUBJECT_AMBIGUOUS"),
        ([{"subject_id": "s-3", "birth_date": "1990-01-01"}], "ALLOW"),
    ],
)
def test_two_people_under_one_identifier(index, code):
    assert answer(case(subject_index=index))["reason_code"] == code


@pytest.mark.parametrize(
    ("events", "code"),
    [
        (
            [right("gpc"), right("opt_in_sale_share", "2026-04-01T00:00:00+00:00", given_by="subject")],
            "OPTED_OUT_SALE_SHARE",
        ),
        (
            [
                right("gpc"),
                right("opt_in_sale_share", "2026-04-01T00:00:00+00:00", after_conflict_notice=True),
            ],
            "ALLOW",
        ),
        ([right("opt_out_sale_share"), right("opt_in_sale_share", "2026-04-01T00:00:00+00:00")], "ALLOW"),
        ([right("opt_in_sale_share", "2026-02-01T00:00:00+00:00"), right("gpc")], "OPTED_OUT_SALE_SHARE"),
    ],
)
def test_a_signal_gives_way_only_to_an_informed_opt_in(events, code):
    assert answer(case("ccpa", rights_events=events, request=SALE))["reason_code"] == code


@pytest.mark.parametrize(
    ("birth", "by", "code"),
    [
        ("2010-05-04", None, "ALLOW"),  # sixteen today
        ("2010-05-05", None, "MINOR_OPT_IN_REQUIRED"),
        ("2010-05-05", "subject", "ALLOW"),
        ("2010-05-05", "parent", "MINOR_OPT_IN_REQUIRED"),
        ("2013-05-05", "subject", "MINOR_OPT_IN_REQUIRED"),
        ("2013-05-05", "parent", "ALLOW"),
        (None, "parent", "MINOR_OPT_IN_REQUIRED"),
    ],
)
def test_who_opts_in_for_whom(birth, by, code):
    events = [] if by is None else [right("opt_in_sale_share", given_by=by)]
    one = case("ccpa", subject={"birth_date": birth}, rights_events=events, request=SALE)
    assert answer(one)["reason_code"] == code


def test_a_parents_consent_outlives_the_birthday_and_the_age_is_that_of_the_consent():
    young = {"birth_date": "2010-02-01"}  # sixteen on 1 February 2026; the consent is of 10 January
    assert answer(case(subject=young, request=ISS))["reason_code"] == "CHILD_PARENTAL_CONSENT_REQUIRED"
    by_parent = [consent(given_by="parent")]
    assert answer(case(subject=young, request=ISS, consent_events=by_parent))["reason_code"] == "ALLOW"


def test_holds_are_released_for_their_own_matter():
    held = [right("legal_hold", matter="m-1"), right("legal_hold", matter="m-2")]
    freed = right("legal_hold_released", "2026-04-01T00:00:00+00:00", matter="m-1")
    assert answer(case(rights_events=[*held, freed]))["reason_code"] == "LEGAL_HOLD_NO_USE"
    both = [*held, freed, freed | {"matter": "m-2"}, right("erasure_request")]
    assert answer(case(rights_events=both))["reason_code"] == "ERASURE_REQUESTED"  # revived the same day


def test_storage_is_judged_by_any_consent():
    other = consent(purpose="service_analytics")
    gone = consent("withdrawn", "2026-02-01T00:00:00+00:00")
    one = case(consent_events=[consent(), other, gone], request={"operation": "retain"})
    assert answer(one)["reason_code"] == "ALLOW"


@pytest.mark.parametrize(
    ("country", "time", "more", "code"),
    [
        ("BR", "2026-01-26T23:59:59+01:00", {}, "TRANSFER_NO_SAFEGUARD"),
        ("BR", "2026-01-27T00:00:00+01:00", {}, "ALLOW"),
        ("GB", "2026-05-04T00:00:00+01:00", {}, "ALLOW"),
        ("US", "2026-05-04T00:00:00+01:00", {}, "TRANSFER_NO_SAFEGUARD"),
        ("US", "2026-05-04T00:00:00+01:00", {"dpf_certified": True}, "ALLOW"),
        ("IN", "2026-05-04T00:00:00+01:00", {"safeguards": ["scc"], "tia": "tia-1"}, "ALLOW"),
        ("IN", "2026-05-04T00:00:00+01:00", {"safeguards": ["art49"], "tia": True}, "TRANSFER_NO_SAFEGUARD"),
    ],
)
def test_transfers_by_date_and_importer(country, time, more, code):
    goes_to = {"country": country, "safeguards": []} | more
    assert answer(case(request={"time": time, "destination": goes_to}))["reason_code"] == code


@pytest.mark.parametrize("condition", ["j", "9(2)(j)", "eu-gdpr:A9-2-j", "scientific_research", "art9_2_j"])
def test_conditions_of_article_9(condition):
    one = case(record={"special_categories": ["health"], "art9_condition": condition})
    assert answer(one)["reason_code"] == "ALLOW"


@pytest.mark.parametrize("condition", ["a", "9(2)(a)", "9(2)(z)", "because", None])
def test_what_is_no_condition_of_article_9(condition):
    one = case(record={"special_categories": ["health"], "art9_condition": condition})
    assert answer(one)["reason_code"] == "SPECIAL_CATEGORY_NO_CONDITION"
    one["consent_events"] = [consent(explicit=True)]
    assert answer(one)["reason_code"] == "ALLOW"


def test_deciding_loads_nothing_heavy():
    code = (
        "import json, sys\n"
        "from fedgen.policy.packs import load_packs\n"
        "from fedgen.policy.cases import decide_cases\n"
        "decide_cases(json.loads(sys.stdin.read()), load_packs(['gdpr', 'ccpa']))\n"
        "print(sorted({'torch', 'pandas', 'scipy', 'sqlalchemy', 'flwr', 'opacus'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps([case()]), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
