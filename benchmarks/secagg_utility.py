"""What distributed trust costs in quality: the Adult example under central, distributed and local trust at one ε.

``python benchmarks/secagg_utility.py --adult PATH [--seeds N] [--rounds N] [--json] [--quick]``

The study is ``examples/adult/study.yaml`` at its ten sites; PATH is a copy of its data, by default ``adult.csv.gz``
beside it. Trust ``distributed`` cannot be named in a study yet, so all three are trained by one loop here: the same
sampling, clipping, batches, optimizer and moving average; only where the noise is added differs. ``distributed``
takes every sum through the drivers that a study will use, one dropout tolerated and one colluder assumed, with nobody
missing; ``--protocol sum`` (the default) has the same bits as ``full``. Sampling is seeded, the noise is not.
"""

from __future__ import annotations

import os
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from common import Target, options, publish  # noqa: E402 - a sibling file, run as a script

from fedgen.api.bench import new_learner  # noqa: E402
from fedgen.api.prepare import Prepared, prepare  # noqa: E402
from fedgen.api.reporting import measures_of  # noqa: E402
from fedgen.api.run import sample_codes  # noqa: E402
from fedgen.audit.evaluate import evaluate_codes  # noqa: E402
from fedgen.config.distributed import DistributedPlan, distributed_plan  # noqa: E402
from fedgen.config.plan import plan_of  # noqa: E402
from fedgen.config.secagg import SecaggSpec  # noqa: E402
from fedgen.coordinator.secure_round import PlainRounds, SecureRounds  # noqa: E402
from fedgen.coordinator.secure_store import SetupFile  # noqa: E402
from fedgen.crypto.digest import sha256_hex  # noqa: E402
from fedgen.crypto.keys import SigningKey  # noqa: E402
from fedgen.dpsgd.noise import NoiseSource  # noqa: E402
from fedgen.privacy.units import Trust  # noqa: E402
from fedgen.secagg import wire  # noqa: E402
from fedgen.secagg.server import Aggregate  # noqa: E402
from fedgen.site.secure import PlainSite, SecureSite, Work  # noqa: E402
from fedgen.site.standing import StandingFile  # noqa: E402
from fedgen.training.optimizer import LearnerOptimizer  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

    Noised = Callable[[int, list[Tensor], str], Tensor]

STUDY = HERE.parent / "examples" / "adult" / "study.yaml"
MODES = ("central", "distributed", "local")
RUN = "22" * 32


class Shared:
    """Ten sites and a coordinator behind their drivers, all in this process."""

    def __init__(self, plan: DistributedPlan, study: str, names: list[str], folder: Path) -> None:
        self.plan, self.stream = plan, NoiseSource.secure().stream
        keys = {name: SigningKey.generate() for name in names}
        terms = plan.terms(study, RUN, {name: key.public for name, key in keys.items()})
        self.sites: dict[str, SecureSite | PlainSite] = {}
        for name, key in keys.items():
            kept = StandingFile(folder / f"{name}.json", RUN)
            self.sites[name] = (
                SecureSite(terms, name, key, kept) if plan.masked else PlainSite(terms, name, kept)
            )
        self.vectors: dict[str, Tensor] = {}
        self.asked = (0, "")
        self.rounds: SecureRounds | PlainRounds
        if plan.masked:
            store = SetupFile(folder / "secagg.json", RUN)
            self.rounds = SecureRounds(terms, self.ask, store=store, note=self.fail)
        else:
            self.rounds = PlainRounds(terms, self.ask, note=self.fail)

    def fail(self, name: str, code: object) -> None:
        """End the program: here nobody lies and nobody is missing."""
        raise SystemExit(f"{name}: {code}")

    def ask(self, frames: Mapping[str, bytes], _step: str) -> Iterator[tuple[str, bytes]]:
        """Hand each site its frame and yield what it answers."""
        number, weights = self.asked
        for name, frame in frames.items():
            site = self.sites[name]
            if wire.kind_of(frame) is wire.Kind.START:
                vector = self.vectors[name].numpy()
                work = Work(
                    round=number,
                    attempt=1,
                    weights=weights,
                    charge=lambda: None,
                    share=lambda vector=vector: self.plan.point.share(vector, self.stream),  # type: ignore[misc]
                )
                yield name, site.contribute(frame, work)
            elif isinstance(site, SecureSite):
                yield name, site.answer(frame)

    def total(self, number: int, sums: list[Tensor], weights: str) -> Tensor:
        """Return the noised sum of the sites' clear sums, as the coordinator comes to hold it."""
        self.vectors = dict(zip(self.sites, sums, strict=True))
        self.asked = number, weights
        outcome = self.rounds.round(number, 1, weights)
        if not isinstance(outcome, Aggregate):
            raise SystemExit(outcome.why)
        return torch.from_numpy(self.plan.point.grid.decode(outcome.values).astype(np.float32))


def prepared_for(adult: Path, mode: str, rounds: int | None, epsilon: float) -> Prepared:
    """Return the example as one trust mode trains it; local trust counts its batch for each site."""
    changes = [f"data.source=csv://{adult.resolve()}", f"privacy.epsilon={epsilon}"]
    if rounds is not None:
        changes.append(f"training.rounds={rounds}")
    if mode == "local":
        plain = prepare(STUDY, changes)
        batch = round((plain.study.training.batch or 0) / len(plain.parts))
        changes += ["privacy.trust=local", f"training.batch={batch}"]
    return prepare(STUDY, changes)


def noise_of(mode: str, prepared: Prepared, protocol: str, folder: Path) -> tuple[Noised, float, float]:
    """Return how sums become a noised total, the noise in it over the clip, and the ε charged for all rounds."""
    study, plan, source = prepared.resolved, plan_of(prepared.resolved), NoiseSource.secure()
    if mode == "distributed":
        sizes = [entry.sampled for entry in study.roster]
        shared = distributed_plan(
            study.study.privacy.model_copy(update={"trust": Trust.DISTRIBUTED}),
            SecaggSpec.model_validate({"dropouts": 1, "colluders": 1, "protocol": protocol}),
            sites=len(sizes),
            dimension=new_learner(study).parameters,
            q=study.sample_rate,
            rounds=plan.rounds,
            expected_batch=plan.expected_batch,
            largest=study.sample_rate * max(sizes),
        )
        fleet = Shared(shared, study.study_hash, [entry.name for entry in study.roster], folder)
        return fleet.total, shared.noise_std / plan.clip, shared.epsilon_of(plan.rounds)

    draws = len(prepared.parts) if mode == "local" else 1

    def total(_number: int, sums: list[Tensor], _weights: str) -> Tensor:
        out = torch.stack(sums).sum(0)
        for _ in range(draws):
            source.add_normal_(out, plan.noise_std)
        return out

    return total, plan.sigma * draws**0.5, plan.epsilon_of(plan.rounds)


def train(mode: str, arguments: Any, seed: int, folder: Path) -> dict[str, Any]:
    """Train one model and return its scores."""
    prepared = prepared_for(arguments.adult, mode, arguments.rounds, arguments.epsilon)
    study, spec = prepared.resolved, prepared.study.training
    total, noise, charged = noise_of(mode, prepared, arguments.protocol, folder)
    learner, worker = new_learner(study), new_learner(study)
    optimizer = LearnerOptimizer.of(learner, spec.optimizer)
    sites = [prepared.site_table(number).codes for number in range(len(prepared.parts))]
    expected = study.sample_rate * sum(entry.sampled for entry in study.roster)
    sampling, generator = NoiseSource.insecure(seed), torch.Generator().manual_seed(seed)
    average = None
    for number in range(1, spec.rounds + 1):
        start = learner.private.vector.detach().clone()
        sums = []
        for codes in sites:
            worker.load_private_(start)
            out = torch.zeros(worker.parameters)
            worker.add_noised_sum_(
                out, codes, rate=study.sample_rate, noise_std=0.0, noise=sampling, generator=generator
            )
            sums.append(out)
        optimizer.step_(total(number, sums, sha256_hex(start.numpy().tobytes())).div_(expected), generator)
        values = learner.all_values()
        decay = min(spec.ema or 0.0, number / (9 + number))
        average = values if average is None else average * decay + values * (1 - decay)
    if average is not None:
        learner.load_all_(average)
    drawn = sample_codes(learner.model, prepared.study.release.rows, torch.Generator().manual_seed(seed))
    codes = prepared.table.codes
    quality = evaluate_codes(
        codes[prepared.training_rows],
        drawn.astype(prepared.codec.dtype),
        prepared.schema,
        codes[prepared.holdout],
    )
    two, one, auc, real = measures_of(quality)[1]
    return {"trust": mode, "seed": seed, "epsilon": round(charged, 4), "noise over clip": round(noise, 3),
            "2-way": two, "1-way": one, "AUC": auc, "AUC of real rows": real}  # fmt: skip


def mean(rows: list[dict[str, Any]], mode: str, name: str) -> float:
    return statistics.fmean(row[name] for row in rows if row["trust"] == mode)


def main() -> int:
    """Train and compare."""
    import tempfile

    parser = options(__doc__)
    parser.add_argument(
        "--adult", type=Path, default=STUDY.parent / "adult.csv.gz", help="a copy of adult.csv.gz"
    )
    parser.add_argument("--seeds", type=int, default=3, help="trainings for each trust mode")
    parser.add_argument("--rounds", type=int, default=None, help="instead of the study's")
    parser.add_argument("--epsilon", type=float, default=1.0, help="what may be spent")
    parser.add_argument(
        "--protocol", choices=("sum", "full"), default="sum", help="how distributed sums are taken"
    )
    arguments = parser.parse_args()
    if not arguments.adult.is_file():
        parser.error(f"no such file: {arguments.adult}; name a copy with --adult")
    if arguments.quick:
        arguments.seeds, arguments.rounds = 1, arguments.rounds or 20
    rows = []
    for seed in range(arguments.seeds):
        for mode in MODES:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(train(mode, arguments, seed, Path(folder)))
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
