"""Decode is the inverse of encode for every message, and never raises anything but IntegrityError."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgen.errors import Code, IntegrityError
from fedgen.messages import (
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
)

hashes = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
names = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)
counts = st.integers(1, 2**40)
buckets = st.integers(0, 10**9).map(bucket)
reasons = st.from_regex(r"[a-z][a-z0-9-]{0,47}", fullmatch=True)

MESSAGES: st.SearchStrategy[Wire] = st.one_of(
    st.builds(
        Join,
        study_hash=hashes,
        study=st.text(max_size=200),
        run=hashes,
        coordinator=hashes,
        sealing_key=st.binary(min_size=1, max_size=40).map(bytes.hex),
    ),
    st.builds(Joined, study_hash=hashes, site=names, accepts=st.booleans(), last_round=st.integers(0, 2**40)),
    st.builds(
        Train, study_hash=hashes, run=hashes, round=counts, attempt=counts, parameters=counts, digest=hashes
    ),
    st.builds(
        Trained,
        study_hash=hashes,
        run=hashes,
        site=names,
        round=counts,
        attempt=counts,
        parameters=counts,
        steps=counts,
        weights=hashes,
        excluded=st.dictionaries(reasons, buckets, max_size=5),
    ),
    st.builds(
        Refusal,
        site=names,
        study_hash=hashes | st.just(""),
        round=st.integers(0, 2**40),
        attempt=st.integers(0, 2**40),
        code=st.sampled_from(Code),
        incident=st.from_regex(r"[0-9a-f]{16}", fullmatch=True),
    ),
    st.builds(
        Settle,
        study_hash=hashes,
        run=hashes,
        outcome=st.sampled_from(["completed", "budget", "quorum", "interrupted"]),
        rounds=st.integers(0, 2**40),
    ),
    st.builds(Settled, study_hash=hashes, site=names),
    st.builds(Confirm, study_hash=hashes, run=hashes, round=counts, attempt=counts),
    st.builds(Confirmed, study_hash=hashes, run=hashes, site=names, round=counts, attempt=counts),
    st.builds(
        Turn, study_hash=hashes, run=hashes, round=counts, attempt=counts, parameters=counts, digest=hashes
    ),
    st.builds(Step, study_hash=hashes, run=hashes, round=counts, attempt=counts),
    st.builds(
        Stepped,
        study_hash=hashes,
        run=hashes,
        site=names,
        round=counts,
        attempt=counts,
        excluded=st.dictionaries(reasons, buckets, max_size=5),
    ),
)


@given(MESSAGES, st.binary(max_size=100))
def test_decode_is_the_inverse_of_encode(message: Wire, body: bytes) -> None:
    frame = encode(message, body)
    again, rest = decode(frame)
    assert type(again) is type(message)
    assert again == message
    assert bytes(rest) == body
    assert encode(again, rest) == frame


@given(MESSAGES, st.binary(max_size=20), st.data())
def test_a_damaged_frame_is_refused_or_is_another_message(message: Wire, body: bytes, data: Any) -> None:
    """Frames carry no checksum: the envelope does. But nothing that decodes is ever ambiguous."""
    frame = bytearray(encode(message, body))
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        again, rest = decode(bytes(frame))
    except IntegrityError as error:
        refused = error.code
    else:
        refused = None
        assert encode(again, rest) == bytes(frame)
    assert refused in {None, Code.MALFORMED, Code.TOO_LARGE}


@given(st.binary(max_size=200))
def test_noise_is_refused(noise: bytes) -> None:
    for frame in (noise, b"FDGN\x01" + noise):
        with pytest.raises(IntegrityError):
            decode(frame)


@given(
    st.sampled_from(Kind),
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists),
)
def test_any_json_that_is_not_the_message_is_refused(kind: Kind, value: Any) -> None:
    header = canonical(value)
    frame = b"FDGN\x01" + bytes((kind,)) + len(header).to_bytes(4, "big") + bytes(8) + header
    with pytest.raises(IntegrityError):
        decode(frame)


@given(st.integers(0, 10**12), st.integers(3, 1000))
def test_a_bucket_holds_its_count_and_at_least_two_others(count: int, floor: int) -> None:
    text = bucket(count, floor=floor)
    if text == "0":
        low, high = 0, 0
    elif text.startswith("<"):
        low, high = 1, int(text[1:]) - 1
    else:
        low, high = map(int, text.split("-"))
    assert low <= count <= high
    assert count == 0 or high > low


@given(st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8), max_size=5))
def test_canonical_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    assert canonical(value) == canonical(dict(reversed(value.items())))
