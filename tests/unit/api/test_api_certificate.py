"""A certificate of an erasure: whoever changes a byte of it is noticed, and nobody can tell from it who it is about."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from fedgen.api.certificate import FORMAT, commitment, new_opening, sign_certificate, verify_certificate
from fedgen.crypto.keys import SigningKey
from fedgen.errors import ConfigError, IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

NAME = "p-0017"


@pytest.fixture
def opening() -> str:
    return new_opening()


@pytest.fixture
def signed(tmp_path: Path, opening: str) -> Path:
    key = SigningKey.generate()
    path = tmp_path / "certificate.json"
    body = {
        "id": "e-1",
        "commitment": commitment(opening, NAME),
        "completed_at": "2026-01-01T00:00:00Z",
        "runs": [],
    }
    path.write_text(json.dumps(sign_certificate(body, key)))
    (tmp_path / "key.hex").write_text(key.public.hex() + "\n")
    (tmp_path / "other.hex").write_text(SigningKey.generate().public.hex())
    return path


def test_it_verifies_with_its_key_and_its_opening(signed: Path, opening: str) -> None:
    body = verify_certificate(signed, key=signed.parent / "key.hex", subject=NAME, opening=opening)
    assert (body["format"], body["id"]) == (FORMAT, "e-1")
    assert NAME not in signed.read_text()


def test_equal_people_have_different_commitments() -> None:
    assert commitment(new_opening(), NAME) != commitment(new_opening(), NAME)


@pytest.mark.parametrize("field", ["id", "commitment", "completed_at", "runs", "format"])
def test_a_changed_field_is_noticed(signed: Path, field: str) -> None:
    value = json.loads(signed.read_text())
    value["certificate"][field] = "changed"
    signed.write_text(json.dumps(value))
    with pytest.raises(IntegrityError):
        verify_certificate(signed)


def test_a_field_more_is_noticed(signed: Path) -> None:
    value = json.loads(signed.read_text())
    value["certificate"]["more"] = 1
    signed.write_text(json.dumps(value))
    with pytest.raises(IntegrityError, match="changed"):
        verify_certificate(signed)


def test_another_signer_is_noticed_where_the_key_is_named(signed: Path) -> None:
    with pytest.raises(IntegrityError, match="another key"):
        verify_certificate(signed, key=signed.parent / "other.hex")
    value = json.loads(signed.read_text())
    forged = sign_certificate({"id": "forged"}, SigningKey.generate())
    signed.write_text(json.dumps({**value, **forged}))
    assert verify_certificate(signed)["id"] == "forged"  # without a pinned key anybody may have signed
    with pytest.raises(IntegrityError, match="another key"):
        verify_certificate(signed, key=signed.parent / "key.hex")


def test_somebody_else_and_another_opening_do_not_fit(signed: Path, opening: str) -> None:
    with pytest.raises(IntegrityError, match="somebody else"):
        verify_certificate(signed, subject="p-0018", opening=opening)
    with pytest.raises(IntegrityError, match="somebody else"):
        verify_certificate(signed, subject=NAME, opening=new_opening())
    with pytest.raises(ConfigError, match="not an opening"):
        verify_certificate(signed, subject=NAME, opening="zz")
    with pytest.raises(ConfigError, match="together"):
        verify_certificate(signed, subject=NAME)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "not json", '{"certificate": 1, "public_key": "", "signature": ""}']
)
def test_what_is_no_certificate_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(IntegrityError):
        verify_certificate(path)


def test_a_file_that_is_not_there(tmp_path: Path, signed: Path) -> None:
    with pytest.raises(ConfigError):
        verify_certificate(tmp_path / "none.json")
    with pytest.raises(ConfigError):
        verify_certificate(signed, key=tmp_path / "none.hex")
    (tmp_path / "short.hex").write_text("abc")
    with pytest.raises(ConfigError, match="not a public key"):
        verify_certificate(signed, key=tmp_path / "short.hex")
