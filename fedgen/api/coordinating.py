"""The coordinator of a deployed run, inside Flower's ServerApp: everything it knows is in its home and its state.

It has no terminal and nobody reads its exit code. What it does, and how it ended, stands in the state; the process of
``fedgen train`` reads it there (:mod:`fedgen.api.training`).
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fedgen.api.bench import new_learner
from fedgen.api.bounds import cost_of_rounds
from fedgen.api.desk import COORDINATOR_SEED_SALT
from fedgen.api.outcomes import line_of
from fedgen.api.roster import LiveRoster
from fedgen.api.run import progress_header
from fedgen.config.distributed import DistributedPlan
from fedgen.config.plan import plan_of
from fedgen.config.resolve import ResolvedStudy
from fedgen.coordinator.coordinator import Coordinator
from fedgen.coordinator.latecomers import AGAIN_S
from fedgen.coordinator.post import Keys
from fedgen.coordinator.state.hold import held
from fedgen.coordinator.state.store import StateStore
from fedgen.coordinator.transport import LinkFailed
from fedgen.crypto.undumped import keep_memory
from fedgen.dpsgd.noise import NoiseSource
from fedgen.enrolment.server_home import ServerHome
from fedgen.errors import ConfigError, FedgenError, Interrupted, QuorumLost
from fedgen.events import SiteRefused
from fedgen.flower.control import HOME_VARIABLE
from fedgen.flower.nodes import read_nodes
from fedgen.policy.calendar import microseconds_of, moment_of
from fedgen.policy.retention import retain_until
from fedgen.training.optimizer import LearnerOptimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from fedgen.coordinator.coordinator import Outcome, RoundRecord
    from fedgen.coordinator.state.hold import HeldRun
    from fedgen.coordinator.transport import Answer, Transport
    from fedgen.events import Event
    from fedgen.privacy.plan import Plan

_ASK_AGAIN_S: Final = 4.0
_LONGEST_S: Final = (
    30.0  # an owner decides within hours, and each question costs every site a process of Flower's
)
_GATHER_S: Final = 15.0
_LOOK_S: Final = 0.25


def coordinate(transport: Transport, run: str, wait: float) -> None:
    """Run every round that is left of a run, and write down how it ended.

    Guarantees:
        - It holds the run: two coordinators of one run never work at once.
        - A run that ended is left as it is.

    Args:
        transport: Carries frames to the sites.
        run: Identity of the run, hex; ``fedgen train`` began it.
        wait: Seconds to wait until enough sites have approved and joined.

    Raises:
        ConfigError: There is no home, or no such run, or another coordinator works on it.
    """
    named = os.environ.get(HOME_VARIABLE)
    if not named:
        raise ConfigError(f"{HOME_VARIABLE} is not set", hint="`fedgen server up` starts this process")
    keep_memory()
    home = ServerHome(Path(named))
    with StateStore.open(home.state_url) as store:
        row = store.run(run)
        if row is None:
            raise ConfigError("the state does not know this run", hint="start it with `fedgen train`")
        if row.outcome is not None:
            return
        study = ResolvedStudy.from_json(row.study)
        with held(store, run, header=progress_header(study), born=lambda: _born(run)) as mine:
            _carry_out(RosterTransport(transport, home, study), home, study, run, mine, wait)


def _carry_out(
    transport: Transport, home: ServerHome, study: ResolvedStudy, run: str, mine: HeldRun, wait: float
) -> None:
    """Run the coordinator; however it ends, that is written down.

    But where the SuperLink failed, the run has not ended: `fedgen train` finds that nobody works on it, and has another
    process go on, a few times in a row.
    """
    try:
        ended = patiently(_coordinator(home, study, run, mine), transport, wait)
    except (Interrupted, KeyboardInterrupt):
        mine.finish("interrupted")
    except QuorumLost as error:
        mine.finish("quorum", error.diagnostics())
    except LinkFailed:
        raise
    except FedgenError as error:
        mine.finish("failed", error.diagnostics())
        raise
    except Exception as error:
        mine.finish("failed", {"error": type(error).__name__, "what": "a defect in fedgen"})
        raise
    else:
        mine.finish(ended.outcome)


class RosterTransport:
    """Carries frames to the nodes of one study's sites and to no other node that is connected.

    Guarantees:
        - A site that is enrolled and not of the study is not even shown it.
        - A missing site is waited for a quarter of a minute, not for a round's time: who comes later is asked later.

    Args:
        inner: Carries frames to any node.
        home: The coordinator's home, whose list of nodes is read each time.
        study: The study.
    """

    def __init__(self, inner: Transport, home: ServerHome, study: ResolvedStudy) -> None:
        self._inner, self._folder = inner, home.flower
        self._names = frozenset(study.study.data.sites.names())

    def nodes(self, expected: int, timeout: float) -> Sequence[int]:
        """Return the nodes of the study's sites that are present."""
        deadline = time.monotonic() + min(timeout, _GATHER_S)
        while True:
            known = read_nodes(self._folder)
            mine = {it.node for name, it in known.items() if name in self._names}
            present = [node for node in self._inner.nodes(0, 0.0) if node in mine]
            if len(present) >= expected or time.monotonic() >= deadline:
                return present
            time.sleep(_LOOK_S)

    def exchange(self, frames: Iterable[tuple[int, bytes]], timeout: float, group: str) -> Iterator[Answer]:
        """Send each node its frame; yield what comes back."""
        return self._inner.exchange(frames, timeout, group)


def patiently(coordinator: Coordinator, transport: Transport, wait: float) -> Outcome:
    """Run a coordinator; while too few sites join, for want of their owners' word mostly, ask them again.

    Guarantees:
        - It asks after four seconds, then after pauses that grow to half a minute.

    Raises:
        QuorumLost: Too few joined within ``wait`` seconds.
    """
    deadline, pause = time.monotonic() + wait, _ASK_AGAIN_S
    while True:
        try:
            return coordinator.run(transport)
        except QuorumLost:  # raised before any round only
            left = deadline - time.monotonic()
            if left < _ASK_AGAIN_S:
                raise
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, _LONGEST_S)


def _coordinator(home: ServerHome, study: ResolvedStudy, run: str, mine: HeldRun) -> Coordinator:
    """Compose the coordinator of this run from its home."""
    plan = plan_of(study)
    learner = new_learner(study)
    seed = study.study.privacy.insecure_seed
    watch = Journal(mine, epsilon_of(plan, mine) if seed is None else lambda _number: None)
    optimizer = LearnerOptimizer.of(
        learner, study.study.training.optimizer, public_steps=study.study.model.public_steps
    )
    return Coordinator(
        study=study,
        plan=plan,
        learner=learner,
        optimizer=optimizer,
        keys=Keys(signing=home.identity(), sealing=home.sealing()),
        roster=LiveRoster(home, study.study.data.sites.names()),
        run=run,
        store=mine,
        noise=NoiseSource.secure() if seed is None else NoiseSource.insecure(seed + COORDINATOR_SEED_SALT),
        listener=watch,
        record=watch.record,
        heldout_loss=lambda _number: None,
        epsilon=watch.epsilon,
        setups=mine if isinstance(plan, DistributedPlan) and plan.masked else None,
        again_s=AGAIN_S,
    )


def epsilon_of(plan: Plan, mine: HeldRun) -> Callable[[int], float | None]:
    """Return what the most-charged site can have spent after a round: an upper bound, cheap to ask."""
    cost = cost_of_rounds(plan)
    return lambda number: cost(max(number, mine.asked))


class Journal:
    """Turns what a coordinator announces into lines of the state.

    Args:
        mine: The run.
        epsilon: Upper bound on what the most-charged site has spent after a round, or None.
    """

    def __init__(self, mine: HeldRun, epsilon: Callable[[int], float | None]) -> None:
        self._mine, self.epsilon = mine, epsilon
        self._refused: dict[str, str] = {}
        self._absent: dict[str, str] = {}

    def __call__(self, event: Event) -> None:
        """Watch one event."""
        if not isinstance(event, SiteRefused):
            return
        if event.round == 0:
            self._absent[event.site] = str(event.code)
            self._mine.note_roll(self._absent)
        else:
            self._refused.setdefault(event.site, str(event.code))

    def record(self, done: RoundRecord) -> None:
        """Hand on the line of a round that was closed."""
        rejected = {site: code for site, code in self._refused.items() if site in done.sites}
        self._refused.clear()
        self._mine.record(line_of(done, rejected, self.epsilon(done.round)))


def _born(run: str) -> dict[str, str]:
    """Return when a checkpoint was made, in which run, and until when it may stay."""
    now = datetime.now(UTC)
    until = moment_of(retain_until(microseconds_of(now)))
    return {"run": run, "created_at": now.isoformat(), "retain_until": until.isoformat()}
