"""Seeing a deployed run to its end: a ServerApp at work on it, the run folder up to date, the results written."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from fedgen import __version__
from fedgen.api.desk import rollback_step
from fedgen.api.outcomes import is_consent_only, raise_for
from fedgen.config.plan import plan_of
from fedgen.coordinator.state.mirror import Mirror
from fedgen.errors import Code, ConfigError, FedgenError, Interrupted, errors_by_name
from fedgen.events import RoundFinished, SiteRefused, StudyFinished, StudyStarted

if TYPE_CHECKING:
    from fedgen.api.prepare import Prepared
    from fedgen.api.results import Session
    from fedgen.api.run import Run
    from fedgen.coordinator.state.store import RunRow, StateStore
    from fedgen.events import Listener
    from fedgen.flower.control import Control
    from fedgen.privacy.events import Counts
    from fedgen.runs.folder import RunFolder
    from fedgen.runs.journal import RoundLine

BACKEND: Final = "deployed"
_LOOK_S: Final = 0.25
_START_S: Final = 300.0  # until a ServerApp holds the run, on a busy machine; a failed one is seen sooner
_STATUS_S: Final = 5.0
_DEATHS: Final = 5  # of ServerApps in a row without a finished round
_DOWN_S: Final = 300.0
_STOP_S: Final = 20.0
# Outcomes that say how a ServerApp ended, and not how the study did.
_OF_A_PROCESS: Final = frozenset({"interrupted", "failed"})


class Following:
    """Sees one run to its end: starts ServerApps, follows the state, writes the folder.

    Args:
        store: The state.
        control: The SuperLink.
        prepared: The study.
        folder: The run folder, claimed by this process.
        run: Identity of the run, begun in the state.
        wait: See :func:`fedgen.api.training.train`.
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
        self._down_since: float | None = None
        self._was_held = False
        self._deaths = 0
        self._roll: dict[str, str] = {}
        self._missing: dict[str, str] = {}
        self._session = self._make_session()

    def to_the_end(self) -> Run:
        """Follow the run until it has ended, and write its results.

        Raises:
            FedgenError: As :func:`fedgen.api.training.train`.
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
            if row.outcome in _OF_A_PROCESS and self._number is None:
                # The last word of a ServerApp from before, which was ending still: this run has one of its own to come.
                self._store.reopen(self._run)
            elif row.outcome is not None:
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
        if not self._is_reachable(now):
            return  # its supervisor starts it again
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

    def _is_reachable(self, now: float) -> bool:
        """Return whether the SuperLink answers; after a while without an answer a person is asked.

        Raises:
            ConfigError: It has not answered for some minutes.
        """
        if self._control.is_up():
            self._down_since = None
            return True
        self._down_since = self._down_since or now
        if now - self._down_since > _DOWN_S:
            hint = "start it with `fedgen server up`, then go on with --resume"
            raise ConfigError("the SuperLink does not answer any more", where=self._folder.root, hint=hint)
        return False

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
            with suppress(FedgenError):  # the state is what counts: it is asked before the next round
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
