"""The coordinator: asks sites, sums what they send, keeps the run resumable. It never sees a row.

It owns no transport: :meth:`Coordinator.run` is handed one, so that a simulation in one process, Ray and a
deployment all run exactly this loop.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn

import numpy as np
import torch

from fedgen.config.plan import coordinator_noise_std, site_noise_std
from fedgen.coordinator.progress import Progress, ProgressStore
from fedgen.coordinator.rollcall import RollCall
from fedgen.coordinator.rounds import COORDINATOR, Ask, Closed, Round
from fedgen.crypto.digest import sha256_hex
from fedgen.crypto.envelope import Header, sign_frame
from fedgen.errors import Code, IntegrityError, QuorumLost
from fedgen.events import RoundFinished, SiteRefused, StudyFinished, StudyStarted
from fedgen.messages import Confirm, Join, Kind, Settle, Train, encode
from fedgen.privacy.units import Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fedgen.config.resolve import ResolvedStudy
    from fedgen.coordinator.rollcall import Present
    from fedgen.coordinator.transport import Transport
    from fedgen.crypto.keys import SealingKey, SigningKey, VerifyKey
    from fedgen.dpsgd.noise import NoiseSource
    from fedgen.events import Listener
    from fedgen.messages import Wire
    from fedgen.privacy.plan import PrivacyPlan
    from fedgen.training.learner import Learner
    from fedgen.training.optimizer import LearnerOptimizer

_MOST_HELD: Final = 256 * 2**20  # bytes of updates that wait for their sites' word before they are summed
_LARGEST_CHANGE: Final = 1e6  # of one weight in one round; training that goes this far has long diverged


@dataclass(frozen=True, slots=True)
class Keys:
    """The coordinator's private keys for one run."""

    signing: SigningKey
    sealing: SealingKey


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
        - While the quorum holds, nothing that a site sends ends the run.
        - Where the study confirms, no update is summed that its site did not vouch for right before.
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
    """

    def __init__(
        self,
        *,
        study: ResolvedStudy,
        plan: PrivacyPlan,
        learner: Learner,
        optimizer: LearnerOptimizer,
        keys: Keys,
        roster: Mapping[str, VerifyKey],
        run: str,
        store: ProgressStore,
        noise: NoiseSource,
        listener: Listener,
        record: Callable[[RoundRecord], None],
        heldout_loss: Callable[[int], float | None],
        epsilon: Callable[[int], float | None],
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
        training = study.study.training
        self._gradient = study.exchange == "gradient"
        self._whole_sites = plan.unit is Unit.SITE
        self._quorum = study.quorum
        self._timeout = training.timeout_s
        sizes = {entry.name: float(entry.sampled) for entry in study.roster}
        alike = self._gradient or self._whole_sites
        self._weights = {name: 1.0 if alike else size for name, size in sizes.items()}
        self._limits = {
            name: _reach(plan, size) if alike else _LARGEST_CHANGE for name, size in sizes.items()
        }
        self._absent: Mapping[str, Code] = {}
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
        progress = self._restore()
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
        outcome = "completed"
        nodes = self._join(transport, progress.round) if progress.round < rounds else []
        while progress.round < rounds:
            closed, progress = self._round(transport, nodes, progress)
            if closed.present < self._quorum:
                refused_budget = sum(code == Code.BUDGET for code in closed.missing.values())
                enough_otherwise = closed.present + refused_budget >= self._quorum
                outcome = "budget" if refused_budget and enough_otherwise else "quorum"
                break
        self._settle(transport, nodes, outcome, progress.round)
        self._listener(StudyFinished(outcome=outcome, rounds=progress.round))
        return Outcome(outcome=outcome, progress=progress)

    # -- joining and leaving ------------------------------------------------------------------------

    def _join(self, transport: Transport, done: int) -> list[int]:
        """Show every node the study; return the nodes whose sites take part."""
        join = Join(
            study_hash=self._study.study_hash,
            study=self._study.canonical(),
            run=self._run,
            coordinator=self._keys.signing.public.hex(),
            sealing_key=self._keys.sealing.public.hex(),
        )
        nodes = list(transport.nodes(len(self._roster), self._timeout))
        frame = self._signed(join, b"", Kind.JOIN, 0, 0)
        roll = RollCall(self._study.study_hash, self._run, self._roster, self._keys.sealing, done=done)
        for answer in transport.exchange(frame, nodes, self._timeout, "join"):
            if answer.reply is not None:
                roll.accept(answer.node, answer.reply)
        present = roll.close()
        self._absent = present.absent
        for site, code in present.absent.items():
            self._listener(SiteRefused(round=0, site=site, code=code))
        if len(present.sites) < self._quorum:
            self._too_few(present, done)
        return list(present.nodes)

    def _too_few(self, present: Present, done: int) -> NoReturn:
        """Say why the study cannot start; a site may lie about its past, so the quorum is what decides."""
        for site, last in present.ahead.items():
            raise IntegrityError(
                f"site {site} has taken part in round {last}, this run folder ends at {done}",
                code=Code.STALE_ROUND,
                hint="the run folder was rolled back; restore its newest state",
            )
        reasons = ", ".join(sorted({str(code) for code in present.absent.values()}))
        raise QuorumLost(
            f"{len(present.sites)} of {len(self._roster)} sites joined, {self._quorum} are needed ({reasons})",
            hint="see the sites' own logs; lower training.quorum only if the study allows it",
        )

    def _settle(self, transport: Transport, nodes: list[int], outcome: str, rounds: int) -> None:
        """Tell the sites that the study is over; who does not answer closes its entry later."""
        if not nodes:
            return
        message = Settle.model_validate(
            {"study_hash": self._study.study_hash, "run": self._run, "outcome": outcome, "rounds": rounds}
        )
        frame = self._signed(message, b"", Kind.SETTLE, rounds, 0)
        for _answer in transport.exchange(frame, nodes, self._timeout, "settle"):
            pass

    # -- one round ----------------------------------------------------------------------------------

    def _round(self, transport: Transport, nodes: list[int], progress: Progress) -> tuple[Closed, Progress]:
        """Ask, fold, close; return the next progress, or the old one if the quorum was lost."""
        started = time.monotonic()
        number = progress.round + 1
        attempt = self._store.next_attempt(number)
        body = self._outgoing()
        ask = Ask(
            study_hash=self._study.study_hash,
            run=self._run,
            round=number,
            attempt=attempt,
            parameters=len(body) // 4,
            steps=self._plan.steps_per_round,
            weights=sha256_hex(body),
        )
        train = Train(
            study_hash=ask.study_hash,
            run=ask.run,
            round=number,
            attempt=attempt,
            parameters=ask.parameters,
            digest=ask.weights,
        )
        frame = self._signed(train, body, Kind.TRAIN, number, attempt)
        fold = Round(
            ask,
            self._roster,
            self._weights,
            self._keys.sealing,
            limits=self._limits,
            absent=self._absent,
            confirms=self._study.study.policy.confirms,
        )
        bytes_in = 0
        waiting: dict[int, str] = {}
        for answer in transport.exchange(frame, nodes, self._timeout, f"round-{number}"):
            if answer.reply is None:
                continue
            bytes_in += len(answer.reply)
            verdict = fold.accept(answer.reply)
            if verdict.code is not None:
                self._listener(SiteRefused(round=number, site=verdict.site or "?", code=verdict.code))
            elif verdict.site in fold.held:
                waiting[answer.node] = verdict.site or "?"
                if fold.held_bytes > _MOST_HELD:
                    self._confirm(transport, fold, ask, waiting)
        self._confirm(transport, fold, ask, waiting)
        closed = fold.close()
        advanced = self._advance(number, closed, progress) if closed.present >= self._quorum else None
        self._finish(ask, closed, started, bytes_in, len(frame) * len(nodes), advanced)
        return closed, advanced or progress

    def _confirm(self, transport: Transport, fold: Round, ask: Ask, waiting: dict[int, str]) -> None:
        """Ask the sites whose updates wait whether they may be summed, and sum each as its word comes."""
        if not waiting:
            return
        message = Confirm(study_hash=ask.study_hash, run=ask.run, round=ask.round, attempt=ask.attempt)
        frame = self._signed(message, b"", Kind.CONFIRM, ask.round, ask.attempt)
        group = f"confirm-{ask.round}"
        for answer in transport.exchange(frame, list(waiting), self._timeout, group):
            if answer.reply is None:
                continue
            verdict = fold.confirm(answer.reply)
            if verdict.code is not None:
                self._listener(SiteRefused(round=ask.round, site=verdict.site or "?", code=verdict.code))
        for site in fold.drop_held():
            self._listener(SiteRefused(round=ask.round, site=site, code=Code.DROPPED))
        waiting.clear()

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
        """Divide the noised sum by the expected batch, and step."""
        total = self._noised_total(closed)
        expected = sum(self._expected[site] for site in closed.aggregate.sites)
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
        ask: Ask,
        closed: Closed,
        started: float,
        bytes_in: int,
        bytes_out: int,
        advanced: Progress | None,
    ) -> None:
        """Record a closed round, save what it made, announce it.

        The record comes first: a crash in between asks the round again, under an attempt that then stands; the
        other way round, nobody would ever know who took part in a round that is in the model.
        """
        seconds = time.monotonic() - started
        self._record(
            RoundRecord(
                round=ask.round,
                attempt=ask.attempt,
                sites=closed.aggregate.sites,
                missing={site: str(code) for site, code in closed.missing.items()},
                excluded=closed.excluded,
                seconds=seconds,
                bytes_in=bytes_in,
                bytes_out=bytes_out,
                heldout_loss=None if advanced is None else self._heldout_loss(ask.round),
            )
        )
        if advanced is not None:
            self._store.save(advanced)
        self._listener(
            RoundFinished(
                round=ask.round,
                attempt=ask.attempt,
                sites=closed.present,
                roster=len(self._roster),
                epsilon=self._epsilon(ask.round),
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

    def _signed(self, message: Wire, body: bytes, kind: Kind, number: int, attempt: int) -> bytes:
        """Return a signed broadcast."""
        frame = encode(message, body)
        header = Header(
            kind=kind,
            study_hash=self._study.study_hash,
            run=self._run,
            round=number,
            attempt=attempt,
            sender=COORDINATOR,
            recipient="*",
        )
        return sign_frame(frame, header, self._keys.signing)


def _reach(plan: PrivacyPlan, sampled: float) -> float:
    """Return what no coordinate of an honest sum exceeds.

    Every record or person moves it by at most the clip, and a site may have outgrown its declared size fourfold; a
    whole site moves it by at most the clip. Beyond ten standard deviations there is no noise.
    """
    units = 1.0 if plan.unit is Unit.SITE else 4.0 * sampled
    return plan.clip * units + 10.0 * site_noise_std(plan)


def new_run_id() -> str:
    """Return a fresh identity for a run folder, 32 random bytes in hex."""
    return secrets.token_hex(32)
