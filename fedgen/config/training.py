"""The sections of a study file that say what may be spent, how it is trained, and how it is rehearsed."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, model_validator

from fedgen.config.base import Frozen
from fedgen.config.fields import (
    Count,
    Decay,
    NonNegative,
    Number,
    OpenUnit,
    Positive,
    Rate,
    Slug,
    Text,
    Whole,
)
from fedgen.config.site import Ceilings
from fedgen.privacy.events import SIGMA_MAX, SIGMA_MIN
from fedgen.privacy.units import Relation, Trust, Unit
from fedgen.schema.yamlsource import Flaw

MOST_ROWS_EACH: Final = 2**20  # as fedgen.dpsgd.persons says; this module never loads it
CLIP_MIN: Final = 1e-9  # times any noise multiplier, the noise stays a number that float32 can hold
CLIP_MAX: Final = 1e9


class PrivacySpec(Frozen):
    """What may be spent, against whom, and for whose protection.

    Attributes:
        unit: What is protected: one ``record``, one ``person`` or one ``site``. Required.
        trust: Where the noise is added, and so against whom ε holds. Required.
        relation: Neighbouring relation; Poisson sampling is accounted under ``add_or_remove`` only.
        epsilon: What may be spent over the whole study; the noise is calibrated to it.
        noise_multiplier: The noise itself, as a multiple of ``clip``, in [0.01, 1e6]. Exactly one of the two is given.
        delta: In (0, 1). Required.
        clip: Bound C on what one unit adds to a sum, in L2, in [1e-9, 1e9]: a record's gradient, the gradients of
            all rows of a person together, or the whole change a site makes to the weights in a round.
        rows_per_person: Unit ``person`` only: most rows of one person in a step, chosen anew in each. The bound C
            holds whatever it is, so it decides what is learnt and not what is promised; None means 8.
        insecure_seed: Makes a run repeatable and not private; every output says so.
    """

    unit: Unit
    trust: Trust
    relation: Relation = Relation.ADD_OR_REMOVE
    epsilon: Positive | None = None
    noise_multiplier: (
        Annotated[float, Number, Field(ge=SIGMA_MIN, le=SIGMA_MAX, allow_inf_nan=False)] | None
    ) = None
    delta: OpenUnit
    clip: Annotated[float, Number, Field(ge=CLIP_MIN, le=CLIP_MAX, allow_inf_nan=False)] = 1.0
    rows_per_person: Annotated[int, Number, Field(ge=1, le=MOST_ROWS_EACH)] | None = None
    insecure_seed: Whole | None = None

    @model_validator(mode="after")
    def _exactly_one_of(self) -> PrivacySpec:
        if self.epsilon is None and self.noise_multiplier is None:
            raise Flaw("give exactly one of epsilon, noise_multiplier; neither is there")
        if self.epsilon is not None and self.noise_multiplier is not None:
            raise Flaw(
                "give exactly one of epsilon, noise_multiplier; both are there", key=("noise_multiplier",)
            )
        return self

    @model_validator(mode="after")
    def _rows_belong_to_persons(self) -> PrivacySpec:
        if self.rows_per_person is not None and self.unit is not Unit.PERSON:
            raise Flaw(
                "rows_per_person belongs to unit: person",
                key=("rows_per_person",),
                hint=f"leave it out with unit: {self.unit.value}",
            )
        return self


class OptimizerSpec(Frozen):
    """How a noised gradient becomes a step.

    Attributes:
        name: ``adam`` or ``sgd``.
        lr: Learning rate, positive.
        lr_public: Learning rate of a GAN's generator; None means ``lr``.
        momentum: SGD only, in [0, 1).
        betas: Adam only, each in [0, 1).
    """

    name: Literal["adam", "sgd"] = "adam"
    lr: Positive = 1e-3
    lr_public: Positive | None = None
    momentum: Decay | None = None
    betas: tuple[Decay, Decay] | None = None

    @model_validator(mode="after")
    def _options_belong(self) -> OptimizerSpec:
        if self.name == "adam" and self.momentum is not None:
            raise Flaw("momentum belongs to sgd; adam takes betas", key=("momentum",))
        if self.name == "sgd" and self.betas is not None:
            raise Flaw("betas belongs to adam; sgd takes momentum", key=("betas",))
        return self


def _quorum(value: object) -> object:
    """Accept a share of the sites as a float, or a number of sites as an int."""
    if isinstance(value, str):
        try:
            value = int(value) if value.strip().lstrip("+-").isdigit() else float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("must be a share of the sites between 0.0 and 1.0, or a whole number of sites")
    if isinstance(value, float) and not 0 <= value <= 1:
        raise ValueError("must be a share between 0.0 and 1.0; write a number of sites without a point")
    if isinstance(value, int) and value < 1:
        raise ValueError("must be at least one site")
    return value


class TrainingSpec(Frozen):
    """How many rounds, how many records, and what travels.

    Attributes:
        rounds: How often the sites answer.
        batch: Expected size of a step, in records, or in persons with ``unit: person``: per site on average under local
            trust, over all sites otherwise. With ``unit: site``, of a local step at each site, in records.
        sample_rate: The Poisson rate itself, in (0, 1]. Exactly one of the two is given.
        local_steps: Steps at a site between two messages.
        exchange: ``gradient`` (the coordinator steps), ``update`` (sites step), or ``auto``: gradient if
            ``local_steps`` is 1, else update; always update with ``unit: site``.
        optimizer: See :class:`OptimizerSpec`.
        engine: ``fused``, or ``opacus`` as a cross-check.
        quorum: Share of the sites (float) or number of sites (int) without which a round does not count.
        timeout_s: A site that takes longer is late.
        ema: Decay of the moving average of the weights, or None.
    """

    rounds: Annotated[int, Number, Field(ge=1, le=1_000_000)]
    batch: Count | None = None
    sample_rate: Rate | None = None
    local_steps: Annotated[int, Number, Field(ge=1, le=100_000)] = 1
    exchange: Literal["auto", "gradient", "update"] = "auto"
    optimizer: OptimizerSpec = OptimizerSpec()
    engine: Literal["fused", "opacus"] = "fused"
    quorum: Annotated[int | float, BeforeValidator(_quorum)] = 0.5
    timeout_s: Positive = 600.0
    ema: Decay | None = None

    @model_validator(mode="after")
    def _exactly_one_of(self) -> TrainingSpec:
        if self.batch is None and self.sample_rate is None:
            raise Flaw("give exactly one of batch, sample_rate; neither is there")
        if self.batch is not None and self.sample_rate is not None:
            raise Flaw("give exactly one of batch, sample_rate; both are there", key=("sample_rate",))
        return self

    @property
    def exchanged(self) -> Literal["gradient", "update"]:
        """What travels, with ``auto`` decided where the unit does not decide it; see ``Study.exchanged``."""
        if self.exchange != "auto":
            return self.exchange
        return "gradient" if self.local_steps == 1 else "update"

    def quorum_of(self, sites: int) -> int:
        """Return how many of ``sites`` must answer, at least one."""
        share = self.quorum
        return max(1, share if isinstance(share, int) else math.ceil(share * sites))


def _an_instant(value: object) -> object:
    """Refuse a bare number: pydantic would read it as seconds since 1970."""
    if not isinstance(value, str | datetime) or (isinstance(value, str) and value.strip().isdigit()):
        raise ValueError("must be a date and time with its zone, such as 2026-01-31T08:00:00Z")
    return value


def _in_utc(value: datetime) -> datetime:
    """Give one instant one spelling, so that it has one hash."""
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be within the years 1 to 9999") from None


class FaultSpec(Frozen):
    """A fault to rehearse: what one simulated site does wrong in one round.

    Attributes:
        site: Name in the roster, such as ``site-01``.
        round: One-based.
        kind: ``raise``, ``drop``, ``late``, ``twice``, ``nan`` or ``refuse``.
    """

    site: Slug
    round: Count
    kind: Literal["raise", "drop", "late", "twice", "nan", "refuse"]


class SimulationSpec(Frozen):
    """What only a simulation has.

    Attributes:
        clock_start: The sites' clock before round 1, with its zone; None means the real clock.
        clock_step_s: Seconds that pass on the sites' clock with each round.
        evaluate_every: Compute the held-out loss every so many rounds; zero means never, None about twenty times.
        ledgers: Folder, relative to the study file, where the sites keep their keys and ledgers; studies that name
            the same one see what each other spent. None keeps them in the run folder.
        ceiling: Most that all studies together may spend on each simulated site's data, ever; or the ceilings of a
            site file.
        compare_pooled: Train the same model pooled and without privacy too, and show its scores beside the run's.
        judge: Evaluate the synthetic rows at the end, against held-out rows.
        faults: Faults to rehearse.
    """

    clock_start: Annotated[AwareDatetime, BeforeValidator(_an_instant), AfterValidator(_in_utc)] | None = None
    clock_step_s: NonNegative = 0.0
    evaluate_every: Whole | None = None
    ledgers: Text | None = None
    ceiling: Positive | Ceilings | None = None
    compare_pooled: bool = False
    judge: bool = True
    faults: tuple[FaultSpec, ...] = ()

    @model_validator(mode="after")
    def _steps_need_a_start(self) -> SimulationSpec:
        if self.clock_step_s > 0 and self.clock_start is None:
            raise Flaw(
                "clock_step_s needs clock_start: the real clock keeps its own pace", key=("clock_step_s",)
            )
        return self
