"""Open is the inverse of sign and seal, keys of load and save, for anything they are given."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fedgen import messages
from fedgen.crypto import chunks
from fedgen.crypto.digest import same_digest, sha256_hex
from fedgen.crypto.envelope import Expectation, Header, ReplayGuard, open_frame, peek, seal_frame, sign_frame
from fedgen.crypto.header import MUST_SEAL, split
from fedgen.crypto.keys import SealingKey, SigningKey, seal
from fedgen.crypto.stream import KeyStream
from fedgen.errors import IntegrityError
from fedgen.messages import Kind

SIGNER, SEALER = SigningKey.generate(), SealingKey.generate()
hashes = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
names = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)
any_kind = st.sampled_from(Kind)
numbers = st.integers(0, 2**31 - 1)


@st.composite
def headers(draw: Any, kinds: Any = any_kind, *, broadcast: bool = True) -> Header:
    return Header(
        kind=draw(kinds),
        study_hash=draw(hashes | st.just("")),
        run=draw(hashes | st.just("")),
        round=draw(numbers),
        attempt=draw(numbers),
        sender=draw(names),
        recipient=draw(names | st.just("*") if broadcast else names),
        schema_digest=draw(hashes | st.just("")),
    )


def frame(header: Header, rest: bytes) -> bytes:
    """Bytes that begin as a frame of the header's kind; the envelope looks no further."""
    return messages.MAGIC + bytes((header.kind,)) + rest


def expected(header: Header) -> Expectation:
    return Expectation(
        study_hash=header.study_hash,
        run=header.run,
        round=header.round,
        attempt=header.attempt,
        sender=header.sender,
        recipient=header.recipient,
        schema_digest=header.schema_digest,
        kinds=frozenset({header.kind}),
    )


@given(headers(), st.integers(0, 2**31), st.sampled_from(["", "ab" * 8]))
def test_split_is_the_inverse_of_encode(header: Header, size: int, key: str) -> None:
    recipient = "site-1" if header.recipient == "*" else header.recipient
    whole = header.model_copy(update={"recipient": recipient}).with_body(body_bytes=size, key=key)
    if whole.kind in MUST_SEAL and not key:
        whole = whole.with_body(body_bytes=size, key="cd" * 8)
    got, head, rest = split(whole.encode() + b"x", max_frame=2**31)
    assert (got, bytes(head), bytes(rest)) == (whole, whole.encode(), b"x")


@given(headers(st.sampled_from([k for k in Kind if k not in MUST_SEAL])), st.binary(max_size=300))
def test_open_is_the_inverse_of_sign(header: Header, rest: bytes) -> None:
    data = sign_frame(frame(header, rest), header, SIGNER)
    got, inside = open_frame(data, verify_key=SIGNER.verify_key, sealing_key=None, expect=expected(header))
    assert inside == frame(header, rest)
    assert got == header.with_body(body_bytes=len(inside)) == peek(data)
    assert sign_frame(frame(header, rest), header, SIGNER) == data


@given(headers(broadcast=False), st.binary(max_size=300))
def test_open_is_the_inverse_of_seal(header: Header, rest: bytes) -> None:
    data = seal_frame(frame(header, rest), header, SIGNER, SEALER.public)
    got, inside = open_frame(data, verify_key=SIGNER.verify_key, sealing_key=SEALER, expect=expected(header))
    assert inside == frame(header, rest)
    assert got == header.with_body(body_bytes=len(inside), key=SEALER.fingerprint[:16])


@given(st.binary(max_size=200), st.integers(1, 40), st.binary(min_size=32, max_size=32))
def test_decrypt_is_the_inverse_of_encrypt(body: bytes, chunk: int, key: bytes) -> None:
    sealed = bytearray(chunks.sealed_size(len(body), chunk=chunk))
    chunks.encrypt_into(key, bytes(7), memoryview(body), memoryview(sealed), chunk=chunk)
    clear = bytearray(len(body))
    chunks.decrypt_into(key, bytes(7), memoryview(sealed), memoryview(clear), chunk=chunk)
    assert clear == body


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_unseal_is_the_inverse_of_seal(secret: bytes, info: bytes) -> None:
    assert SEALER.unseal(seal(SEALER.public, secret, info=info), info=info) == secret


@given(st.sampled_from(["a", "a/b", "round-1"]), st.binary(max_size=200))
def test_verify_accepts_what_sign_made(label: str, data: bytes) -> None:
    SIGNER.verify_key.verify(label, data, SIGNER.sign(label, data))


@settings(max_examples=20)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=96, max_size=96))
def test_load_is_the_inverse_of_save(signing: bytes, sealing: bytes) -> None:
    for key in (SigningKey._from_secret(signing), SealingKey._from_secret(sealing)):
        with tempfile.TemporaryDirectory() as folder:
            key.save(Path(folder) / "key")
            again = type(key).load(Path(folder) / "key")
        assert (again.public, again.fingerprint, again._secret) == (key.public, key.fingerprint, key._secret)


@given(st.lists(st.integers(0, 5000), max_size=12), st.integers(0, 2**256 - 1))
def test_a_stream_does_not_depend_on_how_it_is_cut(sizes: list[int], seed: int) -> None:
    cut, whole = KeyStream.insecure(seed), KeyStream.insecure(seed)
    assert b"".join(cut.bytes(size) for size in sizes) == whole.bytes(sum(sizes))


@given(st.binary(max_size=64), st.binary(max_size=64))
def test_digests_are_equal_when_the_bytes_are(one: bytes, other: bytes) -> None:
    assert same_digest(sha256_hex(one), sha256_hex(other)) is (one == other)


places = st.tuples(st.integers(0, 4), st.integers(0, 2), st.sampled_from(["a", "b"]), st.sampled_from([3, 5]))


@given(st.lists(places, max_size=40))
def test_the_guard_accepts_each_message_at_most_once_and_in_order(
    sent: list[tuple[int, int, str, int]],
) -> None:
    guard = ReplayGuard()
    accepted: list[tuple[int, int, str, int]] = []
    for round_, attempt, sender, kind in sent:
        header = Header(
            kind=Kind(kind),
            study_hash="",
            run="",
            round=round_,
            attempt=attempt,
            sender=sender,
            recipient="c",
        )
        try:
            guard.accept(header)
        except IntegrityError:
            continue
        accepted.append((round_, attempt, sender, kind))
    assert len(set(accepted)) == len(accepted)
    for lane in {place[2:] for place in accepted}:
        order = [place[:2] for place in accepted if place[2:] == lane]
        assert order == sorted(order)
    firsts = {place[2:] for place in sent}
    assert {place[2:] for place in accepted} == firsts
