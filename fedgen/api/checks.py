"""``check``: the plan of a study, before anything runs and without touching torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from fedgen.api.allowance import allowance_of
from fedgen.api.policy_home import refuse_missing_documents
from fedgen.api.prepare import prepare
from fedgen.config.distributed import DistributedPlan
from fedgen.config.plan import plan_of, statements_of
from fedgen.config.resolve import read_resolved
from fedgen.errors import ConfigError
from fedgen.privacy.units import Trust, Unit

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fedgen.api.allowance import Allowance
    from fedgen.api.prepare import Prepared
    from fedgen.config.resolve import ResolvedStudy, RosterEntry
    from fedgen.privacy.plan import PrivacyPlan
    from fedgen.privacy.statement import Statement
    from fedgen.secagg.traffic import Traffic


_MUCH: Final = 1.25
_UNKNOWN_LEFT: Final = (
    "what each site's budget has left is not known here: its owner sees it in `fedgen site approve`"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a study would do.

    Attributes:
        study: The resolved study.
        privacy: Its privacy plan.
        statements: What could be promised after the last round.
        parameters: Values in one update.
        bytes_per_round: What all sites together send in one round, about.
        traffic: Under distributed trust, what a turn costs a site, without weights and envelopes; else None.
        warnings: What will work and may surprise, one sentence each.
        allowance: What the data have left at the tightest site, before this study begins; None where nothing but the
            study's own ε limits it, or where the study is that of a run folder.
    """

    study: ResolvedStudy
    privacy: PrivacyPlan | DistributedPlan
    statements: tuple[Statement, ...]
    parameters: int
    bytes_per_round: int
    warnings: tuple[str, ...]
    allowance: Allowance | None = None
    traffic: Traffic | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        spec = self.study.study
        return {
            "study": spec.study,
            "study_hash": self.study.study_hash,
            "model": spec.model.name,
            "unit": self.privacy.unit.value,
            "sites": [_declared(entry) for entry in self.study.roster],
            "rounds": spec.training.rounds,
            "steps_per_round": self.privacy.steps_per_round,
            "exchange": self.study.exchange,
            "sample_rate": self.study.sample_rate,
            "noise_multiplier": self.privacy.sigma,
            "clip": self.privacy.clip,
            "expected_batch": self.privacy.expected_batch,
            "quorum": self.study.quorum,
            "parameters": self.parameters,
            "bytes_per_round": self.bytes_per_round,
            "privacy": [statement.to_json() for statement in self.statements],
            "secagg": self._shared(),
            "budget": None if self.allowance is None else self.allowance.to_json(),
            "warnings": list(self.warnings),
        }

    def _shared(self) -> dict[str, Any] | None:
        """Return how sums are taken under distributed trust, as JSON values; else None."""
        plan, turn = self.privacy, self.traffic
        if not isinstance(plan, DistributedPlan) or turn is None:
            return None
        noise, point = plan.point.noise, plan.point
        return {
            "protocol": "full" if plan.masked else "sum",
            "recovery": plan.recovery.value,
            "threshold": plan.threshold,
            "dropouts": noise.dropouts,
            "colluders": noise.colluders,
            "colluders_withstood": max(plan.most_colluders, 0),
            "least": plan.least,
            "overprovisioning": plan.overprovisioning,
            "clip_bits": point.grid.bits,
            "sensitivity_inflation": point.grid.inflation,
            "ring_bits": point.ring,
            "headroom_bits": point.headroom_bits,
            "messages_per_round": turn.messages,
            "messages_after_dropout": turn.after_dropout,
            "bytes_sent_per_site": turn.sent,
            "bytes_received_per_site": turn.received,
            "facing": [
                {"colluders": it.colluders, "noise_multiplier": it.event.sigma} for it in plan.facing()
            ],
        }


def check(study: str | Path, overrides: Sequence[str] = (), *, server: str | Path | None = None) -> Plan:
    """Validate and resolve a study, and return its plan; nothing is trained and nothing is spent.

    Guarantees:
        - Every error ``simulate`` would raise before its first round is raised here.

    Args:
        study: A study file, or the ``study.yaml`` of a run folder.
        overrides: ``a.b=c`` changes.
        server: A coordinator's home; the plan is then that of ``train`` over the sites enrolled there, by the rows
            that they declare. What their budgets have left, each site alone knows.

    Raises:
        ConfigError: The study, its schema or its data is wrong; a site is not enrolled.
        Refused: Documents are missing that the packs ask for; the hint says what to file.
        BudgetExhausted: The study does not fit under a ceiling; the hint says what would.
        IntegrityError: A ledger that the study shares cannot be read.
    """
    plan = examine(study, overrides, server=server)
    if plan.allowance is not None and not plan.allowance.fits:
        raise plan.allowance.refusal()
    return plan


def examine(study: str | Path, overrides: Sequence[str] = (), *, server: str | Path | None = None) -> Plan:
    """Return the plan of a study also where its data have too little left for it; else see :func:`check`."""
    resolved, prepared = _resolved(study, overrides, server)
    plan = plan_of(resolved)
    if prepared is not None:
        refuse_missing_documents(prepared)
    event, steps = plan.event_per_round()
    spent = {entry.name: ((event, steps * plan.rounds),) for entry in resolved.roster}
    private = resolved.study.privacy.insecure_seed is None
    parameters = resolved.parameters or count_parameters(resolved)
    turn = _turn(resolved, plan)
    return Plan(
        study=resolved,
        privacy=plan,
        statements=statements_of(plan, spent, private=private),
        parameters=parameters,
        bytes_per_round=(4 * parameters if turn is None else turn.sent) * len(resolved.roster),
        warnings=tuple(_warnings(resolved, plan) + ([] if server is None else [_UNKNOWN_LEFT])),
        allowance=None if prepared is None else allowance_of(prepared),
        traffic=turn,
    )


def _turn(resolved: ResolvedStudy, plan: PrivacyPlan | DistributedPlan) -> Traffic | None:
    """Return what a turn of secure aggregation costs a site; no key is needed to count bytes."""
    if not isinstance(plan, DistributedPlan):
        return None
    from fedgen.secagg.traffic import traffic

    unknown = {entry.name: b"" for entry in resolved.roster}
    return traffic(plan.terms(resolved.study_hash, "", unknown), masked=plan.masked)


def resolved_of(path: str | Path, overrides: Sequence[str]) -> ResolvedStudy:
    """Return a study resolved against its data, or the resolved study of a run folder as it stands."""
    return _resolved(path, overrides)[0]


def _resolved(
    path: str | Path, overrides: Sequence[str], server: str | Path | None = None
) -> tuple[ResolvedStudy, Prepared | None]:
    """Return a resolved study, and the rows that it was resolved against where it was."""
    from pathlib import Path

    text = Path(path).read_text(encoding="utf-8", errors="replace")[:4096] if Path(path).is_file() else ""
    if "\nstudy_hash:" in text:
        if overrides:
            raise ConfigError(
                "a resolved study cannot be changed", where=path, hint="use your own study file"
            )
        return read_resolved(Path(path)), None
    if server is not None:
        from fedgen.api.training import prepare_deployed  # the coordinator's parts, late
        from fedgen.enrolment.server_home import ServerHome

        home = ServerHome(Path(server).absolute())
        home.spec()  # else every site would be called unknown in a folder that is no home
        return prepare_deployed(path, overrides, home).resolved, None
    prepared = prepare(path, overrides)
    return prepared.resolved, prepared


def _declared(entry: RosterEntry) -> dict[str, Any]:
    """Return what the roster says of a site, under the names that a user sees."""
    return {f"declared_{name}" if name != "name" else name: value for name, value in entry.to_json().items()}


def count_parameters(resolved: ResolvedStudy) -> int:
    """Return how many values one update carries."""
    from fedgen.api.bench import new_learner

    learner = new_learner(resolved)
    return learner.parameters if resolved.exchange == "gradient" else learner.all_parameters


def _warnings(resolved: ResolvedStudy, plan: PrivacyPlan | DistributedPlan) -> list[str]:
    """Return what works and may surprise."""
    notes = []
    spec = resolved.study
    if spec.privacy.insecure_seed is not None:
        notes.append("insecure_seed is set: nothing made by this study is private")
    small = [entry.name for entry in resolved.roster if entry.rows < spec.policy.min_cohort]
    if small:
        notes.append(
            f"{len(small)} sites declare fewer rows than policy.min_cohort ({spec.policy.min_cohort}) "
            f"and will sit out: {', '.join(small[:5])}"
        )
    unit = plan.unit.value
    if plan.expected_batch < 1:
        notes.append(f"the expected batch is below one {unit}: most steps will be noise only")
    units = len(resolved.roster) if plan.unit is Unit.SITE else resolved.total_sampled
    if plan.delta * units > 1:
        notes.append(
            f"delta is above one over the number of {unit}s: publishing one whole {unit} would be allowed by it"
        )
    if plan.unit is Unit.SITE and plan.sigma > len(resolved.roster):
        notes.append(
            "the noise is larger than all sites' bounded updates together: unit site needs many sites or a larger "
            "epsilon"
        )
    if spec.privacy.trust is Trust.CENTRAL:
        what = "update" if plan.unit is Unit.SITE else "sum"
        notes.append(f"central trust: the coordinator sees every site's clear {what}")
    return notes + (_shared_warnings(plan) if isinstance(plan, DistributedPlan) else [])


def _shared_warnings(plan: DistributedPlan) -> list[str]:
    """Return what works and may surprise where noise comes in shares."""
    notes = []
    noise = plan.point.noise
    if not plan.masked:
        notes.append(
            "protocol: sum is a rehearsal without masks: no site outside a simulation takes part in it"
        )
    if noise.colluders == 0:
        notes.append(
            "no site is assumed to help the coordinator: what is charged holds against the coordinator alone, and a "
            "curious site, which knows its own share of the noise, is faced with less"
        )
    if noise.dropouts == 0:
        notes.append("secagg.dropouts is 0: a round waits for every site, and one that is missing voids it")
    if plan.overprovisioning > _MUCH:
        notes.append(
            f"with nobody missing a sum carries {100 * (plan.overprovisioning - 1):.0f} % more noise than is charged: "
            "tolerate fewer dropouts and colluders, or enrol more sites"
        )
    return notes
