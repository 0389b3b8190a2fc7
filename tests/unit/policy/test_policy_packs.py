"""Packs: who answers for them, strict reading, the schema, lint and diff."""

from __future__ import annotations

from datetime import date

import pytest

from fedgen._resources import kit
from fedgen.crypto.keys import SigningKey
from fedgen.errors import ConfigError
from fedgen.policy.cases import decide_cases
from fedgen.policy.engine import SystemState, rules_of
from fedgen.policy.pack import json_schema
from fedgen.policy.pack_diff import diff
from fedgen.policy.pack_lint import lint
from fedgen.policy.packs import SHIPPED, load_pack, load_packs, sign_pack, signature_path
from fedgen.policy.registry import RULES
from fedgen.policy.standing import stand
from tests.support.policy_cases import AT, case
from tests.support.policy_worlds import World

TODAY = date(2026, 11, 21)


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_bytes(kit("policies", "gdpr.yaml").read_bytes())
    return path


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def reason(loaded, state=None, **changes):
    [got] = decide_cases([case(**changes)], {"gdpr": loaded}, state)
    return got["reason_code"]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_pack_is_believed_by_its_digest_and_says_what_it_is_not(name):
    loaded = load_pack(name)
    assert loaded.trusted
    assert "not legal advice" in loaded.pack.notice
    assert loaded.pack.signed_off_by is None
    assert not [finding for finding in lint(loaded.pack, TODAY) if finding.level == "error"]
    assert {rule.id for rule in rules_of(loaded.pack)} == {
        rule.id for rule in RULES.values() if rule.law == name
    }


def test_an_edited_copy_is_not_believed_and_denies_everything(own):
    assert load_pack(own).trusted  # the same bytes have the same digest, wherever they lie
    edit(own, "min_notice_version: 3", "min_notice_version: 1")
    loaded = load_pack(own)
    assert not loaded.trusted
    assert reason(loaded) == "PACK_SIGNATURE_INVALID"


def test_a_signature_is_believed_from_known_keys_over_these_bytes_only(own):
    key, other = SigningKey.generate(), SigningKey.generate()
    edit(own, "min_notice_version: 3", "min_notice_version: 1")
    signature = sign_pack(own, key)
    assert signature == signature_path(own)
    assert load_pack(own, [other.verify_key, key.verify_key]).signer == key.fingerprint
    assert not load_pack(own, [other.verify_key]).trusted
    assert reason(load_pack(own, [key.verify_key])) == "ALLOW"
    edit(own, "min_notice_version: 1", "min_notice_version: 2")
    assert not load_pack(own, [key.verify_key]).trusted


@pytest.mark.parametrize("content", [b"", b"not base64!", b"AAAA\n"])
def test_a_damaged_signature_is_none(own, content):
    edit(own, "min_notice_version: 3", "min_notice_version: 1")
    signature_path(own).write_bytes(content)
    assert not load_pack(own, [SigningKey.generate().verify_key]).trusted


def signed(path):
    key = SigningKey.generate()
    sign_pack(path, key)
    return load_pack(path, [key.verify_key])


def test_a_pack_past_its_time_denies_and_before_it_there_is_none(own):
    edit(own, "in_force_to: null", "in_force_to: 2026-05-04")
    assert reason(signed(own)) == "PACK_EXPIRED"
    edit(own, "in_force_to: 2026-05-04", "in_force_to: 2026-05-05")
    assert reason(signed(own)) == "ALLOW"
    edit(own, "in_force_from: 2018-05-25", "in_force_from: 2026-05-05")
    assert reason(signed(own)) == "NO_APPLICABLE_PACK"


NOW = 1_777_885_200_000_000  # AT


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (SystemState(store_synced_at=NOW - 900_000_000), "ALLOW"),
        (SystemState(store_synced_at=NOW - 900_000_001), "CONSENT_STORE_STALE"),
        (SystemState(store_synced_at=NOW + 301_000_000), "CLOCK_UNTRUSTED"),
        (SystemState(store_head=7, store_head_seen=7), "ALLOW"),
        (SystemState(store_head=6, store_head_seen=7), "STORE_ROLLBACK"),
        (SystemState(clock_error=7200.0), "CLOCK_UNTRUSTED"),
        (SystemState(clock_error=float("nan")), "CLOCK_UNTRUSTED"),
    ],
)
def test_without_sound_footing_everything_is_denied(state, code):
    assert AT == "2026-05-04T11:00:00+02:00"
    assert reason(load_pack("gdpr"), state) == code


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("cohort_floor: 100", "cohort_flor: 100", "cohort_flor"),
        ("cohort_floor: 100", "cohort_floor: 0", "cohort_floor"),
        ("period: P2Y", "period: 2 years", "retention_rules.default.period"),
        ("tz: Europe/Brussels", "tz: Europe/Atlantis", "tz"),
        ("  - G-21m", "  - G-99", "rules"),
        ("age: 14", "age: 12", "child_age.AT.0.age"),
    ],
)
def test_a_pack_is_read_strictly(own, old, new, key):
    edit(own, old, new)
    with pytest.raises(ConfigError) as caught:
        load_pack(own)
    assert caught.value.key == key
    assert caught.value.where == str(own)


def test_no_such_pack_and_two_for_one_law(own):
    with pytest.raises(ConfigError, match="no such pack"):
        load_pack("hipaa.yaml")
    with pytest.raises(ConfigError, match="two packs for the law gdpr"):
        load_packs(["gdpr", own])


def test_the_json_schema_is_up_to_date():
    assert kit("policies", "pack.schema.json").read_text(encoding="utf-8") == json_schema()


@pytest.mark.parametrize(
    ("change", "level", "what"),
    [
        ({"rules": ("G-21m",)}, "warning", "unreachable"),
        ({"rules": ("C-120",)}, "error", "is a rule of ccpa"),
        ({"eea": ("DE", "XX"), "child_age": {}}, "error", "missing country"),
        ({"in_force_to": date(2026, 1, 1)}, "error", "is over"),
        ({"grant_channels": ({"channel": "web"},)}, "error", "no withdrawal channel"),
        ({"grant_channels": ()}, "error", "there is none"),
        (
            {"adequacy": ({"country": "GB", "from": "2021-06-28", "until": "2025-06-27"},)},
            "warning",
            "expired row",
        ),
        (
            {"adequacy": ({"country": "GB", "from": "2021-06-28"}, {"country": "GB", "from": "2025-06-28"})},
            "error",
            "two rows for GB",
        ),
        ({"adequacy": ({"country": "DE", "from": "2021-06-28"},)}, "warning", "the country is in eea"),
        ({"notice": "Rely on it."}, "error", "not legal advice"),
        ({"sources": ()}, "warning", "names no source"),
        ({"retention_rules": {}}, "error", "every record is malformed"),
    ],
)
def test_lint(change, level, what):
    pack = load_pack("gdpr").pack
    values = pack.model_dump(by_alias=True) | change
    findings = lint(type(pack).model_validate(values), TODAY)
    assert any(finding.level == level and what in finding.what for finding in findings)


def test_diff_says_how_many_rows_and_which_keys(own):
    edit(own, "min_notice_version: 3", "min_notice_version: 4")
    old, new = load_pack("gdpr"), load_pack(own)
    world = World(5, 300)
    world.request |= {"operation": "train", "purpose": "train_generator", "destination": {"country": "DE"}}
    before, after = world.decide({"gdpr": old}), world.decide({"gdpr": signed(own)})
    records, consent, rights, subjects, request = world.columns()
    standing = stand(records.people, consent, rights, subjects, request)
    found = diff(old, new, records, standing, request)
    assert found.keys == ("purposes.train_generator.min_notice_version",)
    assert found.changed == int((before.code != after.code).sum()) > 0
    assert sum(found.moves.values()) == found.changed
    assert found.denied_more == int((before.permitted & ~after.permitted).sum())
    assert found.to_json()["rows"] == 300
    assert diff(old, old, records, standing, request).changed == 0
