"""``check``: the plan of a study, before anything runs and without touching torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedgen.api.prepare import prepare
from fedgen.config.plan import plan_of
from fedgen.config.resolve import read_resolved
from fedgen.errors import ConfigError
from fedgen.privacy.statement import Statement, state
from fedgen.privacy.units import Trust

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fedgen.config.resolve import ResolvedStudy
    from fedgen.privacy.plan import PrivacyPlan


@dataclass(frozen=True, slots=True)
class Plan:
    """What a study would do.

    Attributes:
        study: The resolved study.
        privacy: Its privacy plan.
        statements: What could be promised after the last round.
        parameters: Values in one update.
        bytes_per_round: What all sites together send in one round, about.
        warnings: What will work and may surprise, one sentence each.
    """

    study: ResolvedStudy
    privacy: PrivacyPlan
    statements: tuple[Statement, ...]
    parameters: int
    bytes_per_round: int
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        spec = self.study.study
        return {
            "study": spec.study,
            "study_hash": self.study.study_hash,
            "model": spec.model.name,
            "sites": [{"name": entry.name, "declared_rows": entry.rows} for entry in self.study.roster],
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
            "warnings": list(self.warnings),
        }


def check(study: str | Path, overrides: Sequence[str] = ()) -> Plan:
    """Validate and resolve a study, and return its plan; nothing is trained and nothing is spent.

    Guarantees:
        - Every error ``simulate`` would raise before its first round is raised here.

    Args:
        study: A study file, or the ``study.yaml`` of a run folder.
        overrides: ``a.b=c`` changes.

    Raises:
        ConfigError: The study, its schema or its data is wrong.
    """
    resolved = resolved_of(study, overrides)
    plan = plan_of(resolved)
    event, steps = plan.event_per_round()
    spent = {entry.name: ((event, steps * plan.rounds),) for entry in resolved.roster}
    private = resolved.study.privacy.insecure_seed is None
    parameters = count_parameters(resolved)
    return Plan(
        study=resolved,
        privacy=plan,
        statements=state(plan, spent, private=private),
        parameters=parameters,
        bytes_per_round=4 * parameters * len(resolved.roster),
        warnings=tuple(_warnings(resolved, plan)),
    )


def resolved_of(path: str | Path, overrides: Sequence[str]) -> ResolvedStudy:
    """Return a study resolved against its data, or the resolved study of a run folder as it stands."""
    from pathlib import Path

    text = Path(path).read_text(encoding="utf-8", errors="replace")[:4096] if Path(path).is_file() else ""
    if "\nstudy_hash:" in text:
        if overrides:
            raise ConfigError(
                "a resolved study cannot be changed", where=path, hint="use your own study file"
            )
        return read_resolved(Path(path))
    return prepare(path, overrides).resolved


def count_parameters(resolved: ResolvedStudy) -> int:
    """Return how many values one update carries."""
    from fedgen.api.bench import new_learner

    learner = new_learner(resolved)
    return learner.parameters if resolved.exchange == "gradient" else learner.all_parameters


def _warnings(resolved: ResolvedStudy, plan: PrivacyPlan) -> list[str]:
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
    if plan.expected_batch < 1:
        notes.append("the expected batch is below one row: most steps will be noise only")
    if plan.delta * resolved.total_rows > 1:
        notes.append(
            "delta is above one over the number of records: publishing one whole record would be allowed by it"
        )
    if spec.privacy.trust is Trust.CENTRAL:
        notes.append("central trust: the coordinator sees every site's clear sum")
    return notes
