"""Write the test vectors that docs/spec/secagg.md quotes: run by hand, and only when the format gets a new version.

Encapsulation draws from the operating system, so the ciphertext, and all that follows from it, differs on every run.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from fedgen.crypto.agreement import AgreementKey
from fedgen.crypto.keys import SigningKey
from fedgen.crypto.stream import KeyStream
from fedgen.secagg import masks, protocol, shamir, wire
from fedgen.secagg.graph import degree, neighbours
from fedgen.secagg.protocol import Members, Transcript
from fedgen.secagg.terms import Terms

HERE = Path(__file__).parent
IDENTITIES = [SigningKey._from_secret(bytes([i]) * 32) for i in range(4)]
AGREEMENTS = [AgreementKey._from_secret(bytes([16 + i]) * 96) for i in range(4)]


def vectors() -> dict[str, Any]:
    """Return everything, as hex."""
    terms = Terms(
        study="11" * 32,
        run="22" * 32,
        sites=tuple((f"site-{i}", key.public) for i, key in enumerate(IDENTITIES)),
        dimension=4,
        threshold=3,
        dropouts=1,
    )
    members = Members(terms, 1, {i: key.public for i, key in enumerate(AGREEMENTS)})
    ciphertext, pair = AGREEMENTS[0].offer(AGREEMENTS[1].public, context=members.pair(0, 1))
    transcript = Transcript(members.digest, 5, 7, 2, bytes.fromhex("33" * 32), (0, 1, 3))
    turn_secret = masks.turn_secret(pair, 5)
    words = np.zeros(4, np.uint32)
    masks.add_streams(words, [masks.mask_key(turn_secret, transcript.digest)], [])
    secret = int.from_bytes(bytes(range(32)), "little") % shamir.PRIME
    points = [1, 2, 3, 4]
    shares = shamir.split(secret, 3, points, KeyStream.insecure(7))
    advertise = wire.Advertise(
        setup=1,
        site=0,
        public=AGREEMENTS[0].public,
        signature=IDENTITIES[0].sign(
            protocol.ADVERTISE, protocol.advertised(terms, 1, 0, AGREEMENTS[0].public)
        ),
    )
    inputs = tuple((i, IDENTITIES[i].sign(protocol.INPUT, transcript.digest)) for i in (0, 1, 3))
    agree = IDENTITIES[0].sign(protocol.SURVIVORS, transcript.survivors((0, 1, 3)))
    frames = {
        "Start": wire.Start(
            setup=1,
            turn=5,
            site=1,
            round=7,
            attempt=2,
            weights=transcript.weights,
            participants=(0, 1, 3),
            shares=(),
        ),
        "Propose": wire.Propose(setup=1, turn=5, signatures=inputs),
        "Agree": wire.Agree(setup=1, turn=5, site=0, signature=agree),
        "Unmask": wire.Unmask(setup=1, turn=5, survivors=(0, 1, 3), signatures=inputs),
        "Reveal": wire.Reveal(
            setup=1, turn=5, site=3, shares=tuple((i, shamir.to_bytes(shares[i])) for i in (0, 1, 3))
        ),
    }
    return {
        "identities": [key._secret.hex() for key in IDENTITIES],
        "agreements": [(bytes([16 + i]) * 96).hex() for i in range(4)],
        "terms_digest": terms.digest.hex(),
        "members_digest": members.digest.hex(),
        "advertise_sha256": hashlib.sha256(advertise.encode()).hexdigest(),
        "pair": {"ciphertext": ciphertext.hex(), "secret": pair.hex()},
        "transcript": transcript.digest.hex(),
        "turn_secret": turn_secret.hex(),
        "mask_key": masks.mask_key(turn_secret, transcript.digest).hex(),
        "mask_words": [int(word) for word in words],
        "self_key": masks.self_key(bytes(range(32)), transcript.digest).hex(),
        "share_key": masks.share_key(pair, 5, 0, 1).hex(),
        "sealed_shares": masks.seal_once(masks.share_key(pair, 5, 0, 1), bytes(range(64))).hex(),
        "backup_key": masks.backup_key(bytes(range(32)), members.digest, 5, 0).hex(),
        "commitment_seed": members.commitment("seed", 5, 0, 0, bytes(range(32))).hex(),
        "commitment_pair": members.pair_commitment(5, 1, 0, turn_secret).hex(),
        "check_seed": members.check("seed", 5, 0, 1, bytes(range(32))).hex(),
        "shamir": {
            "secret": shamir.to_bytes(secret).hex(),
            "threshold": 3,
            "points": points,
            "shares": [shamir.to_bytes(share).hex() for share in shares],
        },
        "graph": {
            "sites": 120,
            "degree": degree(120, 1, 5),
            "digest": "ab" * 32,
            "neighbours_of_0": neighbours(tuple(range(120)), degree(120, 1, 5)[0], bytes.fromhex("ab" * 32))[
                0
            ],
        },
        "frames": {name: message.encode().hex() for name, message in frames.items()},
    }


if __name__ == "__main__":
    (HERE / "secagg.json").write_text(json.dumps(vectors(), indent=1) + "\n", encoding="utf-8")
