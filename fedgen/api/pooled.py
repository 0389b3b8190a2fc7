"""The rival: the same model trained on all rows pooled, without privacy; only its scores are kept.

A simulation may do this because it holds all rows anyway. The model and its rows are thrown away: what is shown
beside a run is what privacy and federation cost together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from fedgen.api.bench import new_learner
from fedgen.api.reporting import measures_of
from fedgen.api.run import sample_codes
from fedgen.report.model import Rival
from fedgen.schema.codec import Codec
from fedgen.training.learner import as_rows
from fedgen.training.optimizer import LearnerOptimizer

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from fedgen.api.prepare import Prepared
    from fedgen.audit.evaluation import Evaluation
    from fedgen.training.learner import Learner

_SMALLEST: Final = 64
_LARGEST: Final = 4096
_MOST_STEPS: Final = 600
_DECAY: Final = 0.95
_SEED: Final = 0


def pooled_rival(prepared: Prepared, judge: Callable[[np.ndarray], Evaluation | None]) -> Rival | None:
    """Train without privacy on every site's rows and return the scores, or None if they cannot be judged.

    Args:
        prepared: Study and rows.
        judge: Evaluates synthetic codes the way the run's own were.
    """
    learner = new_learner(prepared.resolved)
    spec = prepared.study
    optimizer = LearnerOptimizer.of(learner, spec.training.optimizer, public_steps=spec.model.public_steps)
    generator = torch.Generator().manual_seed(_SEED)
    rows = as_rows(prepared.table.codes[prepared.training_rows])
    batch = min(len(rows), _LARGEST, max(_SMALLEST, round(prepared.resolved.sample_rate * len(rows))))
    steps = min(_MOST_STEPS, 2 * spec.training.rounds * spec.training.local_steps)
    average = learner.all_values()
    for number in range(steps):
        chosen = torch.randint(len(rows), (batch,), generator=generator)
        optimizer.step_(_gradient(learner, rows[chosen], generator), generator)
        decay = min(_DECAY, (1 + number) / (10 + number))
        average.mul_(decay).add_(learner.all_values(), alpha=1 - decay)
    learner.load_all_(average)
    drawn = sample_codes(learner.model, prepared.study.release.rows, generator)
    quality = judge(drawn.astype(Codec(prepared.schema).dtype))
    if quality is None:
        return None
    _measures, values = measures_of(quality)
    return Rival(
        label="pooled, without privacy",
        note=f"the same model and optimizer on all rows in one place, {steps} steps of {batch} rows, "
        "no clipping and no noise",
        values=values,
    )


def _gradient(learner: Learner, rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return the plain mean gradient of the private parameters, flat."""
    loss = learner.model.private_loss(rows, generator).mean()
    flat = torch.zeros(learner.parameters)
    learner.private.add_gradient_(flat, loss)
    return flat
