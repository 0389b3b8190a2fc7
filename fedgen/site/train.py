"""One round at one site: permitted rows in, a protected update out. Everything is charged before it is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fedgen.config.plan import site_noise_std
from fedgen.privacy.plan import PrivacyPlan
from fedgen.privacy.units import Trust, Unit
from fedgen.training.optimizer import LearnerOptimizer

if TYPE_CHECKING:
    import numpy as np

    from fedgen.dpsgd.noise import NoiseSource
    from fedgen.site.admit import Admission
    from fedgen.training.learner import Learner, Persons


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What a round may use.

    Attributes:
        codes: Permitted rows, shape ``(n, width)``.
        persons: Whose each of them is, where the study protects persons; else None.
    """

    codes: np.ndarray
    persons: Persons | None = None


@dataclass(frozen=True, slots=True)
class LocalUpdate:
    """What a round computed; ``dropped`` stays at the site.

    Attributes:
        vector: Float32; noised under local trust, clear under any other.
        dropped: Rows whose gradient was not finite and counted as zero.
    """

    vector: torch.Tensor
    dropped: int


def compute_update(
    learner: Learner,
    admission: Admission,
    rows: Rows,
    weights: torch.Tensor,
    noise: NoiseSource,
    generator: torch.Generator,
) -> LocalUpdate:
    """Return this site's update for ``weights``.

    Guarantees:
        - In gradient exchange the result is a sum of clipped, Poisson-sampled gradients at fixed weights, plus
          the plan's noise for each step.
        - In update exchange the result is the change of the weights after noised steps only.
        - With ``unit: site`` the result is the change of the weights after ordinary steps, bounded as a whole, plus
          the plan's noise.
        - Sampling rate and noise depend on the study and the roster, never on how many rows are permitted.
        - What the learner counted is what the plan charges, or nothing is returned.

    Raises:
        IntegrityError: ``fault``: the learner did something else than the plan charges; ``not-finite``: a site's
            whole change is not.
    """
    if admission.plan.unit is Unit.SITE:
        return _whole_site(learner, admission, rows, weights, noise, generator)
    if admission.study.exchange == "gradient":
        return _gradient(learner, admission, rows, weights, noise, generator)
    return _local_steps(learner, admission, rows, weights, noise, generator)


def _gradient(
    learner: Learner,
    admission: Admission,
    rows: Rows,
    weights: torch.Tensor,
    noise: NoiseSource,
    generator: torch.Generator,
) -> LocalUpdate:
    """Sum clipped gradients at the weights the coordinator sent."""
    learner.load_private_(weights)
    total = torch.zeros(learner.parameters)
    dropped = 0
    for _ in range(admission.study.study.training.local_steps):
        dropped += _add_step_(total, learner, admission, rows, noise, generator)
    return _charged(learner, admission, total, dropped)


def _local_steps(
    learner: Learner,
    admission: Admission,
    rows: Rows,
    weights: torch.Tensor,
    noise: NoiseSource,
    generator: torch.Generator,
) -> LocalUpdate:
    """Take noised optimizer steps from the weights and return the change.

    The optimizer starts fresh each round: a site keeps no state that a restart could lose.
    """
    learner.load_all_(weights)
    optimizer = _fresh_optimizer(learner, admission)
    buffer = torch.empty(learner.parameters)
    dropped = 0
    for _ in range(admission.study.study.training.local_steps):
        buffer.zero_()
        dropped += _add_step_(buffer, learner, admission, rows, noise, generator)
        optimizer.step_(buffer.div_(admission.expected_batch), generator)
    return _charged(learner, admission, learner.all_values().sub_(weights), dropped)


def _whole_site(
    learner: Learner,
    admission: Admission,
    rows: Rows,
    weights: torch.Tensor,
    noise: NoiseSource,
    generator: torch.Generator,
) -> LocalUpdate:
    """Take ordinary optimizer steps, then bound and noise the change as a whole."""
    learner.load_all_(weights)
    optimizer = _fresh_optimizer(learner, admission)
    buffer = torch.empty(learner.parameters)
    rate = admission.study.sample_rate
    dropped = 0
    for _ in range(admission.study.study.training.local_steps):
        buffer.zero_()
        dropped += learner.add_clear_sum_(
            buffer, rows.codes, rate=rate, noise=noise, generator=generator
        ).dropped
        optimizer.step_(buffer.div_(admission.expected_batch), generator)
    change = learner.noised_change(weights, noise_std=site_noise_std(admission.plan), noise=noise)
    return _charged(learner, admission, change, dropped)


def _fresh_optimizer(learner: Learner, admission: Admission) -> LearnerOptimizer:
    study = admission.study.study
    return LearnerOptimizer.of(learner, study.training.optimizer, public_steps=study.model.public_steps)


def _add_step_(
    out: torch.Tensor,
    learner: Learner,
    admission: Admission,
    rows: Rows,
    noise: NoiseSource,
    generator: torch.Generator,
) -> int:
    """Add one step's clipped sum, and the noise the plan asks of a site; return how many rows were dropped."""
    return learner.add_noised_sum_(
        out,
        rows.codes,
        rate=admission.study.sample_rate,
        noise_std=site_noise_std(admission.plan),
        noise=noise,
        generator=generator,
        persons=rows.persons,
    ).dropped


def _charged(learner: Learner, admission: Admission, vector: torch.Tensor, dropped: int) -> LocalUpdate:
    """Return what was computed, if by its own count the learner did exactly what the plan charges.

    Under central trust the sum is clear and goes, sealed, to a coordinator that adds the noise; under distributed trust
    it goes nowhere before this site's share of the noise is in it (:meth:`fedgen.secagg.fixed_point.FixedPoint.share`).
    """
    plan, evidence = admission.plan, learner.evidence()
    if isinstance(plan, PrivacyPlan) and plan.trust is Trust.LOCAL:
        vector = plan.noised(vector, evidence).vector
    else:
        plan.check_bounded(evidence)
    return LocalUpdate(vector=vector, dropped=dropped)
