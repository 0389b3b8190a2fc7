"""The cover of an envelope: one byte form, bounded, and checked against what is expected."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from fedgen.crypto.header import MAX_ENVELOPE_HEADER, Expectation, Header, agree, split
from fedgen.errors import Code, IntegrityError
from fedgen.messages import Join, Kind, Refusal, Settled, Train, Trained, canonical

STUDY, RUN, OTHER = "11" * 32, "22" * 32, "99" * 32
FIELDS: dict[str, Any] = {
    "kind": Kind.TRAIN,
    "study_hash": STUDY,
    "run": RUN,
    "round": 7,
    "attempt": 2,
    "sender": "coordinator",
    "recipient": "*",
}
EXPECTED: dict[str, Any] = {"study_hash": STUDY, "run": RUN, "round": 7, "attempt": 2, "recipient": "site-1"}


def header(**changes: object) -> Header:
    return Header(**{**FIELDS, **changes})


def envelope(**changes: object) -> bytes:
    """The bytes of a header with any JSON in it, and nothing after it."""
    fields = {**header().model_dump(mode="json"), **changes}
    return framed(canonical(fields))


def framed(text: bytes) -> bytes:
    return b"FDGE\x01" + len(text).to_bytes(2, "big") + text


def refusal(data: bytes, **limits: int) -> Code:
    with pytest.raises(IntegrityError) as error:
        split(data, **limits)
    assert "evil" not in str(error.value)
    return error.value.code


def test_split_is_the_inverse_of_encode() -> None:
    whole = header()
    got, head, rest = split(whole.encode() + b"rest")
    assert got == whole
    assert bytes(head) == whole.encode()
    assert bytes(rest) == b"rest"


def test_a_header_is_frozen_and_closed() -> None:
    with pytest.raises(ValidationError):
        header().round = 8  # type: ignore[misc]
    with pytest.raises(ValidationError):
        header(color="red")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("study_hash", "11" * 31),
        ("study_hash", "AA" * 32),
        ("run", "x"),
        ("round", -1),
        ("round", 2**31),
        ("round", "7"),
        ("round", True),
        ("attempt", 1.0),
        ("sender", "*"),
        ("sender", "Site 1"),
        ("sender", "a" * 64),
        ("recipient", ""),
        ("recipient", "**"),
        ("recipient", "site\n"),
        ("key", "abc"),
        ("key", "G" * 16),
        ("chunk", 2**20 + 1),
        ("version", 2),
        ("kind", 99),
        ("body_bytes", -1),
    ],
)
def test_a_field_out_of_its_form_is_refused_here_and_on_the_wire(field: str, value: object) -> None:
    with pytest.raises(ValidationError):
        header(**{field: value})
    assert refusal(envelope(**{field: value})) is Code.MALFORMED


def test_with_body_sets_what_the_envelope_knows() -> None:
    clear = header(body_bytes=5, key="ab" * 8, sealed=True).with_body(body_bytes=9)
    assert (clear.sealed, clear.body_bytes, clear.key) == (False, 9, "")
    sealed = header().with_body(body_bytes=9, key="cd" * 8)
    assert (sealed.sealed, sealed.body_bytes, sealed.key) == (True, 9, "cd" * 8)
    assert sealed.round == 7


@pytest.mark.parametrize("size", [0, 6])
def test_too_short_for_a_header(size: int) -> None:
    assert refusal(header().encode()[:size]) is Code.MALFORMED


def test_another_magic_or_version() -> None:
    assert refusal(b"FDGE\x02" + header().encode()[5:]) is Code.MALFORMED
    assert refusal(b"FDGN\x01" + header().encode()[5:]) is Code.MALFORMED


def test_a_header_over_its_limit_is_never_parsed() -> None:
    assert refusal(framed(b"{" * (MAX_ENVELOPE_HEADER + 1))) is Code.TOO_LARGE
    assert refusal(b"FDGE\x01\xff\xff") is Code.TOO_LARGE


def test_the_largest_honest_header_fits() -> None:
    most = header(
        sender="a" * 63, recipient="b" * 63, schema_digest=OTHER, round=2**31 - 1, attempt=2**31 - 1
    )
    assert len(most.with_body(body_bytes=2**62, key="a" * 16).encode()) < MAX_ENVELOPE_HEADER


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"{" * 1000,
        b"[" * 1000,
        b'{"evil":"\\ud800"}',
        b'{"round":' + b"9" * 1000 + b"}",
        b'{"round":NaN}',
    ],
)
def test_what_is_not_a_header_is_malformed(text: bytes) -> None:
    assert refusal(framed(text)) is Code.MALFORMED


def test_a_header_has_one_byte_form_only() -> None:
    fields = header().model_dump(mode="json")
    plain = canonical(fields)
    assert split(framed(plain))[0] == header()
    for text in (
        json.dumps(fields, sort_keys=True).encode(),
        canonical(dict(reversed(fields.items()))).replace(b'"attempt":2,', b"")[:-1] + b',"attempt":2}',
        b'{"attempt":3,' + plain[1:],
        plain + b" ",
        plain.replace(b'"coordinator"', b'"\\u0063oordinator"'),
        plain.replace(b'"schema_digest":"",', b""),
    ):
        assert text != plain
        assert refusal(framed(text)) is Code.MALFORMED


def test_a_declared_body_over_the_limit() -> None:
    assert refusal(envelope(body_bytes=2**40)) is Code.TOO_LARGE
    assert refusal(envelope(body_bytes=101), max_frame=100) is Code.TOO_LARGE
    assert split(envelope(body_bytes=100), max_frame=100)[0].body_bytes == 100


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"sealed": True}, Code.MALFORMED),
        ({"key": "ab" * 8}, Code.MALFORMED),
        ({"sealed": True, "key": "ab" * 8}, Code.MALFORMED),
        ({"kind": int(Kind.TRAINED)}, Code.BAD_SEAL),
        ({"kind": int(Kind.STEPPED)}, Code.BAD_SEAL),
    ],
)
def test_a_header_that_contradicts_itself(changes: dict[str, object], code: Code) -> None:
    assert refusal(envelope(**changes)) is code


@pytest.mark.parametrize(
    ("expected", "code"),
    [
        ({"study_hash": OTHER}, Code.WRONG_STUDY),
        ({"run": OTHER}, Code.WRONG_STUDY),
        ({"schema_digest": OTHER}, Code.WRONG_STUDY),
        ({"sender": "site-1"}, Code.UNKNOWN_SENDER),
        ({"round": 8}, Code.STALE_ROUND),
        ({"round": 6}, Code.OUT_OF_ORDER),
        ({"attempt": 3}, Code.STALE_ROUND),
        ({"attempt": 1}, Code.OUT_OF_ORDER),
        ({"round": 8, "attempt": 1}, Code.STALE_ROUND),
        ({"kinds": frozenset({Kind.JOIN})}, Code.OUT_OF_ORDER),
    ],
)
def test_what_is_not_expected_has_its_code(expected: dict[str, Any], code: Code) -> None:
    with pytest.raises(IntegrityError) as error:
        Expectation(**{**EXPECTED, **expected}).check(header())
    assert error.value.code is code


def test_what_is_expected_passes_and_none_means_any() -> None:
    Expectation(**EXPECTED).check(header())
    Expectation(**EXPECTED, sender="coordinator", kinds=frozenset({Kind.TRAIN})).check(header())
    Expectation(study_hash=None, run=None, recipient="site-9").check(header())
    Expectation(**EXPECTED, schema_digest=OTHER).check(header(schema_digest=OTHER))


def test_a_broadcast_is_for_everyone_and_a_letter_for_one() -> None:
    Expectation(**EXPECTED).check(header(recipient="site-1"))
    with pytest.raises(IntegrityError) as error:
        Expectation(**EXPECTED).check(header(recipient="site-2"))
    assert error.value.code is Code.WRONG_RECIPIENT


def test_agree_finds_every_contradiction() -> None:
    trained: dict[str, Any] = {
        "study_hash": STUDY,
        "run": RUN,
        "site": "site-1",
        "round": 7,
        "attempt": 2,
        "parameters": 1,
        "steps": 1,
        "weights": STUDY,
        "excluded": {},
    }
    cover = header(kind=Kind.TRAINED, sender="site-1", recipient="coordinator")
    agree(cover, Trained(**trained))
    for field, value in (
        ("study_hash", OTHER),
        ("run", OTHER),
        ("site", "site-2"),
        ("round", 8),
        ("attempt", 1),
    ):
        with pytest.raises(IntegrityError) as error:
            agree(cover, Trained(**{**trained, field: value}))
        assert error.value.code is Code.OUT_OF_ORDER


def test_agree_leaves_alone_what_a_message_does_not_say() -> None:
    agree(header(kind=Kind.SETTLED, sender="site-1"), Settled(study_hash=STUDY, site="site-1"))
    agree(header(), Train(study_hash=STUDY, run=RUN, round=7, attempt=2, parameters=1, digest=OTHER))
    agree(
        header(kind=Kind.JOIN, round=0, attempt=0),
        Join(study_hash=STUDY, study="{}", run=RUN, coordinator=OTHER, sealing_key="00"),
    )
    with pytest.raises(IntegrityError, match="contradicts"):
        agree(header(kind=Kind.SETTLED, sender="site-1"), refusal_message())


def refusal_message() -> Refusal:
    return Refusal(site="site-1", study_hash=STUDY, round=7, attempt=2, code=Code.FAULT, incident="0" * 16)
