"""Messages: closed, marked, bounded, and one byte form for each."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any, get_args

import numpy as np
import pytest
from pydantic import ValidationError

from fedgen import messages
from fedgen.errors import Code, IntegrityError
from fedgen.messages import (
    MAX_BODY,
    MAX_HEADER,
    Confirm,
    Confirmed,
    Join,
    Joined,
    Kind,
    Refusal,
    Settle,
    Settled,
    Step,
    Stepped,
    Train,
    Trained,
    Turn,
    Wire,
    bucket,
    canonical,
    decode,
    encode,
    expect,
)

HASH, RUN = "11" * 32, "22" * 32
REPLIES = (Joined, Trained, Refusal, Settled, Confirmed, Stepped)
FIXED = struct.Struct(">5sBIQ")
TRAIN = Train(study_hash=HASH, run=RUN, round=1, attempt=1, parameters=2, digest=HASH)
TRAINED: dict[str, Any] = {
    "study_hash": HASH,
    "run": RUN,
    "site": "site-1",
    "round": 1,
    "attempt": 1,
    "parameters": 2,
    "steps": 1,
    "weights": HASH,
    "excluded": {"consent-withdrawn": "<10"},
}


def code(frame: bytes, **limits: int) -> Code:
    with pytest.raises(IntegrityError) as error:
        decode(frame, **limits)
    assert "evil" not in str(error.value)
    return error.value.code


def framed(kind: int, header: bytes, body: bytes = b"") -> bytes:
    return FIXED.pack(b"FDGN\x01", kind, len(header), len(body)) + header + body


# What a reply may reveal.


@pytest.mark.parametrize("reply", REPLIES)
def test_every_field_of_a_reply_says_what_it_reveals(reply: type[Wire]) -> None:
    for name, field in reply.model_fields.items():
        extra = field.json_schema_extra
        assert isinstance(extra, dict), f"{reply.__name__}.{name} has no mark"
        assert extra["reveals"] in {"public", "noised", "verdict"}, f"{reply.__name__}.{name}"


def test_a_field_without_a_mark_would_be_found() -> None:
    class Leaky(Joined):
        rows: int

    assert not isinstance(Leaky.model_fields["rows"].json_schema_extra, dict)


def test_the_kinds_are_closed_and_each_has_one_message() -> None:
    assert set(messages._KINDS) == set(Kind) == set(range(1, 13))
    assert all(message.kind == kind for kind, message in messages._KINDS.items())
    assert {message for message in messages._KINDS.values() if message not in REPLIES} == {
        Join,
        Train,
        Settle,
        Confirm,
        Turn,
        Step,
    }


@pytest.mark.parametrize("field", ["rows", "loss", "text"])
def test_a_reply_has_no_room_for_more(field: str) -> None:
    with pytest.raises(ValidationError):
        Trained(**TRAINED, **{field: 1})
    assert code(framed(4, canonical({**TRAINED, field: 1}))) is Code.MALFORMED


@pytest.mark.parametrize(
    "excluded",
    [
        {"Ada Lovelace": "<10"},
        {"": "<10"},
        {"a" * 49: "<10"},
        {"reason": "17"},
        {"reason": "<10 Ada"},
        {"reason": "1_0-20"},
        {"reason": "\u0661-\u0669"},
        {"reason": 3},
        {"reason": "1" * 12 + "-" + "9" * 12},
        {f"reason-{i}": "0" for i in range(65)},
    ],
)
def test_exclusions_leave_as_slugs_and_buckets_only(excluded: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Trained(**{**TRAINED, "excluded": excluded})


def test_a_refusal_carries_a_code_and_a_number_and_no_words() -> None:
    honest: dict[str, Any] = {
        "site": "site-1",
        "study_hash": "",
        "round": 0,
        "attempt": 0,
        "code": Code.FAULT,
        "incident": "0123456789abcdef",
    }
    assert expect(decode(encode(Refusal(**honest)))[0], Refusal).code is Code.FAULT
    for change in (
        {"code": "evil words"},
        {"incident": "evil"},
        {"site": "evil words"},
        {"study_hash": "evil"},
    ):
        assert code(framed(5, canonical({**honest, **change}))) is Code.MALFORMED


# Buckets.


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0"),
        (1, "<10"),
        (9, "<10"),
        (10, "10-99"),
        (99, "10-99"),
        (100, "100-999"),
        (999, "100-999"),
        (1000, "1000-9999"),
        (10**9, "1000000000-9999999999"),
    ],
)
def test_bucket_at_its_boundaries(count: int, expected: str) -> None:
    assert bucket(count) == expected
    Trained(**{**TRAINED, "excluded": {"reason": expected}})


@pytest.mark.parametrize(
    ("count", "floor", "expected"),
    [
        (4, 5, "<5"),
        (5, 5, "5-49"),
        (49, 5, "5-49"),
        (50, 5, "50-499"),
        (2, 3, "<3"),
        (3, 3, "3-29"),
        (0, 3, "0"),
    ],
)
def test_bucket_with_another_floor(count: int, floor: int, expected: str) -> None:
    assert bucket(count, floor=floor) == expected


@pytest.mark.parametrize(("count", "floor"), [(-1, 10), (5, 2), (5, 1), (5, 0), (5, -3)])
def test_bucket_refuses_what_would_name_a_count(count: int, floor: int) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        bucket(count, floor=floor)


# The byte form.


def test_a_frame_is_what_the_spec_says() -> None:
    header = canonical(TRAIN.model_dump(mode="json"))
    assert encode(TRAIN, b"body") == framed(3, header, b"body")
    message, body = decode(framed(3, header, b"body"))
    assert message == TRAIN
    assert bytes(body) == b"body"


def test_the_body_is_a_view_not_a_copy() -> None:
    frame = encode(TRAIN, bytes(1000))
    body = decode(frame)[1]
    assert np.shares_memory(np.frombuffer(body, np.uint8), np.frombuffer(frame, np.uint8))


def test_a_body_of_floats_counts_its_bytes() -> None:
    vector = np.array([1.0, -2.0], dtype="<f4")
    assert encode(TRAIN, memoryview(vector)) == encode(TRAIN, vector.tobytes())
    assert bytes(decode(memoryview(np.frombuffer(encode(TRAIN, b"1234"), np.uint8)))[1]) == b"1234"


@pytest.mark.parametrize("size", [0, 1, 17])
def test_too_short_for_a_frame(size: int) -> None:
    assert code(encode(TRAIN)[:size]) is Code.MALFORMED


def test_another_magic_version_or_kind() -> None:
    frame = encode(TRAIN)
    for wrong in (b"FDGN\x02" + frame[5:], b"FDGE\x01" + frame[5:], frame[:5] + b"\0" + frame[6:]):
        assert code(wrong) is Code.MALFORMED
    assert code(frame[:5] + b"\x08" + frame[6:]) is Code.MALFORMED


def test_every_truncation_and_extension_is_malformed() -> None:
    frame = encode(TRAIN, b"body")
    assert {code(frame[:size]) for size in range(len(frame))} == {Code.MALFORMED}
    assert code(frame + b"\0") is Code.MALFORMED
    assert code(frame + frame) is Code.MALFORMED


def test_a_header_of_another_kind_does_not_fit() -> None:
    frame = encode(TRAIN)
    assert set(Turn.model_fields) == set(Train.model_fields), (
        "told apart by their kind alone, which is signed"
    )
    for kind in set(Kind) - {Kind.TRAIN, Kind.TURN}:
        assert code(frame[:5] + bytes((kind,)) + frame[6:]) is Code.MALFORMED


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"null",
        b"{}",
        b"\xff",
        b"[" * 5000,
        b'{"evil":' * 5000,
        b'{"round":1e999}',
        b'{"evil":"\\ud800"}',
    ],
)
def test_what_is_not_a_header_is_malformed(header: bytes) -> None:
    assert code(framed(3, header)) is Code.MALFORMED


def test_a_message_has_one_frame_only() -> None:
    header = canonical(TRAIN.model_dump(mode="json"))
    for other in (
        header + b" ",
        b'{"attempt":9,' + header[1:],
        header.replace(b"1", b"1 ", 1),
        b" " + header,
    ):
        assert code(framed(3, other)) is Code.MALFORMED


@pytest.mark.parametrize(
    ("field", "value"),
    [("round", 0), ("round", "1"), ("round", 1.0), ("round", True), ("parameters", 0), ("run", "x")],
)
def test_a_field_out_of_its_form_is_malformed(field: str, value: object) -> None:
    assert code(framed(3, canonical({**TRAIN.model_dump(mode="json"), field: value}))) is Code.MALFORMED


# Hostile lengths.


@pytest.mark.parametrize(
    ("header", "body"),
    [(MAX_HEADER + 1, 0), (2**32 - 1, 0), (0, MAX_BODY + 1), (0, 2**64 - 1), (2**32 - 1, 2**64 - 1)],
)
def test_a_hostile_length_allocates_nothing(header: int, body: int) -> None:
    frame = FIXED.pack(b"FDGN\x01", Kind.TRAIN, header, body) + b"{}"
    tracemalloc.start()
    try:
        assert code(frame) is Code.TOO_LARGE
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


def test_a_length_within_limits_that_is_not_there_allocates_nothing() -> None:
    frame = FIXED.pack(b"FDGN\x01", Kind.TRAIN, MAX_HEADER, MAX_BODY) + b"{}"
    tracemalloc.start()
    try:
        assert code(frame) is Code.MALFORMED
        assert tracemalloc.get_traced_memory()[1] < 50_000
    finally:
        tracemalloc.stop()


def test_the_receiver_sets_the_limit_of_a_body() -> None:
    frame = encode(TRAIN, bytes(100))
    assert len(decode(frame, max_body=100)[1]) == 100
    assert code(frame, max_body=99) is Code.TOO_LARGE


def test_encode_has_the_limits_of_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_BODY", 8)
    assert len(decode(encode(TRAIN, bytes(8)))[1]) == 8
    with pytest.raises(IntegrityError) as error:
        encode(TRAIN, memoryview(np.zeros(3, np.float32)))
    assert error.value.code is Code.TOO_LARGE
    monkeypatch.setattr(messages, "MAX_HEADER", 10)
    with pytest.raises(IntegrityError) as error:
        encode(TRAIN)
    assert error.value.code is Code.TOO_LARGE


# Small things.


def test_a_message_is_frozen_and_strict() -> None:
    with pytest.raises(ValidationError):
        TRAIN.round = 2  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Train(**{**TRAIN.model_dump(), "round": "1"})


def test_expect_returns_the_message_or_says_out_of_order() -> None:
    assert expect(TRAIN, Train) is TRAIN
    with pytest.raises(IntegrityError) as error:
        expect(TRAIN, Join)
    assert error.value.code is Code.OUT_OF_ORDER


def test_canonical_is_sorted_tight_utf8_and_finite() -> None:
    assert canonical({"b": [1, True, None], "a": "é"}) == '{"a":"é","b":[1,true,null]}'.encode()
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON compliant"):
            canonical({"x": value})


def test_outcomes_of_a_study_are_closed() -> None:
    assert set(get_args(Settle.model_fields["outcome"].annotation)) == {
        "completed",
        "budget",
        "quorum",
        "interrupted",
    }
