"""Rolling a run back to before somebody was in it: what has to go, what it costs, and doing it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedgen.api.retention import forget_removed, stored_in
from fedgen.config.plan import plan_of
from fedgen.config.site import Ceilings
from fedgen.errors import ConfigError
from fedgen.ledger.entries import Reserved
from fedgen.ledger.history import history_of
from fedgen.ledger.verify import read
from fedgen.policy.codes import Code
from fedgen.policy.remedy import Kind, Made, Remedy, furthest, last_before, remedy_for
from fedgen.privacy.budget import Ceiling, Request, rounds_left
from fedgen.runs.atomic import write_text
from fedgen.runs.folder import open_run
from fedgen.runs.journal import read_rounds, read_run, told, write_run
from fedgen.runs.lock import locked
from fedgen.runs.register import sha256_of
from fedgen.runs.rollback import decide, finish_rollback, rollbacks, unfinished
from fedgen.runs.rollback import roll_back as carry_out

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from fedgen.api.retention import Stored
    from fedgen.config.resolve import ResolvedStudy
    from fedgen.privacy.plan import Plan
    from fedgen.runs.folder import RunFolder
    from fedgen.runs.register import Method, Removed

NOTICE = "recall-{}.txt"


@dataclass(frozen=True, slots=True)
class Judged:
    """What must become of one checkpoint or release.

    Attributes:
        path: Relative to the run folder.
        kind: What it is.
        round: The last round behind it.
        sha256: Of its bytes.
        remedy: Its class.
    """

    path: str
    kind: Kind
    round: int
    sha256: str
    remedy: Remedy

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "path": self.path,
            "kind": str(self.kind),
            "round": self.round,
            "sha256": self.sha256,
            "remedy": str(self.remedy),
        }


@dataclass(frozen=True, slots=True)
class Outlook:
    """What rolling a run back would mean.

    Attributes:
        run: The run folder.
        study_hash: The study, hex.
        first_use: The first round that has to be undone; None if none has.
        done: Rounds in the model now.
        back_to: The round from which the run would go on; zero if it would begin anew.
        remedy: The class that reaches furthest.
        artefacts: Every checkpoint and release, with its class.
        rounds: Rounds of the study.
        rounds_that_fit: How many more rounds the tightest site's budget allows, at most; None if nothing was charged.
    """

    run: Path
    study_hash: str
    first_use: int | None
    done: int
    back_to: int
    remedy: Remedy
    artefacts: tuple[Judged, ...]
    rounds: int
    rounds_that_fit: int | None

    @property
    def needed(self) -> int:
        """How many rounds would have to be asked to finish the study."""
        return self.rounds - self.back_to

    def words(self) -> str:
        """Return what it means, in a sentence."""
        if self.remedy is Remedy.NONE_NEEDED:
            return "nothing has to be undone"
        if self.remedy is Remedy.UNSUPPORTED:
            return "nobody can say which rounds are behind it: withdraw it by hand, or train anew in another folder"
        start = f"goes back from round {self.done} to {self.back_to}" if self.back_to else "begins anew"
        fit = (
            ""
            if self.rounds_that_fit is None
            else f"; the budget of the sites allows {self.rounds_that_fit} more"
        )
        return f"the run {start} and needs {self.needed} rounds to finish{fit}"

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "run": str(self.run),
            "study_hash": self.study_hash,
            "first_use": self.first_use,
            "rounds_done": self.done,
            "back_to": self.back_to,
            "remedy": str(self.remedy),
            "artefacts": [it.to_json() for it in self.artefacts],
            "rounds_needed": self.needed,
            "rounds_that_fit": self.rounds_that_fit,
        }


def outlook(
    root: Path, first_use: int | None, *, lineage_known: bool = True, count_rounds: bool = True
) -> Outlook:
    """Return what rolling a run back to before ``first_use`` would mean; touches nothing.

    Args:
        root: The run folder.
        first_use: The first round behind the model that must not be; None if there is none.
        lineage_known: Whether anybody can say which rounds used whom.
        count_rounds: Whether to ask the accountant how many rounds still fit, which takes a moment.

    Raises:
        ConfigError: It is not a run folder.
        IntegrityError: A ledger of a site cannot be read.
    """
    folder, study = open_run(root)
    everything = stored_in(folder)
    kept = [it.round for it in everything if it.kind is Kind.CHECKPOINT]
    done = max(kept, default=0)
    judged = tuple(_judged(folder, it, first_use, kept, known=lineage_known) for it in everything)
    return Outlook(
        run=root,
        study_hash=study.study_hash,
        first_use=first_use,
        done=done,
        back_to=done if first_use is None or done < first_use else last_before(first_use, kept),
        remedy=furthest(it.remedy for it in judged),
        artefacts=judged,
        rounds=study.study.training.rounds,
        rounds_that_fit=rounds_that_fit(folder, study) if count_rounds else None,
    )


def roll_back(
    root: str | os.PathLike[str],
    before: int,
    *,
    reason: str = str(Code.ARTEFACT_LINEAGE_REVOKED),
    method: Method = "deleted",
    count_rounds: bool = True,
) -> tuple[Outlook, list[Removed]]:
    """Roll a run back to its last checkpoint before round ``before``; it goes on from there with ``--resume``.

    Guarantees:
        - Checkpoints of later rounds and every release made from them are removed, with evidence.
        - The run goes on under a new identity, so that its sites answer the rounds afresh; each is charged again.
        - Who received a release finds what to do in ``recall-….txt``.
        - Killed in between, the next process that claims the folder finishes.

    Edge cases:
        - No checkpoint before that round: the run begins anew.
        - Nothing in the folder goes back to that round: nothing happens.

    Args:
        root: The run folder.
        before: The first round that must be undone, one-based.
        reason: A reason code.
        method: ``deleted``, or ``withheld``: kept where nothing uses it.
        count_rounds: See :func:`outlook`.

    Raises:
        ConfigError: It is not a run folder, another process holds it, or the round is not one.
    """
    place = Path(root)
    if before < 1:
        raise ConfigError("rounds are counted from one", key="before", hint="give the first round to undo")
    with _held(place):
        return _rolled(place, before, reason, method, count_rounds=count_rounds)


def finish(root: Path) -> None:
    """Finish a rollback that was killed on its way, if there is one.

    Raises:
        ConfigError: There is one, and another process holds the folder.
    """
    folder, _study = open_run(root)
    told_of = len(read_run(folder.record).rollbacks) if folder.record.is_file() else len(rollbacks(folder))
    if unfinished(folder) is not None or told_of < len(rollbacks(folder)):
        with _held(root):
            finish_rollback(folder)
            _tell(folder)


def _held(place: Path) -> AbstractContextManager[None]:
    """Hold a run folder that exists; another process that uses it is named."""
    open_run(place)
    return locked(place)


def _rolled(
    place: Path, before: int, reason: str, method: Method, *, count_rounds: bool
) -> tuple[Outlook, list[Removed]]:
    folder, _study = open_run(place)
    removed = finish_rollback(folder)
    seen = outlook(place, before, count_rounds=count_rounds)
    if seen.remedy is not Remedy.NONE_NEEDED:
        rollback = decide(
            folder,
            back_to=seen.back_to,
            done=seen.done,
            lines=len(read_rounds(folder.metrics)),
            reason=reason,
            method=method,
        )
        _write_notice(folder, seen, rollback.next_run)
        removed += carry_out(folder, rollback)
    _tell(folder)
    return seen, removed


def rounds_that_fit(folder: RunFolder, study: ResolvedStudy) -> int | None:
    """Return how many more rounds the tightest site's budget allows, at most; None if no ledger was charged.

    It is read from the ledgers in the run folder. Where a study keeps its ledgers elsewhere they are copies, and other
    studies may have spent since.
    """
    plan = plan_of(study)
    event, count = plan.event_per_round()
    request = Request(event=event, per_round=count, rounds=plan.rounds)
    ceilings = _ceilings(study, plan)
    left = [
        rounds_left(
            history_of(ledger, dataset, study.study_hash, now=datetime.now(UTC)).spent, request, ceilings
        )
        for ledger, dataset in _charged(folder, study)
    ]
    return min(left, default=None)


def _charged(folder: RunFolder, study: ResolvedStudy) -> Iterator[tuple[Path, str]]:
    """Yield each site's ledger with the data set it charges for this study."""
    for entry in study.roster:
        ledger = folder.site(entry.name) / "ledger.db"
        if ledger.is_file():
            charged = (it.entry for it in read(ledger))
            yield from (
                (ledger, dataset)
                for dataset in {
                    e.dataset for e in charged if isinstance(e, Reserved) and e.study_hash == study.study_hash
                }
            )


def _ceilings(study: ResolvedStudy, plan: Plan) -> tuple[Ceiling, ...]:
    """Return the limits that stand in the study."""
    own = plan.epsilon_allowed if plan.epsilon_allowed is not None else plan.epsilon_of(plan.rounds)
    limits = [Ceiling(own, plan.delta, "study", plan.relation)]
    stated = study.study.simulation.ceiling
    if isinstance(stated, Ceilings):
        limits.append(Ceiling(stated.epsilon_per_study, stated.delta, "study", plan.relation))
        limits.append(Ceiling(stated.epsilon_life, stated.delta, "data", plan.relation))
        if stated.epsilon_per_year is not None:
            limits.append(Ceiling(stated.epsilon_per_year, stated.delta, "year", plan.relation))
    elif stated is not None:
        limits.append(Ceiling(stated, plan.delta, "data", plan.relation))
    return tuple(limits)


def _judged(folder: RunFolder, it: Stored, first_use: int | None, kept: list[int], *, known: bool) -> Judged:
    made = Made(kind=it.kind, round=it.round, lineage_known=known)
    return Judged(
        path=it.path.relative_to(folder.root).as_posix(),
        kind=it.kind,
        round=it.round,
        sha256=sha256_of(it.path),
        remedy=remedy_for(made, first_use, kept),
    )


def _tell(folder: RunFolder) -> None:
    """Bring run.json to what is true after a rollback; a run without one has nothing to correct."""
    known = rollbacks(folder)
    if not known or not folder.record.is_file():
        return
    record = read_run(folder.record)
    if len(record.rollbacks) < len(known):
        done = max(map(folder.round_of, folder.checkpoints_newest_first()), default=0)
        write_run(
            folder.record,
            record.model_copy(
                update={
                    "run": known[-1].next_run,
                    "outcome": "interrupted",
                    "rounds_done": done,
                    "rollbacks": tuple(told(it) for it in known),
                }
            ),
        )
    forget_removed(folder)


def _write_notice(folder: RunFolder, seen: Outlook, mark: str) -> None:
    """Write what whoever received a release has to do; nothing in it says who asked for it."""
    gone = [it for it in seen.artefacts if it.remedy is Remedy.WITHDRAW_RELEASE]
    if not gone:
        return
    files = "\n".join(f"  {it.sha256}  {it.path}" for it in gone)
    text = f"""Recall of synthetic data and reports

Study        {seen.study_hash}
Run folder   {folder.root.name}
Written on   {datetime.now(UTC):%Y-%m-%d}

The files below are withdrawn: a person whose record may be behind them asked for erasure, or may no longer be used.
They are known by their SHA-256, whatever their name is by now.

{files}

Whoever received one of them:

1. Stop using it today, in new work and in work that goes on.
2. Delete every copy, those in backups at their next turn, and the keys or links under which it can be fetched.
3. Name every model, table and publication that was made from it to whoever sent it to you, and hold their release.
4. Pass this notice on to whoever has it from you.
5. Answer within 14 days with the date of deletion, or with what stands in its way.

A new release from the run that went on replaces them; ask for it where you received these.
"""
    write_text(folder.root / NOTICE.format(mark[:8]), text)
