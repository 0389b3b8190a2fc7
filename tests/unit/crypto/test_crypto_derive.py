"""HKDF and the labels that keep purposes apart."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from fedgen.crypto.derive import MAX_LENGTH, domain, hkdf

SECRET = bytes(range(32))


def by_hand(secret: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 with an empty salt, from the standard library only."""
    key = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    out, block = b"", b""
    for index in range(1, -(-length // 32) + 1):
        block = hmac.new(key, block + info + bytes((index,)), hashlib.sha256).digest()
        out += block
    return out[:length]


@pytest.mark.parametrize("length", [1, 32, 33, 100, MAX_LENGTH])
def test_it_is_rfc_5869_under_the_domain_prefix(length: int) -> None:
    got = hkdf(SECRET, purpose="mask/round", context=b"\0x", length=length)
    assert got == by_hand(SECRET, b"fedgen/v1/mask/round\0\0x", length)


def test_purposes_and_contexts_are_independent() -> None:
    outputs = {
        hkdf(SECRET, purpose=purpose, context=context)
        for purpose in ("a", "b", "a/b", "a-b")
        for context in (b"", b"\0", b"b")
    }
    assert len(outputs) == 12


def test_any_contiguous_buffer_is_a_secret() -> None:
    assert (
        hkdf(bytearray(SECRET), purpose="a")
        == hkdf(memoryview(SECRET), purpose="a")
        == hkdf(SECRET, purpose="a")
    )


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16 bytes"):
        hkdf(SECRET[:15], purpose="a")
    assert len(hkdf(SECRET[:16], purpose="a")) == 32


@pytest.mark.parametrize("length", [0, -1, MAX_LENGTH + 1])
def test_a_length_out_of_range_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="length must be"):
        hkdf(SECRET, purpose="a", length=length)


@pytest.mark.parametrize("label", ["", "A", "a b", "a\0", "a\n", "/a", "a/", "a--b", "é"])
def test_a_malformed_label_is_refused(label: str) -> None:
    with pytest.raises(ValueError, match="domain label"):
        domain(label)


def test_no_prefix_is_the_beginning_of_another() -> None:
    prefixes = [domain(label) for label in ("a", "ab", "a/b", "a-b", "ab/c")]
    assert not any(p != q and q.startswith(p) for p in prefixes for q in prefixes)
