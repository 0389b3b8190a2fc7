"""Sites of one process in one stacked step, noise included, against the same engine one site at a time, one thread.

``python benchmarks/stacked.py [--json] [--quick]``

Both sides take turns in one process; each one's figure is the minimum of its process CPU time over the rounds.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["OMP_NUM_THREADS"] = "1"
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import torch  # noqa: E402 - after the number of threads is set
from common import Target, options, publish  # noqa: E402 - a sibling file, run as a script
from models import NETS, rows_of  # noqa: E402

from fedgen.dpsgd.engine import make_engine  # noqa: E402
from fedgen.dpsgd.flat import FlatParameters  # noqa: E402
from fedgen.dpsgd.noise import NoiseSource  # noqa: E402
from fedgen.dpsgd.stacked import StackedEngine  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

NET, SITES, BATCH, CLIP, SIGMA = "tabular VAE 110-256-256-64", 64, 32, 1.0, 1.0
STACK = 32  # sites in one step: about a thousand rows, which stay in cache
TARGET = 1.5


def steps(*, noisy: bool) -> dict[str, Callable[[], object]]:
    """Return one step of all sites, each way."""
    make, shape = NETS[NET]
    torch.manual_seed(0)
    net = make()
    flat = FlatParameters(net)
    rows = rows_of(shape, SITES * BATCH)
    sources = [NoiseSource.secure() for _ in range(SITES)]
    fused, stacked = make_engine("fused", flat, net, CLIP), StackedEngine(flat, net, CLIP)
    each = [rows[site * BATCH : (site + 1) * BATCH] for site in range(SITES)]
    alone, together = (torch.empty(SITES, flat.size) for _ in range(2))
    weights = flat.vector.repeat(SITES, 1)
    vectors = list(alone)

    def fill(site: int, vector: torch.Tensor) -> None:
        if noisy:
            sources[site].fill_normal_(vector, SIGMA * CLIP)
        else:
            vector.zero_()

    def one_by_one() -> None:
        for site, vector in enumerate(vectors):
            fill(site, vector)
            fused.clipped_sum_(vector, net, each[site])

    def in_stacks(own: torch.Tensor | None) -> None:
        for first in range(0, SITES, STACK):
            sites = slice(first, first + STACK)

            def fill_one(site: int, vector: torch.Tensor, first: int = first) -> None:
                fill(first + site, vector)

            stacked.clipped_sums_(
                together[sites],
                net,
                rows[first * BATCH : (first + STACK) * BATCH],
                [BATCH] * STACK,
                weights=None if own is None else own[sites],
                fill=fill_one,
            )

    return {
        "one by one": one_by_one,
        "stacked, same weights": lambda: in_stacks(None),
        "stacked, own weights": lambda: in_stacks(weights),
    }


def main() -> int:
    """Time all ways, with noise and without."""
    arguments = options(__doc__).parse_args()
    torch.set_num_threads(1)
    rounds = 10 if arguments.quick else 40
    rows: list[dict[str, Any]] = []
    targets = []
    for noisy in (True, False):
        ways = steps(noisy=noisy)
        least = dict.fromkeys(ways, float("inf"))
        for call in ways.values():
            call()  # the first step proves and allocates
        for _ in range(rounds):
            for way, call in ways.items():
                began = time.process_time()
                call()
                least[way] = min(least[way], time.process_time() - began)
        for way, seconds in least.items():
            rows.append(
                {
                    "way": way,
                    "noise": "yes" if noisy else "no",
                    "cpu_ms": round(1000 * seconds, 2),
                    "times_faster": round(least["one by one"] / seconds, 3),
                }
            )
        if noisy:
            gain = least["one by one"] / least["stacked, same weights"]
            what = f"{NET}, {SITES} sites, B = {BATCH}, noise included: one by one over stacked, at least"
            targets.append(Target(what, TARGET, round(gain, 3)))
    return publish("stacked", rows, targets, as_json=arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
