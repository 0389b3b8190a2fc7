from dataclasses import replace
from typing import Any

import pytest

from fedgen.crypto.keys import SigningKey
from fedgen.errors import Code, IntegrityError
from fedgen.ledger.checkpoint import Checkpoint

KEY = SigningKey.generate()
PROMISE = Checkpoint.signed("hospital", 7, bytes(32), KEY)


def test_a_checkpoint_verifies_with_its_key_and_survives_json() -> None:
    PROMISE.verify(KEY.verify_key)
    assert Checkpoint.from_json(PROMISE.to_json()) == PROMISE


@pytest.mark.parametrize("change", [{"origin": "other"}, {"size": 8}, {"head": bytes(31) + b"\1"}])
def test_every_field_is_signed(change: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError) as caught:
        replace(PROMISE, **change).verify(KEY.verify_key)
    assert caught.value.code is Code.BAD_SIGNATURE


def test_another_key_does_not_verify() -> None:
    with pytest.raises(IntegrityError):
        PROMISE.verify(SigningKey.generate().verify_key)


def test_an_entry_signature_is_no_checkpoint_signature() -> None:
    from fedgen.ledger.checkpoint import ENTRY_LABEL, _promise

    forged = replace(PROMISE, signature=KEY.sign(ENTRY_LABEL, _promise("hospital", 7, bytes(32))))
    with pytest.raises(IntegrityError):
        forged.verify(KEY.verify_key)


@pytest.mark.parametrize("change", [{"size": True}, {"size": "7"}, {"more": 1}, {"head": "xyz"}])
def test_what_is_not_exactly_a_checkpoint_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"checkpoint|hex"):
        Checkpoint.from_json({**PROMISE.to_json(), **change})
