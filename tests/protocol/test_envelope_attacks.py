"""A hostile network, a hostile site and a hostile stranger against the envelope.

Two attackers: one without keys, who alters, cuts, swaps and repeats what was sent; and one with a key of his
own in the roster, who signs what he likes. Each attack ends in one code, and in no other exception.
"""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgen import messages
from fedgen.crypto import chunks, envelope, keys
from fedgen.crypto.derive import domain
from fedgen.crypto.envelope import Expectation, Header, ReplayGuard, open_frame, peek, seal_frame, sign_frame
from fedgen.crypto.keys import SealingKey, SigningKey, VerifyKey
from fedgen.errors import Code, IntegrityError
from fedgen.messages import Kind, canonical

STUDY, RUN, OTHER = "11" * 32, "22" * 32, "99" * 32
SITE, COORDINATOR, STRANGER = SigningKey.generate(), SigningKey.generate(), SigningKey.generate()
SEALER, OTHER_SEALER = SealingKey.generate(), SealingKey.generate()
ROSTER = {"site-1": SITE.verify_key, "coordinator": COORDINATOR.verify_key}
BASE: dict[str, Any] = {"study_hash": STUDY, "run": RUN, "round": 7, "attempt": 2}
HERE = Expectation(**BASE, recipient="coordinator", sender="site-1", kinds=frozenset({Kind.TRAINED}))
THERE = Expectation(**BASE, recipient="site-1", sender="coordinator", kinds=frozenset({Kind.TRAIN}))


def update(body: bytes = b"weights-", **changes: Any) -> bytes:
    message = messages.Trained(**BASE, site="site-1", parameters=2, steps=1, weights=OTHER, excluded={})
    fields = {"kind": Kind.TRAINED, **BASE, "sender": "site-1", "recipient": "coordinator", **changes}
    return seal_frame(messages.encode(message, body), Header(**fields), SITE, SEALER.public)


def broadcast(body: bytes = b"weights-", **changes: Any) -> bytes:
    message = messages.Train(**BASE, parameters=2, digest=OTHER)
    fields = {"kind": Kind.TRAIN, **BASE, "sender": "coordinator", "recipient": "*", **changes}
    return sign_frame(messages.encode(message, body), Header(**fields), COORDINATOR)


def open_update(
    data: bytes, *, expect: Expectation = HERE, key: SealingKey | None = SEALER, max_frame: int = 2**20
) -> tuple[Header, memoryview]:
    """What a coordinator does with what came in."""
    sender = peek(data, max_frame=max_frame).sender
    return open_frame(
        data, verify_key=ROSTER.get(sender), sealing_key=key, expect=expect, max_frame=max_frame
    )


def open_broadcast(
    data: bytes, *, key: VerifyKey | None = COORDINATOR.verify_key
) -> tuple[Header, memoryview]:
    """What a site does with what came in."""
    return open_frame(data, verify_key=key, sealing_key=None, expect=THERE)


def code(call: Any, *args: Any, **kwargs: Any) -> Code:
    with pytest.raises(IntegrityError) as error:
        call(*args, **kwargs)
    return error.value.code


def parts(data: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Cut a sealed envelope into head, seal, body and signature."""
    start = len(peek(data).encode())
    end = start + envelope.SEAL_BYTES
    return data[:start], data[start:end], data[end:-64], data[-64:]


def signed(head: bytes, seal: bytes, body: bytes, signer: SigningKey = SITE) -> bytes:
    """Put a valid signature on anything, as the holder of a key can."""
    digests = b"".join(hashlib.sha256(part).digest() for part in (head, seal, body))
    return head + seal + body + signer.sign("envelope/signature", digests)


def head_of(**changes: Any) -> bytes:
    """A head with any JSON in it, honest or not."""
    fields = {"kind": Kind.TRAINED, **BASE, "sender": "site-1", "recipient": "coordinator"}
    text = canonical({**Header(**fields).model_dump(mode="json"), **changes})
    return b"FDGE\x01" + len(text).to_bytes(2, "big") + text


def test_the_honest_way_works() -> None:
    assert bytes(open_update(update())[1]).endswith(b"weights-")
    assert bytes(open_broadcast(broadcast())[1]).endswith(b"weights-")


# Without a key: whatever is altered on the way is found.


@pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
def test_every_flipped_byte_is_refused_and_nothing_else_is_raised(mask: int) -> None:
    for data, opener in ((update(), open_update), (broadcast(), open_broadcast)):
        for index in range(len(data)):
            wrong = bytearray(data)
            wrong[index] ^= mask
            with pytest.raises(IntegrityError):
                opener(bytes(wrong))


def test_a_flip_in_seal_body_or_signature_fails_the_signature() -> None:
    data = update()
    head = len(parts(data)[0])
    for index in (
        head,
        head + 1100,
        head + envelope.SEAL_BYTES - 1,
        head + envelope.SEAL_BYTES,
        len(data) - 64,
    ):
        wrong = bytearray(data)
        wrong[index] ^= 1
        assert code(open_update, bytes(wrong)) is Code.BAD_SIGNATURE


def test_every_truncation_is_malformed() -> None:
    for data, opener in ((update(), open_update), (broadcast(), open_broadcast)):
        assert {code(opener, data[:size]) for size in range(len(data))} == {Code.MALFORMED}


def test_every_extension_is_malformed() -> None:
    for data, opener in ((update(), open_update), (broadcast(), open_broadcast)):
        for extra in (b"\0", b"\0" * 16, b"\0" * 64, data):
            assert code(opener, data + extra) is Code.MALFORMED
            assert code(opener, extra + data) is Code.MALFORMED


def test_chunks_in_another_order_fail_the_signature() -> None:
    data = update(bytes(3 * 2**20))
    head, seal, body, signature = parts(data)
    piece = chunks.CHUNK + chunks.TAG
    swapped = body[piece : 2 * piece] + body[:piece] + body[2 * piece :]
    assert code(open_update, head + seal + swapped + signature, max_frame=2**23) is Code.BAD_SIGNATURE


def test_parts_of_two_envelopes_do_not_mix() -> None:
    first, second = parts(update()), parts(update())
    assert code(open_update, b"".join((*first[:3], second[3]))) is Code.BAD_SIGNATURE
    for index in range(1, 4):
        mixed = [*first]
        mixed[index] = second[index]
        assert code(open_update, b"".join(mixed)) is Code.BAD_SIGNATURE


def test_headers_of_two_envelopes_do_not_swap() -> None:
    first, second = update(), update(attempt=1)
    head, rest = parts(first)[0], second[len(parts(second)[0]) :]
    assert code(open_update, head + rest) is Code.BAD_SIGNATURE


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("round", 8),
        ("attempt", 3),
        ("run", OTHER),
        ("study_hash", OTHER),
        ("recipient", "site-2"),
        ("key", "0" * 16),
        ("schema_digest", OTHER),
        ("kind", int(Kind.REFUSAL)),
    ],
)
def test_every_header_field_is_signed(field: str, value: object) -> None:
    _, seal, body, signature = parts(update())
    size = peek(update()).body_bytes
    honest = {"sealed": True, "key": SEALER.fingerprint[:16], "body_bytes": size}
    assert (
        code(open_update, head_of(**{**honest, field: value}) + seal + body + signature) is Code.BAD_SIGNATURE
    )


def test_the_sender_cannot_be_renamed_to_another_of_the_roster() -> None:
    _, seal, body, signature = parts(update())
    renamed = head_of(
        sealed=True, key=SEALER.fingerprint[:16], body_bytes=peek(update()).body_bytes, sender="coordinator"
    )
    assert code(open_update, renamed + seal + body + signature) is Code.BAD_SIGNATURE


def test_an_unknown_sender_is_refused() -> None:
    _, seal, body, signature = parts(update())
    unknown = head_of(
        sealed=True, key=SEALER.fingerprint[:16], body_bytes=peek(update()).body_bytes, sender="site-9"
    )
    assert code(open_update, unknown + seal + body + signature) is Code.UNKNOWN_SENDER
    assert code(open_broadcast, broadcast(), key=None) is Code.UNKNOWN_SENDER


def test_a_stranger_signing_under_a_known_name_is_refused() -> None:
    assert code(open_update, signed(*parts(update())[:3], signer=STRANGER)) is Code.BAD_SIGNATURE


def test_a_signature_for_another_purpose_is_no_signature() -> None:
    head, seal, body, _ = parts(update())
    digests = b"".join(hashlib.sha256(part).digest() for part in (head, seal, body))
    assert (
        code(open_update, head + seal + body + SITE.sign("ledger/checkpoint", digests)) is Code.BAD_SIGNATURE
    )


# Lengths: checked before anything is parsed, allocated or decrypted.


def test_an_oversized_declared_body_is_too_large() -> None:
    _, seal, body, _ = parts(update())
    for size in (2**20 + 1, 2**40, 2**63 - 1):
        head = head_of(sealed=True, key=SEALER.fingerprint[:16], body_bytes=size)
        assert code(open_update, signed(head, seal, body)) is Code.TOO_LARGE


@pytest.mark.parametrize("delta", [-16, -1, 1, 16])
def test_a_declared_body_of_another_length_is_malformed(delta: int) -> None:
    _, seal, body, _ = parts(update())
    head = head_of(sealed=True, key=SEALER.fingerprint[:16], body_bytes=peek(update()).body_bytes + delta)
    assert code(open_update, signed(head, seal, body)) is Code.MALFORMED


def test_an_oversized_header_is_too_large() -> None:
    assert code(open_update, b"FDGE\x01\xff\xff" + b"{" * 65535) is Code.TOO_LARGE


def test_nothing_is_decrypted_before_the_signature_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    touched: list[str] = []
    monkeypatch.setattr(SealingKey, "unseal", lambda *_, **__: touched.append("unseal"))
    monkeypatch.setattr(chunks, "decrypt_into", lambda *_, **__: touched.append("decrypt"))
    data = bytearray(update())
    data[-1] ^= 1
    assert code(open_update, bytes(data)) is Code.BAD_SIGNATURE
    assert touched == []


# With a key of one's own: what is signed must still belong here, now.


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"study_hash": OTHER}, Code.WRONG_STUDY),
        ({"run": OTHER}, Code.WRONG_STUDY),
        ({"round": 6}, Code.STALE_ROUND),
        ({"round": 8}, Code.OUT_OF_ORDER),
        ({"attempt": 1}, Code.STALE_ROUND),
        ({"attempt": 3}, Code.OUT_OF_ORDER),
        ({"recipient": "site-2"}, Code.WRONG_RECIPIENT),
    ],
)
def test_an_authentic_message_that_does_not_belong_here(changes: dict[str, Any], expected: Code) -> None:
    assert code(open_update, update(**changes)) is expected


def test_a_kind_that_does_not_belong_here_is_out_of_order() -> None:
    refusal = messages.Refusal(
        site="site-1", study_hash=STUDY, round=7, attempt=2, code=Code.FAULT, incident="0" * 16
    )
    header = Header(kind=Kind.REFUSAL, **BASE, sender="site-1", recipient="coordinator")
    assert code(open_update, sign_frame(messages.encode(refusal), header, SITE)) is Code.OUT_OF_ORDER


def test_one_site_cannot_answer_for_another() -> None:
    elsewhere = Expectation(**BASE, recipient="coordinator", sender="site-2")
    assert code(open_update, update(), expect=elsewhere) is Code.UNKNOWN_SENDER


def test_an_update_sealed_for_another_key_is_for_another_recipient() -> None:
    assert code(open_update, update(), key=OTHER_SEALER) is Code.WRONG_RECIPIENT
    assert code(open_update, update(), key=None) is Code.WRONG_RECIPIENT


def test_a_lie_about_the_sealing_key_does_not_open() -> None:
    message = messages.Trained(**BASE, site="site-1", parameters=2, steps=1, weights=OTHER, excluded={})
    header = Header(kind=Kind.TRAINED, **BASE, sender="site-1", recipient="coordinator")
    _, seal, body, _ = parts(seal_frame(messages.encode(message), header, SITE, OTHER_SEALER.public))
    size = len(messages.encode(message))
    head = head_of(sealed=True, key=SEALER.fingerprint[:16], body_bytes=size)
    assert code(open_update, signed(head, seal, body)) is Code.BAD_SEAL


def test_an_update_in_clear_is_refused() -> None:
    message = messages.Trained(**BASE, site="site-1", parameters=2, steps=1, weights=OTHER, excluded={})
    frame = messages.encode(message)
    assert code(open_update, signed(head_of(body_bytes=len(frame)), b"", frame)) is Code.BAD_SEAL


def test_a_seal_does_not_move_to_another_header_even_signed() -> None:
    _, seal, body, _ = parts(update(round=6))
    head = parts(update())[0]
    assert code(open_update, signed(head, seal, body)) is Code.BAD_SEAL


def test_chunks_in_another_order_do_not_open_even_signed() -> None:
    head, seal, body, _ = parts(update(bytes(3 * 2**20)))
    piece = chunks.CHUNK + chunks.TAG
    swapped = body[piece : 2 * piece] + body[:piece] + body[2 * piece :]
    assert code(open_update, signed(head, seal, swapped), max_frame=2**23) is Code.BAD_SEAL


def test_a_flipped_seal_or_body_does_not_open_even_signed() -> None:
    head, seal, body, _ = parts(update())
    for index in range(0, len(seal), 7):
        wrong = bytearray(seal)
        wrong[index] ^= 1
        assert code(open_update, signed(head, bytes(wrong), body)) is Code.BAD_SEAL
    for index in range(len(body)):
        wrong = bytearray(body)
        wrong[index] ^= 1
        assert code(open_update, signed(head, seal, bytes(wrong))) is Code.BAD_SEAL


def test_a_weak_share_in_the_seal_does_not_open_even_signed() -> None:
    head, seal, body, _ = parts(update())
    assert code(open_update, signed(head, seal[:1088] + bytes(32) + seal[1120:], body)) is Code.BAD_SEAL


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_data_key_of_another_length_does_not_open(size: int) -> None:
    # Its seal has another length too, so it is cut or filled up to the one length there is.
    head, _, body, _ = parts(update())
    seal = keys.seal(SEALER.public, bytes(size), info=domain("envelope/seal") + head) + bytes(7)
    fit = (seal + bytes(64))[: envelope.SEAL_BYTES]
    assert code(open_update, signed(head, fit, body)) is Code.BAD_SEAL


def test_a_frame_of_another_kind_inside_is_out_of_order() -> None:
    """A second kind on the cover would slip a second update past the replay guard."""
    refusal = messages.Refusal(
        site="site-1", study_hash=STUDY, round=7, attempt=2, code=Code.FAULT, incident="0" * 16
    )
    frame = messages.encode(refusal)
    head = head_of(sealed=True, key=SEALER.fingerprint[:16], body_bytes=len(frame))
    data_key, prefix = bytes(32), bytes(7)
    seal = keys.seal(SEALER.public, data_key, info=domain("envelope/seal") + head) + prefix
    body = bytearray(chunks.sealed_size(len(frame)))
    chunks.encrypt_into(data_key, prefix, memoryview(frame), memoryview(body))
    assert code(open_update, signed(head, seal, bytes(body))) is Code.OUT_OF_ORDER


# Again: an authentic message is good once.


def test_a_replay_is_refused() -> None:
    guard, data = ReplayGuard(), update()
    guard.accept(open_update(data)[0])
    assert code(guard.accept, open_update(data)[0]) is Code.REPLAYED


def test_a_second_answer_to_one_round_is_refused_although_it_differs() -> None:
    guard = ReplayGuard()
    guard.accept(open_update(update(b"weights-"))[0])
    assert code(guard.accept, open_update(update(b"-weights"))[0]) is Code.REPLAYED


def test_an_overtaken_answer_is_stale() -> None:
    guard = ReplayGuard()
    later = Expectation(study_hash=STUDY, run=RUN, recipient="coordinator")
    guard.accept(open_update(update(round=8), expect=later)[0])
    assert code(guard.accept, open_update(update(round=7), expect=later)[0]) is Code.STALE_ROUND


# Anything at all: only IntegrityError.


@given(st.binary(max_size=400))
def test_noise_is_refused(noise: bytes) -> None:
    for data in (noise, b"FDGE\x01" + noise, head_of() + noise, signed(head_of(), b"", noise)):
        with pytest.raises(IntegrityError):
            open_update(data)


@given(
    st.dictionaries(
        st.sampled_from(sorted(Header.model_fields)),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(allow_nan=False, allow_infinity=False),
            st.text(max_size=70),
        ),
        min_size=1,
    )
)
def test_any_header_signed_by_a_known_site_is_refused(changes: dict[str, Any]) -> None:
    try:
        head = head_of(**changes)
    except UnicodeEncodeError:
        return
    with pytest.raises(IntegrityError):
        open_update(signed(head, b"", b"body"))
