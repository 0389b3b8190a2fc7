"""The test vectors of docs/spec/enrolment.md, checked twice: by the package, and by a second reading of the spec.

The second reading uses the standard library and plain Ed25519 only, so a change of the format cannot pass by changing
both ends of the package alike.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedgen.crypto.keys import SigningKey
from fedgen.enrolment.documents import Invitation, Request, shown
from fedgen.enrolment.signed import decode, encode
from fedgen.errors import ConfigError, IntegrityError

ROOT = Path(__file__).parents[3]
VECTORS: dict[str, Any] = json.loads(
    (ROOT / "tests" / "vectors" / "enrolment.json").read_text(encoding="utf-8")
)
DOCUMENTS: dict[str, str] = VECTORS["documents"]
SPEC = (ROOT / "docs" / "spec" / "enrolment.md").read_text(encoding="utf-8")
FORMS = {"request": Request, "request_after_rotation": Request, "invitation": Invitation}
SIGNERS = {"request": "site", "request_after_rotation": "site_next", "invitation": "coordinator"}


@pytest.mark.parametrize("name", FORMS)
def test_the_package_reads_and_writes_them(name: str) -> None:
    body = decode(DOCUMENTS[name].encode(), FORMS[name])
    key = SigningKey._from_secret(bytes.fromhex(VECTORS["private"][SIGNERS[name]]))
    assert encode(body, key).decode() == DOCUMENTS[name]


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def verify(kind: str, body: dict[str, Any], key: str, signature: str) -> None:
    prefix = b"fedgen/v1/enrolment/" + kind.encode() + b"\0"
    Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(
        bytes.fromhex(signature), prefix + canonical(body)
    )


def test_a_second_reading_of_the_spec_verifies_them() -> None:
    for name, field in (
        ("request", "identity"),
        ("request_after_rotation", "identity"),
        ("invitation", "coordinator"),
    ):
        document = json.loads(DOCUMENTS[name])
        kind = document["format"].removeprefix("fedgen-").removesuffix("-1")
        verify(kind, document["body"], document["body"][field], document["signature"])
    (inner,) = json.loads(DOCUMENTS["request_after_rotation"])["body"]["rotations"]
    verify("rotation", inner["rotation"], inner["rotation"]["old"], inner["signature"])


@pytest.mark.parametrize("name", ["site", "site_next", "ledger", "coordinator"])
def test_a_second_reading_of_the_spec_finds_the_fingerprints(name: str) -> None:
    private = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(VECTORS["private"][name]))
    public = private.public_key().public_bytes_raw()
    digest = hashlib.sha256(b"fedgen/v1/key/signing\0" + public).hexdigest()
    assert digest == VECTORS["fingerprints"][name]
    groups = " ".join(digest[start : start + 4] for start in range(0, 32, 4))
    assert groups == VECTORS["shown"][name] == shown(public.hex())


@pytest.mark.parametrize("case", VECTORS["refused"], ids=lambda case: case["what"])
def test_what_must_be_refused_is_refused_for_the_reason_given(case: dict[str, str]) -> None:
    if case["code"] == "wrong-file":
        with pytest.raises(ConfigError):
            decode(case["document"].encode(), Request)
        return
    with pytest.raises(IntegrityError) as error:
        decode(case["document"].encode(), Request)
    assert error.value.code.value == case["code"]


def test_the_spec_quotes_the_vectors() -> None:
    for name in ("site", "coordinator"):
        assert VECTORS["shown"][name] in SPEC
    request = json.loads(DOCUMENTS["request"])
    assert request["signature"][:32] in SPEC
    assert request["body"]["identity"] in SPEC
