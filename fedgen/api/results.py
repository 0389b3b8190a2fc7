"""What is in a run folder at the end: synthetic data, its evaluation, the report, and run.json."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.api.reporting import build_report
from fedgen.api.retention import register_releases
from fedgen.api.run import Run, progress_header
from fedgen.api.tables import write_rows
from fedgen.api.versions import versions
from fedgen.audit.evaluate import evaluate_codes
from fedgen.audit.nearer import People
from fedgen.config.distributed import DistributedPlan
from fedgen.config.plan import statements_of
from fedgen.coordinator.progress import ProgressStore
from fedgen.errors import ConfigError, FedgenError, MissingExtra
from fedgen.report.render import render
from fedgen.runs.atomic import write_json, write_text
from fedgen.runs.journal import (
    Artefact,
    RunRecord,
    SiteSummary,
    read_rounds,
    read_run,
    standing,
    told,
    write_run,
)
from fedgen.runs.rollback import rollbacks

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fedgen.api.prepare import Prepared
    from fedgen.audit.evaluation import Evaluation
    from fedgen.privacy.events import Counts
    from fedgen.privacy.plan import PrivacyPlan
    from fedgen.privacy.statement import Statement
    from fedgen.report.model import Rival, SiteBudget
    from fedgen.runs.folder import RunFolder
    from fedgen.runs.journal import RoundLine

_READ: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Clock:
    """When the run began, and how long earlier processes of it took."""

    started_at: datetime
    since: float
    before_s: float

    @classmethod
    def start(cls, folder: RunFolder) -> Clock:
        """Start counting; an earlier part of the same run is added."""
        try:
            earlier = read_run(folder.record)
        except ConfigError:
            return cls(started_at=datetime.now(UTC), since=time.monotonic(), before_s=0.0)
        return cls(started_at=earlier.started_at, since=time.monotonic(), before_s=earlier.wall_s)

    @property
    def wall_s(self) -> float:
        """Wall seconds over all processes of the run so far."""
        return self.before_s + time.monotonic() - self.since


@dataclass(frozen=True, slots=True)
class Session:
    """One process's part of a run: what results are written from.

    Attributes:
        prepared: Study, rows and cut.
        folder: The claimed run folder.
        run: Identity of the run, hex.
        plan: The privacy plan.
        clock: Since when.
        backend: What carries the messages.
        spent: What each site's ledger says was charged.
        charged_rounds: For each site, every round its ledger was charged for.
        budgets: What the sites' data have spent over all studies, and may spend.
    """

    prepared: Prepared
    folder: RunFolder
    run: str
    plan: PrivacyPlan | DistributedPlan
    clock: Clock
    backend: str
    spent: Callable[[], dict[str, Counts]]
    charged_rounds: Callable[[], dict[str, tuple[int, ...]]]
    budgets: Callable[[], tuple[SiteBudget, ...]]


def write_outcome(session: Session, outcome: str) -> None:
    """Put down how the run stands, while it runs and when it fails; what was made before stays as it is.

    Edge cases:
        - A failure that cannot be put down, on a full disk for instance, is not reported over the failure.
    """
    with suppress(*(() if outcome == "running" else (FedgenError, OSError))):
        write_run(session.folder.record, _record(session, outcome, []))


def finished(folder: RunFolder) -> bool:
    """Return whether a run was completed and every file it made is as it was made."""
    try:
        record = read_run(folder.record)
        return record.outcome == "completed" and all(
            _sha256(folder.root / made.path) == made.sha256 for made in record.artefacts
        )
    except (FedgenError, OSError):
        return False


def write_results(session: Session, outcome: str) -> Run:
    """Write everything INTERFACES promises of a run folder, and return the run.

    Guarantees:
        - Each file is put in place atomically; run.json comes last and names the digest of every other.
        - A run that ended early gets the same files from its last safe model; one without a model gets a
          report and run.json only.
    """
    prepared, folder = session.prepared, session.folder
    run = Run(folder=folder, study=prepared.resolved)
    has_model = ProgressStore(folder, progress_header(prepared.resolved)).latest() is not None
    shown, quality = None, None
    rivals: tuple[Rival, ...] = ()
    files: list[Path] = []
    if has_model:
        shown = run.sample_codes(prepared.study.release.rows)
        files += _write_synthetic(run, shown)
        # Who stops a run by hand waits for the model, not for its marks.
        quality = None if outcome == "interrupted" else _evaluate(prepared, shown)
        rivals = _rivals(prepared, outcome)
    if quality is not None:
        evaluation = folder.root / "evaluation.json"
        write_json(evaluation, quality.to_json())
        files.append(evaluation)
    files += folder.checkpoints_newest_first()[:1]
    record = _record(session, outcome, files)
    model = build_report(
        run,
        record,
        session.plan,
        session.charged_rounds(),
        quality=quality,
        rivals=rivals,
        shown=shown,
        budgets=session.budgets(),
    )
    write_text(folder.report, render(model))
    write_json(folder.root / "report.json", model.to_json())
    files += [folder.report, folder.root / "report.json"]
    write_run(folder.record, record.model_copy(update={"artefacts": _artefacts(folder, files)}))
    register_releases(folder, session.run, record.rounds_done)
    return run


def _write_synthetic(run: Run, codes: np.ndarray) -> list[Path]:
    written = []
    for suffix in run.study.study.release.formats:
        path = run.folder.synthetic(suffix)
        write_rows(run, codes, path)
        written.append(path)
    return written


def _evaluate(prepared: Prepared, synthetic: np.ndarray) -> Evaluation | None:
    """Judge synthetic rows against training and held-out rows; a simulation may, a deployment may not."""
    if not len(prepared.holdout) or not prepared.study.simulation.judge:
        return None
    codes, subjects = prepared.table.codes, prepared.table.subjects
    training, held = np.sort(prepared.training_rows), np.sort(prepared.holdout)
    # A person's rows resemble each other, so the copies alarm compares people, not rows, where it can.
    people = None if subjects is None else People(subjects[training], subjects[held])
    real, holdout = codes[training], codes[held]
    try:
        return evaluate_codes(real, synthetic, prepared.schema, holdout, people=people)
    except MissingExtra:
        return evaluate_codes(real, synthetic, prepared.schema, holdout, people=people, utility=False)


def _rivals(prepared: Prepared, outcome: str) -> tuple[Rival, ...]:
    """Train the rivals a study asks for; only a run that was completed is compared."""
    if outcome != "completed" or not prepared.study.simulation.compare_pooled:
        return ()
    from fedgen.api.pooled import pooled_rival

    rival = pooled_rival(prepared, lambda codes: _evaluate(prepared, codes))
    return () if rival is None else (rival,)


def _record(session: Session, outcome: str, files: list[Path]) -> RunRecord:
    """Return run.json: what was promised, by whom the rounds were answered, and what was made."""
    prepared, folder = session.prepared, session.folder
    private = prepared.study.privacy.insecure_seed is None
    statements = statements_of(session.plan, session.spent(), private=private)
    known = rollbacks(folder)
    lines = standing(read_rounds(folder.metrics), known)
    progress = ProgressStore(folder, progress_header(prepared.resolved)).latest()
    return RunRecord(
        study=prepared.study.study,
        study_hash=prepared.resolved.study_hash,
        run=session.run,
        outcome=outcome,
        rounds=prepared.study.training.rounds,
        rounds_done=0 if progress is None else progress.round,
        started_at=session.clock.started_at,
        wall_s=round(session.clock.wall_s, 3),
        backend=session.backend,
        seeds="os" if private else "insecure",
        versions=versions(),
        privacy=tuple(json.loads(json.dumps(statement.to_json())) for statement in statements),
        sites=_summaries(prepared, lines, statements, session.plan),
        artefacts=_artefacts(folder, files),
        rollbacks=tuple(told(it) for it in known),
    )


def _summaries(
    prepared: Prepared,
    lines: tuple[RoundLine, ...],
    statements: tuple[Statement, ...],
    plan: PrivacyPlan | DistributedPlan,
) -> tuple[SiteSummary, ...]:
    """Return what each site did: rounds in the sum, what it spent, refusals by code.

    Where noise comes in shares, what was spent is what was charged: against the colluders the study assumes.
    """
    assumed = plan.point.noise.colluders if isinstance(plan, DistributedPlan) else None
    by_scope = {
        statement.scope: statement.epsilon for statement in statements if statement.colluders == assumed
    }
    quorum = prepared.resolved.quorum
    return tuple(
        SiteSummary(
            name=entry.name,
            rounds=sum(entry.name in line.sites for line in lines if len(line.sites) >= quorum),
            epsilon=by_scope.get(f"site {entry.name}", by_scope.get("union")),
            refusals=Counter(
                line.missing.get(entry.name) or line.rejected[entry.name]
                for line in lines
                if entry.name in line.missing or entry.name in line.rejected
            ),
        )
        for entry in prepared.resolved.roster
    )


def _artefacts(folder: RunFolder, files: list[Path]) -> tuple[Artefact, ...]:
    return tuple(
        Artefact(path=path.relative_to(folder.root).as_posix(), sha256=_sha256(path)) for path in files
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_READ):
            digest.update(block)
    return digest.hexdigest()
