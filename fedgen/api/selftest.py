"""``audit selftest``: the two claims that carry every guarantee, checked on a study's own model, engine and unit.

No real row is read: rows are drawn from the schema alone, so the test may run anywhere and costs no budget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from fedgen.api.bench import new_learner
from fedgen.config.distributed import DistributedPlan
from fedgen.config.plan import plan_of
from fedgen.coordinator.aggregate import StreamingSum
from fedgen.dpsgd.engine import make_engine
from fedgen.dpsgd.noise import NoiseSource
from fedgen.dpsgd.persons import PersonIndex, bounded_rows
from fedgen.dpsgd.selftest import SelfTest, noise_checks
from fedgen.dpsgd.selftest import selftest as examine
from fedgen.privacy.units import Unit
from fedgen.training.learner import as_rows
from fedgen.training.optimizer import LearnerOptimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from fedgen.config.resolve import ResolvedStudy
    from fedgen.privacy.plan import Plan
    from fedgen.training.learner import Learner

_ROWS: Final = 48
_MOST_HERS: Final = 64  # rows of the extreme person in a step, whatever a study allows
_SITES: Final = 4  # beside the extreme one
_EXTREME: Final = 100.0  # how far beyond the clip the extreme record must push, before clipping
_SEED: Final = 0


@dataclass(frozen=True, slots=True)
class Examined:
    """What the self-test of a study found.

    Attributes:
        study: Name of the study.
        unit: What the study protects: ``record``, ``person`` or ``site``.
        model: Name of the model.
        engine: Name of the engine.
        sigma: The noise multiplier of the study.
        found: The figures.
    """

    study: str
    unit: str
    model: str
    engine: str
    sigma: float
    found: SelfTest

    @property
    def passed(self) -> bool:
        """Whether both claims hold and both controls failed, as they must."""
        return self.found.passed

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        found = self.found
        return {
            "study": self.study,
            "unit": self.unit,
            "model": self.model,
            "engine": self.engine,
            "passed": self.passed,
            "sensitivity": {
                "clip": found.clip,
                "moved": found.moved,
                "without_clipping": found.unclipped,
                "rows": found.rows,
                "passed": found.bounded,
            },
            "noise": {
                "multiplier": self.sigma,
                "samples": found.noise.samples,
                "ratio": found.noise.ratio,
                "accepted": [found.noise.low, found.noise.high],
                "passed": found.noise.passed,
            },
            "control": {
                "what": "noise 10 % too small, which must fail",
                "ratio": found.control.ratio,
                "failed": not found.control.passed,
            },
        }


def selftest(study: str | Path, overrides: Sequence[str] = ()) -> Examined:
    """Check that one extreme unit moves the bounded sum by at most C, and that the noise has its scale.

    Guarantees:
        - The study's own model, engine, unit, clip and noise multiplier are examined, with the production code: one
          record; one person with more rows than a step takes of her; one site whose weights went far.
        - Right noise fails with probability 1e-6; noise wrong by 5 % passes with probability at most 1e-6.
        - Two controls must fail: the unit without its bound (a record or a site unclipped, a person's rows clipped
          one by one), and noise that is 10 % too small.

    Raises:
        ConfigError: The study is wrong.
    """
    from fedgen.api.checks import resolved_of

    resolved = resolved_of(study, overrides)
    plan = plan_of(resolved)
    learner = new_learner(resolved)
    look = _one_site if plan.unit is Unit.SITE else _in_a_sum
    found = look(resolved, plan, learner)
    return Examined(
        study=resolved.study.study,
        unit=plan.unit.value,
        model=resolved.study.model.name,
        engine=resolved.study.training.engine,
        sigma=plan.sigma,
        found=found,
    )


def _in_a_sum(resolved: ResolvedStudy, plan: Plan, learner: Learner) -> SelfTest:
    """Put one extreme record, or one extreme person, into a clipped sum and take it out again."""
    rows = _drawn(resolved)
    scale = _scale(learner, rows, plan.clip)

    def loss(batch: torch.Tensor) -> torch.Tensor:
        return learner.model.private_loss(batch, torch.Generator().manual_seed(_SEED)) * scale

    engine = make_engine(resolved.study.training.engine, learner.private, learner.model.private, plan.clip)
    hers, bounds = rows[-1:], None
    if plan.unit is Unit.PERSON:
        hers, bounds = _extreme_person(rows, plan.clip, resolved.study.privacy.rows_per_person or 1)
    noise, std = _noise(plan)
    return examine(engine, loss, rows[:-1], hers, noise=noise, std=std, bounds=bounds)


def _noise(plan: Plan) -> tuple[Callable[[torch.Tensor, float], object], float]:
    """Return what adds the noise of a sum, and the standard deviation that is charged.

    With noise in shares, these are the shares of the sites that are left when as many are missing and collude as the
    study says.
    """
    source = NoiseSource.secure()
    if not isinstance(plan, DistributedPlan):
        return source.add_normal_, plan.noise_std
    noise, scale = plan.point.noise, plan.point.grid.scale
    charged = math.sqrt(plan.event.variance) / scale

    def add_shares(out: torch.Tensor, std: float) -> None:
        wanted = replace(noise, multiplier=noise.multiplier * std / charged)
        total = np.zeros(len(out), np.int64)
        for _ in range(noise.least - noise.colluders):
            wanted.add_share(total, source.stream)
        out += torch.from_numpy((total / scale).astype(np.float32))

    return add_shares, charged


def _extreme_person(rows: torch.Tensor, clip: float, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows a step takes of a person with too many, and the bounds of all rows, hers last.

    The others have one row each; hers are all extreme.
    """
    others, k = len(rows) - 1, min(most, _MOST_HERS)
    person = np.concatenate([np.arange(others), np.full(2 * max(k, 2), others)])
    index = PersonIndex.of(person)
    used = bounded_rows(index, np.arange(index.persons), k=max(k, 2), clip=clip, stream=NoiseSource.secure())
    count = int((used.rows >= others).sum())
    return rows[-1:].repeat(count, 1), torch.from_numpy(used.bounds)


def _one_site(resolved: ResolvedStudy, plan: Plan, learner: Learner) -> SelfTest:
    """Let one site's weights go far, and put its whole update into a sum of others and take it out again."""
    start, noise = learner.all_values(), NoiseSource.secure()
    sums = {True: StreamingSum(len(start)), False: StreamingSum(len(start))}
    generator = torch.Generator().manual_seed(_SEED)
    for number in range(_SITES):
        learner.load_all_(start + torch.randn(len(start), generator=generator))
        update = learner.noised_change(start, noise_std=0.0, noise=noise).numpy().tobytes()
        for total in sums.values():
            total.add(f"site-{number}", update, 1.0)
    far = _far_step(resolved, learner, generator)
    learner.load_all_(start + far * (_EXTREME * plan.clip / max(float(far.double().norm()), 1e-30)))
    unclipped = float((learner.all_values() - start).double().norm())
    update = learner.noised_change(start, noise_std=0.0, noise=noise).numpy().tobytes()
    sums[True].add("extreme", update, 1.0)
    moved = float(np.linalg.norm(sums[True].finish().total - sums[False].finish().total))
    right, wrong = noise_checks(*_noise(plan))
    return SelfTest(clip=plan.clip, moved=moved, unclipped=unclipped, rows=_SITES, noise=right, control=wrong)


def _far_step(resolved: ResolvedStudy, learner: Learner, generator: torch.Generator) -> torch.Tensor:
    """Return how far one local step of the study's own optimizer on extreme rows moves all parameters."""
    before, study = learner.all_values(), resolved.study
    codes = _drawn(resolved)[-1:].repeat(_ROWS, 1).numpy()
    total = torch.zeros(learner.parameters)
    learner.add_clear_sum_(total, codes, rate=1.0, noise=NoiseSource.secure(), generator=generator)
    optimizer = LearnerOptimizer.of(learner, study.training.optimizer, public_steps=study.model.public_steps)
    optimizer.step_(total, generator)
    return learner.all_values() - before


def _drawn(resolved: ResolvedStudy) -> torch.Tensor:
    """Return rows drawn uniformly from the schema's codes; the last one has every code at its end."""
    generator = torch.Generator().manual_seed(_SEED)
    cards = torch.tensor(resolved.data_schema.cardinalities)
    rows = (torch.rand((_ROWS, len(cards)), generator=generator) * cards).long().clamp_(max=cards - 1)
    rows[-1] = cards - 1
    return as_rows(rows.to(torch.int32).numpy())


def _scale(learner: Learner, rows: torch.Tensor, clip: float) -> float:
    """Return the factor that makes the extreme record's own gradient a hundred times the clip."""
    own = torch.zeros(learner.parameters)
    loss = learner.model.private_loss(rows[-1:], torch.Generator().manual_seed(_SEED)).sum()
    learner.private.add_gradient_(own, loss)
    return _EXTREME * clip / max(float(own.norm()), 1e-12)
