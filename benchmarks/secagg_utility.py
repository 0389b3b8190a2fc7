"""What distributed trust costs in quality: the Adult example under central, distributed and local trust at one ε.

``python benchmarks/secagg_utility.py --adult PATH [--seeds N] [--rounds N] [--protocol full] [--json] [--quick]``

Every figure comes from a run of ``fedgen simulate``: real sites, a real coordinator, ledgers, the report's own
evaluation. The study is ``examples/adult/study.yaml`` at its ten sites; only ``privacy.trust`` and what belongs to it
differ: ``distributed`` tolerates one dropout and assumes one colluder, with nobody missing; under local trust the same
batch is counted for each site. PATH is a copy of the data, by default ``adult.csv.gz`` beside the study. ``--protocol
sum`` (the default) has the same bits in every aggregate as ``full``. Each run's ledgers are audited. Nothing is seeded,
so runs differ by chance; more of them with ``--seeds``.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from common import Target, options, publish  # noqa: E402 - a sibling file, run as a script

from fedgen.api.budgets import audit_budget  # noqa: E402
from fedgen.api.reporting import measures_of  # noqa: E402
from fedgen.api.simulation import simulate  # noqa: E402
from fedgen.config.load import load_study  # noqa: E402
from fedgen.config.plan import plan_of  # noqa: E402
from fedgen.report.model import ReportModel  # noqa: E402

STUDY = HERE.parent / "examples" / "adult" / "study.yaml"
MODES = ("central", "distributed", "local")
QUICK_ROUNDS = 20


def changes_for(mode: str, arguments: Any) -> list[str]:
    """Return what makes the example a study of one trust mode."""
    changes = [
        f"data.source=csv://{arguments.adult.resolve()}",
        f"privacy.trust={mode}",
        f"privacy.epsilon={arguments.epsilon}",
        "simulation.evaluate_every=0",
    ]
    if arguments.rounds is not None:
        changes.append(f"training.rounds={arguments.rounds}")
    plain = load_study(STUDY).study
    if mode == "local":
        changes.append(f"training.batch={round((plain.training.batch or 0) / plain.data.sites.count)}")
    if mode == "distributed":
        changes.append(f"secagg={{protocol: {arguments.protocol}, dropouts: 1, colluders: 1}}")
    return changes


def run(mode: str, arguments: Any, folder: Path) -> dict[str, Any]:
    """Simulate once and return the scores of the report, and what was charged."""
    found = simulate(STUDY, out=folder / mode, overrides=changes_for(mode, arguments))
    audit_budget(folder / mode)
    model = ReportModel.from_json(json.loads((folder / mode / "report.json").read_text(encoding="utf-8")))
    if model.quality is None:
        raise SystemExit("the run was not evaluated: install fedgen[audit]")
    plan = plan_of(found.study)
    draws = len(found.study.roster) if mode == "local" else 1
    two, one, auc, real = measures_of(model.quality)[1]
    return {"trust": mode, "epsilon": round(plan.epsilon_of(plan.rounds), 4),
            "noise over clip": round(plan.noise_std * draws**0.5 / plan.clip, 3),
            "2-way": two, "1-way": one, "AUC": auc, "AUC of real rows": real, "wall s": model.wall_s}  # fmt: skip


def mean(rows: list[dict[str, Any]], mode: str, name: str) -> float:
    return statistics.fmean(row[name] for row in rows if row["trust"] == mode)


def main() -> int:
    """Simulate and compare."""
    parser = options(__doc__)
    parser.add_argument(
        "--adult", type=Path, default=STUDY.parent / "adult.csv.gz", help="a copy of adult.csv.gz"
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each trust mode")
    parser.add_argument("--rounds", type=int, default=None, help="instead of the study's")
    parser.add_argument("--epsilon", type=float, default=1.0, help="what may be spent")
    parser.add_argument(
        "--protocol", choices=("sum", "full"), default="sum", help="how distributed sums are taken"
    )
    arguments = parser.parse_args()
    if not arguments.adult.is_file():
        parser.error(f"no such file: {arguments.adult}; name a copy with --adult")
    if arguments.quick:
        arguments.seeds, arguments.rounds = 1, arguments.rounds or QUICK_ROUNDS
    rows = []
    for _ in range(arguments.seeds):
        for mode in MODES:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(run(mode, arguments, Path(folder)))
                print(rows[-1], file=sys.stderr, flush=True)
    points = 100 * (mean(rows, "central", "AUC") - mean(rows, "distributed", "AUC"))
    over = mean(rows, "distributed", "2-way") / mean(rows, "central", "2-way")
    local = mean(rows, "local", "2-way") / mean(rows, "distributed", "2-way")
    ahead = 100 * (mean(rows, "distributed", "AUC") - mean(rows, "local", "AUC"))
    targets = [
        Target("central AUC over distributed, in points, at most", 1.0, round(points, 2), at_most=True),
        Target("2-way distance of distributed over central, at most", 1.10, round(over, 3), at_most=True),
        Target("2-way distance of local over distributed, at least", 1.0, round(local, 3)),
        Target("distributed AUC over local, in points, at least", 0.0, round(ahead, 2)),
    ]
    return publish("secagg_utility", rows, targets, as_json=arguments.json)


if __name__ == "__main__":
    raise SystemExit(main())
