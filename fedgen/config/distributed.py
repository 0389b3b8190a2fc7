"""From a study's numbers to noise in shares: grid, ring, threshold, and what each observer is charged for.

Every participant computes it for itself. A :class:`DistributedPlan` answers the same questions as a
:class:`~fedgen.privacy.plan.PrivacyPlan`, so that an account charges either; only its event is that of integer noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fedgen import _validate
from fedgen.errors import ConfigError
from fedgen.privacy.accountant import EpsilonCurve, epsilon
from fedgen.privacy.calibrate import skellam_variance
from fedgen.privacy.plan import PrivacyPlan
from fedgen.privacy.statement import Facing, Statement, state_distributed
from fedgen.privacy.units import Relation, Trust, Unit
from fedgen.secagg.fixed_point import FixedPoint, plan
from fedgen.secagg.graph import FULL
from fedgen.secagg.terms import MIN_COHORT, Recovery, Terms, default_threshold

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedgen.config.secagg import SecaggSpec
    from fedgen.privacy.events import Counts, PoissonSkellam
    from fedgen.privacy.plan import Evidence, PrivacySpec

_TRIES: Final = 4
_FIRST: Final = 1.0  # σ to begin with: the grid hardly depends on it
_CURIOUS: Final = 1
_WRITTEN: Final = {"secagg.sites": "data.sites.count", "secagg.model": "model.name"}  # as a study spells them


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributedPlan:
    """Everything a round of distributed trust must agree on.

    Guarantees:
        - :attr:`event` is what one aggregate costs against the server and as many sites as the study assumes collude,
          with as many missing as it tolerates: the most that any sum which is ever opened can cost.
        - With ``epsilon_allowed``, the bound after ``rounds`` rounds is at most that.
        - No sum wraps but with a chance below 2^-64 a round.

    Attributes:
        unit: What is protected as a whole.
        relation: Which data sets are neighbours.
        delta: In (0, 1).
        epsilon_allowed: What the whole study may spend, or None where σ was given.
        q: Poisson sampling rate of one aggregate; 1 for ``site``.
        clip: Bound C on one unit's contribution to a sum.
        rounds: Aggregates of the study.
        expected_batch: Expected units in the sum of all sites; public, never a count.
        point: Grid, shares of noise and ring.
        threshold: Sites that must agree.
        recovery: What happens when a site drops out.
        masked: Whether sums are masked; False for ``protocol: sum``.
    """

    unit: Unit
    relation: Relation
    delta: float
    epsilon_allowed: float | None
    q: float
    clip: float
    rounds: int
    expected_batch: float
    point: FixedPoint
    threshold: int
    recovery: Recovery
    masked: bool

    def __post_init__(self) -> None:
        """Check what a caller passed, and that a run under this plan could begin."""
        _validate.open_probability(delta=self.delta)
        _validate.positive(clip=self.clip, rounds=self.rounds, expected_batch=self.expected_batch)
        if self.clip != self.point.grid.clip:
            raise ValueError("the grid must be made for the clip")
        names = {f"{place:05d}": b"" for place in range(self.point.noise.sites)}
        self.terms("", "", names)  # every rule about threshold, dropouts and colluders is in Terms
        self.point.event(self.q)

    @property
    def trust(self) -> Trust:
        """Always distributed."""
        return Trust.DISTRIBUTED

    @property
    def steps_per_round(self) -> int:
        """One: a round is one aggregate. Accumulating over fixed weights is a larger batch."""
        return 1

    @property
    def sigma(self) -> float:
        """The noise multiplier σ that is charged, over the sensitivity after rounding."""
        return self.point.noise.multiplier

    @property
    def least(self) -> int:
        """The fewest sites in a sum that is opened."""
        return self.point.noise.least

    @property
    def event(self) -> PoissonSkellam:
        """What one aggregate is charged as, for the ledger of every site in it."""
        return self.point.event(self.q)

    def event_per_round(self) -> tuple[PoissonSkellam, int]:
        """Return what one round does: the event and how often."""
        return self.event, self.steps_per_round

    def epsilon_of(self, rounds: int) -> float:
        """Return the bound on ε after ``rounds`` rounds against the coordinator and the colluders assumed.

        Raises:
            ValueError: ``rounds`` is negative.
        """
        _validate.non_negative(rounds=rounds)
        return epsilon(((self.event, rounds),) if rounds else (), self.delta, relation=self.relation).epsilon

    def curve(self) -> EpsilonCurve:
        """Return ε over the rounds of the study, computed when asked."""
        return EpsilonCurve(self.event, self.rounds, self.delta, relation=self.relation)

    @property
    def overprovisioning(self) -> float:
        """Standard deviation of the noise when nobody is missing, over what is charged; 1 is no waste."""
        return math.sqrt(self.point.noise.excess(self.point.noise.sites))

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise in a sum that nobody is missing from, in the units of the update."""
        noise = self.point.noise
        return math.sqrt(noise.variance * noise.sites) / self.point.grid.scale

    @property
    def most_colluders(self) -> int:
        """Beyond this many colluding sites, two survivor sets could be opened or no second honest site is left.

        Where not everybody masks with everybody, the graph is made for the colluders assumed, and stands no more.
        """
        noise = self.point.noise
        if noise.sites > FULL:
            return noise.colluders
        return min(2 * self.threshold - noise.sites - 1, self.least - 2)

    def facing(self) -> tuple[Facing, ...]:
        """Return whom a statement speaks of: the coordinator alone, one curious site, the colluders assumed, and more.

        The last are as many as the protocol withstands, assumed or not.
        """
        numbers = {0, _CURIOUS, self.point.noise.colluders, self.most_colluders}
        return tuple(self.against(number) for number in sorted(numbers) if number <= self.least - 1)

    def against(self, colluders: int) -> Facing:
        """Return what one aggregate costs against somebody who knows so many sites' shares of the noise.

        Raises:
            ValueError: No noise is left, or there are fewer than no colluders.
        """
        return Facing(colluders, self.point.event(self.q, colluders=colluders))

    def state(self, spent: Mapping[str, Counts], *, private: bool = True) -> tuple[Statement, ...]:
        """Return every claim a run can make about what each site was charged.

        Args:
            spent: For each site, every event charged to its rows in this study.
            private: Whether all noise came from the operating system's randomness.

        Raises:
            ValueError: Something was charged that this plan does not do.
        """
        return state_distributed(
            self,
            spent,
            self.facing(),
            assumed=self.point.noise.colluders,
            withstood=self.most_colluders,
            least=self.least,
            private=private,
            masked=self.masked,
        )

    def check_bounded(self, evidence: Evidence) -> None:
        """Refuse a vector that was not sampled and bounded as charged; the noise comes with the grid.

        Raises:
            IntegrityError: Unit, steps, rate or clip differ from the plan.
        """
        PrivacyPlan(
            unit=self.unit,
            trust=self.trust,
            relation=self.relation,
            delta=self.delta,
            epsilon_allowed=None,
            q=self.q,
            sigma=self.sigma,
            clip=self.clip,
            steps_per_round=1,
            rounds=self.rounds,
            expected_batch=self.expected_batch,
        ).check_bounded(evidence)

    def terms(self, study_hash: str, run: str, roster: Mapping[str, bytes]) -> Terms:
        """Return the terms of one run, from the roster each participant holds itself.

        Args:
            study_hash: 64 hex digits.
            run: 64 hex digits.
            roster: Name to Ed25519 public key.

        Raises:
            ConfigError: The numbers do not fit together.
            ValueError: The roster has another size than the plan.
        """
        noise = self.point.noise
        if len(roster) != noise.sites:
            raise ValueError(f"the plan is for {noise.sites} sites, the roster has {len(roster)}")
        return Terms(
            study=study_hash,
            run=run,
            sites=tuple(sorted(roster.items())),
            dimension=self.point.grid.dimension,
            threshold=self.threshold,
            dropouts=noise.dropouts,
            colluders=noise.colluders,
            ring=self.point.ring,
            recovery=self.recovery,
        )


def distributed_plan(
    privacy: PrivacySpec,
    secagg: SecaggSpec,
    *,
    sites: int,
    dimension: int,
    q: float,
    rounds: int,
    expected_batch: float,
    largest: float,
) -> DistributedPlan:
    """Return the plan of a study under distributed trust: σ as given, or calibrated to ε over all rounds.

    Guarantees:
        - With ``privacy.epsilon``, the bound of the whole study is at most that, and as a rule at least 0.995 of it.
        - A plan that is returned has room in its ring, enough noise at the fewest survivors, and terms that hold.

    Args:
        privacy: The study's ``privacy`` section.
        secagg: Its ``secagg`` section.
        sites: Sites of the roster.
        dimension: Items of a vector.
        q: Sampling rate of one aggregate; 1 for unit ``site``.
        rounds: Aggregates of the study, at least 1.
        expected_batch: Expected units in the sum of all sites.
        largest: Expected units in the sum of the largest site by its declared size; unused for unit ``site``.

    Raises:
        ConfigError: The study asks for something impossible; names the key.
    """
    if privacy.trust is not Trust.DISTRIBUTED:
        raise ConfigError("shares of noise belong to trust: distributed", key="privacy.trust")
    if (privacy.epsilon is None) == (privacy.noise_multiplier is None):
        raise ConfigError("exactly one of epsilon and noise_multiplier must be set", key="privacy.epsilon")
    if sites < MIN_COHORT:
        raise ConfigError(
            f"a sum of {sites} sites hides nobody: distributed trust needs at least {MIN_COHORT}",
            key="data.sites.count",
            hint="enrol more sites, or use trust: local",
        )
    try:
        point = _point(privacy, secagg, sites, dimension, q, rounds, largest)
        return DistributedPlan(
            unit=privacy.unit,
            relation=privacy.relation,
            delta=float(privacy.delta),
            epsilon_allowed=None if privacy.epsilon is None else float(privacy.epsilon),
            q=float(q),
            clip=float(privacy.clip),
            rounds=rounds,
            expected_batch=float(expected_batch),
            point=point,
            threshold=default_threshold(sites) if secagg.threshold is None else secagg.threshold,
            recovery=Recovery(secagg.recovery),
            masked=secagg.protocol == "full",
        )
    except ValueError as error:
        raise ConfigError(str(error), key="privacy") from error
    except ConfigError as error:
        raise ConfigError(
            error.what, key=_WRITTEN.get(error.key or "", error.key), hint=error.hint
        ) from error


def _point(
    privacy: PrivacySpec,
    secagg: SecaggSpec,
    sites: int,
    dimension: int,
    q: float,
    rounds: int,
    largest: float,
) -> FixedPoint:
    """Return grid, noise and ring: the noise follows from the grid's sensitivity, the ring from the noise."""
    bound = None if privacy.unit is Unit.SITE else float(privacy.clip) * most_units(largest)

    def with_noise(multiplier: float) -> FixedPoint:
        return plan(
            dimension=dimension,
            clip=float(privacy.clip),
            multiplier=multiplier,
            sites=sites,
            dropouts=secagg.dropouts,
            colluders=secagg.colluders,
            bound=bound,
            ring=None if secagg.ring == "auto" else secagg.ring,
        )

    if privacy.noise_multiplier is not None:
        return with_noise(float(privacy.noise_multiplier))
    multiplier, needed = 0.0, _FIRST
    for _ in range(_TRIES):
        point = with_noise(needed)
        multiplier, needed = needed, _calibrated(privacy, point, q, rounds)
        if needed == multiplier:
            return point
    # Two grids take turns, each with the noise of the other: the larger noise is enough on both.
    most = max(multiplier, needed)
    point = with_noise(most)
    if _calibrated(privacy, point, q, rounds) > most:
        raise ConfigError("no grid was found for this budget", key="secagg.ring", hint="use ring: 64")
    return point


def _calibrated(privacy: PrivacySpec, point: FixedPoint, q: float, rounds: int) -> float:
    """Return the σ that keeps all rounds within the budget on this grid."""
    l2, l1 = point.grid.l2, point.grid.l1
    try:
        variance = skellam_variance(
            q, rounds, float(privacy.epsilon or 0.0), privacy.delta, l2=l2, l1=l1, relation=privacy.relation
        )
    except ConfigError as error:
        raise ConfigError(error.what, key="privacy.epsilon", hint=error.hint) from error
    sigma = math.sqrt(variance) / l2
    while (sigma * l2) ** 2 < variance:  # what a root and a square lose must not come off the noise
        sigma = math.nextafter(sigma, math.inf)
    return sigma


def most_units(expected: float) -> int:
    """Return how many units' clipped contributions a site's sum has room for: ten deviations above what is expected.

    A longer sum is projected onto that ball, which parts no two neighbours; so it decides what is learnt and never
    what is promised.
    """
    _validate.positive(expected=expected)
    return math.ceil(expected + 10.0 * math.sqrt(expected) + 10.0)
