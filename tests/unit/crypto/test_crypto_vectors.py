"""The test vectors of docs/spec, checked twice: by the package, and by a second reading of the spec.

The second reading uses the standard library and plain primitives only, so a change of the format cannot pass
by changing both ends of the package alike.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, mlkem, x25519
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from fedgen import messages
from fedgen.crypto import chunks
from fedgen.crypto.derive import hkdf
from fedgen.crypto.envelope import Expectation, open_frame, peek, sign_frame
from fedgen.crypto.keys import SealingKey, SigningKey
from fedgen.crypto.stream import KeyStream
from fedgen.errors import Code

ROOT = Path(__file__).parents[3]


def vectors(name: str) -> Any:
    return json.loads((ROOT / "tests" / "vectors" / f"{name}.json").read_text(encoding="utf-8"))


CRYPTO, ENVELOPE, MESSAGES = vectors("crypto"), vectors("envelope"), vectors("messages")
SIGNER = SigningKey._from_secret(bytes.fromhex(ENVELOPE["signing_private"]))
SEALER = SealingKey._from_secret(bytes.fromhex(ENVELOPE["sealing_private"]))
SEALED, CLEAR = bytes.fromhex(ENVELOPE["sealed"]["envelope"]), bytes.fromhex(ENVELOPE["clear"]["envelope"])


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


# The package against the vectors.


@pytest.mark.parametrize("case", MESSAGES["frames"], ids=lambda case: case["name"])
def test_message_frames(case: dict[str, Any]) -> None:
    message = getattr(messages, case["name"])
    assert message.kind == case["kind"]
    built = message.model_validate_json(json.dumps(case["fields"]))
    assert messages.encode(built, raw(case["body"])).hex() == case["frame"]
    decoded, body = messages.decode(raw(case["frame"]))
    assert (decoded, body.hex()) == (built, case["body"])


def test_there_is_a_frame_of_every_kind() -> None:
    assert {case["kind"] for case in MESSAGES["frames"]} == set(messages.Kind)


@pytest.mark.parametrize("case", CRYPTO["hkdf"])
def test_hkdf(case: dict[str, str]) -> None:
    assert (
        hkdf(raw(case["secret"]), purpose=case["purpose"], context=raw(case["context"])).hex()
        == case["output"]
    )


@pytest.mark.parametrize("case", CRYPTO["key_stream"])
def test_key_stream(case: dict[str, Any]) -> None:
    assert KeyStream.insecure(case["seed"], label=case["label"]).bytes(40).hex() == case["bytes"]


def test_signature_and_fingerprints() -> None:
    case = CRYPTO["signature"]
    signer = SigningKey._from_secret(raw(case["private"]))
    assert signer.public.hex() == case["public"]
    assert signer.sign(case["label"], raw(case["data"])).hex() == case["signature"]
    assert signer.fingerprint == case["fingerprint"]
    assert SEALER.public.hex() == CRYPTO["sealing_key"]["public"]
    assert SEALER.fingerprint == CRYPTO["sealing_key"]["fingerprint"]


@pytest.mark.parametrize("case", CRYPTO["chunks"]["cases"])
def test_chunks(case: dict[str, str]) -> None:
    key, prefix, chunk = (
        raw(CRYPTO["chunks"]["key"]),
        raw(CRYPTO["chunks"]["prefix"]),
        CRYPTO["chunks"]["chunk"],
    )
    out = bytearray(len(raw(case["sealed"])))
    chunks.encrypt_into(key, prefix, memoryview(raw(case["body"])), memoryview(out), chunk=chunk)
    assert out.hex() == case["sealed"]


def test_the_envelope_in_clear() -> None:
    header = peek(CLEAR)
    assert sign_frame(raw(ENVELOPE["clear"]["frame"]), header, SIGNER) == CLEAR
    expect = Expectation(study_hash="11" * 32, run="22" * 32, round=7, attempt=1, recipient="site-1")
    got = open_frame(CLEAR, verify_key=SIGNER.verify_key, sealing_key=None, expect=expect)
    assert got[1].hex() == ENVELOPE["clear"]["frame"]


def test_the_sealed_envelope() -> None:
    expect = Expectation(study_hash="11" * 32, run="22" * 32, round=7, attempt=1, recipient="coordinator")
    got = open_frame(SEALED, verify_key=SIGNER.verify_key, sealing_key=SEALER, expect=expect)
    assert got[1].hex() == ENVELOPE["sealed"]["frame"]


# A second reading of the spec, without the package.


def extract(salt: bytes, secret: bytes) -> bytes:
    return hmac.new(salt or bytes(32), secret, hashlib.sha256).digest()


def expand(key: bytes, info: bytes, length: int) -> bytes:
    out, block = b"", b""
    for index in range(1, -(-length // 32) + 1):
        block = hmac.new(key, block + info + bytes((index,)), hashlib.sha256).digest()
        out += block
    return out[:length]


def hpke_open(private: bytes, sealed: bytes, info: bytes) -> bytes:
    """RFC 9180 base mode, KEM 0x647a (X-Wing), KDF 0x0001, AEAD 0x0002."""
    pq, dh = (
        mlkem.MLKEM768PrivateKey.from_seed_bytes(private[:64]),
        x25519.X25519PrivateKey.from_private_bytes(private[64:]),
    )
    share = sealed[1088:1120]
    shared = hashlib.sha3_256(
        pq.decapsulate(sealed[:1088])
        + dh.exchange(x25519.X25519PublicKey.from_public_bytes(share))
        + share
        + dh.public_key().public_bytes_raw()
        + rb"\.//^"
        + b"\\"
    ).digest()
    suite = b"HPKE" + bytes.fromhex("647a00010002")

    def labeled_extract(label: bytes, secret: bytes, salt: bytes = b"") -> bytes:
        return extract(salt, b"HPKE-v1" + suite + label + secret)

    def labeled_expand(key: bytes, label: bytes, length: int) -> bytes:
        return expand(key, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + context, length)

    context = b"\0" + labeled_extract(b"psk_id_hash", b"") + labeled_extract(b"info_hash", info)
    secret = labeled_extract(b"secret", b"", salt=shared)
    key, nonce = labeled_expand(secret, b"key", 32), labeled_expand(secret, b"base_nonce", 12)
    return AESGCM(key).decrypt(nonce, sealed[1120:], b"")


def read(data: bytes) -> tuple[dict[str, Any], bytes, bytes, bytes]:
    """Cut an envelope as the spec says and check its signature."""
    assert data[:5] == b"FDGE\x01"
    size = int.from_bytes(data[5:7], "big")
    head, rest, signature = data[: 7 + size], data[7 + size : -64], data[-64:]
    header = json.loads(head[7:])
    seal, body = (rest[:1175], rest[1175:]) if header["sealed"] else (b"", rest)
    signed = b"fedgen/v1/envelope/signature\0" + b"".join(
        hashlib.sha256(p).digest() for p in (head, seal, body)
    )
    public = ed25519.Ed25519PublicKey.from_public_bytes(raw(CRYPTO["signature"]["public"]))
    public.verify(signature, signed)
    return header, head, seal, body


def test_the_clear_envelope_by_hand() -> None:
    header, _, _, body = read(CLEAR)
    assert body.hex() == ENVELOPE["clear"]["frame"]
    assert header["body_bytes"] == len(body)


def test_the_sealed_envelope_by_hand() -> None:
    header, head, seal, body = read(SEALED)
    data_key = hpke_open(raw(ENVELOPE["sealing_private"]), seal[:1168], b"fedgen/v1/envelope/seal\0" + head)
    nonce = seal[1168:] + bytes(4) + b"\1"
    assert AESGCM(data_key).decrypt(nonce, body, None).hex() == ENVELOPE["sealed"]["frame"]
    assert header["key"] == CRYPTO["sealing_key"]["fingerprint"][:16]


def test_frames_by_hand() -> None:
    for case in MESSAGES["frames"]:
        header = json.dumps(
            case["fields"], sort_keys=True, separators=(",", ":"), ensure_ascii=False
        ).encode()
        body = raw(case["body"])
        lengths = len(header).to_bytes(4, "big") + len(body).to_bytes(8, "big")
        assert b"FDGN\x01" + bytes((case["kind"],)) + lengths + header + body == raw(case["frame"])


def test_derivations_by_hand() -> None:
    for case in CRYPTO["hkdf"]:
        info = b"fedgen/v1/" + case["purpose"].encode() + b"\0" + raw(case["context"])
        assert expand(extract(b"", raw(case["secret"])), info, 32).hex() == case["output"]
    for case in CRYPTO["key_stream"]:
        info = b"fedgen/v1/stream/insecure\0" + case["label"].encode()
        key = expand(extract(b"", case["seed"].to_bytes(32, "big")), info, 32)
        cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        assert cipher.update(bytes(40)).hex() == case["bytes"]
    for kind, case in (("signing", CRYPTO["signature"]), ("sealing", CRYPTO["sealing_key"])):
        named = b"fedgen/v1/key/" + kind.encode() + b"\0" + raw(case["public"])
        assert hashlib.sha256(named).hexdigest() == case["fingerprint"]


# The documents against the vectors.


def quoted(page: str) -> str:
    """A page without its white space, so that wrapped hex can be found."""
    return re.sub(r"\s", "", (ROOT / "docs" / "spec" / page).read_text(encoding="utf-8"))


def test_the_envelope_page_quotes_the_vectors() -> None:
    page = quoted("envelope.md")
    for text in (
        ENVELOPE["clear"]["envelope"],
        hashlib.sha256(SEALED).hexdigest(),
        peek(SEALED).encode()[7:].decode(),
        CRYPTO["signature"]["public"],
        CRYPTO["signature"]["signature"],
        CRYPTO["signature"]["fingerprint"],
        CRYPTO["sealing_key"]["fingerprint"],
        *(case["output"] for case in CRYPTO["hkdf"]),
        *(case["sealed"] for case in CRYPTO["chunks"]["cases"]),
        *(case["bytes"] for case in CRYPTO["key_stream"]),
    ):
        assert text in page


def test_the_messages_page_quotes_the_vectors() -> None:
    page = quoted("messages.md")
    assert MESSAGES["frames"][2]["frame"] in page
    for case in MESSAGES["frames"]:
        assert f"|{case['kind']}|`{case['name']}`|" in page
        assert hashlib.sha256(raw(case["frame"])).hexdigest() in page


def test_the_envelope_page_names_every_field_and_real_codes_only() -> None:
    text = (ROOT / "docs" / "spec" / "envelope.md").read_text(encoding="utf-8")
    for field in json.loads(peek(SEALED).encode()[7:]):
        assert f"\n| `{field}` |" in text
    table = text.split("## Opening")[1].split("## Keys")[0]
    codes = set(re.findall(r"\| `([a-z-]+)` \|\n", table))
    assert codes <= {str(code) for code in Code}
    assert len(codes) == 10


@pytest.mark.parametrize("case", MESSAGES["frames"], ids=lambda case: case["name"])
def test_the_messages_page_names_every_field_and_its_mark(case: dict[str, Any]) -> None:
    text = (ROOT / "docs" / "spec" / "messages.md").read_text(encoding="utf-8")
    rows = text.split(f"### {case['name']}\n")[1].split("\n#")[0].splitlines()
    for name, field in getattr(messages, case["name"]).model_fields.items():
        row = next(row for row in rows if row.startswith("| `") and f"`{name}`" in row.split("|")[1])
        if isinstance(field.json_schema_extra, dict):
            assert row.split("|")[2].strip() == field.json_schema_extra["reveals"]
