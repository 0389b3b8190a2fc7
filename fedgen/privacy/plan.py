"""One plan couples what must agree: sampling rate, clip, noise and the event that is charged.

Noise cannot be calibrated for one sampler and used with another, because both come from the same frozen
value; and an update cannot be called noised except by the plan whose noise it carries.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from fedgen import _validate
from fedgen.errors import Code, ConfigError, IntegrityError
from fedgen.privacy.accountant import EpsilonCurve, epsilon
from fedgen.privacy.calibrate import noise_multiplier
from fedgen.privacy.events import PoissonGaussian
from fedgen.privacy.units import Relation, Trust, Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fedgen.privacy.events import Event

_MINT: Final = object()


class PrivacySpec(Protocol):
    """The ``privacy`` section of a study, whatever class holds it. None of it has a default here."""

    @property
    def unit(self) -> Unit: ...  # noqa: D102 -- see Unit
    @property
    def trust(self) -> Trust: ...  # noqa: D102 -- see Trust
    @property
    def relation(self) -> Relation: ...  # noqa: D102 -- see Relation
    @property
    def epsilon(self) -> float | None: ...  # noqa: D102 -- what may be spent; exactly one of this and the next
    @property
    def noise_multiplier(self) -> float | None: ...  # noqa: D102 -- sigma, given
    @property
    def delta(self) -> float: ...  # noqa: D102 -- in (0, 1)
    @property
    def clip(self) -> float: ...  # noqa: D102 -- bound C on one unit's contribution


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a learner counted that it did in one round; a plan compares it with what it charged.

    Where steps differ from one another, each figure is the one that reveals most.

    Attributes:
        unit: What was sampled and bounded as a whole.
        steps: Bounded sums made, empty samples counted.
        q: Sampling rate used.
        clip: Bound used on what one unit adds to a sum.
        noise_std: Standard deviation of the noise added to each sum.
        private: The noise came from the operating system's randomness.
    """

    unit: Unit
    steps: int
    q: float
    clip: float
    noise_std: float
    private: bool


@dataclass(frozen=True, slots=True)
class NoisedUpdate:
    """An update whose noise was charged. Only :meth:`PrivacyPlan.noised` can make one.

    Attributes:
        vector: The flat update.
        event: What one step did.
        count: How many steps.
        private: False if the noise came from a seed; nothing is promised then.

    Raises:
        TypeError: Made by anything but a plan.
    """

    vector: Any
    event: PoissonGaussian
    count: int
    private: bool
    mint: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse a forged update."""
        if self.mint is not _MINT:
            raise TypeError("a NoisedUpdate is made by PrivacyPlan.noised only")


class Plan(Protocol):
    """What a plan answers whoever adds the noise: enough to charge a round and to say what it costs.

    :class:`PrivacyPlan` is one where somebody adds Gaussian noise whole (``local``, ``central``);
    :class:`fedgen.config.distributed.DistributedPlan` is one where each site adds a share.
    """

    @property
    def unit(self) -> Unit: ...  # noqa: D102 -- see PrivacyPlan
    @property
    def trust(self) -> Trust: ...  # noqa: D102 -- see PrivacyPlan
    @property
    def relation(self) -> Relation: ...  # noqa: D102 -- see PrivacyPlan
    @property
    def delta(self) -> float: ...  # noqa: D102 -- see PrivacyPlan
    @property
    def epsilon_allowed(self) -> float | None: ...  # noqa: D102 -- see PrivacyPlan
    @property
    def q(self) -> float: ...  # noqa: D102 -- see PrivacyPlan
    @property
    def sigma(self) -> float: ...  # noqa: D102 -- the noise multiplier that is charged
    @property
    def clip(self) -> float: ...  # noqa: D102 -- see PrivacyPlan
    @property
    def steps_per_round(self) -> int: ...  # noqa: D102 -- see PrivacyPlan
    @property
    def rounds(self) -> int: ...  # noqa: D102 -- see PrivacyPlan
    @property
    def expected_batch(self) -> float: ...  # noqa: D102 -- see PrivacyPlan
    @property
    def noise_std(self) -> float: ...  # noqa: D102 -- of a sum to which every site answered
    @property
    def event(self) -> Event: ...  # noqa: D102 -- what one step is charged as
    def event_per_round(self) -> tuple[Event, int]: ...  # noqa: D102 -- the event, and how often
    def epsilon_of(self, rounds: int) -> float: ...  # noqa: D102 -- the bound after so many rounds
    def curve(self) -> EpsilonCurve: ...  # noqa: D102 -- the same, over the rounds of the study
    def check_bounded(self, evidence: Evidence) -> None: ...  # noqa: D102 -- refuse what was not bounded so


@dataclass(frozen=True, slots=True)
class PrivacyPlan:
    """Everything a round of private training must agree on.

    Guarantees:
        - ``event`` describes exactly the sampler, clip and noise the plan hands out.
        - If ``epsilon_allowed`` is set, the bound after ``rounds`` rounds is at most that.

    Attributes:
        unit: What is protected as a whole.
        trust: Who adds the noise.
        relation: Which data sets are neighbours.
        delta: In (0, 1).
        epsilon_allowed: What the whole study may spend, or None where sigma was given.
        q: Poisson sampling rate of one step, in (0, 1]; 1 for ``site``, where nothing is left out.
        sigma: Noise multiplier.
        clip: Bound C on one unit's contribution to a sum.
        steps_per_round: Noised sums in one round; 1 for ``site``, however many local steps its update took.
        rounds: Rounds of the study.
        expected_batch: Expected number of units in the sum that gets the noise: records or persons of a site on
            average (local trust) or of all sites (central); for ``site``, 1 or the number of sites. Public; never
            a count.
    """

    unit: Unit
    trust: Trust
    relation: Relation
    delta: float
    epsilon_allowed: float | None
    q: float
    sigma: float
    clip: float
    steps_per_round: int
    rounds: int
    expected_batch: float

    def __post_init__(self) -> None:
        """Check what a caller passed; :meth:`resolve` does so in the words of a study file."""
        _validate.open_probability(delta=self.delta)
        _validate.positive(clip=self.clip, expected_batch=self.expected_batch)
        _validate.positive(steps_per_round=self.steps_per_round, rounds=self.rounds)
        if self.epsilon_allowed is not None:
            _validate.positive(epsilon=self.epsilon_allowed)
        PoissonGaussian(self.q, self.sigma)

    @classmethod
    def resolve(
        cls, spec: PrivacySpec, *, q: float, rounds: int, steps_per_round: int, expected_batch: float
    ) -> PrivacyPlan:
        """Return the plan of a study: sigma as given, or calibrated to ε over all rounds.

        Guarantees:
            - With ``spec.epsilon``, the bound of the whole study lies in [0.995, 1.0] of it.

        Args:
            spec: The study's ``privacy`` section.
            q: Sampling rate; :func:`sampling_rate` makes it from batch and declared size.
            rounds: Rounds of the study, at least 1.
            steps_per_round: Noised sums in a round, at least 1; exactly 1 under central trust.
            expected_batch: Expected units in one sum.

        Raises:
            ConfigError: The study asks for something impossible; names the key.
        """
        with _as_config("epsilon"):
            if (spec.epsilon is None) == (spec.noise_multiplier is None):
                raise ValueError("exactly one of epsilon and noise_multiplier must be set")
        if spec.trust is Trust.CENTRAL and steps_per_round != 1:
            raise ConfigError(
                "central trust adds noise once a round, so a round is one step",
                key="training.local_steps",
                hint="set local_steps to 1, or use trust: local",
            )
        with _as_config("delta"):
            _validate.open_probability(delta=spec.delta)
        with _as_config("clip"):
            _validate.positive(clip=spec.clip)
        sigma = _sigma(spec, q, rounds * steps_per_round)
        with _as_config("noise_multiplier"):
            return cls(
                unit=Unit(spec.unit),
                trust=Trust(spec.trust),
                relation=Relation(spec.relation),
                delta=float(spec.delta),
                epsilon_allowed=None if spec.epsilon is None else float(spec.epsilon),
                q=float(q),
                sigma=sigma,
                clip=float(spec.clip),
                steps_per_round=steps_per_round,
                rounds=rounds,
                expected_batch=float(expected_batch),
            )

    @property
    def event(self) -> PoissonGaussian:
        """What one step does to the rows, for the ledger."""
        return PoissonGaussian(self.q, self.sigma)

    @property
    def noise_std(self) -> float:
        """Standard deviation sigma·C of the noise in one released sum, at whoever adds it.

        Under local trust each site adds it to its own sum; under central trust the coordinator adds it to the
        sum of all; under distributed trust the shares add up to it.
        """
        return self.sigma * self.clip

    def event_per_round(self) -> tuple[PoissonGaussian, int]:
        """Return what one round does: the event and how often."""
        return self.event, self.steps_per_round

    def epsilon_of(self, rounds: int) -> float:
        """Return the bound on ε after ``rounds`` rounds of this plan, at most that of the whole study.

        Edge cases:
            ==================  ===========================================
            rounds = 0          0
            rounds > planned    the bound of that many rounds
            ==================  ===========================================

        Raises:
            ValueError: ``rounds`` is negative.
        """
        _validate.non_negative(rounds=rounds)
        after = self._bound(rounds)
        return min(after, self._bound(self.rounds)) if rounds <= self.rounds else after

    def _bound(self, rounds: int) -> float:
        """Return the accountant's figure after ``rounds`` rounds."""
        work = ((self.event, rounds * self.steps_per_round),) if rounds else ()
        return epsilon(work, self.delta, relation=self.relation).epsilon

    def curve(self) -> EpsilonCurve:
        """Return ε over the rounds of the study, computed when asked and in at most 32 figures."""
        return EpsilonCurve(
            self.event, self.rounds, self.delta, each=self.steps_per_round, relation=self.relation
        )

    def noised(self, vector: Any, evidence: Evidence) -> NoisedUpdate:
        """Return ``vector`` as a noised update, if the engine did exactly what the plan charges.

        Guarantees:
            - Nothing else makes a :class:`NoisedUpdate`.

        Raises:
            IntegrityError: Unit, steps, rate or clip differ from the plan, or there is less noise than sigma·C.
        """
        self.check_bounded(evidence)
        enough = evidence.noise_std >= self.noise_std or _close(evidence.noise_std, self.noise_std)
        if not (math.isfinite(evidence.noise_std) and enough):
            raise _defect()
        return NoisedUpdate(vector, self.event, self.steps_per_round, evidence.private, _MINT)

    def check_bounded(self, evidence: Evidence) -> None:
        """Refuse what was not sampled and bounded as charged; all there is to check where noise comes later.

        Raises:
            IntegrityError: Unit, steps, rate or clip differ from the plan.
        """
        agrees = (
            evidence.unit is self.unit
            and evidence.steps == self.steps_per_round
            and _close(evidence.q, self.q)
            and _close(evidence.clip, self.clip)
        )
        if not agrees:
            raise _defect()


def sampling_rate(batch: float, declared: float) -> float:
    """Return the Poisson rate that draws ``batch`` of ``declared`` units on average, at most 1.

    The declared size is the public figure of the roster, not a count of permitted rows: a withdrawal of
    consent changes neither the noise nor the bookkeeping.

    Raises:
        ValueError: An argument is not positive and finite.
    """
    _validate.positive(batch=batch, declared=declared)
    return min(1.0, batch / declared)


def _sigma(spec: PrivacySpec, q: float, steps: int) -> float:
    """Return the noise multiplier of a study."""
    if spec.noise_multiplier is not None:
        with _as_config("noise_multiplier"):
            return PoissonGaussian(q, spec.noise_multiplier).sigma
    with _as_config("epsilon"):
        return noise_multiplier(
            q, steps, float(spec.epsilon or 0.0), spec.delta, relation=Relation(spec.relation)
        )


def _defect() -> IntegrityError:
    """Return the refusal of an engine that is not as the plan says."""
    return IntegrityError(
        "the engine did not do what the plan charges", code=Code.FAULT, hint="report this as a defect"
    )


def _close(left: float, right: float) -> bool:
    """Return whether two settings are the same number up to rounding."""
    return math.isclose(left, right, rel_tol=1e-9)


@contextmanager
def _as_config(key: str) -> Iterator[None]:
    """Turn a bad value into a fault of the study file."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(str(error), key=f"privacy.{key}") from error
    except ConfigError as error:
        raise ConfigError(error.what, key=error.key or f"privacy.{key}", hint=error.hint) from error
