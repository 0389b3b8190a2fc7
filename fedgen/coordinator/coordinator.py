"""The coordinator: asks sites, sums what they send, keeps the run resumable. It never sees a row.

It owns no transport: :meth:`Coordinator.run` is handed one, so that a simulation in one process, Ray and a
deployment all run exactly this loop.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from fedgen.config.distributed import DistributedPlan
from fedgen.config.plan import coordinator_noise_std
from fedgen.coordinator.clear_exchange import ClearExchange, reach
from fedgen.coordinator.latecomers import Latecomers
from fedgen.coordinator.post import Post
from fedgen.coordinator.progress import Progress
from fedgen.coordinator.rollcall import RollCall, refuse_too_few
from fedgen.coordinator.rounds import Fate, nothing_summed
from fedgen.coordinator.secure_exchange import SecureExchange
from fedgen.coordinator.secure_store import first_open_round
from fedgen.coordinator.transport import to_all
from fedgen.errors import Code, IntegrityError
from fedgen.events import RoundFinished, SiteRefused, StudyFinished, StudyStarted
from fedgen.messages import Join, Settle
from fedgen.privacy.units import Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fedgen.config.resolve import ResolvedStudy
    from fedgen.coordinator.clear_exchange import Exchange
    from fedgen.coordinator.post import Keys
    from fedgen.coordinator.progress import DurableProgress
    from fedgen.coordinator.rounds import Closed
    from fedgen.coordinator.secure_store import Store
    from fedgen.coordinator.transport import Transport
    from fedgen.crypto.keys import VerifyKey
    from fedgen.dpsgd.noise import NoiseSource
    from fedgen.events import Listener
    from fedgen.privacy.plan import Plan
    from fedgen.training.learner import Learner
    from fedgen.training.optimizer import LearnerOptimizer

_LARGEST_CHANGE: Final = 1e6  # of one weight in one round; training that goes this far has long diverged
_MOST_ATTEMPTS: Final = 3  # at a round of which nothing was opened, in one process; each is charged
_MOST_LOST: Final = 3  # rounds in a row that were charged and came to nothing, before the run stops
_FIRM: Final = frozenset(  # what a site says no for, and will again in the next attempt
    {Code.BUDGET, Code.CONSENT, Code.COHORT_TOO_SMALL, Code.DATA, Code.NOT_ADMITTED, Code.STUDY_REFUSED}
)


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """What is remembered of a round; one line of metrics.jsonl."""

    round: int
    attempt: int
    sites: tuple[str, ...]
    missing: Mapping[str, str]
    excluded: Mapping[str, Mapping[str, str]]
    seconds: float
    bytes_in: int
    bytes_out: int
    heldout_loss: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: ``completed``, ``budget``, ``quorum`` or ``interrupted``."""

    outcome: str
    progress: Progress


class Coordinator:
    """Runs one study to its end, or to the last round that was safe.

    Guarantees:
        - Every site of the roster has answered, or is known to be absent, before round 1.
        - A round counts each site at most once, and counts none it could not verify.
        - After a crash, ``run`` continues with the round after the last checkpoint, under a new attempt.
        - When sites run out of budget or the quorum is lost, the last good model is kept and named.
        - While the quorum holds, nothing that a site sends ends the run; under distributed trust a site that deals
          falsely can make rounds come to nothing, and three in a row end it.
        - Where the study confirms, no update is summed that its site did not vouch for right before.
        - Under distributed trust it learns the noised sum of a round and who is in it, and nothing else. A round is
          opened once: where its sum is lost afterwards, by a kill or by sites that fall silent, the round is passed
          over and the weights stay as they were. Where nothing was opened, it is asked again, at most three times.
        - With ``unit: site`` every site has weight one, and the sum is divided by the size of the roster: neither a
          site's size nor the number that answered is in the model.

    Args:
        study: The resolved study; its hash is in every message.
        plan: The privacy plan; under central trust its noise is added here, once per round.
        learner: Model and flat vectors.
        optimizer: Steps the learner in gradient exchange.
        keys: Private keys of this run.
        roster: Verification key of each site.
        run: Identity of this run, hex.
        store: Durable progress.
        noise: Source of central noise.
        listener: Watches events.
        record: Called with each finished round.
        heldout_loss: Loss on held-out rows after a round, or None when not due; simulation only.
        epsilon: Upper bound on what the most-charged site has spent after a round, or None.
        setups: What secure aggregation must not forget; needed where sums are masked, and only there.
        again_s: Seconds from one invitation of absent sites to the next; None invites once.
    """

    def __init__(
        self,
        *,
        study: ResolvedStudy,
        plan: Plan,
        learner: Learner,
        optimizer: LearnerOptimizer,
        keys: Keys,
        roster: Mapping[str, VerifyKey],
        run: str,
        store: DurableProgress,
        noise: NoiseSource,
        listener: Listener,
        record: Callable[[RoundRecord], None],
        heldout_loss: Callable[[int], float | None],
        epsilon: Callable[[int], float | None],
        setups: Store | None = None,
        again_s: float | None = None,
    ) -> None:
        self._study = study
        self._plan = plan
        self._learner = learner
        self._optimizer = optimizer
        self._keys = keys
        self._roster = roster
        self._run = run
        self._store = store
        self._noise = noise
        self._generator = noise.generator()
        self._listener = listener
        self._record = record
        self._heldout_loss = heldout_loss
        self._epsilon = epsilon
        self._setups, self._again_s = setups, again_s
        training = study.study.training
        self._gradient = study.exchange == "gradient"
        self._whole_sites = plan.unit is Unit.SITE
        self._shares = isinstance(plan, DistributedPlan)
        self._quorum = max(study.quorum, plan.least) if isinstance(plan, DistributedPlan) else study.quorum
        self._timeout = training.timeout_s
        sizes = {entry.name: float(entry.sampled) for entry in study.roster}
        alike = self._gradient or self._whole_sites
        self._weights = {name: 1.0 if alike else size for name, size in sizes.items()}
        self._limits = {name: reach(plan, size) if alike else _LARGEST_CHANGE for name, size in sizes.items()}
        self._absent: dict[str, Code] = {}
        self._expected = {
            name: study.sample_rate * size * training.local_steps for name, size in sizes.items()
        }

    def run(self, transport: Transport) -> Outcome:
        """Run every round that is left.

        Returns:
            The outcome with the last good progress. Interruption is raised by the caller's signal and leaves
            the last checkpoint as the state to resume from.

        Raises:
            QuorumLost: Fewer sites joined than the quorum, before any round.
        """
        post = Post(
            transport,
            self._keys,
            study_hash=self._study.study_hash,
            run=self._run,
            roster=self._roster,
            timeout=self._timeout,
        )
        progress = self._pass_over(self._restore())
        rounds = self._study.study.training.rounds
        self._listener(
            StudyStarted(
                study=self._study.study.study,
                study_hash=self._study.study_hash,
                sites=len(self._roster),
                first_round=progress.round + 1,
                rounds=rounds,
            )
        )
        outcome, lost = "completed", 0
        if progress.round < rounds:
            self._join(post, progress.round)
        exchange = self._exchange(post)
        late = Latecomers(post, self._invitation(), self._absent, again_s=self._again_s)
        while progress.round < rounds:
            late.invite(progress.round)
            closed, advanced = self._round(exchange, post, progress)
            progress = progress if advanced is None else advanced
            lost = lost + 1 if closed.fate is Fate.LOST else 0
            if advanced is None or lost == _MOST_LOST:
                outcome = self._why(closed)
                break
        self._settle(post, outcome, progress.round)
        self._listener(StudyFinished(outcome=outcome, rounds=progress.round))
        return Outcome(outcome=outcome, progress=progress)

    def _exchange(self, post: Post) -> Exchange:
        """Return how sums are had under this plan's trust."""
        confirms = self._study.study.policy.confirms
        if isinstance(self._plan, DistributedPlan):
            return SecureExchange(
                post,
                self._plan,
                quorum=self._quorum,
                confirms=confirms,
                absent=self._absent,
                store=self._setups,
                listener=self._listener,
            )
        return ClearExchange(
            post,
            weights=self._weights,
            limits=self._limits,
            steps=self._plan.steps_per_round,
            confirms=confirms,
            absent=self._absent,
            listener=self._listener,
        )

    def _why(self, closed: Closed) -> str:
        """Return why a run ends early: ``budget`` where the sites that ran out of it would have been enough."""
        refused_budget = sum(code == Code.BUDGET for code in closed.missing.values())
        enough_otherwise = closed.answered + refused_budget >= self._quorum
        return "budget" if refused_budget and enough_otherwise else "quorum"

    # -- joining and leaving ------------------------------------------------------------------------

    def _join(self, post: Post, done: int) -> None:
        """Show every node the study, and learn where the sites that take part were reached."""
        join = self._invitation()
        nodes = post.transport.nodes(len(self._roster), self._timeout)
        roll = RollCall(self._study.study_hash, self._run, self._roster, self._keys.sealing, done=done)
        for answer in post.exchange(to_all(post.signed(join), nodes), "join"):
            if answer.reply is not None:
                roll.accept(answer.node, answer.reply)
        present = roll.close()
        self._absent = dict(present.absent)
        for site, code in present.absent.items():
            self._listener(SiteRefused(round=0, site=site, code=code))
        if len(present.sites) < self._quorum:
            refuse_too_few(present, len(self._roster), self._quorum, done)
        post.seat(present.places)

    def _invitation(self) -> Join:
        """Return what a site is shown before it takes part."""
        return Join(
            study_hash=self._study.study_hash,
            study=self._study.canonical(),
            run=self._run,
            coordinator=self._keys.signing.public.hex(),
            sealing_key=self._keys.sealing.public.hex(),
        )

    def _settle(self, post: Post, outcome: str, rounds: int) -> None:
        """Tell the sites that the study is over; who does not answer closes its entry later."""
        if not post.nodes:
            return
        message = Settle.model_validate(
            {"study_hash": self._study.study_hash, "run": self._run, "outcome": outcome, "rounds": rounds}
        )
        frame = post.signed(message, number=rounds)
        for _answer in post.exchange(to_all(frame, post.nodes), "settle"):
            pass

    # -- one round ----------------------------------------------------------------------------------

    def _round(self, exchange: Exchange, post: Post, progress: Progress) -> tuple[Closed, Progress | None]:
        """Ask a round until something comes of it; return the next progress, or None if too few are left to ask."""
        for _ in range(_MOST_ATTEMPTS):
            closed, advanced = self._attempt(exchange, post, progress)
            firm = sum(code in _FIRM or site in self._absent for site, code in closed.missing.items())
            if closed.fate is not Fate.VOID or len(self._roster) - firm < self._quorum:
                break  # whoever may still say yes is asked again, and nobody else is charged for it
        return closed, advanced

    def _attempt(self, exchange: Exchange, post: Post, progress: Progress) -> tuple[Closed, Progress | None]:
        """Ask, close, advance and record; the progress is None where the round does not stand."""
        started, received, sent = time.monotonic(), post.received, post.sent
        number = progress.round + 1
        attempt = self._store.next_attempt(number)
        closed = exchange.attempt(number, attempt, self._outgoing())
        advanced: Progress | None = None
        if closed.fate is Fate.LOST:
            advanced = replace(progress, round=number)
        elif closed.fate is Fate.SUMMED and closed.present >= self._quorum:
            advanced = self._advance(number, closed, progress)
        self._finish(
            number,
            attempt,
            closed,
            advanced,
            seconds=time.monotonic() - started,
            bytes_in=post.received - received,
            bytes_out=post.sent - sent,
        )
        return closed, advanced

    def _pass_over(self, progress: Progress) -> Progress:
        """Give up rounds that sites opened for a process that ended before it saved their sums."""
        if self._setups is None:
            return progress
        for number in range(progress.round + 1, first_open_round(progress.round, self._setups)):
            progress = replace(progress, round=number)
            self._finish(number, self._store.attempts(number), nothing_summed(Fate.LOST), progress)
        return progress

    def _advance(self, number: int, closed: Closed, progress: Progress) -> Progress:
        """Turn a round's sum into new weights."""
        if self._gradient:
            self._step_gradient(closed)
        else:
            change = self._mean_of_sites(closed) if self._whole_sites else self._mean_by_size(closed)
            self._learner.load_all_(progress.weights + change)
        weights = self._learner.all_values()
        if not bool(torch.isfinite(weights).all()):
            raise IntegrityError("the new weights are not finite", code=Code.NOT_FINITE)
        return Progress(
            round=number,
            weights=weights,
            average=self._averaged(progress, weights),
            optimizer=self._optimizer.state() if self._gradient else {},
        )

    def _mean_by_size(self, closed: Closed) -> torch.Tensor:
        """Return the mean change, each site weighing what it declares; its own noise is in it."""
        return torch.from_numpy(closed.aggregate.mean())

    def _mean_of_sites(self, closed: Closed) -> torch.Tensor:
        """Return the noised sum of bounded changes over the size of the roster, whoever answered."""
        return self._noised_total(closed).div_(len(self._study.roster))

    def _noised_total(self, closed: Closed) -> torch.Tensor:
        """Return the sum of a round, with central noise where the trust mode says so."""
        total = torch.from_numpy(closed.aggregate.total.astype(np.float32))
        std = coordinator_noise_std(self._plan)
        if std > 0:
            self._noise.add_normal_(total, std)
        return total

    def _step_gradient(self, closed: Closed) -> None:
        """Divide the noised sum by the expected batch, and step.

        Under distributed trust that is the batch of all sites, whoever survived; the sum's noise is sized by it too.
        """
        total = self._noised_total(closed)
        expected = sum(self._expected[site] for site in closed.aggregate.sites)
        if self._shares:
            expected = self._plan.expected_batch
        self._optimizer.step_(total.div_(expected), self._generator)

    def _averaged(self, progress: Progress, weights: torch.Tensor) -> torch.Tensor | None:
        """Return the moving average of the weights; post-processing, so it costs nothing."""
        decay = self._study.study.training.ema
        if decay is None:
            return None
        if progress.average is None:
            return weights.clone()
        warm = min(decay, (1 + progress.round) / (10 + progress.round))
        return progress.average * warm + weights * (1 - warm)

    def _finish(
        self,
        number: int,
        attempt: int,
        closed: Closed,
        advanced: Progress | None,
        *,
        seconds: float = 0.0,
        bytes_in: int = 0,
        bytes_out: int = 0,
    ) -> None:
        """Record a closed round, save what it made, announce it.

        The record comes first: a crash in between asks the round again, under an attempt that then stands, or passes
        it over, in a line that then stands; the other way round, nobody would ever know who took part in a round that
        is in the model.
        """
        due = advanced is not None and closed.fate is Fate.SUMMED
        self._record(
            RoundRecord(
                round=number,
                attempt=attempt,
                sites=closed.aggregate.sites,
                missing={site: str(code) for site, code in closed.missing.items()},
                excluded=closed.excluded,
                seconds=seconds,
                bytes_in=bytes_in,
                bytes_out=bytes_out,
                heldout_loss=self._heldout_loss(number) if due else None,
            )
        )
        if advanced is not None:
            self._store.save(advanced)
        self._listener(
            RoundFinished(
                round=number,
                attempt=attempt,
                sites=closed.present,
                roster=len(self._roster),
                epsilon=self._epsilon(number),
                allowed=self._plan.epsilon_allowed,
                seconds=seconds,
            )
        )

    def _restore(self) -> Progress:
        """Return the last good progress and bring the learner to it."""
        progress = self._store.latest()
        if progress is None:
            return Progress(round=0, weights=self._learner.all_values())
        self._learner.load_all_(progress.weights)
        if self._gradient:
            self._optimizer.restore(progress.optimizer)
        return progress

    def _outgoing(self) -> bytes:
        """Return the weights of a round: only the private ones where only those are needed."""
        values = self._learner.private.vector.detach() if self._gradient else self._learner.all_values()
        return values.numpy().astype("<f4", copy=False).tobytes()


def new_run_id() -> str:
    """Return a fresh identity for a run folder, 32 random bytes in hex."""
    return secrets.token_hex(32)
