"""From a resolved study to its privacy plan: every participant computes it for itself and believes nobody."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from fedgen.privacy.plan import PrivacyPlan
from fedgen.privacy.units import Trust, Unit

if TYPE_CHECKING:
    from fedgen.config.resolve import ResolvedStudy


def plan_of(study: ResolvedStudy) -> PrivacyPlan:
    """Return the privacy plan that follows from a study; the same at every site and at the coordinator.

    Guarantees:
        - The rate is the study's; the noise is given by it or calibrated to its ε over all rounds.
        - With ``unit: site`` a round is one event at rate 1, however many local steps it has and whatever they
          sample: what is bounded and noised is a site's whole update.

    Raises:
        ConfigError: The study asks for something impossible; names the key.
    """
    return _plan(study)


@lru_cache(maxsize=64)
def _plan(study: ResolvedStudy) -> PrivacyPlan:
    """Return the cached plan; a thousand sites of one process calibrate once."""
    training = study.study.training
    sites = len(study.roster)
    whole_sites = study.study.privacy.unit is Unit.SITE
    everybody = sites if whole_sites else study.sample_rate * study.total_sampled
    local = study.study.privacy.trust is Trust.LOCAL
    return PrivacyPlan.resolve(
        study.study.privacy,
        q=1.0 if whole_sites else study.sample_rate,
        rounds=training.rounds,
        steps_per_round=1 if whole_sites else training.local_steps,
        expected_batch=everybody / sites if local else everybody,
    )


def site_noise_std(plan: PrivacyPlan) -> float:
    """Return the noise a site adds to each of its sums: all of it under local trust, none under central."""
    return plan.noise_std if plan.trust is Trust.LOCAL else 0.0


def coordinator_noise_std(plan: PrivacyPlan) -> float:
    """Return the noise the coordinator adds to the sum of all sites: all of it under central trust only."""
    return plan.noise_std if plan.trust is Trust.CENTRAL else 0.0
