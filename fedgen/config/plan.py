"""From a resolved study to its privacy plan: every participant computes it for itself and believes nobody."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from fedgen.config.distributed import DistributedPlan, distributed_plan
from fedgen.errors import ConfigError
from fedgen.privacy.plan import PrivacyPlan
from fedgen.privacy.statement import state
from fedgen.privacy.units import Trust, Unit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedgen.config.resolve import ResolvedStudy
    from fedgen.privacy.events import Counts
    from fedgen.privacy.plan import Plan
    from fedgen.privacy.statement import Statement


def plan_of(study: ResolvedStudy) -> PrivacyPlan | DistributedPlan:
    """Return the privacy plan that follows from a study; the same at every site and at the coordinator.

    Guarantees:
        - The rate is the study's; the noise is given by it or calibrated to its ε over all rounds.
        - With ``unit: site`` a round is one event at rate 1, however many local steps it has and whatever they
          sample: what is bounded and noised is a site's whole update.
        - With ``trust: distributed`` it is a :class:`DistributedPlan`: the noise is sized for the sites that may be
          missing and may collude, on a grid that has room for every sum.

    Raises:
        ConfigError: The study asks for something impossible; names the key.
    """
    return _plan(study)


@lru_cache(maxsize=64)
def _plan(study: ResolvedStudy) -> PrivacyPlan | DistributedPlan:
    """Return the cached plan; a thousand sites of one process calibrate once."""
    training = study.study.training
    sites = len(study.roster)
    whole_sites = study.study.privacy.unit is Unit.SITE
    everybody = sites if whole_sites else study.sample_rate * study.total_sampled
    if study.study.privacy.trust is Trust.DISTRIBUTED:
        return _distributed(study, q=1.0 if whole_sites else study.sample_rate, everybody=everybody)
    local = study.study.privacy.trust is Trust.LOCAL
    return PrivacyPlan.resolve(
        study.study.privacy,
        q=1.0 if whole_sites else study.sample_rate,
        rounds=training.rounds,
        steps_per_round=1 if whole_sites else training.local_steps,
        expected_batch=everybody / sites if local else everybody,
    )


def _distributed(study: ResolvedStudy, *, q: float, everybody: float) -> DistributedPlan:
    """Return the plan of noise in shares."""
    spec = study.study.secagg
    if spec is None or study.parameters is None:
        raise ConfigError(
            "trust: distributed needs a resolved study", key="secagg"
        )  # resolve() fills both in
    return distributed_plan(
        study.study.privacy,
        spec,
        sites=len(study.roster),
        dimension=study.parameters,
        q=q,
        rounds=study.study.training.rounds,
        expected_batch=everybody,
        largest=study.sample_rate * max(entry.sampled for entry in study.roster),
    )


def statements_of(
    plan: PrivacyPlan | DistributedPlan, spent: Mapping[str, Counts], *, private: bool = True
) -> tuple[Statement, ...]:
    """Return every claim a run can make about what each site was charged, whoever added the noise.

    Args:
        plan: The plan of the run.
        spent: For each site, every event charged to its rows in this study.
        private: Whether all noise came from the operating system's randomness.

    Raises:
        ValueError: Under distributed trust: something was charged that the plan does not do.
    """
    if isinstance(plan, DistributedPlan):
        return plan.state(spent, private=private)
    return state(plan, spent, private=private)


def site_noise_std(plan: Plan) -> float:
    """Return the Gaussian noise a site adds to each of its sums: all under local trust, none under any other.

    Under distributed trust its share comes with the grid, in whole numbers.
    """
    return plan.noise_std if plan.trust is Trust.LOCAL else 0.0


def coordinator_noise_std(plan: Plan) -> float:
    """Return the noise the coordinator adds to the sum of all sites: all of it under central trust only."""
    return plan.noise_std if plan.trust is Trust.CENTRAL else 0.0
