"""Signing and sealing keys, and the secrets they keep."""

from __future__ import annotations

import copy
import pickle

import pytest

from fedgen.crypto import keys
from fedgen.crypto.keys import SealingKey, SigningKey, VerifyKey, seal
from fedgen.errors import Code, IntegrityError

Private = SigningKey | SealingKey


def code_of(error: pytest.ExceptionInfo[IntegrityError]) -> Code:
    return error.value.code


def test_a_signature_verifies_for_its_key_label_and_data_only() -> None:
    signer, other = SigningKey.generate(), SigningKey.generate()
    signature = signer.sign("round/one", b"data")
    signer.verify_key.verify("round/one", b"data", signature)
    flipped = bytes((signature[0] ^ 1,)) + signature[1:]
    for key, label, data, given in (
        (other, "round/one", b"data", signature),
        (signer, "round/two", b"data", signature),
        (signer, "round/one", b"datb", signature),
        (signer, "round/one", b"data", flipped),
        (signer, "round/one", b"data", signature[:-1]),
        (signer, "round/one", b"data", signature + b"\0"),
        (signer, "round/one", b"data", b""),
    ):
        with pytest.raises(IntegrityError) as error:
            key.verify_key.verify(label, data, given)
        assert code_of(error) is Code.BAD_SIGNATURE


def test_label_and_data_cannot_trade_places() -> None:
    signer = SigningKey.generate()
    with pytest.raises(IntegrityError):
        signer.verify_key.verify("a", b"b\0c", signer.sign("a/b", b"c"))
    with pytest.raises(ValueError, match="domain label"):
        signer.sign("a\0b", b"c")


def test_buffers_of_any_kind_are_signed_alike() -> None:
    signer = SigningKey.generate()
    signer.verify_key.verify("a", memoryview(b"data"), bytearray(signer.sign("a", bytearray(b"data"))))


def test_a_verify_key_is_its_bytes() -> None:
    signer = SigningKey.generate()
    assert signer.verify_key == VerifyKey(signer.public)
    assert signer.verify_key.public == signer.public
    assert len({signer.verify_key, VerifyKey(signer.public), SigningKey.generate().verify_key}) == 2
    assert signer.verify_key != signer.public
    assert repr(signer.verify_key) == f"VerifyKey({signer.public.hex()})"
    assert signer.verify_key.fingerprint == signer.fingerprint


@pytest.mark.parametrize("raw", [b"", bytes(31), bytes(33)])
def test_a_verify_key_of_another_length_is_refused(raw: bytes) -> None:
    with pytest.raises(IntegrityError) as error:
        VerifyKey(raw)
    assert code_of(error) is Code.MALFORMED


def test_unseal_is_the_inverse_of_seal() -> None:
    key = SealingKey.generate()
    sealed = seal(key.public, b"secret", info=b"context")
    assert len(sealed) == 6 + keys.SEAL_OVERHEAD
    assert key.unseal(sealed, info=b"context") == b"secret"
    assert key.unseal(memoryview(sealed), info=b"context") == b"secret"
    assert seal(key.public, b"secret", info=b"context") != sealed


def test_a_seal_opens_for_its_key_and_info_only() -> None:
    key, other = SealingKey.generate(), SealingKey.generate()
    sealed = seal(key.public, b"secret", info=b"context")
    for opener, given, info in (
        (other, sealed, b"context"),
        (key, sealed, b"contexu"),
        (key, sealed[:-1], b"context"),
        (key, sealed[:100], b"context"),
        (key, b"", b"context"),
        (key, sealed + b"\0", b"context"),
    ):
        with pytest.raises(IntegrityError) as error:
            opener.unseal(given, info=info)
        assert code_of(error) is Code.BAD_SEAL


def test_whatever_the_primitive_objects_to_is_a_bad_seal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Suite:
        def decrypt(self, *_: object) -> bytes:
            raise ValueError("an encoding the library does not like")

    monkeypatch.setattr(keys, "_SUITE", Suite())
    with pytest.raises(IntegrityError) as error:
        SealingKey.generate().unseal(bytes(1168), info=b"")
    assert code_of(error) is Code.BAD_SEAL


def test_a_seal_with_a_weak_share_is_refused() -> None:
    # An all-zero X25519 share forces a known half of the hybrid secret.
    key = SealingKey.generate()
    sealed = seal(key.public, b"secret", info=b"")
    with pytest.raises(IntegrityError) as error:
        key.unseal(sealed[:1088] + bytes(32) + sealed[1120:], info=b"")
    assert code_of(error) is Code.BAD_SEAL


@pytest.mark.parametrize(
    "damage", [lambda p: p[:-1], lambda p: p + b"\0", lambda _: b"", lambda p: p[:1184] + bytes(32)]
)
def test_no_seal_to_what_is_not_a_key(damage: object) -> None:
    public = damage(SealingKey.generate().public)  # type: ignore[operator]
    with pytest.raises(IntegrityError) as error:
        seal(public, b"secret", info=b"")
    assert code_of(error) is Code.MALFORMED


@pytest.mark.parametrize("kind", [SigningKey, SealingKey])
def test_a_private_key_is_silent(kind: type[Private]) -> None:
    key = kind.generate()
    shown = f"{key!r} {key!s} {key}"
    assert shown.startswith(f"{kind.__name__}(fingerprint=")
    assert key._secret.hex()[:16] not in shown
    assert repr(key._secret)[2:20] not in shown
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not copied or pickled"):
            attempt(key)


def test_types_have_names_of_their_own() -> None:
    public = SigningKey.generate().public
    assert keys.fingerprint("signing", public) != keys.fingerprint("sealing", public)


def test_sizes_are_those_of_the_spec() -> None:
    assert len(SigningKey.generate().public) == 32
    assert len(SigningKey.generate().sign("a", b"")) == keys.SIGNATURE_BYTES == 64
    assert len(SealingKey.generate().public) == 1216
    assert len(SealingKey.generate()._secret) == 96
