"""Write policy_masks.json: golden digests of what the engine permits in seeded tables.

A change of a digest is a change of decisions: it needs a new engine version and a line in the changelog.
``python tests/vectors/make_policy_vectors.py``
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from fedgen.policy.engine import ENGINE  # noqa: E402
from fedgen.policy.evidence import mask_sha256  # noqa: E402
from fedgen.policy.packs import load_packs  # noqa: E402
from tests.support.policy_worlds import LAWS, World  # noqa: E402

SEEDS, SIZE = range(12), 250


def vectors():
    """Return the engine's version, the packs, and for each seed the request, the counts and the digest."""
    packs = load_packs(LAWS)
    masks = []
    for seed in SEEDS:
        world = World(seed, SIZE)
        decision = world.decide(packs)
        masks.append(
            {
                "seed": seed,
                "rows": SIZE,
                "operation": world.request["operation"],
                "time": world.request["time"],
                "counts": {str(code): n for code, n in sorted(decision.counts.items())},
                "mask_sha256": mask_sha256(decision.permitted),
            }
        )
    return {"engine": ENGINE, "packs": [packs[law].reference for law in LAWS], "masks": masks}


if __name__ == "__main__":
    text = json.dumps(vectors(), indent=1, sort_keys=True) + "\n"
    (HERE / "policy_masks.json").write_text(text, encoding="utf-8")
