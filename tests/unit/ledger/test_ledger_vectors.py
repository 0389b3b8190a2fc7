"""The vectors of docs/spec/ledger.md, checked by the package and by a second reading of the page.

The second reading uses the standard library and plain Ed25519 only, so that a change of the format cannot pass by
changing writer and reader alike.
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedgen.crypto.keys import SigningKey, VerifyKey
from fedgen.ledger.checkpoint import ENTRY_LABEL, Checkpoint
from fedgen.ledger.entries import Reserved, entry_hash, from_body, to_body

ROOT = Path(__file__).parents[3]
VECTORS: Any = json.loads((ROOT / "tests" / "vectors" / "ledger.json").read_text(encoding="utf-8"))
ENTRIES = VECTORS["entries"]


@pytest.mark.parametrize("row", ENTRIES, ids=lambda row: str(row["index"]))
def test_the_package_writes_and_reads_the_vectors(row: Any) -> None:
    body = row["body"].encode()
    assert to_body(*from_body(body)) == body
    assert entry_hash(bytes.fromhex(row["prev"]), row["index"], body).hex() == row["hash"]
    key = SigningKey._from_secret(bytes.fromhex(VECTORS["signing_private"]))
    assert key.public.hex() == VECTORS["public_key"]
    assert key.sign(ENTRY_LABEL, bytes.fromhex(row["hash"])).hex() == row["signature"]


def test_a_second_reading_of_the_page_agrees() -> None:
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(VECTORS["public_key"]))
    prev = bytes(32)
    for index, row in enumerate(ENTRIES):
        assert row["prev"] == prev.hex()
        prev = sha256(prev + index.to_bytes(8, "big") + row["body"].encode()).digest()
        assert row["hash"] == prev.hex()
        key.verify(bytes.fromhex(row["signature"]), b"fedgen/v1/ledger/entry\0" + prev)
        values = json.loads(row["body"])
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert text == row["body"]
    promise = {name: VECTORS["checkpoint"][name] for name in ("head", "origin", "size")}
    assert promise == {
        "head": prev.hex(),
        "origin": json.loads(ENTRIES[0]["body"])["origin"],
        "size": len(ENTRIES),
    }
    text = json.dumps(promise, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    key.verify(
        bytes.fromhex(VECTORS["checkpoint"]["signature"]), b"fedgen/v1/ledger/checkpoint\0" + text.encode()
    )


def test_the_vectors_hold_every_kind_of_entry_and_event() -> None:
    assert {json.loads(row["body"])["entry"] for row in ENTRIES} == {
        "opened", "admitted", "reserved", "settled", "refused", "closed",
    }  # fmt: skip
    events = json.dumps([json.loads(row["body"]).get("event") for row in ENTRIES])
    assert all(kind in events for kind in ("poisson-gaussian", '"gaussian"', "laplace", "composed"))


def test_the_checkpoint_of_the_vectors_verifies() -> None:
    checkpoint = Checkpoint.from_json(VECTORS["checkpoint"])
    checkpoint.verify(VerifyKey(bytes.fromhex(VECTORS["public_key"])))
    assert checkpoint.to_json() == VECTORS["checkpoint"]


def test_the_page_quotes_the_vectors() -> None:
    page = (ROOT / "docs" / "spec" / "ledger.md").read_text(encoding="utf-8")
    row = ENTRIES[2]
    assert isinstance(from_body(row["body"].encode())[0], Reserved)
    for name in ("prev", "hash", "signature"):
        assert f"{row[name][:16]}…{row[name][-16:]}" in page
    for kind in ("opened", "admitted", "refused", "reserved", "settled", "closed"):
        assert f"| `{kind}` |" in page
