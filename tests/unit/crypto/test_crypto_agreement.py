"""Two parties, public keys, one secret."""

from __future__ import annotations

import copy
import pickle

import pytest

from fedgen.crypto.agreement import CIPHERTEXT_BYTES, PUBLIC_BYTES, AgreementKey, check_public
from fedgen.crypto.stream import KeyStream
from fedgen.errors import Code, IntegrityError

STREAM = KeyStream.insecure(1)


def pair() -> tuple[AgreementKey, AgreementKey]:
    return AgreementKey.generate(STREAM), AgreementKey.generate(STREAM)


def test_both_sides_come_to_the_same_secret() -> None:
    one, other = pair()
    assert len(one.public) == PUBLIC_BYTES
    ciphertext, secret = one.offer(other.public, context=b"study")
    assert len(ciphertext) == CIPHERTEXT_BYTES
    assert len(secret) == 32
    assert other.accept(one.public, ciphertext, context=b"study") == secret


def test_another_context_key_or_ciphertext_gives_other_bytes() -> None:
    one, other = pair()
    third = AgreementKey.generate(STREAM)
    ciphertext, secret = one.offer(other.public, context=b"study")
    altered = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
    found = {
        other.accept(one.public, ciphertext, context=b"another"),
        other.accept(third.public, ciphertext, context=b"study"),
        other.accept(one.public, altered, context=b"study"),
        third.accept(one.public, ciphertext, context=b"study"),
        one.offer(other.public, context=b"study")[1],
        secret,
    }
    assert len(found) == 6


@pytest.mark.parametrize(
    "bad", [b"", bytes(PUBLIC_BYTES - 1), bytes(PUBLIC_BYTES + 1), b"\xff" * PUBLIC_BYTES]
)
def test_what_is_no_key_is_refused(bad: bytes) -> None:
    one, other = pair()
    ciphertext, _ = one.offer(other.public, context=b"")
    with pytest.raises(IntegrityError) as error:
        one.offer(bad, context=b"")
    assert error.value.code is Code.MALFORMED
    if len(bad) != PUBLIC_BYTES:
        with pytest.raises(IntegrityError):
            other.accept(bad, ciphertext, context=b"")


def test_a_point_of_small_order_and_a_short_ciphertext_are_refused() -> None:
    one, other = pair()
    small = other.public[:-32] + bytes(32)
    for call in (
        lambda: one.offer(small, context=b""),
        lambda: one.accept(small, bytes(CIPHERTEXT_BYTES), context=b""),
        lambda: one.accept(other.public, bytes(CIPHERTEXT_BYTES - 1), context=b""),
    ):
        with pytest.raises(IntegrityError) as error:
            call()
        assert error.value.code is Code.MALFORMED


@pytest.mark.parametrize("cut", [slice(None, -32), slice(-32, None)])
def test_a_key_is_checked_without_agreeing_on_anything(cut: slice) -> None:
    public = bytearray(pair()[0].public)
    check_public(bytes(public))
    public[cut] = (b"\xff" if cut.start is None else b"\0") * len(public[cut])
    for bad in (bytes(public), b""):
        with pytest.raises(IntegrityError) as error:
            check_public(bad)
        assert error.value.code is Code.MALFORMED


def test_nothing_private_is_shown_copied_or_pickled() -> None:
    key = AgreementKey._from_secret(bytes(range(96)))
    assert bytes(range(8)).hex() not in repr(key)
    for act in (copy.copy, pickle.dumps):
        with pytest.raises(TypeError, match="agreement key"):
            act(key)
