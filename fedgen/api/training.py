"""``train``: a study on deployed sites, from the coordinator's machine, into one run folder.

Three processes of the coordinator's machine take part. The SuperLink carries messages. The ServerApp that Flower starts
for the run coordinates (:mod:`fedgen.api.coordinating`); it writes into the state and nowhere else. This one begins the
run, has Flower start the ServerApp and start it again when it dies, copies the state into the run folder after each
round, and writes the results. Any of them may be killed.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedgen import __version__
from fedgen.api.desk import asked_rounds, rollback_step
from fedgen.api.outcomes import is_consent_only, raise_for
from fedgen.api.policy_home import pinned
from fedgen.api.prepare import Prepared, check_formats, exchanged, read_schema
from fedgen.api.roster import declared, enrolled
from fedgen.config.load import load_study
from fedgen.config.plan import plan_of
from fedgen.config.resolve import resolve
from fedgen.coordinator.coordinator import new_run_id
from fedgen.coordinator.state.mirror import Mirror, earlier_of
from fedgen.coordinator.state.store import StateStore
from fedgen.data.encoded import EncodedTable
from fedgen.enrolment.server_home import ServerHome
from fedgen.errors import Code, ConfigError, FedgenError, Interrupted, errors_by_name
from fedgen.events import RoundFinished, SiteRefused, StudyFinished, StudyStarted, silent
from fedgen.flower.control import Control
from fedgen.runs.folder import RunFolder, claim
from fedgen.runs.rollback import rollbacks, run_file, run_id
from fedgen.schema.codec import Codec
from fedgen.schema.layout import layout_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedgen.api.results import Session
    from fedgen.api.run import Run
    from fedgen.config.study import Study
    from fedgen.coordinator.state.store import RunRow
    from fedgen.events import Listener
    from fedgen.privacy.events import Counts
    from fedgen.runs.journal import RoundLine

BACKEND: Final = "deployed"
WAIT_S: Final = 86_400.0
_LOOK_S: Final = 0.25
_START_S: Final = (
    300.0  # from `flwr run` until the ServerApp holds the run, on a busy machine; a failed one is seen sooner
)
_STATUS_S: Final = 5.0
_TRIES: Final = 20
_DEATHS: Final = 5  # of ServerApps in a row without a finished round
_STOP_S: Final = 20.0


def train(
    study: str | Path,
    *,
    server: str | Path,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    resume: bool = False,
    wait: float = WAIT_S,
    listener: Listener = silent,
) -> Run:
    """Run a study on the enrolled sites that it names, and return the finished run.

    Guarantees:
        - The run folder holds what one of :func:`fedgen.api.simulation.simulate` holds, except what only a simulation
          can know: evaluation against the rows, the sites' own ledgers.
        - Killed at any instant, here or in the ServerApp or the SuperLink, it continues with ``resume=True``: at the
          right round, with the last good model, and no update counted twice.
        - A run folder that was lost is made again from the state, with ``resume=True``.
        - The same study over the same sites has the hash that it has in a simulation.

    Args:
        study: The study file; ``data.sites.names`` names enrolled sites.
        server: The coordinator's home; `fedgen server up` runs there.
        out: The run folder; default ``<study>-<hash8>`` in the home's folder of runs.
        overrides: ``a.b=c`` changes to the study, as with ``--set``.
        resume: Continue an earlier run of the same study.
        wait: Seconds to wait until enough owners have approved and their sites joined.
        listener: Watches events.

    Raises:
        ConfigError: The study, the home or the folder is wrong; a site is not enrolled; the SuperLink does not answer.
        Refused: Consent ended the run.
        BudgetExhausted: The sites' budget ended the run early; the last safe model is in the folder.
        QuorumLost: Too few sites; the last good model is in the folder.
        Interrupted: Ctrl-C; resumable.
    """
    home = ServerHome(Path(server).absolute())
    prepared = prepare_deployed(study, overrides, home)
    control = control_of(home)
    if not _answers(control):
        raise ConfigError(
            "the SuperLink does not answer", where=home.root, hint="start it with `fedgen server up`"
        )
    resolved = prepared.resolved
    root = Path(out) if out is not None else home.runs / f"{resolved.study.study}-{resolved.study_hash[:8]}"
    with StateStore.open(home.state_url) as store:
        untouched = (
            asked_rounds(RunFolder(root)) == 0
        )  # as in a simulation: nothing could be mixed or spent twice
        with claim(root, resolved, resume=resume or untouched) as folder:
            from fedgen.api.results import finished

            if resume and finished(folder):
                from fedgen.api.run import Run

                listener(StudyFinished(outcome="completed", rounds=resolved.study.training.rounds))
                return Run(folder=folder, study=resolved)
            run = _begun(store, folder, prepared, resume=resume)
            return Following(store, control, prepared, folder, run, wait, listener).to_the_end()


def _answers(control: Control) -> bool:
    """Return whether the SuperLink answers; one that is being started again is waited for."""
    for left in reversed(range(_TRIES)):
        if control.is_up():
            return True
        if left:
            time.sleep(_LOOK_S)
    return False


def prepare_deployed(path: str | Path, overrides: Sequence[str], home: ServerHome) -> Prepared:
    """Read a study and resolve it against the enrolled sites; there are no rows here.

    Raises:
        ConfigError: The study is wrong, or a site is not enrolled.
    """
    file = load_study(Path(path), overrides)
    base = file.base.resolve()
    try:
        study = pinned(file.study, base)
        _refuse_rehearsals(study)
        schema = read_schema(study, base)
        rows, persons = declared(study, enrolled(home, study.data.sites.names()))
        resolved = resolve(
            study, schema=schema, sizes=rows, persons=persons, parameters=exchanged(study, schema)
        )
        check_formats(study, schema)
        plan_of(resolved)  # here, so that what cannot be planned names its line
    except ConfigError as error:
        raise file.locate(error) from None
    dtype, width = Codec(schema).dtype, layout_of(schema).row_width
    nothing = np.empty(0, dtype=np.int64)
    return Prepared(
        # What a simulation does beside training needs rows that are not here.
        study=study.model_copy(
            update={
                "simulation": study.simulation.model_copy(update={"judge": False, "compare_pooled": False})
            }
        ),
        base=base,
        schema=schema,
        resolved=resolved,
        table=EncodedTable(codes=np.empty((0, width), dtype=dtype)),
        parts=tuple(nothing for _ in resolved.roster),
        holdout=nothing,
    )


def _refuse_rehearsals(study: Study) -> None:
    """Refuse a study with made-up faults: nothing here could make them.

    Raises:
        ConfigError: It has some.
    """
    if study.simulation.faults:
        raise ConfigError("faults belong to a simulation", key="simulation.faults", hint="leave them out")


def control_of(home: ServerHome) -> Control:
    """Return the SuperLink of a home, as Flower's commands reach it."""
    return Control(home.flower, f"127.0.0.1:{home.spec().superlink_port}", home.ca.certificate)


def _begun(store: StateStore, folder: RunFolder, prepared: Prepared, *, resume: bool) -> str:
    """Return the run of this folder, begun in the state; a folder that was lost takes the study's newest run.

    Raises:
        ConfigError: The folder's run is not in the state.
    """
    resolved, earlier = prepared.resolved, None
    if run_file(folder).is_file():
        run = run_id(folder)
        known_as = [it.next_run for it in rollbacks(folder)]
        if store.run(run) is None and run in known_as[-1:]:
            earlier = earlier_of(folder)  # rolled back: it goes on under its new identity
        elif store.run(run) is None:
            raise ConfigError(
                "the state does not know the run of this folder",
                where=folder.root,
                hint="restore the state, or give the study a new folder with --out",
            )
    else:
        known = store.runs(resolved.study_hash) if resume else ()
        run = known[-1].run if known else new_run_id()
    store.begin(run, study_hash=resolved.study_hash, study=resolved.canonical(), earlier=earlier)
    row = store.run(run)
    if row is not None and row.outcome != "completed":
        store.reopen(run)  # how it ended, and whether it was asked to stop, are of the past
    return run


class Following:
    """Sees one run to its end: starts ServerApps, follows the state, writes the folder.

    Args:
        store: The state.
        control: The SuperLink.
        prepared: The study.
        folder: The run folder, claimed by this process.
        run: Identity of the run, begun in the state.
        wait: See :func:`train`.
        listener: Watches events.
    """

    def __init__(
        self,
        store: StateStore,
        control: Control,
        prepared: Prepared,
        folder: RunFolder,
        run: str,
        wait: float,
        listener: Listener,
    ) -> None:
        self._store, self._control, self._prepared = store, control, prepared
        self._folder, self._run, self._wait, self._listener = folder, run, wait, listener
        self._mirror = Mirror(store, run, folder, every=rollback_step(prepared.resolved))
        self._number: int | None = None
        self._since = self._looked = 0.0
        self._was_held = False
        self._deaths = 0
        self._roll: dict[str, str] = {}
        self._missing: dict[str, str] = {}
        self._session = self._make_session()

    def to_the_end(self) -> Run:
        """Follow the run until it has ended, and write its results.

        Raises:
            FedgenError: As :func:`train`.
        """
        from fedgen.api.results import write_outcome, write_results

        try:
            self._mirror.sync()  # what an earlier process saw already is not announced again
            self._announce()
            write_outcome(self._session, "running")
            row = self._follow()
        except KeyboardInterrupt:
            self._stop()
            write_results(self._session, "interrupted")
            raise self._interrupted() from None
        self._sync()
        if row.outcome == "failed":
            write_outcome(self._session, "failed")
            raise _failure(row)
        outcome = str(row.outcome)
        run = write_results(self._session, outcome)
        self._listener(StudyFinished(outcome=outcome, rounds=run.record.rounds_done))
        if outcome == "interrupted":  # somebody else stopped it
            raise self._interrupted()
        if outcome == "quorum" and row.error is not None and not is_consent_only(self._missing):
            raise _failure(row)
        raise_for(outcome, self._session, self._missing)
        return run

    def _interrupted(self) -> Interrupted:
        what, hint = "interrupted; every finished round is saved", "go on with --resume"
        return Interrupted(what, where=self._folder.root, hint=hint)

    # -- while it runs ------------------------------------------------------------------------------

    def _follow(self) -> RunRow:
        """Return the run's row once it has ended."""
        while True:
            row = self._store.run(self._run)
            if row is None:
                raise ConfigError("the run is gone from the state", hint="restore the state")
            self._sync()
            self._show_roll(row)
            if row.outcome is not None:
                return row
            self._keep_alive()
            time.sleep(_LOOK_S)

    def _keep_alive(self) -> None:
        """See that a ServerApp works on the run; start one where none does.

        Raises:
            ConfigError: They keep dying.
        """
        now = time.monotonic()
        if self._store.is_held(self._run):
            self._was_held = True
            return
        if self._number is not None and not self._was_held and not self._has_failed(now):
            return  # it is on its way
        row = self._store.run(self._run)
        if row is not None and row.outcome is not None:
            return  # it ended between two looks
        if self._number is not None:
            self._deaths += 1
            self._control.stop(self._number)
        if self._deaths >= _DEATHS:
            raise ConfigError(
                f"the coordinator's process ended {_DEATHS} times without a word",
                where=self._folder.root,
                hint="see the output of `fedgen server up`; go on with --resume",
            )
        self._number = self._control.start(self._run, version=__version__, wait=self._wait)
        self._since, self._was_held = time.monotonic(), False

    def _has_failed(self, now: float) -> bool:
        """Return whether a ServerApp that does not hold the run yet never will."""
        if now - self._since > _START_S:
            return True
        if now - self._looked < _STATUS_S or self._number is None:
            return False
        self._looked = now
        return self._control.status(self._number).startswith("finished")

    def _sync(self) -> None:
        """Bring the folder up to date and announce what is new."""
        for line in self._mirror.sync():
            self._deaths = 0
            self._missing = dict(line.missing)
            for site, code in {**line.missing, **line.rejected}.items():
                self._listener(SiteRefused(round=line.round, site=site, code=_code(code)))
            self._listener(self._finished(line))

    def _finished(self, line: RoundLine) -> RoundFinished:
        resolved, plan = self._prepared.resolved, self._session.plan
        return RoundFinished(
            round=line.round,
            attempt=line.attempt,
            sites=len(line.sites),
            roster=len(resolved.roster),
            epsilon=line.epsilon,
            allowed=plan.epsilon_allowed,
            seconds=line.seconds,
        )

    def _show_roll(self, row: RunRow) -> None:
        """Announce sites that do not take part, each reason once."""
        for site, code in (row.roll or {}).items():
            if self._roll.get(site) != code:
                self._roll[site] = code
                self._missing[site] = code
                self._listener(SiteRefused(round=0, site=site, code=_code(code)))

    def _announce(self) -> None:
        resolved = self._prepared.resolved
        done = self._store.models(self._run, with_data=False)
        self._listener(
            StudyStarted(
                study=resolved.study.study,
                study_hash=resolved.study_hash,
                sites=len(resolved.roster),
                first_round=(done[-1].round if done else 0) + 1,
                rounds=resolved.study.training.rounds,
            )
        )

    def _stop(self) -> None:
        """End the run for now: the ServerApp is asked, then Flower is told; the state stays resumable."""
        self._store.ask_to_stop(self._run)
        if self._number is not None:
            self._control.stop(self._number)
        deadline = time.monotonic() + _STOP_S
        while self._store.is_held(self._run) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        self._sync()

    # -- results ------------------------------------------------------------------------------------

    def _make_session(self) -> Session:
        from fedgen.api.results import Clock, Session

        plan = plan_of(self._prepared.resolved)
        return Session(
            self._prepared,
            self._folder,
            self._run,
            plan,
            Clock.start(self._folder),
            BACKEND,
            self._asked_of_each,
            self._asked_rounds,
            tuple,
        )

    def _asked_of_each(self) -> dict[str, Counts]:
        """Return what each site can have been charged at most: every attempt that was ever asked."""
        event, steps = self._session.plan.event_per_round()
        asked = len(self._store.asked(self._run))
        counts: Counts = ((event, steps * asked),) if asked else ()
        return {entry.name: counts for entry in self._prepared.resolved.roster}

    def _asked_rounds(self) -> dict[str, tuple[int, ...]]:
        """Return the round of every attempt; each site may have been charged for each."""
        rounds = tuple(it.round for it in self._store.asked(self._run))
        return {entry.name: rounds for entry in self._prepared.resolved.roster}


def _code(text: str) -> Code:
    """Return a code as it stands in the state."""
    try:
        return Code(text)
    except ValueError:
        return Code.FAULT


def _failure(row: RunRow) -> FedgenError:
    """Return the error that ended the ServerApp's part, as it was raised there."""
    said: dict[str, Any] = dict(row.error or {})
    kind = errors_by_name().get(str(said.get("error")))
    what = str(said.get("what") or "the coordinator's process failed")
    where = said.get("where")
    hint = str(said.get("hint") or "see the output of `fedgen server up`")
    if kind is None:
        return FedgenError(what, where=where, hint=hint)
    return kind(what, where=where, hint=hint)
