"""The test vectors of docs/spec/secagg.md, checked twice: by the package, and by a second reading of the page.

The second reading uses the standard library and plain primitives only, so a change of the format cannot pass by
changing both ends of the package alike.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import struct
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, mlkem, x25519
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedgen.crypto.agreement import AgreementKey
from fedgen.secagg import masks, shamir, wire
from fedgen.secagg.graph import degree, neighbours
from fedgen.secagg.protocol import Members, Transcript
from fedgen.secagg.terms import Terms

ROOT = Path(__file__).parents[3]
V = json.loads((ROOT / "tests" / "vectors" / "secagg.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "spec" / "secagg.md").read_text(encoding="utf-8")
PRIME = 2**255 - 19


def raw(name: str) -> bytes:
    return bytes.fromhex(V[name])


IDENTITIES = [ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key)) for key in V["identities"]]
PUBLIC = [key.public_key().public_bytes_raw() for key in IDENTITIES]
AGREEMENTS = [AgreementKey._from_secret(bytes.fromhex(key)) for key in V["agreements"]]
TERMS = Terms(
    study="11" * 32,
    run="22" * 32,
    sites=tuple((f"site-{i}", key) for i, key in enumerate(PUBLIC)),
    dimension=4,
    threshold=3,
    dropouts=1,
)
MEMBERS = Members(TERMS, 1, {i: key.public for i, key in enumerate(AGREEMENTS)})
TRANSCRIPT = Transcript(MEMBERS.digest, 5, 7, 2, b"\x33" * 32, (0, 1, 3))


# The package against the vectors.


def test_digests() -> None:
    assert TERMS.digest == raw("terms_digest")
    assert MEMBERS.digest == raw("members_digest")
    assert TRANSCRIPT.digest == raw("transcript")


def test_agreement_and_keys() -> None:
    ciphertext, secret = (bytes.fromhex(V["pair"][name]) for name in ("ciphertext", "secret"))
    assert AGREEMENTS[1].accept(AGREEMENTS[0].public, ciphertext, context=MEMBERS.pair(1, 0)) == secret
    assert masks.turn_secret(secret, 5) == raw("turn_secret")
    assert masks.mask_key(raw("turn_secret"), TRANSCRIPT.digest) == raw("mask_key")
    assert masks.self_key(bytes(range(32)), TRANSCRIPT.digest) == raw("self_key")
    assert masks.share_key(secret, 5, 0, 1) == raw("share_key")
    assert masks.open_once(raw("share_key"), raw("sealed_shares")) == bytes(range(64))
    assert masks.backup_key(bytes(range(32)), MEMBERS.digest, 5, 0) == raw("backup_key")
    assert MEMBERS.commitment("seed", 5, 0, 0, bytes(range(32))) == raw("commitment_seed")
    assert MEMBERS.pair_commitment(5, 0, 1, raw("turn_secret")) == raw("commitment_pair")
    assert MEMBERS.check("seed", 5, 0, 1, bytes(range(32))) == raw("check_seed")


def test_graph() -> None:
    case = V["graph"]
    k, threshold = degree(case["sites"], 1, 5)
    assert [k, threshold] == case["degree"]
    found = neighbours(tuple(range(case["sites"])), k, bytes.fromhex(case["digest"]))
    assert list(found[0]) == case["neighbours_of_0"]


@pytest.mark.parametrize("name", list(V["frames"]))
def test_frames(name: str) -> None:
    frame = bytes.fromhex(V["frames"][name])
    assert getattr(wire, name).decode(frame, TERMS).encode() == frame


# A second reading of the page.


def prefix(label: str) -> bytes:
    return b"fedgen/v1/" + label.encode() + b"\0"


def hkdf(secret: bytes, purpose: str, context: bytes) -> bytes:
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, prefix(purpose) + context + b"\1", "sha256")


def test_second_reading_of_the_digests() -> None:
    terms = json.dumps(
        {
            "cohort": 3,
            "colluders": 0,
            "dimension": 4,
            "dropouts": 1,
            "recovery": "unmask",
            "ring": 32,
            "run": "22" * 32,
            "sites": [[f"site-{i}", key.hex()] for i, key in enumerate(PUBLIC)],
            "study": "11" * 32,
            "threshold": 3,
        },
        separators=(",", ":"),
    ).encode()
    digest = hashlib.sha256(prefix("secagg/terms") + terms).digest()
    assert digest == raw("terms_digest")
    rows = b"".join(struct.pack(">H", i) + agreement_public(i) for i in range(4))
    members = hashlib.sha256(prefix("secagg/members") + digest + struct.pack(">I", 1) + rows).digest()
    assert members == raw("members_digest")
    body = members + struct.pack(">III", 5, 7, 2) + b"\x33" * 32 + struct.pack(">HHHH", 3, 0, 1, 3)
    assert hashlib.sha256(prefix("secagg/transcript") + body).digest() == raw("transcript")


def agreement_public(i: int) -> bytes:
    secret = bytes.fromhex(V["agreements"][i])
    kem = mlkem.MLKEM768PrivateKey.from_seed_bytes(secret[:64]).public_key().public_bytes_raw()
    return kem + x25519.X25519PrivateKey.from_private_bytes(secret[64:]).public_key().public_bytes_raw()


def test_second_reading_of_the_secrets() -> None:
    secret = bytes.fromhex(V["agreements"][1])
    ciphertext = bytes.fromhex(V["pair"]["ciphertext"])
    inner = mlkem.MLKEM768PrivateKey.from_seed_bytes(secret[:64]).decapsulate(ciphertext)
    peer = x25519.X25519PublicKey.from_public_bytes(agreement_public(0)[-32:])
    outer = x25519.X25519PrivateKey.from_private_bytes(secret[64:]).exchange(peer)
    context = (
        raw("members_digest")
        + struct.pack(">HH", 0, 1)
        + agreement_public(0)
        + agreement_public(1)
        + ciphertext
    )
    pair = hkdf(inner + outer, "agreement", context)
    assert pair.hex() == V["pair"]["secret"]
    turn = hkdf(pair, "secagg/turn", struct.pack(">I", 5))
    assert turn == raw("turn_secret")
    key = hkdf(turn, "secagg/mask", raw("transcript"))
    assert key == raw("mask_key")
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(16))
    assert list(struct.unpack("<4I", stream)) == V["mask_words"]
    assert hkdf(bytes(range(32)), "secagg/self-mask", raw("transcript")) == raw("self_key")
    share = hkdf(pair, "secagg/share", struct.pack(">IHH", 5, 0, 1))
    nonce = bytes(7) + bytes(4) + b"\1"
    assert AESGCM(share).decrypt(nonce, raw("sealed_shares"), None) == bytes(range(64))
    backup = hkdf(bytes(range(32)), "secagg/backup", raw("members_digest") + struct.pack(">IH", 5, 0))
    assert backup == raw("backup_key")


def test_second_reading_of_the_commitments() -> None:
    def commitment(kind: str, one: int, other: int, secret: bytes) -> bytes:
        head = prefix(f"secagg/{kind}") + raw("members_digest") + struct.pack(">IHH", 5, one, other)
        return hashlib.sha256(head + secret).digest()

    assert commitment("seed", 0, 0, bytes(range(32))) == raw("commitment_seed")
    assert commitment("pair", 0, 1, raw("turn_secret")) == raw("commitment_pair")
    assert commitment("seed-share", 0, 1, bytes(range(32)))[:16] == raw("check_seed")


def test_second_reading_of_the_shares() -> None:
    case = V["shamir"]
    shares = [int.from_bytes(bytes.fromhex(share), "little") for share in case["shares"]]
    for left_out in range(4):
        points = [x for i, x in enumerate(case["points"]) if i != left_out]
        secret = 0
        for x in points:
            top = bottom = 1
            for other in points:
                if other != x:
                    top, bottom = top * other, bottom * (other - x)
            secret += shares[x - 1] * top * pow(bottom, -1, PRIME)
        assert (secret % PRIME).to_bytes(32, "little").hex() == case["secret"]
    assert shamir.to_bytes(shares[0]).hex() == case["shares"][0]


def test_second_reading_of_a_frame() -> None:
    frame = bytes.fromhex(V["frames"]["Unmask"])
    assert frame[:16] == b"FDGA\x01" + bytes([10]) + struct.pack(">IIH", 1, 5, 0xFFFF)
    assert frame[16:24] == struct.pack(">HHHH", 3, 0, 1, 3)
    assert frame[24:26] == struct.pack(">H", 3)
    for row, site in enumerate((0, 1, 3)):
        at = 26 + 66 * row
        assert frame[at : at + 2] == struct.pack(">H", site)
        IDENTITIES[site].public_key().verify(
            frame[at + 2 : at + 66], prefix("secagg/input") + raw("transcript")
        )
    assert len(frame) == 26 + 3 * 66
    agree = bytes.fromhex(V["frames"]["Agree"])
    statement = prefix("secagg/survivors") + raw("transcript") + struct.pack(">HHHH", 3, 0, 1, 3)
    IDENTITIES[0].public_key().verify(agree[16:], statement)


def test_the_page_quotes_the_vectors() -> None:
    page = re.sub(r"\s", "", PAGE)
    for name in (
        "terms_digest",
        "members_digest",
        "transcript",
        "turn_secret",
        "mask_key",
        "self_key",
        "share_key",
    ):
        assert V[name] in page, name
    assert V["pair"]["secret"] in page
    assert V["frames"]["Agree"] in page
    assert all(share in page for share in V["shamir"]["shares"])
    assert ",".join(str(word) for word in V["mask_words"]) in page
