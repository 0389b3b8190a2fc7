"""The vectors of docs/spec/ledger.md, checked by the package and by a second reading of the page.

The second reading uses the standard library and plain Ed25519 only, so that a change of the format cannot pass by
changing writer and reader alike.
"""

import json
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedgen.crypto.keys import SigningKey, VerifyKey
from fedgen.ledger.checkpoint import ENTRY_LABEL, Checkpoint
from fedgen.ledger.entries import Reserved, entry_digest, entry_hash, from_body, to_body
from fedgen.ledger.merkle import (
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
)

ROOT = Path(__file__).parents[3]
VECTORS: Any = json.loads((ROOT / "tests" / "vectors" / "ledger.json").read_text(encoding="utf-8"))
ENTRIES = VECTORS["entries"]


@pytest.mark.parametrize("row", ENTRIES, ids=lambda row: str(row["index"]))
def test_the_package_writes_and_reads_the_vectors(row: Any) -> None:
    body = row["body"].encode()
    assert to_body(*from_body(body)) == body
    digest = entry_digest(bytes.fromhex(row["prev"]), row["index"], body)
    assert digest.hex() == row["digest"]
    assert entry_hash(digest, bytes.fromhex(row["signature"])).hex() == row["hash"]
    key = SigningKey._from_secret(bytes.fromhex(VECTORS["signing_private"]))
    assert key.public.hex() == VECTORS["public_key"]
    assert key.sign(ENTRY_LABEL, digest).hex() == row["signature"]


def test_a_second_reading_of_the_page_agrees() -> None:
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(VECTORS["public_key"]))
    prev = bytes(32)
    for index, row in enumerate(ENTRIES):
        assert row["prev"] == prev.hex()
        digest = sha256(prev + index.to_bytes(8, "big") + row["body"].encode()).digest()
        signature = bytes.fromhex(row["signature"])
        key.verify(signature, b"fedgen/v1/ledger/entry\0" + digest)
        prev = sha256(digest + signature).digest()
        assert row["hash"] == prev.hex()
        values = json.loads(row["body"])
        text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert text == row["body"]


def hashes() -> list[bytes]:
    return [bytes.fromhex(row["hash"]) for row in ENTRIES]


def test_a_second_reading_of_the_tree_agrees() -> None:
    def tree(leaves: list[bytes]) -> bytes:
        if len(leaves) == 1:
            return sha256(b"\x00" + leaves[0]).digest()
        half = 1
        while 2 * half < len(leaves):
            half *= 2
        return sha256(b"\x01" + tree(leaves[:half]) + tree(leaves[half:])).digest()

    roots = [sha256().hexdigest(), *(tree(hashes()[:size]).hex() for size in range(1, len(ENTRIES) + 1))]
    assert roots == VECTORS["roots"]


def test_a_second_reading_of_the_checkpoint_agrees() -> None:
    origin, size, root, empty, line, end = VECTORS["checkpoint"].split("\n")
    assert (origin, size, empty, end) == (json.loads(ENTRIES[0]["body"])["origin"], str(len(ENTRIES)), "", "")
    assert b64decode(root).hex() == VECTORS["roots"][-1]
    dash, name, blob = line.split(" ")
    assert (dash, name) == ("\u2014", origin)
    public = bytes.fromhex(VECTORS["public_key"])
    assert b64decode(blob)[:4] == sha256(name.encode() + b"\n\x01" + public).digest()[:4]
    Ed25519PublicKey.from_public_bytes(public).verify(
        b64decode(blob)[4:], f"{origin}\n{size}\n{root}\n".encode()
    )


def test_the_package_makes_and_checks_the_proofs_of_the_vectors() -> None:
    leaves, roots = [leaf_hash(own) for own in hashes()], [bytes.fromhex(it) for it in VECTORS["roots"]]
    for index, parts in enumerate(VECTORS["inclusion"]):
        proof = tuple(bytes.fromhex(part) for part in parts)
        assert inclusion_proof(leaves, index) == proof
        check_inclusion(leaves[index], index, len(leaves), proof, roots[-1])
    for old, parts in enumerate(VECTORS["consistency"], start=1):
        proof = tuple(bytes.fromhex(part) for part in parts)
        assert consistency_proof(leaves, old) == proof
        check_consistency(old, len(leaves), roots[old], roots[-1], proof)


def test_the_vectors_hold_every_kind_of_entry_and_event() -> None:
    assert {json.loads(row["body"])["entry"] for row in ENTRIES} == {
        "opened", "admitted", "reserved", "settled", "refused", "closed",
    }  # fmt: skip
    events = json.dumps([json.loads(row["body"]).get("event") for row in ENTRIES])
    assert all(kind in events for kind in ("poisson-gaussian", '"gaussian"', "laplace", "composed"))


def test_the_checkpoint_of_the_vectors_verifies() -> None:
    checkpoint = Checkpoint.from_text(VECTORS["checkpoint"])
    checkpoint.verify(VerifyKey(bytes.fromhex(VECTORS["public_key"])))
    assert checkpoint.to_text() == VECTORS["checkpoint"]


def test_the_page_quotes_the_vectors() -> None:
    page = (ROOT / "docs" / "spec" / "ledger.md").read_text(encoding="utf-8")
    row = ENTRIES[2]
    assert isinstance(from_body(row["body"].encode())[0], Reserved)
    assert VECTORS["checkpoint"] in page
    for name in ("prev", "digest", "signature", "hash"):
        assert f"{row[name][:16]}…{row[name][-16:]}" in page
    for kind in ("opened", "admitted", "refused", "reserved", "settled", "closed"):
        assert f"| `{kind}` |" in page
