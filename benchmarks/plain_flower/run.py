"""Run the plain app on Ray and print the wall time of each round.

``python benchmarks/plain_flower/run.py [--sites 10] [--rounds 10] [--json]``
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).resolve().parent
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def prepare() -> None:
    """Switch off what talks to the network, and let Ray's processes find this package."""
    os.environ.update(QUIET)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE.parent), os.environ.get("PYTHONPATH"))))
    sys.path.insert(0, str(HERE.parent))


def main() -> int:
    """Run the app once; the document is the last line of stdout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    prepare()
    started = time.perf_counter()
    from flwr.simulation import run_simulation

    from plain_flower.client_app import app
    from plain_flower.server_app import Timeline, server_app

    timeline = Timeline()
    run_simulation(
        server_app=server_app(sites=arguments.sites, rounds=arguments.rounds, timeline=timeline),
        client_app=app,
        num_supernodes=arguments.sites,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    clock = timeline.clock
    document = {
        "sites": arguments.sites,
        "rounds": arguments.rounds,
        "before_first_round_s": clock[0] - started,
        "round_s": [later - earlier for earlier, later in pairwise(clock)],
        "total_s": time.perf_counter() - started,
        "held_out_loss": timeline.loss,
        "epsilon_reported": timeline.epsilon,
    }
    if arguments.json:
        print(json.dumps(document))
    else:
        for number, seconds in enumerate(document["round_s"], start=1):
            print(f"round {number:3d}   {seconds:6.2f} s   held-out loss {timeline.loss[number]:.2f}")
        print(f"total {document['total_s']:.1f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
