"""Whatever JSON a case holds: one answer, no crash, and no permission for what was not understood."""

from __future__ import annotations

import contextlib
import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgen.api.policies import decide_file
from fedgen.errors import ConfigError
from fedgen.policy.cases import decide_cases
from fedgen.policy.codes import CODES
from fedgen.policy.packs import load_packs
from tests.support.policy_cases import artefact, case, consent, right

PACKS = load_packs(["gdpr", "ccpa"])
EXAMPLES = settings(max_examples=150, deadline=None)

TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "\0", "\ud800", "null", "s-1\0", "a" * 100_000, "2026-05-04"]),
    st.sampled_from(["9999-12-31T23:59:59.999999-23:59", "0001-01-01T00:00:00+23:59", "2016-12-31T23:59:60Z"]),
)  # fmt: skip
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), TEXTS)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=8,
)


def deep(levels):
    nested = []
    for _ in range(levels):
        nested = [nested]
    return nested


RECORD = case(
    ["gdpr", "ccpa"],
    consent_events=[consent(explicit=True)],
    rights_events=[
        right("opt_in_sale_share", given_by="subject", after_conflict_notice=True),
        right("objection_rejected"),
    ],
    record={
        "special_categories": ["health"], "art9_condition": "9(2)(j)", "sensitive_pi": True,
        "deidentified": {"reasonable_measures": False, "public_commitment": True, "contractual_no_reid": True},
    },
    request={
        "is_sale_or_share": True, "information_society_service": True, "significant_decision": True,
        "as_known_at": "2026-05-04T11:00:00+02:00",
        "destination": {"country": "US", "recipient": "processor", "safeguards": ["scc"], "dpf_certified": True},
    },
    subject_index=[{"subject_id": "s-1", "birth_date": "1984-03-09"}],
)  # fmt: skip
ARTEFACT = case(["gdpr", "ccpa"], request={"operation": "release"}) | {
    "record": artefact(lineage_revoked_records=2)
}
FREE = {"id", "event_id", "round", "method"}  # for people to read: nothing is decided by them
EITHER = {
    "law": (str, list), "subject_index": (list, dict), "lineage_revoked_records": (int, list)
}  # fmt: skip


def paths(value, path=()):
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, held in inner:
        yield from paths(held, (*path, key))


def laid(base, path, value):
    result = copy.deepcopy(base)
    place = result
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return result


def looks_right(answer):
    assert set(answer) == {"id", "decision", "reason_code", "also", "citation"}
    assert answer["decision"] in {"allow", "deny", "erase", "quarantine"}
    assert {answer["reason_code"], *answer["also"]} <= {str(code) for code in CODES}
    json.dumps(answer, ensure_ascii=False, allow_nan=False).encode()


def never_permits(base, path, value):
    """Check that a value of another kind than the field's own is answered, and not with a permission."""
    own, name = base, path[-1]
    for step in path:
        own = own[step]
    [answer] = decide_cases(laid(base, path, value), PACKS)
    looks_right(answer)
    kinds = EITHER.get(name, (str if own is None else type(own),))
    if type(value) not in kinds and value is not None and name not in FREE:
        assert answer["decision"] != "allow", (path, value)


PLACES = [(base, path) for base in (RECORD, ARTEFACT) for path in paths(base)]


def test_the_two_cases_are_allowed_as_they_stand():
    for base in (RECORD, ARTEFACT):
        [answer] = decide_cases(base, PACKS)
        assert (answer["decision"], answer["also"]) == ("allow", [])


@EXAMPLES
@given(st.sampled_from(PLACES), JSON)
def test_a_value_of_another_kind_never_permits(place, value):
    never_permits(*place, value)


def test_every_kind_in_every_place_never_permits():
    for base, path in PLACES:
        for value in (True, 7, 0.5, float("nan"), "x", [{}], [["\ud800"]], {"a": []}):
            never_permits(base, path, value)


BARE = RECORD | {
    "consent_events": [consent()],
    "record": RECORD["record"] | {"special_categories": [], "art9_condition": None},
    "subject_index": [],
}
OPERANDS = [
    ("law",), ("subject", "subject_id"), ("subject", "birth_date"), ("subject", "residence"), ("subject", "timezone"),
    ("consent_events",), ("consent_events", 0, "purpose"), ("consent_events", 0, "action"),
    ("consent_events", 0, "notice_version"), ("consent_events", 0, "effective_at"),
    ("consent_events", 0, "recorded_at"),
    ("rights_events", 0, "subject_id"), ("rights_events", 0, "type"), ("rights_events", 0, "effective_at"),
    ("rights_events", 0, "recorded_at"), ("record",), ("record", "subject_id"), ("record", "type"),
    ("record", "collected_at"), ("record", "retention_rule"), ("record", "legal_basis"), ("record", "categories"),
    ("record", "special_categories"), ("request",), ("request", "purpose"), ("request", "operation"),
    ("request", "time"), ("request", "destination"), ("request", "destination", "country"),
]  # fmt: skip


@pytest.mark.parametrize("path", OPERANDS, ids=lambda path: ".".join(map(str, path)))
def test_a_null_operand_never_permits(path):
    [allowed, answer] = decide_cases([BARE, laid(BARE, path, None)], PACKS)
    assert allowed["decision"] == "allow"
    assert answer["decision"] != "allow"


@EXAMPLES
@given(JSON)
def test_any_json_at_all_is_answered_and_never_permitted(value):
    answers = decide_cases(value, PACKS)
    assert len(answers) == (len(value) if isinstance(value, list) else 1)
    for answer in answers:
        looks_right(answer)
        assert answer["decision"] != "allow"


@pytest.mark.parametrize("levels", [100, 3000])
def test_deep_nesting_is_answered(levels):
    for base, path in PLACES:
        [answer] = decide_cases(laid(base, path, deep(levels)), PACKS)
        looks_right(answer)


@settings(max_examples=40, deadline=None)
@given(st.one_of(st.binary(max_size=200), JSON.map(lambda value: json.dumps(value).encode())))
def test_any_file_is_answered_or_refused(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "cases.json"
    file.write_bytes(content)
    with contextlib.suppress(ConfigError):
        for answer in decide_file(file):
            looks_right(answer)


@pytest.mark.parametrize(
    "line", ['{"id": 1, "id": 2}', '[{"id": NaN}]', "[" * 100_000, '{"id": ' + "9" * 5000 + "}"]
)
def test_a_file_that_says_two_things_or_none_is_refused(tmp_path, line):
    file = tmp_path / "cases.json"
    file.write_text(line)
    with pytest.raises(ConfigError):
        decide_file(file)
