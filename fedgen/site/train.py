"""One round at one site: permitted rows in, a protected update out. Everything is charged before it is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from fedgen.config.plan import site_noise_std
from fedgen.privacy.plan import Evidence
from fedgen.privacy.units import Trust
from fedgen.training.optimizer import LearnerOptimizer

if TYPE_CHECKING:
    import numpy as np

    from fedgen.dpsgd.noise import NoiseSource
    from fedgen.site.admit import Admission
    from fedgen.training.learner import Learner


@dataclass(frozen=True, slots=True)
class LocalUpdate:
    """What a round computed; ``dropped`` stays at the site.

    Attributes:
        vector: Float32; noised under local trust.
        dropped: Rows whose gradient was not finite and counted as zero.
    """

    vector: torch.Tensor
    dropped: int


def compute_update(
    learner: Learner,
    admission: Admission,
    codes: np.ndarray,
    weights: torch.Tensor,
    noise: NoiseSource,
    generator: torch.Generator,
) -> LocalUpdate:
    """Return this site's update for ``weights``.

    Guarantees:
        - In gradient exchange the result is a sum of clipped, Poisson-sampled gradients at fixed weights, plus
          the plan's noise for each step.
        - In update exchange the result is the change of the weights after noised steps only.
        - Sampling rate and noise depend on the study and the roster, never on how many rows are permitted.
    """
    if admission.study.exchange == "gradient":
        return _gradient(learner, admission, codes, weights, noise, generator)
    return _local_steps(learner, admission, codes, weights, noise, generator)


def _gradient(
    learner: Learner,
    admission: Admission,
    codes: np.ndarray,
    weights: torch.Tensor,
    noise: NoiseSource,
    generator: torch.Generator,
) -> LocalUpdate:
    """Sum clipped gradients at the weights the coordinator sent."""
    learner.load_private_(weights)
    total = torch.zeros(learner.parameters)
    dropped = 0
    for _ in range(admission.study.study.training.local_steps):
        dropped += _add_step_(total, learner, admission, codes, noise, generator)
    return _charged(learner, admission, total, noise, dropped)


def _local_steps(
    learner: Learner,
    admission: Admission,
    codes: np.ndarray,
    weights: torch.Tensor,
    noise: NoiseSource,
    generator: torch.Generator,
) -> LocalUpdate:
    """Take noised optimizer steps from the weights and return the change.

    The optimizer starts fresh each round: a site keeps no state that a restart could lose.
    """
    learner.load_all_(weights)
    study = admission.study.study
    optimizer = LearnerOptimizer.of(learner, study.training.optimizer, public_steps=study.model.public_steps)
    buffer = torch.empty(learner.parameters)
    dropped = 0
    for _ in range(admission.study.study.training.local_steps):
        buffer.zero_()
        dropped += _add_step_(buffer, learner, admission, codes, noise, generator)
        optimizer.step_(buffer.div_(admission.expected_batch), generator)
    return _charged(learner, admission, learner.all_values().sub_(weights), noise, dropped)


def _add_step_(
    out: torch.Tensor,
    learner: Learner,
    admission: Admission,
    codes: np.ndarray,
    noise: NoiseSource,
    generator: torch.Generator,
) -> int:
    """Add one step's clipped sum, and the noise the plan asks of a site; return how many rows were dropped."""
    return learner.add_noised_sum_(
        out,
        codes,
        rate=admission.study.sample_rate,
        noise_std=site_noise_std(admission.plan),
        noise=noise,
        generator=generator,
    ).dropped


def _charged(
    learner: Learner, admission: Admission, vector: torch.Tensor, noise: NoiseSource, dropped: int
) -> LocalUpdate:
    """Return what was computed; under local trust only if the engine did exactly what the plan charges.

    Under central trust the sum is clear and goes, sealed, to a coordinator that adds the noise.
    """
    plan = admission.plan
    if plan.trust is Trust.LOCAL:
        evidence = Evidence(
            steps=admission.study.study.training.local_steps,
            q=admission.study.sample_rate,
            clip=learner.clip,
            noise_std=site_noise_std(plan),
            private=noise.private,
        )
        vector = plan.noised(vector, evidence).vector
    return LocalUpdate(vector=vector, dropped=dropped)
