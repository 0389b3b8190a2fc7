"""Write the test vectors that docs/spec quotes: run by hand, and only when a format gets a new version.

The sealed envelope holds fresh randomness, so it differs on every run; everything else comes out the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedgen import messages
from fedgen.crypto import chunks, envelope
from fedgen.crypto.derive import hkdf
from fedgen.crypto.header import Header
from fedgen.crypto.keys import SealingKey, SigningKey
from fedgen.crypto.stream import KeyStream
from fedgen.errors import Code
from fedgen.secagg import wire

HERE = Path(__file__).parent
STUDY, RUN, WEIGHTS = "11" * 32, "22" * 32, "33" * 32
SIGNER = SigningKey._from_secret(bytes(range(32)))
SEALER = SealingKey._from_secret(bytes(range(96)))
BODY = bytes.fromhex("0000803f000000c0")  # 1.0 and -2.0, float32 little-endian
START = wire.Start(
    setup=0,
    turn=7,
    site=1,
    round=7,
    attempt=1,
    weights=bytes.fromhex(WEIGHTS),
    participants=(0, 1, 2),
    shares=(),
)

MESSAGES: tuple[tuple[messages.Wire, bytes], ...] = (
    (
        messages.Join(
            study_hash=STUDY, study='{"name":"é"}', run=RUN, coordinator="44" * 32, sealing_key="55"
        ),
        b"",
    ),
    (messages.Joined(study_hash=STUDY, site="site-1", accepts=True, last_round=0), b""),
    (messages.Train(study_hash=STUDY, run=RUN, round=7, attempt=1, parameters=2, digest=WEIGHTS), BODY),
    (
        messages.Trained(
            study_hash=STUDY,
            run=RUN,
            site="site-1",
            round=7,
            attempt=1,
            parameters=2,
            steps=3,
            weights=WEIGHTS,
            excluded={"consent-withdrawn": "<10"},
        ),
        BODY,
    ),
    (
        messages.Refusal(
            site="site-1", study_hash=STUDY, round=7, attempt=1, code=Code.BUDGET, incident="0123456789abcdef"
        ),
        b"",
    ),
    (messages.Settle(study_hash=STUDY, run=RUN, outcome="completed", rounds=7), b""),
    (messages.Settled(study_hash=STUDY, site="site-1"), b""),
    (messages.Confirm(study_hash=STUDY, run=RUN, round=7, attempt=1), b""),
    (messages.Confirmed(study_hash=STUDY, run=RUN, site="site-1", round=7, attempt=1), b""),
    (
        messages.Turn(study_hash=STUDY, run=RUN, round=7, attempt=1, parameters=2, digest=WEIGHTS),
        BODY + START.encode(),
    ),
    (messages.Step(study_hash=STUDY, run=RUN, round=7, attempt=1), wire.Invite(setup=1).encode()),
    (
        messages.Stepped(
            study_hash=STUDY,
            run=RUN,
            site="site-1",
            round=7,
            attempt=1,
            excluded={"consent-withdrawn": "<10"},
        ),
        wire.Clear(setup=0, turn=7, site=1, values=bytes(range(8))).encode(),
    ),
)


def message_vectors() -> dict[str, Any]:
    """Return one frame of each kind."""
    return {
        "frames": [
            {
                "name": type(message).__name__,
                "kind": int(message.kind),
                "fields": message.model_dump(mode="json"),
                "body": body.hex(),
                "frame": messages.encode(message, body).hex(),
            }
            for message, body in MESSAGES
        ]
    }


def chunk_vectors() -> dict[str, Any]:
    """Return small bodies in chunks of 16 bytes."""
    key, prefix, chunk = bytes(range(32)), bytes(range(7)), 16
    cases = []
    for size in (0, 1, 16, 17, 32, 40):
        body = bytes(range(size))
        out = bytearray(chunks.sealed_size(size, chunk=chunk))
        chunks.encrypt_into(key, prefix, memoryview(body), memoryview(out), chunk=chunk)
        cases.append({"body": body.hex(), "sealed": out.hex()})
    return {"key": key.hex(), "prefix": prefix.hex(), "chunk": chunk, "cases": cases}


def crypto_vectors() -> dict[str, Any]:
    """Return the vectors of the parts an envelope is made of."""
    derived = [
        {
            "secret": bytes(range(32)).hex(),
            "purpose": purpose,
            "context": context.hex(),
            "output": hkdf(bytes(range(32)), purpose=purpose, context=context).hex(),
        }
        for purpose, context in (
            ("stream/insecure", b""),
            ("stream/insecure", b"site-1"),
            ("mask", b"\x00\xff"),
        )
    ]
    streams = [
        {"seed": seed, "label": label, "bytes": KeyStream.insecure(seed, label=label).bytes(40).hex()}
        for seed, label in ((0, ""), (7, ""), (7, "site-1"))
    ]
    signed = {
        "private": bytes(range(32)).hex(),
        "public": SIGNER.public.hex(),
        "fingerprint": SIGNER.fingerprint,
        "label": "example",
        "data": b"fedgen".hex(),
        "signature": SIGNER.sign("example", b"fedgen").hex(),
    }
    sealing = {
        "private": bytes(range(96)).hex(),
        "public": SEALER.public.hex(),
        "fingerprint": SEALER.fingerprint,
    }
    return {
        "hkdf": derived,
        "key_stream": streams,
        "signature": signed,
        "sealing_key": sealing,
        "chunks": chunk_vectors(),
    }


def envelope_vectors() -> dict[str, Any]:
    """Return a broadcast in clear and a sealed update."""
    train = messages.encode(*MESSAGES[2])
    trained = messages.encode(*MESSAGES[3])
    down = Header(
        kind=messages.Kind.TRAIN,
        study_hash=STUDY,
        run=RUN,
        round=7,
        attempt=1,
        sender="coordinator",
        recipient="*",
    )
    up = Header(
        kind=messages.Kind.TRAINED,
        study_hash=STUDY,
        run=RUN,
        round=7,
        attempt=1,
        sender="site-1",
        recipient="coordinator",
    )
    return {
        "signing_private": bytes(range(32)).hex(),
        "sealing_private": bytes(range(96)).hex(),
        "clear": {"frame": train.hex(), "envelope": envelope.sign_frame(train, down, SIGNER).hex()},
        "sealed": {
            "frame": trained.hex(),
            "envelope": envelope.seal_frame(trained, up, SIGNER, SEALER.public).hex(),
        },
    }


if __name__ == "__main__":
    for name, vectors in (
        ("messages", message_vectors()),
        ("crypto", crypto_vectors()),
        ("envelope", envelope_vectors()),
    ):
        (HERE / f"{name}.json").write_text(
            json.dumps(vectors, indent=1, ensure_ascii=True) + "\n", encoding="utf-8"
        )
