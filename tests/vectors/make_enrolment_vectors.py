"""Write the test vectors that docs/spec/enrolment.md quotes: run by hand, and only when a format gets a new version.

The authority's certificate holds fresh randomness, so invitations differ on every run; the rest comes out the same.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedgen.crypto.certificates import make_authority
from fedgen.crypto.keys import SealingKey, SigningKey
from fedgen.enrolment.documents import Invitation, Request, Rotation, SignedRotation, shown
from fedgen.enrolment.signed import Signed, encode

HERE = Path(__file__).parent
NOW = datetime(2026, 1, 31, tzinfo=UTC)
ISSUED = "2026-01-31T00:00:00Z"
SECRETS = {"site": "01" * 32, "site_next": "02" * 32, "ledger": "03" * 32, "coordinator": "04" * 32}
KEYS = {name: SigningKey._from_secret(bytes.fromhex(secret)) for name, secret in SECRETS.items()}
NODE = (
    ec.derive_private_key(5, ec.SECP384R1())
    .public_key()
    .public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    .decode()
)


def documents() -> dict[str, tuple[Signed, SigningKey]]:
    """Return one document of each kind, and a request after a rotation."""
    first = Request(
        name="hospital-a",
        identity=KEYS["site"].public.hex(),
        ledger=KEYS["ledger"].public.hex(),
        node=NODE,
        rows=1200,
        persons=900,
        number=1,
        issued=ISSUED,
    )
    rotation = Rotation(
        role="site",
        name="hospital-a",
        number=1,
        old=KEYS["site"].public.hex(),
        new=KEYS["site_next"].public.hex(),
        issued="2026-02-01T00:00:00Z",
    )
    second = first.model_copy(
        update={
            "identity": KEYS["site_next"].public.hex(),
            "number": 2,
            "issued": "2026-02-01T00:00:00Z",
            "persons": None,
            "rotations": (SignedRotation.make(rotation, KEYS["site"]),),
        }
    )
    invitation = Invitation(
        coordinator=KEYS["coordinator"].public.hex(),
        sealing=SealingKey._from_secret(bytes(range(96))).public.hex(),
        name="study-office",
        address="coordinator.example.org:8443",
        ca=make_authority("fedgen study-office", days=3650, now=NOW)[1].decode(),
        site="hospital-a",
        site_key=KEYS["site"].fingerprint,
        number=1,
        issued=ISSUED,
        expires="2027-01-31T00:00:00Z",
    )
    return {
        "request": (first, KEYS["site"]),
        "request_after_rotation": (second, KEYS["site_next"]),
        "invitation": (invitation, KEYS["coordinator"]),
    }


def refused(request: str) -> list[dict[str, str]]:
    """Return documents that must be refused, each with its code, made from a good request."""
    good = json.loads(request)
    body = good["body"]
    cases = {
        "another name": {**good, "body": {**body, "name": "hospital-b"}},
        "signed for another kind": {**good, "format": "fedgen-invitation-1"},
        "an unknown key": {**good, "body": {**body, "more": 1}},
        "a number as text": {**good, "body": {**body, "rows": "1200"}},
        "more than two digits": {**good, "body": {**body, "rows": 1234}},
        "no signature": {"format": good["format"], "body": body},
        "another version": {**good, "format": "fedgen-request-2"},
    }
    codes = {
        "another name": "bad-signature",
        "signed for another kind": "wrong-file",
        "another version": "wrong-file",
    }
    return [
        {"what": what, "document": json.dumps(case), "code": codes.get(what, "malformed")}
        for what, case in cases.items()
    ] + [
        {
            "what": "a key twice",
            "document": request.replace('"rows"', '"rows": 1200, "rows"', 1),
            "code": "wrong-file",
        }
    ]


def main() -> None:
    """Write the file."""
    made: dict[str, Any] = {name: encode(body, key).decode() for name, (body, key) in documents().items()}
    vectors = {
        "private": SECRETS,
        "shown": {name: shown(key.public.hex()) for name, key in KEYS.items()},
        "fingerprints": {name: key.fingerprint for name, key in KEYS.items()},
        "documents": made,
        "refused": refused(made["request"]),
    }
    (HERE / "enrolment.json").write_text(json.dumps(vectors, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
