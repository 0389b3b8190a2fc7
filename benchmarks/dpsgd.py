"""DP-SGD: one step of the fused engine, noise included, against plain SGD and Opacus in one process, one thread.

``python benchmarks/dpsgd.py [--json] [--quick]``

Methods take turns, and each one's figure is the minimum of its process CPU time over the rounds: the work, without
what other programs did meanwhile. Memory is the growth of the peak resident set over three steps, in a process of its
own for each method.
"""

from __future__ import annotations

import json
import os
import subprocess
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

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

LR, CLIP, SIGMA = 0.01, 1.0, 1.0
CASES = {
    ("MLP VAE 784-400-20", 32): 1.8,
    ("MLP VAE 784-400-20", 256): 1.25,
    ("MLP VAE 784-400-20", 1024): 1.15,
    ("tabular VAE 110-256-256-64", 32): None,
    ("tabular VAE 110-256-256-64", 256): 1.35,
    ("conv critic 1x28x28", 32): None,
    ("conv critic 1x28x28", 256): 1.8,
}
MEMORY = ("MLP VAE 784-400-20", 1024, 1.6)


def plain(net: nn.Module, rows: torch.Tensor) -> Callable[[], None]:
    """Return a step of plain SGD."""
    parameters = list(net.parameters())

    def step() -> None:
        loss = net(rows).mean()
        loss.backward()
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(parameter.grad, alpha=-LR)  # type: ignore[arg-type]
                parameter.grad = None

    return step


def private(name: str) -> Callable[[nn.Module, torch.Tensor], Callable[[], None]]:
    """Return the maker of a DP step with one of our engines."""

    def make(net: nn.Module, rows: torch.Tensor) -> Callable[[], None]:
        flat = FlatParameters(net)
        engine = make_engine(name, flat, net, CLIP)
        noise = NoiseSource.secure()
        buffer = torch.empty_like(flat.vector)

        def step() -> None:
            noise.fill_normal_(buffer, SIGMA * CLIP)
            engine.clipped_sum_(buffer, net, rows)
            flat.vector.add_(buffer, alpha=-LR / len(rows))

        return step

    return make


METHODS: dict[str, Callable[[nn.Module, torch.Tensor], Callable[[], None]]] = {
    "plain": plain,
    "fused": private("fused"),
    "opacus": private("opacus"),
}


def ratios(case: tuple[str, int], methods: tuple[str, ...], rounds: int) -> dict[str, float]:
    """Return the least CPU milliseconds of one step by method, taking turns."""
    make, shape = NETS[case[0]]
    rows = rows_of(shape, case[1])
    steps = {}
    for method in methods:
        torch.manual_seed(0)
        steps[method] = METHODS[method](make(), rows)
        steps[method]()  # the first step proves and allocates
    least = dict.fromkeys(methods, float("inf"))
    for _ in range(rounds):
        for method, step in steps.items():
            began = time.process_time()
            step()
            least[method] = min(least[method], time.process_time() - began)
    return {method: 1000 * seconds for method, seconds in least.items()}


def memory_of(method: str) -> float:
    """Return how many MB the peak resident set of a fresh process grows over three steps."""
    done = subprocess.run(
        [sys.executable, str(HERE / "dpsgd.py"), "--memory", method],
        capture_output=True,
        text=True,
        check=True,
    )
    grown: float = json.loads(done.stdout.splitlines()[-1])["mb"]
    return grown


def grow(method: str) -> None:
    """Take three steps and print the growth of the peak resident set."""
    make, shape = NETS[MEMORY[0]]
    rows = rows_of(shape, MEMORY[1])
    step = METHODS[method](make(), rows[:2])
    step()
    before = _peak_kb()
    step = METHODS[method](make(), rows)
    for _ in range(3):
        step()
    print(json.dumps({"mb": (_peak_kb() - before) / 1024}))


def _peak_kb() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def main() -> int:
    """Run every case."""
    parser = options(__doc__)
    parser.add_argument("--memory", metavar="METHOD", help="measure one method's memory in this process")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory:
        grow(arguments.memory)
        return 0
    rows: list[dict[str, Any]] = []
    targets = []
    for case, bound in CASES.items():
        heavy = case[1] > 256 or "conv" in case[0]
        rounds = (15 if heavy else 60) if arguments.quick else (40 if heavy else 200)
        least = ratios(case, ("plain", "fused"), rounds)
        slow = ratios(case, ("plain", "opacus"), 3)
        ratio = least["fused"] / least["plain"]
        rows.append(
            {
                "net": case[0],
                "batch": case[1],
                "plain_ms": round(least["plain"], 3),
                "fused_ms": round(least["fused"], 3),
                "fused_ratio": round(ratio, 3),
                "opacus_hooks_ratio": round(slow["opacus"] / slow["plain"], 2),
            }
        )
        if bound is not None:
            what = f"{case[0]}, B = {case[1]}: CPU of a private step over plain SGD, at most"
            targets.append(Target(what, bound, round(ratio, 3), at_most=True))
    used = {method: memory_of(method) for method in METHODS}
    rows += [
        {"net": f"{MEMORY[0]}, peak memory", "batch": MEMORY[1], f"{m}_mb": round(mb, 1)}
        for m, mb in used.items()
    ]
    what = f"{MEMORY[0]}, B = {MEMORY[1]}: peak memory over plain SGD, at most"
    targets.append(Target(what, MEMORY[2], round(used["fused"] / used["plain"], 3), at_most=True))
    return publish("dpsgd", rows, targets, as_json=arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
