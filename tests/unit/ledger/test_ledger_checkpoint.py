import hashlib
from base64 import b64decode, b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedgen.crypto.keys import SigningKey, VerifyKey
from fedgen.errors import Code, ConfigError, IntegrityError
from fedgen.ledger.checkpoint import ENTRY_LABEL, MAX_TEXT, Checkpoint, key_id, key_name

KEY = SigningKey.generate()
PROMISE = Checkpoint.signed("hospital", 7, bytes(32), KEY)

# The example of the Go package golang.org/x/mod/sumdb/note: another program's key, text and signature.
GO_KEY = b64decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW")
GO_ID = "c74f20a3"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
)
GO_LINE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="


def test_a_checkpoint_verifies_with_its_key_and_survives_its_text() -> None:
    PROMISE.verify(KEY.verify_key)
    assert Checkpoint.from_text(PROMISE.to_text()) == PROMISE


def test_the_text_is_a_signed_note_of_origin_size_and_root() -> None:
    lines = PROMISE.to_text().split("\n")
    assert lines[:4] == ["hospital", "7", b64encode(bytes(32)).decode(), ""]
    assert lines[4].startswith("\u2014 hospital ")
    assert lines[5:] == [""]


def test_another_programs_signed_note_verifies() -> None:
    assert key_id("PeterNeumann", GO_KEY[1:]).hex() == GO_ID == b64decode(GO_LINE)[:4].hex()
    VerifyKey(GO_KEY[1:]).verify_text(GO_TEXT, b64decode(GO_LINE)[4:])
    with pytest.raises(IntegrityError):
        VerifyKey(GO_KEY[1:]).verify_text(GO_TEXT.replace("is", "was"), b64decode(GO_LINE)[4:])


@pytest.mark.parametrize("change", [{"origin": "other"}, {"size": 8}, {"root": bytes(31) + b"\1"}])
def test_every_field_is_signed(change: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError) as caught:
        replace(PROMISE, **change).verify(KEY.verify_key)
    assert caught.value.code is Code.BAD_SIGNATURE


def test_another_key_does_not_verify() -> None:
    with pytest.raises(IntegrityError, match="not signed by the ledger's key"):
        PROMISE.verify(SigningKey.generate().verify_key)


def test_a_key_of_the_same_name_and_id_must_have_signed() -> None:
    ((name, blob),) = PROMISE.signatures
    for place in (4, 40, 67):
        forged = blob[:place] + bytes([blob[place] ^ 1]) + blob[place + 1 :]
        with pytest.raises(IntegrityError, match="does not match"):
            replace(PROMISE, signatures=((name, forged),)).verify(KEY.verify_key)


def test_an_entry_signature_is_no_checkpoint_signature() -> None:
    ((name, blob),) = PROMISE.signatures
    body = PROMISE.to_text().partition("\n\n")[0] + "\n"
    forged = blob[:4] + KEY.sign(ENTRY_LABEL, body.encode())
    with pytest.raises(IntegrityError):
        replace(PROMISE, signatures=((name, forged),)).verify(KEY.verify_key)


def test_a_text_that_could_be_a_labelled_signature_is_not_signed() -> None:
    for text in ("fedgen/v1/ledger/entry\0" + "x" * 32 + "\n", "no line break", "a\ttab\n", ""):
        with pytest.raises(ValueError, match="lines of text"):
            KEY.sign_text(text)
        with pytest.raises(IntegrityError):
            KEY.verify_key.verify_text(text, bytes(64))


def test_signatures_of_witnesses_are_kept_and_not_believed() -> None:
    witness = ("witness.example/w1", hashlib.sha256(b"w").digest())
    both = replace(PROMISE, signatures=(witness, *PROMISE.signatures))
    assert Checkpoint.from_text(both.to_text()) == both
    both.verify(KEY.verify_key)
    with pytest.raises(IntegrityError):
        replace(PROMISE, signatures=(witness,)).verify(KEY.verify_key)


@pytest.mark.parametrize("origin", ["hospital-é/claims", "two words", "a+b", "100%", "ward 3 + 4 %20"])
def test_any_origin_has_a_key_name_that_a_note_can_hold(origin: str) -> None:
    assert not set(key_name(origin)) & set(" +")
    made = Checkpoint.signed(origin, 1, bytes(32), KEY)
    assert Checkpoint.from_text(made.to_text()) == made
    made.verify(KEY.verify_key)


def test_different_origins_have_different_key_names() -> None:
    origins = ["a b", "a+b", "a%20b", "a%b", "a%25b", "ab"]
    assert len({key_name(origin) for origin in origins}) == len(origins)


GOOD = PROMISE.to_text()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        GOOD[:-1],
        GOOD + "\n",
        GOOD.replace("\n\n", "\n"),
        GOOD.replace("7", "07", 1),
        GOOD.replace("7", "-7", 1),
        GOOD.replace("7", "7" * 20, 1),
        GOOD.replace("\u2014", "-"),
        GOOD.replace("hospital\n", "\n", 1),
        GOOD.replace("hospital\n", "hos\tpital\n", 1),
        GOOD.replace("AAAA=", "AAA=", 1),
        GOOD.replace("AAAA=", "AAAB=", 1),
        GOOD.replace("\n\n", "\nextension\n\n"),
        GOOD.partition("\u2014")[0],
        GOOD + "\u2014 no signature\n",
        GOOD + GOOD.rpartition("\n\n")[2] * 64,
        "x" * (MAX_TEXT + 1),
    ],
)
def test_what_is_not_exactly_a_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        Checkpoint.from_text(text)
    assert caught.value.code is Code.MALFORMED


def test_a_checkpoint_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text(GOOD, encoding="utf-8")
    assert Checkpoint.read(tmp_path / "kept") == PROMISE
    with pytest.raises(ConfigError, match="cannot read the checkpoint"):
        Checkpoint.read(tmp_path / "nothing")
    (tmp_path / "kept").write_bytes(b"\xff")
    with pytest.raises(IntegrityError):
        Checkpoint.read(tmp_path / "kept")
