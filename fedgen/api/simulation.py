"""``simulate``: real sites and a real coordinator on this machine, over Flower, into one run folder."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from fedgen.api.allowance import allowance_of
from fedgen.api.bench import new_learner, private_parameters
from fedgen.api.bounds import cost_of_rounds
from fedgen.api.desk import COORDINATOR_SEED_SALT, LoggedProgress, asked_rounds, open_desk
from fedgen.api.heldout import HeldOut
from fedgen.api.outcomes import is_consent_only, line_of, raise_for
from fedgen.api.policy_home import refuse_missing_documents
from fedgen.api.prepare import Prepared, prepare
from fedgen.api.rehearsal import Twice
from fedgen.api.run import progress_header
from fedgen.api.sites import SimulatedSites
from fedgen.config.distributed import DistributedPlan
from fedgen.config.plan import plan_of
from fedgen.coordinator.coordinator import Coordinator, Outcome, RoundRecord
from fedgen.coordinator.secure_store import SetupFile
from fedgen.crypto.keys import VerifyKey
from fedgen.dpsgd.noise import NoiseSource
from fedgen.errors import ConfigError, Interrupted, QuorumLost, Refused
from fedgen.events import SiteRefused, StudyFinished, silent
from fedgen.runs.folder import RunFolder, claim, default_root
from fedgen.runs.journal import append_round
from fedgen.training.optimizer import LearnerOptimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fedgen.api.desk import Desk
    from fedgen.api.results import Session
    from fedgen.api.run import Run
    from fedgen.config.resolve import ResolvedStudy
    from fedgen.coordinator.transport import Transport
    from fedgen.events import Event, Listener
    from fedgen.privacy.plan import Plan

Backend = Literal["inprocess", "ray"]
_SMALL_STEP: Final = 4_000_000  # parameters times rows of one step


@dataclass(slots=True)
class Watch:
    """Passes events on, and remembers why sites are missing from the last round that was asked.

    Attributes:
        listener: Who else watches.
        missing: Site to code, of the last round (or of the joining) that has missing sites.
        refused: Round and site to the first code of an answer that was not taken.
    """

    listener: Listener
    missing: dict[str, str] = field(default_factory=dict)
    refused: dict[tuple[int, str], str] = field(default_factory=dict)

    def __call__(self, event: Event) -> None:
        """Watch one event."""
        if isinstance(event, SiteRefused):
            self.refused.setdefault((event.round, event.site), str(event.code))
            if event.round == 0:
                self.missing[event.site] = str(event.code)
        self.listener(event)


def simulate(
    study: str | Path,
    *,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    backend: Backend = "inprocess",
    resume: bool = False,
    listener: Listener = silent,
) -> Run:
    """Run a study on this machine and return the finished run.

    Guarantees:
        - Sites, coordinator, messages and ledgers are the ones of a deployment; only the transport and the
          way the rows were cut are simulated.
        - The folder is locked for the length of the run; a folder of another study is refused.
        - Killed at any instant, the run continues with ``resume=True``; a finished one is left as it is.
        - What is wrong before the first round leaves no folder that stands in the way of a second try.

    Args:
        study: The study file.
        out: The run folder; default ``runs/<study>-<hash8>``.
        overrides: ``a.b=c`` changes to the study, as with ``--set``.
        backend: ``inprocess``, or ``ray`` (extra ``sim``).
        resume: Continue an earlier run of the same study.
        listener: Watches events.

    Raises:
        ConfigError: The study, its data or the folder is wrong.
        Refused: Every site refused for want of consent.
        BudgetExhausted: The data have too little left for the study, and nothing was spent; or the budget ended the
            run early, and the last safe model is in the folder.
        QuorumLost: Too few sites; the last good model is in the folder.
        Interrupted: Ctrl-C; resumable.
    """
    prepared = prepare(study, overrides)
    root = Path(out) if out is not None else default_root(prepared.resolved)
    origin = Origin(path=str(Path(study).resolve()), overrides=tuple(overrides))
    return run_prepared(prepared, root, backend=backend, resume=resume, listener=listener, origin=origin)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a prepared study came from, so that another process can prepare it again."""

    path: str
    overrides: tuple[str, ...]


def run_prepared(
    prepared: Prepared,
    root: Path,
    *,
    backend: Backend = "inprocess",
    resume: bool = False,
    listener: Listener = silent,
    origin: Origin | None = None,
) -> Run:
    """Run a prepared study in a folder of its own; see :func:`simulate`."""
    plan = plan_of(prepared.resolved)  # what cannot be planned must not leave a folder behind
    if backend == "ray" and isinstance(plan, DistributedPlan) and plan.masked:
        raise ConfigError(
            "sites keep the secrets of a sum in memory, and under Ray a message may reach another process",
            key="secagg.protocol",
            hint="use the inprocess backend, or protocol: sum",
        )
    if backend == "ray" and origin is None:
        raise ConfigError("tables in memory cannot be handed to Ray", hint="use the inprocess backend")
    # A folder in which no round was ever asked holds nothing that a second start could mix or spend twice.
    untouched = asked_rounds(RunFolder(root)) == 0
    if untouched:
        refuse_missing_documents(prepared)
        _refuse_what_does_not_fit(prepared)
    share = max(1, (os.cpu_count() or 1) // min(len(prepared.resolved.roster), os.cpu_count() or 1))
    with claim(root, prepared.resolved, resume=resume or untouched) as folder, _torch_threads(share):
        from fedgen.api.results import finished

        if resume and finished(folder):
            from fedgen.api.run import Run

            listener(StudyFinished(outcome="completed", rounds=prepared.study.training.rounds))
            return Run(folder=folder, study=prepared.resolved)
        return _run_in(folder, prepared, backend, listener, origin)


def _refuse_what_does_not_fit(prepared: Prepared) -> None:
    """Refuse a study that its data have too little left for, before a folder is made and anything is spent.

    A run that goes on is not asked again: its own rounds are charged already, and some may cost nothing more.
    """
    allowance = allowance_of(prepared)
    if allowance is not None and not allowance.fits:
        raise allowance.refusal()


def _run_in(
    folder: RunFolder, prepared: Prepared, backend: Backend, listener: Listener, origin: Origin | None
) -> Run:
    """Run inside a claimed folder, then write the results."""
    from fedgen.api.results import Clock, Session, write_outcome, write_results

    desk, plan, watch = open_desk(folder), plan_of(prepared.resolved), Watch(listener)
    sites = SimulatedSites(prepared, folder, desk.keys.signing.public)
    session = Session(
        prepared,
        folder,
        desk.run,
        plan,
        Clock.start(folder),
        backend,
        sites.spent,
        sites.charged_rounds,
        sites.budgets,
    )
    try:
        write_outcome(session, "running")
        try:
            try:
                outcome = _rounds(session, desk, sites, watch, origin)
            finally:
                sites.copy_ledgers()
        except KeyboardInterrupt:
            write_results(session, "interrupted")
            raise Interrupted(
                "interrupted; every finished round is saved",
                where=folder.root,
                hint="go on with --resume",
            ) from None
        except QuorumLost:
            write_results(session, "quorum")
            if is_consent_only(watch.missing):
                raise_for("quorum", session, watch.missing)
            raise
        run = write_results(session, outcome)
    except (Interrupted, QuorumLost, Refused):
        raise
    except Exception:
        write_outcome(session, "failed")
        raise
    finally:
        sites.close()
    raise_for(outcome, session, watch.missing)
    return run


def _rounds(session: Session, desk: Desk, sites: SimulatedSites, watch: Watch, origin: Origin | None) -> str:
    """Run every round that is left and return how the run ended."""
    prepared, folder = session.prepared, session.folder
    header = progress_header(prepared.resolved)
    outcomes: list[Outcome] = []
    with LoggedProgress(folder, header, prepared.resolved, session.plan, desk) as store:
        coordinator = _coordinator(session, desk, store, sites.roster_keys(), watch)

        def loop(transport: Transport) -> None:
            faults = prepared.study.simulation.faults
            outcomes.append(coordinator.run(Twice(transport, faults) if faults else transport))

        _carry(loop, session.backend, sites, prepared, folder, origin)
        ended = outcomes[0]
        store.close_study(ended.outcome, ended.progress.round)
    return ended.outcome


def _coordinator(
    session: Session, desk: Desk, store: LoggedProgress, roster: Mapping[str, bytes], watch: Watch
) -> Coordinator:
    """Compose the coordinator of this run."""
    prepared, folder, plan = session.prepared, session.folder, session.plan
    resolved = prepared.resolved
    learner = new_learner(resolved)
    seed = prepared.study.privacy.insecure_seed
    noise = NoiseSource.secure() if seed is None else NoiseSource.insecure(seed + COORDINATOR_SEED_SALT)
    heldout = HeldOut(prepared, learner)
    epsilon = _spent(plan, store) if seed is None else _nothing_proved
    masked = isinstance(plan, DistributedPlan) and plan.masked

    def record(done: RoundRecord) -> None:
        watch.missing = dict(done.missing)
        further = {site: watch.refused.get((done.round, site)) for site in done.sites}
        rejected = {site: code for site, code in further.items() if code is not None}
        line = line_of(done, rejected, epsilon(done.round))
        watch.refused.clear()
        append_round(folder.metrics, line)

    return Coordinator(
        study=resolved,
        plan=plan,
        learner=learner,
        optimizer=LearnerOptimizer.of(
            learner, resolved.study.training.optimizer, public_steps=resolved.study.model.public_steps
        ),
        keys=desk.keys,
        roster={name: VerifyKey(key) for name, key in roster.items()},
        run=session.run,
        store=store,
        noise=noise,
        listener=watch,
        record=record,
        heldout_loss=heldout.loss,
        epsilon=epsilon,
        setups=SetupFile(folder.setups, session.run) if masked else None,
    )


def _spent(plan: Plan, store: LoggedProgress) -> Callable[[int], float | None]:
    """Return what the most-charged site can have spent after a round: an upper bound, cheap to ask.

    A site is charged at most once for each time a round was asked, a crashed attempt included.
    """
    cost = cost_of_rounds(plan)
    return lambda number: cost(max(number, store.asked))


def _nothing_proved(_number: int) -> float | None:
    """Return that nothing is promised: the noise came from a seed."""
    return None


def _carry(
    loop: Callable[[Transport], None],
    backend: str,
    sites: SimulatedSites,
    prepared: Prepared,
    folder: RunFolder,
    origin: Origin | None,
) -> None:
    """Run the coordinator's loop over the chosen backend."""
    from fedgen.flower.apps import client_app, server_app

    count = len(prepared.resolved.roster)
    if backend == "ray" and origin is not None:
        from fedgen.api.ray import RaySites
        from fedgen.flower.ray import run_on_ray

        remote = RaySites(origin.path, origin.overrides, str(folder.root.resolve()))
        run_on_ray(server_app(loop), client_app(remote), count)
        return
    from fedgen.flower.simulate import run_in_process

    run_in_process(server_app(loop), client_app(sites.door), count, workers_for(prepared.resolved))


def workers_for(study: ResolvedStudy) -> int:
    """Return how many threads answer for the sites: one a core, no more than there are sites.

    A step of a small model is mostly Python, and two threads of it wait for one interpreter lock; measured on two
    cores, a round of the digits study takes a quarter longer on two threads than on one. A site that is rehearsed to
    be late sleeps on a thread of its own, so that nobody is late with it.
    """
    late = len({fault.site for fault in study.study.simulation.faults if fault.kind == "late"})
    rows = study.sample_rate * study.total_rows / len(study.roster)
    if private_parameters(study) * rows < _SMALL_STEP:
        return 1 + late
    return min(len(study.roster), os.cpu_count() or 1) + late


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """Give each site's thread its share of the cores: two pools of spinning threads cost ten times the work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
