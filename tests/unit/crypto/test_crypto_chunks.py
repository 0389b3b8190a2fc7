"""A large body in chunks: every cut, swap and flip is found."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedgen.crypto import chunks
from fedgen.errors import Code, IntegrityError

KEY, PREFIX, CHUNK = bytes(range(32)), bytes(7), 16
PIECE = CHUNK + chunks.TAG


def encrypt(body: bytes) -> bytes:
    out = bytearray(chunks.sealed_size(len(body), chunk=CHUNK))
    chunks.encrypt_into(KEY, PREFIX, memoryview(body), memoryview(out), chunk=CHUNK)
    return bytes(out)


def decrypt(sealed: bytes, size: int, *, key: bytes = KEY, prefix: bytes = PREFIX) -> bytes:
    out = bytearray(size)
    chunks.decrypt_into(key, prefix, memoryview(sealed), memoryview(out), chunk=CHUNK)
    return bytes(out)


def refused(sealed: bytes, size: int, *, key: bytes = KEY, prefix: bytes = PREFIX) -> bool:
    with pytest.raises(IntegrityError) as error:
        decrypt(sealed, size, key=key, prefix=prefix)
    return error.value.code is Code.BAD_SEAL


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 31, 32, 33, 48, 100])
def test_decrypt_is_the_inverse_of_encrypt(size: int) -> None:
    body = bytes(range(size))
    assert decrypt(encrypt(body), size) == body


@pytest.mark.parametrize(("size", "count"), [(0, 1), (1, 1), (2**20, 1), (2**20 + 1, 2), (2**30, 1024)])
def test_sealed_size_counts_one_tag_per_chunk(size: int, count: int) -> None:
    assert chunks.sealed_size(size) == size + 16 * count


def test_each_chunk_is_plain_gcm_under_its_nonce() -> None:
    body = bytes(range(40))
    nonces = [PREFIX + bytes((0, 0, 0, index, index == 2)) for index in range(3)]
    pieces = [AESGCM(KEY).encrypt(n, body[i * 16 : (i + 1) * 16], None) for i, n in enumerate(nonces)]
    assert encrypt(body) == b"".join(pieces)


def test_the_real_chunk_is_one_mebibyte() -> None:
    body = bytes(2**20 + 5)
    out = bytearray(chunks.sealed_size(len(body)))
    chunks.encrypt_into(KEY, PREFIX, memoryview(body), memoryview(out))
    first = AESGCM(KEY).encrypt(PREFIX + bytes(5), bytes(2**20), None)
    assert out[: 2**20 + 16] == first
    back = bytearray(len(body))
    chunks.decrypt_into(KEY, PREFIX, memoryview(out), memoryview(back))
    assert back == body


def test_every_flipped_byte_is_found() -> None:
    sealed = encrypt(bytes(40))
    for index in range(len(sealed)):
        wrong = bytearray(sealed)
        wrong[index] ^= 1
        assert refused(bytes(wrong), 40)


def test_chunks_in_another_order_are_found() -> None:
    sealed = encrypt(bytes(range(64)))
    pieces = [sealed[i * PIECE : (i + 1) * PIECE] for i in range(4)]
    for i in range(4):
        for j in range(i):
            moved = list(pieces)
            moved[i], moved[j] = moved[j], moved[i]
            assert refused(b"".join(moved), 64)
            assert refused(b"".join([*pieces[:i], pieces[j], *pieces[i + 1 :]]), 64)


def test_a_body_cut_at_a_chunk_is_found() -> None:
    sealed = encrypt(bytes(64))
    for count in (1, 2, 3):
        assert refused(sealed[: count * PIECE], count * CHUNK)


def test_a_body_extended_by_a_chunk_is_found() -> None:
    sealed = encrypt(bytes(32))
    assert refused(sealed + sealed[:PIECE], 48)
    assert refused(sealed + sealed[PIECE:], 48)
    assert refused(sealed + encrypt(bytes(48))[2 * PIECE :], 48)


@pytest.mark.parametrize("size", [0, 15, 17, 31, 33, 64])
def test_another_declared_length_is_found(size: int) -> None:
    assert refused(encrypt(bytes(32)), size)


def test_another_key_or_prefix_is_found() -> None:
    assert refused(encrypt(bytes(20)), 20, key=bytes(32))
    assert refused(encrypt(bytes(20)), 20, prefix=b"1234567")


def test_encrypt_wants_exactly_the_room_it_needs() -> None:
    for wrong in (31, 33):
        with pytest.raises(ValueError, match="length of the encrypted body"):
            chunks.encrypt_into(KEY, PREFIX, memoryview(bytes(16)), memoryview(bytearray(wrong)))


def test_the_counter_does_not_overflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "_MAX_CHUNKS", 2)
    assert len(encrypt(bytes(32))) == 2 * PIECE
    with pytest.raises(ValueError, match="too many chunks"):
        encrypt(bytes(33))
