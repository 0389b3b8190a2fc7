"""One attempt at a round in which every site's update comes to the coordinator by itself: local and central trust."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from fedgen.config.plan import site_noise_std
from fedgen.coordinator.rounds import Ask, Round
from fedgen.coordinator.transport import to_all
from fedgen.crypto.digest import sha256_hex
from fedgen.events import SiteRefused
from fedgen.messages import Confirm, Train
from fedgen.privacy.units import Unit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedgen.coordinator.post import Post
    from fedgen.coordinator.rounds import Closed
    from fedgen.errors import Code
    from fedgen.events import Listener
    from fedgen.privacy.plan import Plan

MOST_HELD: Final = 256 * 2**20  # bytes of updates that wait for their sites' word before they are summed


class Exchange(Protocol):
    """How the weights of a round go out and a sum comes back, whatever the trust mode."""

    def attempt(self, number: int, attempt: int, weights: bytes) -> Closed:
        """Ask every site that takes part, and close the attempt.

        Args:
            number: Round, one-based.
            attempt: Of that round; a number that was never used.
            weights: Float32 little-endian values everybody starts from.
        """
        ...


class ClearExchange:
    """Asks sites for updates and sums those that pass every check; see :class:`fedgen.coordinator.rounds.Round`.

    Args:
        post: Carries the messages of the run.
        weights: Weight of each site in the sum, by name.
        limits: Largest absolute value an update of each site can hold.
        steps: Noised sums each site is told to make.
        confirms: Whether an update waits for its site's word before it is summed.
        absent: Sites that do not take part, with the code they gave when they were invited.
        listener: Hears of each answer that was not taken.
    """

    def __init__(
        self,
        post: Post,
        *,
        weights: Mapping[str, float],
        limits: Mapping[str, float],
        steps: int,
        confirms: bool,
        absent: Mapping[str, Code],
        listener: Listener,
    ) -> None:
        self._post, self._listener = post, listener
        self._weights, self._limits, self._steps = weights, limits, steps
        self._confirms, self._absent = confirms, absent

    def attempt(self, number: int, attempt: int, weights: bytes) -> Closed:
        """See :class:`Exchange`."""
        post = self._post
        digest, parameters = sha256_hex(weights), len(weights) // 4
        ask = Ask(post.study_hash, post.run, number, attempt, parameters, self._steps, digest)
        train = Train(
            study_hash=ask.study_hash,
            run=ask.run,
            round=number,
            attempt=attempt,
            parameters=parameters,
            digest=digest,
        )
        fold = Round(
            ask,
            post.roster,
            self._weights,
            post.keys.sealing,
            limits=self._limits,
            absent=self._absent,
            confirms=self._confirms,
        )
        frame = post.signed(train, weights, number=number, attempt=attempt)
        waiting: dict[int, None] = {}
        for answer in post.exchange(to_all(frame, post.nodes), f"round-{number}"):
            if answer.reply is None:
                self._silent(fold, answer.node, answer.code)
                continue
            verdict = fold.accept(answer.reply)
            if verdict.code is not None:
                self._refused(ask, verdict.site, verdict.code)
            elif verdict.site in fold.held:
                waiting[answer.node] = None
                if fold.held_bytes > MOST_HELD:
                    self._confirm(fold, ask, waiting)
        self._confirm(fold, ask, waiting)
        return fold.close()

    def _confirm(self, fold: Round, ask: Ask, waiting: dict[int, None]) -> None:
        """Ask the sites whose updates wait whether they may be summed, and sum each as its word comes."""
        if not waiting:
            return
        message = Confirm(study_hash=ask.study_hash, run=ask.run, round=ask.round, attempt=ask.attempt)
        frame = self._post.signed(message, number=ask.round, attempt=ask.attempt)
        for answer in self._post.exchange(to_all(frame, waiting), f"confirm-{ask.round}"):
            if answer.reply is None:
                self._silent(fold, answer.node, answer.code)
                continue
            verdict = fold.confirm(answer.reply)
            if verdict.code is not None:
                self._refused(ask, verdict.site, verdict.code)
        for site, code in fold.drop_held().items():
            self._refused(ask, site, code)
        waiting.clear()

    def _silent(self, fold: Round, node: int, code: Code | None) -> None:
        """Note why the transport has no answer from a node."""
        if code is not None:
            for site in self._post.at(node):
                fold.silent(site, code)

    def _refused(self, ask: Ask, site: str | None, code: Code) -> None:
        """Tell of an answer that was not taken."""
        self._listener(SiteRefused(round=ask.round, site=site or "?", code=code))


def reach(plan: Plan, sampled: float) -> float:
    """Return what no coordinate of an honest sum exceeds.

    Every record or person moves it by at most the clip, and a site may have outgrown its declared size fourfold; a
    whole site moves it by at most the clip. Beyond ten standard deviations there is no noise.
    """
    units = 1.0 if plan.unit is Unit.SITE else 4.0 * sampled
    return plan.clip * units + 10.0 * site_noise_std(plan)
