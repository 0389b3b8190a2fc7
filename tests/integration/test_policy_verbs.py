"""``fedgen policy`` as the person who guards the data calls it: results, one line for each bad input, exit codes."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime

import pytest
from support.policy_cases import AT, case, consent, right

from fedgen._resources import kit


@pytest.fixture
def cases(tmp_path):
    def write(*found):
        path = tmp_path / "cases.json"
        path.write_text(json.dumps(list(found)))
        return path

    return write


@pytest.fixture
def own(tmp_path):
    """A copy of the shipped GDPR pack with some of its lines changed; unsigned."""

    def make(name="own.yaml", **changes):
        text = kit("policies", "gdpr.yaml").read_text(encoding="utf-8")
        for old, new in changes.values():
            assert old in text
            text = text.replace(old, new)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return make


VERSION = ("version: gdpr-2026.11", "version: own-1")
STRICTER = ("min_notice_version: 3", "min_notice_version: 4")


def signed(fedgen, pack, tmp_path):
    """Sign a pack with a key of its own, and return the public key's file."""
    key = tmp_path / f"{pack.name}.key"
    assert fedgen("policy", "sign", pack, "--key", key, "--new-key").code == 0
    return key.with_name(key.name + ".pub")


# -- decide ------------------------------------------------------------------------------------------------------------


def test_decide_prints_exactly_the_list_with_and_without_json(fedgen, cases):
    path = cases(
        case(id="one"),
        case(id="two", law=["gdpr", "ccpa"], consent_events=[consent(), consent("withdrawn", "2026-03-01T08:00:00Z")]),
    )  # fmt: skip
    said = fedgen("policy", "decide", "--packs", "gdpr,ccpa", path)
    assert (said.code, said.err) == (0, "")
    assert said.document == [
        {"id": "one", "decision": "allow", "reason_code": "ALLOW", "also": [], "citation": ""},
        {
            "id": "two",
            "decision": "deny",
            "reason_code": "CONSENT_WITHDRAWN",
            "also": [],
            "citation": "GDPR Art. 7(3)",
        },
    ]
    assert fedgen("policy", "decide", path, "--json").out == said.out


def test_decide_takes_one_object_and_an_empty_list(fedgen, tmp_path, cases):
    single = tmp_path / "one.json"
    single.write_text(json.dumps(case()))
    assert len(fedgen("policy", "decide", single).document) == 1
    assert fedgen("policy", "decide", cases()).document == []


@pytest.mark.parametrize(
    ("bent", "code"),
    [
        (case(consent_events=[consent(effective_at="2026-01-10T09:00:00")]), "MALFORMED_RECORD"),
        (case(consent_events=[consent(action="maybe")]), "MALFORMED_RECORD"),
        (case(request={"time": "2026-05-04T11:00:00"}), "MALFORMED_RECORD"),
        (case(request={"operation": "sell"}), "MALFORMED_RECORD"),
        (
            case(subject_index=[{"subject_id": "s-1", "birth_date": day} for day in ("1984-03-09", "1990-01-01")]),
            "SUBJECT_AMBIGUOUS",
        ),
        (case(law="lgpd"), "NO_APPLICABLE_PACK"),
        ("not a case", "MALFORMED_RECORD"),
    ],
)  # fmt: skip
def test_decide_answers_bad_cases_with_a_code_and_never_fails(fedgen, cases, bent, code):
    said = fedgen("policy", "decide", cases(bent, case(id="good")))
    assert said.code == 0
    assert [it["reason_code"] for it in said.document] == [code, "ALLOW"]


def test_a_repeated_event_changes_nothing(fedgen, cases):
    once, twice = case(), case(consent_events=[consent(), consent()])
    answers = fedgen("policy", "decide", cases(once, twice)).document
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('[\n{"id": 1,}]', ":2: not valid JSON"),
        ('{"id": 1, "id": 2}', "a key stands twice"),
        ('{"id": NaN}', "NaN and infinity"),
        ("\xff", "not valid JSON"),
    ],
)
def test_decide_says_in_one_line_why_a_file_is_no_json(fedgen, tmp_path, content, line):
    path = tmp_path / "bad.json"
    path.write_text(content, encoding="utf-8")
    said = fedgen("policy", "decide", path)
    assert said.code == 3
    assert said.out == ""
    assert line in said.err
    assert len(said.err.splitlines()) == 1


def test_decide_needs_its_file_and_a_pack_for_each_law(fedgen, tmp_path, cases):
    assert fedgen("policy", "decide", tmp_path / "none.json").code == 3
    path = cases(case())
    assert fedgen("policy", "decide", path, "--packs", "gdpr,nothing.yaml").code == 3
    assert fedgen("policy", "decide", path, "--packs", "gdpr,gdpr").code == 3
    assert fedgen("policy", "decide", path, "--packs", " , ").code == 2


def test_an_unsigned_pack_denies_everything_and_a_signature_makes_it_count(fedgen, own, cases, tmp_path):
    pack, path = own(version=VERSION), cases(case())
    said = fedgen("policy", "decide", path, "--packs", pack)
    assert said.code == 4
    assert said.document[0]["reason_code"] == "PACK_SIGNATURE_INVALID"
    assert "PACK_SIGNATURE_INVALID" in said.err
    key = signed(fedgen, pack, tmp_path)
    assert fedgen("policy", "decide", path, "--packs", pack).code == 4  # nobody said that this key counts
    said = fedgen("policy", "decide", path, "--packs", pack, "--pack-key", key)
    assert (said.code, said.document[0]["decision"]) == (0, "allow")
    pack.write_text(pack.read_text().replace("own-1", "own-2"))
    assert fedgen("policy", "decide", path, "--packs", pack, "--pack-key", key).code == 4


def test_an_expired_pack_denies_everything(fedgen, own, cases, tmp_path):
    pack = own(version=VERSION, end=("in_force_to: null", "in_force_to: 2099-01-01"))
    key = signed(fedgen, pack, tmp_path)
    late = case(request={"time": "2099-01-02T00:00:00Z"})
    said = fedgen("policy", "decide", cases(late), "--packs", pack, "--pack-key", key)
    assert (said.code, said.document[0]["reason_code"]) == (4, "PACK_EXPIRED")
    assert fedgen("policy", "decide", cases(case()), "--packs", pack, "--pack-key", key).code == 0


# -- lint, show, sign --------------------------------------------------------------------------------------------------


def test_the_shipped_packs_pass_lint_with_warnings_that_name_lines(fedgen):
    said = fedgen("policy", "lint", "gdpr", "ccpa", "baseline", "--json")
    assert (said.code, said.document["ok"]) == (0, True)
    found = [it for pack in said.document["packs"] for it in pack["findings"]]
    assert {it["key"] for it in found} >= {"signed_off_by"}
    assert all(isinstance(it["line"], int) for it in found)


def test_lint_names_the_line_of_each_error_and_ends_with_3(fedgen, own):
    pack = own(twice=("- G-5b  #", "- G-17\n  - G-5b  #"), country=("AT: [{", "XX: [{"))
    said = fedgen("policy", "lint", pack, "gdpr", "--json")
    assert (said.code, said.document["ok"]) == (3, False)
    errors = {it["key"]: it["line"] for it in said.document["packs"][0]["findings"] if it["level"] == "error"}
    lines = pack.read_text().splitlines()
    assert lines[errors["rules.G-17"] - 1].strip() == "- G-17"
    assert errors["child_age.AT"] is not None
    text = fedgen("policy", "lint", pack)
    assert f"{pack}:{errors['rules.G-17']}: error: rules.G-17: stands twice" in text.out
    assert "errors in the packs" in text.err


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version:", "versoin:"),
        ("  - G-5b  #", "  - G-5bb  #"),
        ("in_force_from: 2018-05-25", "in_force_from: once"),
        ("  default:", "  default: ["),
    ],
)
def test_a_file_that_is_no_pack_is_a_finding_and_the_others_are_read(fedgen, own, old, new):
    said = fedgen("policy", "lint", own(change=(old, new)), "ccpa", "--json")
    assert said.code == 3
    first, second = said.document["packs"]
    assert first["errors"] == 1
    assert second["id"] == "ccpa"


def test_lint_of_a_missing_file_is_one_line(fedgen):
    said = fedgen("policy", "lint", "nothing.yaml")
    assert (said.code, len(said.err.splitlines())) == (3, 1)


def test_show_says_who_answers_and_copies(fedgen, tmp_path):
    said = fedgen("policy", "show", "gdpr", "--json").document
    assert said["trusted"] is True
    assert "not legal advice" in said["notice"]
    assert {it["rule"] for it in said["rules"]} >= {"G-17", "G-46"}
    assert "signed off by  nobody" in fedgen("policy", "show", "gdpr").out
    copy = tmp_path / "copy.yaml"
    assert fedgen("policy", "show", "gdpr", "--copy", copy).code == 0
    assert copy.read_bytes() == kit("policies", "gdpr.yaml").read_bytes()
    assert (
        fedgen("policy", "show", copy, "--json").document["trusted"] is True
    )  # byte for byte the shipped one
    assert fedgen("policy", "show", "gdpr", "--copy", copy).code == 3


def test_sign_keeps_its_key_private_and_overwrites_none(fedgen, own, tmp_path):
    pack, key = own(version=VERSION), tmp_path / "pack.key"
    assert fedgen("policy", "sign", pack, "--key", key).code == 3
    said = fedgen("policy", "sign", pack, "--key", key, "--new-key", "--json")
    assert said.code == 0
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    assert before.hex() not in said.out + said.err
    assert fedgen("policy", "sign", pack, "--key", key, "--new-key").code == 3
    assert fedgen("policy", "sign", pack, "--key", key).code == 0
    assert key.read_bytes() == before
    assert fedgen("policy", "show", pack, "--pack-key", said.document["public_key"], "--json").document[
        "trusted"
    ]


def test_a_pack_with_an_error_is_not_signed(fedgen, own, tmp_path):
    pack = own(country=("AT: [{", "XX: [{"))
    said = fedgen("policy", "sign", pack, "--key", tmp_path / "k", "--new-key")
    assert said.code == 3
    assert "missing country" in said.err
    assert not (tmp_path / "k").exists()
    assert not pack.with_name("own.yaml.sig").exists()


# -- explain -----------------------------------------------------------------------------------------------------------


def test_explain_a_case_names_rule_events_and_what_would_change_it(fedgen, cases):
    gone = case(id="gone", consent_events=[consent(), consent("withdrawn", "2026-03-01T08:00:00Z")])
    path = cases(case(id="fine"), gone)
    (found,) = fedgen("policy", "explain", "--cases", path, "--case", "gone", "--json").document["explained"]
    assert (found["reason_code"], found["rule"], found["citation"]) == (
        "CONSENT_WITHDRAWN", "G-7.3a", "GDPR Art. 7(3)",
    )  # fmt: skip
    assert found["remedies"][0] == ["a new consent to train_generator by the person"]
    assert [event["kind"] for event in found["events"]] == ["given", "withdrawn"]
    text = fedgen("policy", "explain", "--cases", path, "--case", "gone").out
    assert "would allow  a new consent to train_generator by the person" in text
    assert "no rule hit" in fedgen("policy", "explain", "--cases", path, "--case", "fine").out


def test_explain_says_what_it_lacks(fedgen, cases, tmp_path):
    path = cases(case(id="a"), case(id="b"), case(id="odd", request={"time": "yesterday"}))
    assert fedgen("policy", "explain").code == 2
    assert fedgen("policy", "explain", "--cases", path).code == 3  # which one?
    assert fedgen("policy", "explain", "--cases", path, "--case", "c").code == 3
    said = fedgen("policy", "explain", "--cases", path, "--case", "odd")
    assert said.code == 3
    assert "time" in said.err
    assert "yesterday" not in said.err
    assert fedgen("policy", "explain", "s-1", "--run", tmp_path).code == 2
    assert fedgen("policy", "explain", "s-1", "--run", tmp_path, "--at-site", "x").code == 3
    assert fedgen("policy", "explain", "s-1", "--store", tmp_path / "no.db", "--purpose", "p").code == 3


# -- diff --------------------------------------------------------------------------------------------------------------


def test_diff_counts_who_would_move_between_codes(fedgen, own, cases):
    pack = own(version=VERSION, notice=STRICTER)
    path = cases(
        case(), case(consent_events=[consent(notice_version=9)]), case(rights_events=[right("objection")]), 7
    )
    said = fedgen("policy", "diff", "gdpr", pack, "--cases", path, "--json").document
    assert (said["rows"], said["changed"], said["denied_more"], said["unread"]) == (3, 2, 2, 1)
    assert said["moves"] == [{"from": "ALLOW", "to": "CONSENT_SUPERSEDED", "rows": 2}]
    assert said["keys"] == ["version", "purposes.train_generator.min_notice_version"]
    text = fedgen("policy", "diff", "gdpr", pack, "--cases", path).out
    assert "ALLOW -> CONSENT_SUPERSEDED" in text


def test_diff_without_rows_names_keys_and_refuses_two_laws(fedgen, own, tmp_path):
    assert fedgen("policy", "diff", "gdpr", own(version=VERSION), "--json").document["keys"] == ["version"]
    assert "no key differs" in fedgen("policy", "diff", "gdpr", "gdpr").out
    said = fedgen("policy", "diff", "gdpr", "ccpa")
    assert (said.code, "two laws" in said.err) == (3, True)
    both = ("--cases", tmp_path / "c.json", "--store", tmp_path / "s.db")
    assert fedgen("policy", "diff", "gdpr", "gdpr", *both).code == 2


# -- over a store ------------------------------------------------------------------------------------------------------

EVENTS = """event_id,subject_id,purpose,action,explicit,notice_version,effective_at
e1,anna,train_generator,given,true,3,2026-01-10T09:00:00+01:00
e2,berta,train_generator,given,true,2,2026-01-10T09:00:00+01:00
"""
RECORDS = """record_id,subject_id,collected_at,legal_basis,retention_rule,collected_for,special_categories
r1,anna,2026-01-01T00:00:00Z,consent,default,[],[]
r2,anna,2020-01-01T00:00:00Z,consent,default,[],[]
r3,berta,2026-01-01T00:00:00Z,consent,default,[],[]
"""
PEOPLE = "subject_id,birth_date,residence,timezone,aliases\nanna,1984-03-09,DE,Europe/Berlin,anni\n"


@pytest.fixture
def store(fedgen, tmp_path, monkeypatch):
    monkeypatch.setenv("FEDGEN_CONSENT_STORE", str(tmp_path / "consent.db"))
    for kind, content in (("events", EVENTS), ("records", RECORDS), ("profiles", PEOPLE)):
        path = tmp_path / f"{kind}.csv"
        path.write_text(content)
        said = fedgen("consent", "import", path, "--kind", kind)
        assert said.code == 0, said.out + said.err
    return tmp_path / "consent.db"


ASK = ("--purpose", "train_generator", "--country", "DE", "--packs", "gdpr", "--json")


def test_explain_a_person_by_the_records_their_store_knows(fedgen, store):
    found = fedgen("policy", "explain", "anna", *ASK).document["explained"]
    assert [(it["record_id"], it["reason_code"]) for it in found] == [
        ("r1", "ALLOW"),
        ("r2", "RETENTION_EXPIRED"),
    ]
    assert [event["event_id"] for event in found[0]["events"]] == ["e1"]  # nobody else's
    (one,) = fedgen("policy", "explain", "anni", "--record", "r1", *ASK).document["explained"]
    assert one["record_id"] == "r1"
    (berta,) = fedgen("policy", "explain", "berta", *ASK).document["explained"]
    assert berta["reason_code"] == "CONSENT_SUPERSEDED"
    assert fedgen("policy", "explain", "carla", *ASK).code == 3
    assert fedgen("policy", "explain", "anna", "--record", "r3", *ASK).code == 3
    assert fedgen("policy", "explain", "anna").code == 2  # for what?
    assert fedgen("policy", "explain", "anna", "--at", "2026-05-04", *ASK).code == 2


def test_explain_as_known_then_does_not_show_what_came_later(fedgen, store):
    then = datetime.now(UTC).isoformat()
    assert fedgen("consent", "withdraw", "anna", "--purpose", "train_generator").code == 0
    now, _ = fedgen("policy", "explain", "anna", *ASK).document["explained"]
    before, _ = fedgen("policy", "explain", "anna", "--at", then, *ASK).document["explained"]
    assert (now["reason_code"], len(now["events"])) == ("CONSENT_WITHDRAWN", 2)
    assert (before["reason_code"], len(before["events"])) == ("ALLOW", 1)
    known, _ = fedgen("policy", "explain", "anna", "--known-at", then, *ASK).document["explained"]
    assert known["reason_code"] == "ALLOW"
    said = fedgen("policy", "explain", "anna", "--at", AT, *ASK)  # before the store knew of any record
    assert (said.code, "no such record" in said.err) == (3, True)


def test_explain_of_somebody_who_was_erased_says_no_more(fedgen, store):
    assert fedgen("erase", "anna", "--store", store).code == 0
    said = fedgen("policy", "explain", "anna", *ASK)
    assert said.code == 3
    assert "erased" in said.err


def test_diff_over_a_store_decides_its_records(fedgen, store, own):
    pack = own(version=VERSION, notice=STRICTER)
    said = fedgen("policy", "diff", "gdpr", pack, "--store", store, "--country", "DE", "--json").document
    assert (said["over"], said["rows"], said["denied_more"]) == ("records", 3, 1)


def test_replay_of_what_is_no_run_is_one_line(fedgen, tmp_path):
    said = fedgen("policy", "replay", tmp_path)
    assert (said.code, len(said.err.splitlines())) == (3, 1)
