"""Simulation: fedgen against a plain Flower and Opacus app on Ray, whole process trees, in one run.

``python benchmarks/simulation.py [--json] [--quick]``

VAE 64-128-16 on digits, 10 sites of 150 images, 10 rounds of 5 Poisson-sampled steps (q = 1/5), σ = 1, C = 1, Adam.
The plain app is written as the official examples do and lies in ``benchmarks/plain_flower``. Neither side evaluates
synthetic data; fedgen's side also seals, signs, charges ledgers, saves every round, samples and writes a report.
Then 100 and 1,000 sites of the same study, to see that memory is flat.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from common import Target, options, publish  # noqa: E402 - a sibling file, run as a script
from process_tree import Usage, measure, run_json  # noqa: E402

ROUNDS = 10
QUIET = {"OMP_NUM_THREADS": "1"}
STUDY = """\
study: digits
data: {{source: "builtin:digits", schema: images.yaml, sites: {{count: {sites}, split: iid}}, holdout: 0.165}}
model: {{name: image-vae, latent: 16, hidden: [128]}}
privacy: {{unit: record, trust: local, noise_multiplier: 1.0, delta: 1.0e-4, clip: 1.0}}
training: {{rounds: {rounds}, sample_rate: 0.2, local_steps: 5, optimizer: {{name: adam, lr: 1.0e-3}}}}
policy: {{min_cohort: 1}}
release: {{rows: 100, formats: [parquet]}}
simulation: {{judge: false}}
"""


# The same images without their labels: the model is then the plain app's, parameter for parameter.
IMAGES = "{kind: image, height: 8, width: 8, channels: 1, max_value: 16}\n"


def ours(sites: int, rounds: int, folder: Path) -> tuple[Usage, dict[str, Any]]:
    """Run fedgen's side as a process of its own; return its usage and what its run folder says."""
    folder.mkdir(parents=True)
    study = folder / "study.yaml"
    study.write_text(STUDY.format(sites=sites, rounds=rounds), encoding="utf-8")
    (folder / "images.yaml").write_text(IMAGES, encoding="utf-8")
    out = folder / "run"
    command = [sys.executable, "-m", "fedgen", "simulate", str(study), "--out", str(out), "--json"]
    usage = measure(command, env=QUIET, cwd=HERE.parent)
    if usage.exit_code:
        raise SystemExit(f"fedgen ended with {usage.exit_code}: {usage.stderr[-400:]}")
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    record = json.loads((out / "run.json").read_text(encoding="utf-8"))
    return usage, {
        "round_s": [line["seconds"] for line in lines],
        "epsilon": record["privacy"][-1]["epsilon"],
    }


def row(app: str, sites: int, usage: Usage, rounds: list[float], epsilon: float) -> dict[str, Any]:
    """Return one line of the table."""
    median = statistics.median(rounds[1:])
    return {
        "app": app,
        "sites": sites,
        **usage.row(),
        "first_round_s": round(rounds[0], 3),
        "later_round_s": round(median, 4),
        "messages_per_s": round(2 * sites / median),
        "epsilon": round(epsilon, 3),
    }


def main() -> int:
    """Run both sides and the two larger simulations."""
    arguments = options(__doc__).parse_args()
    sizes = [100] if arguments.quick else [100, 1000]
    with tempfile.TemporaryDirectory(prefix="fedgen-bench-") as place:
        root = Path(place)
        mine, said = ours(10, ROUNDS, root / "small")
        plain = [str(HERE / "plain_flower" / "run.py"), "--sites", "10", "--rounds", str(ROUNDS), "--json"]
        theirs, told = run_json([sys.executable, *plain])
        rows = [
            row("plain Flower + Opacus on Ray", 10, theirs, told["round_s"], told["epsilon_reported"][-1]),
            row("fedgen", 10, mine, said["round_s"], said["epsilon"]),
        ]
        memory: dict[int, float] = {}
        for size in sizes:
            usage, report = ours(size, 3, root / str(size))
            memory[size] = usage.peak_rss_mb
            rows.append(row("fedgen", size, usage, report["round_s"], report["epsilon"]))
    cpu = theirs.cpu_s / mine.cpu_s
    wall = theirs.wall_s / mine.wall_s
    each = statistics.median(told["round_s"][1:]) / statistics.median(said["round_s"][1:])
    targets = [
        Target("cpu_ratio (plain / fedgen, whole process trees), at least", 6, round(cpu, 2)),
        Target("wall_ratio, at least", 6, round(wall, 2)),
        Target("round_ratio (median round after the first), at least", 20, round(each, 2)),
        Target(f"peak RSS at {sizes[-1]:,} sites, MB, at most", 600, memory[sizes[-1]], at_most=True),
    ]
    return publish(
        "simulation",
        rows,
        targets,
        as_json=arguments.json,
        cpu_ratio=round(cpu, 3),
        wall_ratio=round(wall, 3),
        round_ratio=round(each, 3),
    )


if __name__ == "__main__":
    raise SystemExit(main())
