"""Write ledger.json, the test vectors of docs/spec/ledger.md: by hand, and only when the format gets a new version."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fedgen.crypto.keys import SigningKey
from fedgen.ledger.checkpoint import ENTRY_LABEL, Checkpoint
from fedgen.ledger.entries import (
    GENESIS,
    Admitted,
    Closed,
    Entry,
    Opened,
    Refused,
    Reserved,
    Settled,
    entry_digest,
    entry_hash,
    to_body,
)
from fedgen.ledger.merkle import consistency_proof, inclusion_proof, leaf_hash, root
from fedgen.privacy.events import Composed, Gaussian, Laplace, PoissonGaussian

SEED = bytes(range(32))
KEY = SigningKey._from_secret(SEED)
STUDY, RUN, DIGEST = "11" * 32, "22" * 32, "33" * 32
DATA = "hospital-é/claims"
ENTRIES: tuple[Entry, ...] = (
    Opened(origin="hospital-é", public_key=KEY.public.hex(), durable=True),
    Admitted(study_hash=STUDY, run=RUN, dataset=DATA),
    Reserved(DATA, STUDY, RUN, 1, 1, PoissonGaussian(0.05, 1.25), 4),
    Settled(reservation=2, round=1, attempt=1, digest=DIGEST),
    Reserved(DATA, STUDY, RUN, 2, 1, Composed(((Gaussian(8.0), 1), (Laplace(20.0), 2))), 1),
    Refused(study_hash=STUDY, run=RUN, round=3, attempt=1, code="budget"),
    Closed(study_hash=STUDY, run=RUN, outcome="budget", rounds=2),
)


def main() -> None:
    start, prev, rows = datetime(2026, 1, 31, 12, 0, 0, 250000, tzinfo=UTC), GENESIS, []
    for index, entry in enumerate(ENTRIES):
        body = to_body(entry, start + timedelta(seconds=index))
        digest = entry_digest(prev, index, body)
        signature = KEY.sign(ENTRY_LABEL, digest)
        own = entry_hash(digest, signature)
        rows.append(
            {
                "index": index,
                "prev": prev.hex(),
                "body": body.decode(),
                "digest": digest.hex(),
                "signature": signature.hex(),
                "hash": own.hex(),
            }
        )
        prev = own
    leaves = [leaf_hash(bytes.fromhex(str(row["hash"]))) for row in rows]
    vectors = {
        "signing_private": SEED.hex(),
        "public_key": KEY.public.hex(),
        "entries": rows,
        "roots": [root(leaves[:size]).hex() for size in range(len(leaves) + 1)],
        "inclusion": [
            [part.hex() for part in inclusion_proof(leaves, index)] for index in range(len(leaves))
        ],
        "consistency": [
            [part.hex() for part in consistency_proof(leaves, old)] for old in range(1, len(leaves) + 1)
        ],
        "checkpoint": Checkpoint.signed("hospital-é", len(rows), root(leaves), KEY).to_text(),
    }
    path = Path(__file__).parent / "ledger.json"
    path.write_text(json.dumps(vectors, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
