"""``simulate``: real sites and a real coordinator on this machine, over Flower, into one run folder."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fedgen.api.bench import new_learner
from fedgen.api.heldout import HeldOut
from fedgen.api.prepare import Prepared, prepare
from fedgen.api.rehearsal import Twice
from fedgen.api.run import progress_header
from fedgen.api.sites import SimulatedSites
from fedgen.config.plan import plan_of
from fedgen.coordinator.coordinator import Coordinator, Keys, Outcome, RoundRecord, new_run_id
from fedgen.coordinator.progress import ProgressStore
from fedgen.crypto.keys import SealingKey, SigningKey, VerifyKey
from fedgen.dpsgd.noise import NoiseSource
from fedgen.errors import BudgetExhausted, ConfigError, Interrupted, QuorumLost
from fedgen.events import silent
from fedgen.runs.folder import RunFolder, claim, default_root
from fedgen.runs.journal import RoundLine, append_round
from fedgen.training.optimizer import LearnerOptimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from fedgen.api.results import Session
    from fedgen.api.run import Run
    from fedgen.coordinator.transport import Transport
    from fedgen.events import Listener
    from fedgen.privacy.plan import PrivacyPlan

Backend = Literal["inprocess", "ray"]
_COORDINATOR_SEED_SALT = 7_919


@dataclass(frozen=True, slots=True)
class Desk:
    """What the coordinator of a run keeps in its folder between restarts."""

    keys: Keys
    run: str


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
        - Killed at any instant, the run continues with ``resume=True``.

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
        BudgetExhausted: The budget ended the run early; the last safe model is in the folder.
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
    with claim(root, prepared.resolved, resume=resume) as folder:
        return _run_in(folder, prepared, backend, listener, origin)


def _run_in(
    folder: RunFolder, prepared: Prepared, backend: Backend, listener: Listener, origin: Origin | None
) -> Run:
    """Run inside a claimed folder, then write the results."""
    from fedgen.api.results import Clock, Session, write_results

    desk = _desk(folder)
    plan = plan_of(prepared.resolved)
    sites = SimulatedSites(prepared, folder, desk.keys.signing.public)
    session = Session(prepared, folder, desk.run, plan, Clock.start(folder), backend, sites.spent)
    coordinator = _coordinator(session, desk.keys, sites.roster_keys(), listener)
    outcomes: list[Outcome] = []

    def loop(transport: Transport) -> None:
        faults = prepared.study.simulation.faults
        outcomes.append(coordinator.run(Twice(transport, faults) if faults else transport))

    try:
        _carry(loop, backend, sites, prepared, folder, origin)
    except KeyboardInterrupt:
        write_results(session, "interrupted")
        raise Interrupted(
            "interrupted; every finished round is saved", where=folder.root, hint="go on with --resume"
        ) from None
    except QuorumLost:
        write_results(session, "quorum")
        raise
    finally:
        sites.close()
    outcome = outcomes[0].outcome
    run = write_results(session, outcome)
    _raise_for(outcome, folder)
    return run


def _raise_for(outcome: str, folder: RunFolder) -> None:
    """Turn an early end into its exit code; the folder already holds the last safe model and report."""
    if outcome == "budget":
        raise BudgetExhausted(
            "the budget of the sites ended the run; the last safe model and its report are kept",
            where=folder.root,
            hint="see report.html",
        )
    if outcome == "quorum":
        raise QuorumLost(
            "too few sites answered; the last good model and its report are kept",
            where=folder.root,
            hint="see report.html for each site's reason; go on with --resume",
        )


def _coordinator(
    session: Session, keys: Keys, roster: Mapping[str, bytes], listener: Listener
) -> Coordinator:
    """Compose the coordinator of this run."""
    prepared, folder, plan = session.prepared, session.folder, session.plan
    resolved = prepared.resolved
    learner = new_learner(resolved)
    seed = prepared.study.privacy.insecure_seed
    noise = NoiseSource.secure() if seed is None else NoiseSource.insecure(seed + _COORDINATOR_SEED_SALT)
    heldout = HeldOut(prepared, learner)
    epsilon = _spent(plan)

    def record(done: RoundRecord) -> None:
        line = RoundLine(
            round=done.round,
            attempt=done.attempt,
            sites=done.sites,
            missing=dict(done.missing),
            excluded={site: dict(counts) for site, counts in done.excluded.items() if counts},
            seconds=done.seconds,
            bytes_in=done.bytes_in,
            bytes_out=done.bytes_out,
            epsilon=epsilon(done.round),
            heldout_loss=done.heldout_loss,
        )
        append_round(folder.metrics, line)

    return Coordinator(
        study=resolved,
        plan=plan,
        learner=learner,
        optimizer=LearnerOptimizer.of(
            learner, resolved.study.training.optimizer, public_steps=resolved.study.model.public_steps
        ),
        keys=keys,
        roster={name: VerifyKey(key) for name, key in roster.items()},
        run=session.run,
        store=ProgressStore(folder, progress_header(resolved)),
        noise=noise,
        listener=listener,
        record=record,
        heldout_loss=heldout.loss,
        epsilon=epsilon,
    )


def _spent(plan: PrivacyPlan) -> Callable[[int], float | None]:
    """Return what the most-charged site can have spent after a round: an upper bound, cheap to ask."""
    curve = plan.curve()
    return lambda number: curve.at(min(number, curve.total))


def _desk(folder: RunFolder) -> Desk:
    """Return the coordinator's keys and run identity, made on the first start."""
    home = folder.root / "coordinator"
    signing, sealing, identity = home / "signing.key", home / "sealing.key", home / "run"
    if not identity.exists():
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (signing, sealing):
            path.unlink(missing_ok=True)
        SigningKey.generate().save(signing)
        SealingKey.generate().save(sealing)
        from fedgen.runs.atomic import write_text

        write_text(identity, new_run_id() + "\n")
    keys = Keys(signing=SigningKey.load(signing), sealing=SealingKey.load(sealing))
    return Desk(keys=keys, run=identity.read_text(encoding="utf-8").strip())


def _carry(
    loop: Callable[[Transport], None],
    backend: Backend,
    sites: SimulatedSites,
    prepared: Prepared,
    folder: RunFolder,
    origin: Origin | None,
) -> None:
    """Run the coordinator's loop over the chosen backend."""
    from fedgen.flower.apps import client_app, server_app

    count = len(prepared.resolved.roster)
    if backend == "ray":
        if origin is None:
            raise ConfigError("tables in memory cannot be handed to Ray", hint="use the inprocess backend")
        from fedgen.api.ray import RaySites
        from fedgen.flower.ray import run_on_ray

        remote = RaySites(origin.path, origin.overrides, str(folder.root.resolve()))
        run_on_ray(server_app(loop), client_app(remote), count)
        return
    from fedgen.flower.simulate import run_in_process

    cores = os.cpu_count() or 1
    workers = min(count, cores)
    with _torch_threads(max(1, cores // workers)):
        run_in_process(server_app(loop), client_app(sites.door), count, workers)


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
