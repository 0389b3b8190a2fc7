"""``audit selftest``: the two claims that carry every guarantee, checked on a study's own model and engine.

No real row is read: rows are drawn from the schema alone, so the test may run anywhere and costs no budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import torch

from fedgen.api.bench import new_learner
from fedgen.config.plan import plan_of
from fedgen.dpsgd.engine import make_engine
from fedgen.dpsgd.noise import NoiseSource
from fedgen.dpsgd.selftest import SelfTest
from fedgen.dpsgd.selftest import selftest as examine
from fedgen.training.learner import as_rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fedgen.config.resolve import ResolvedStudy
    from fedgen.training.learner import Learner

_ROWS: Final = 48
_EXTREME: Final = 100.0  # how far beyond the clip the extreme record must push, before clipping
_SEED: Final = 0


@dataclass(frozen=True, slots=True)
class Examined:
    """What the self-test of a study found.

    Attributes:
        study: Name of the study.
        model: Name of the model.
        engine: Name of the engine.
        sigma: The noise multiplier of the study.
        found: The figures.
    """

    study: str
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
    """Check that one extreme record moves the clipped sum by at most C, and that the noise has its scale.

    Guarantees:
        - The study's own model, engine, clip and noise multiplier are examined, with the production code.
        - Right noise fails with probability 1e-6; noise wrong by 5 % passes with probability at most 1e-6.
        - Two controls must fail: the record without clipping, and noise that is 10 % too small.

    Raises:
        ConfigError: The study is wrong.
    """
    from fedgen.api.checks import resolved_of

    resolved = resolved_of(study, overrides)
    plan = plan_of(resolved)
    learner = new_learner(resolved)
    rows = _drawn(resolved)
    scale = _scale(learner, rows, plan.clip)

    def loss(batch: torch.Tensor) -> torch.Tensor:
        return learner.model.private_loss(batch, torch.Generator().manual_seed(_SEED)) * scale

    engine = make_engine(resolved.study.training.engine, learner.private, learner.model.private, plan.clip)
    found = examine(engine, loss, rows[:-1], rows[-1:], noise=NoiseSource.secure(), std=plan.noise_std)
    return Examined(
        study=resolved.study.study,
        model=resolved.study.model.name,
        engine=resolved.study.training.engine,
        sigma=plan.sigma,
        found=found,
    )


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
