"""One attempt at a round in which nobody sees a single site's update: distributed trust.

The drivers of :mod:`fedgen.coordinator.secure_round` know frames and names. Here each frame gets its cover: the weights
go with the frame that begins a turn, every frame is signed for the one site it is made for, and every answer is opened
with the limit of its step. What does not count is named with a code, as in any other round.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from fedgen.coordinator.aggregate import Aggregate
from fedgen.coordinator.rounds import Ask, Closed, Fate, nothing_summed, open_reply, signer_of
from fedgen.coordinator.secure_round import PlainRounds, SecureRounds, Void
from fedgen.coordinator.transport import to_all
from fedgen.crypto.digest import sha256_hex
from fedgen.errors import Code, ConfigError, IntegrityError
from fedgen.events import SiteRefused
from fedgen.messages import Confirm, Confirmed, Kind, Refusal, Step, Stepped, Turn
from fedgen.secagg import wire
from fedgen.secagg.terms import Recovery

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from fedgen.config.distributed import DistributedPlan
    from fedgen.coordinator.post import Post
    from fedgen.coordinator.secure_store import Store
    from fedgen.coordinator.transport import Answer
    from fedgen.crypto.keys import VerifyKey
    from fedgen.events import Listener
    from fedgen.messages import Wire
    from fedgen.secagg import server
    from fedgen.secagg.terms import Terms

_MASK: Final = "mask"  # the step that asks for a vector
_LONGEST_PAUSE: Final = 64  # rounds between two tries to have sites back that sit out


@dataclass(slots=True)
class _Now:
    """The attempt that is under way.

    Attributes:
        ask: What is asked.
        weights: The values everybody starts from: one object, whatever the number of sites.
        asked: Sites that were asked for a vector.
        owing: Sites that did not answer the last step they were asked for.
        gave: Sites whose answer to the question for a vector was opened.
        said: The first answer of a site, to this very question, that did not count.
        stray: The first other thing it signed that did not count.
        silent: Why the transport has no answer of it.
        excluded: Bucketed counts, as sites report them with their vectors.
    """

    ask: Ask
    weights: bytes
    asked: set[str] = field(default_factory=set)
    owing: set[str] = field(default_factory=set)
    gave: set[str] = field(default_factory=set)
    said: dict[str, Code] = field(default_factory=dict)
    stray: dict[str, Code] = field(default_factory=dict)
    silent: dict[str, Code] = field(default_factory=dict)
    excluded: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def codes(self) -> dict[str, Code]:
        """Return what is known against each site, the surest last."""
        return {**self.silent, **self.stray, **self.said}


class SecureExchange:
    """Runs attempts under distributed trust, over whichever protocol the plan says.

    Guarantees:
        - An attempt ends in the exact sum of at least ``quorum`` sites, or in none: nothing a site sends makes
          :meth:`attempt` raise.
        - A frame made for one site is signed for that site, and made when it is sent; an answer counts only sealed,
          from its verified sender, within the limit of its step.
        - Where the study confirms, no vector is added that its site did not vouch for right before.

    Edge cases:
        - A site that deals falsely can make a round void or lost, never wrong. What it signed convicts it, and it is in
          no later setup; of two that do not hold the same secret nobody can say which one lies, so both are named.
        - A site that sits out, because it restarted or was silent while keys were agreed on, is asked again with a new
          setup: after one round, then two, four, and so on. With ``recovery: restart`` that would void an attempt that
          others were charged for, so there it waits until too few are left.

    Args:
        post: Carries the messages of the run; its places are filled.
        plan: The plan of the study.
        quorum: Fewest sites in a sum, at least ``plan.least``.
        confirms: Whether a vector waits for its site's word before it is added.
        absent: Sites that do not take part, with the code they gave when they were invited.
        store: What outlives this process; None under ``protocol: sum`` only.
        listener: Hears of each answer that did not count.

    Raises:
        ConfigError: A site of the roster has no key any more, such as one that was revoked.
        ValueError: Masked sums without a store.
    """

    def __init__(
        self,
        post: Post,
        plan: DistributedPlan,
        *,
        quorum: int,
        confirms: bool,
        absent: Mapping[str, Code],
        store: Store | None,
        listener: Listener,
    ) -> None:
        self._post, self._plan, self._listener = post, plan, listener
        self._quorum, self._absent = quorum, absent
        terms = plan.terms(post.study_hash, post.run, _identities(post.roster))
        self._limits = limits_of(terms, masked=plan.masked)
        confirm = self._confirm if confirms else None
        self._rounds: SecureRounds | PlainRounds
        if not plan.masked:
            self._rounds = PlainRounds(
                terms,
                self._ask,
                note=self._note,
                confirm=confirm,
                fewest=quorum,
                reached=lambda: post.places,
            )
        elif store is None:
            raise ValueError("masked sums need a store: no round may be opened twice")
        else:
            self._rounds = SecureRounds(
                terms, self._ask, store=store, note=self._note, confirm=confirm, fewest=quorum
            )
        self._known: dict[str, Code] = {}  # why sites that sit out do so, from the attempt that put them out
        self._pause, self._back_at = 1, 0
        self._now = _Now(Ask(post.study_hash, post.run, 0, 0, 1, 1, ""), b"")

    def attempt(self, number: int, attempt: int, weights: bytes) -> Closed:
        """See :class:`fedgen.coordinator.clear_exchange.Exchange`."""
        digest = sha256_hex(weights)
        ask = Ask(self._post.study_hash, self._post.run, number, attempt, len(weights) // 4, 1, digest)
        self._now = now = _Now(ask, weights)
        ended = self._rounds.round(number, attempt, digest)
        self._known.update(dict.fromkeys(self._rounds.left_out, Code.BAD_SEAL))
        self._have_back(number)
        if isinstance(ended, Void):
            return self._void(now, ended)
        return self._summed(now, ended)

    # ---- what goes out and comes in -----------------------------------------------------------------------------

    def _ask(self, frames: Mapping[str, bytes], step: str) -> Iterator[tuple[str, memoryview]]:
        """Send each site its frame under its own cover; yield who answered what."""
        now, post = self._now, self._post
        if step == _MASK:
            now.asked.update(frames)
        now.owing.update(frames)
        ask = self._question(self._limits[step])
        letters = (
            (post.places[name], self._letter(name, frame, step))
            for name, frame in frames.items()
            if name in post.places
        )
        for answer in post.exchange(letters, f"{'round' if step == _MASK else step}-{ask.round}"):
            opened = self._opened(answer, ask, Kind.STEPPED)
            if opened is None:
                continue
            message, body, site = opened
            if not isinstance(message, Stepped):
                self._note(site, message.code if isinstance(message, Refusal) else Code.OUT_OF_ORDER)
                continue
            if step == _MASK:
                now.gave.add(site)
                now.excluded.setdefault(site, message.excluded)
            elif message.excluded:
                self._note(site, Code.MALFORMED)
                continue
            now.owing.discard(site)
            yield site, body

    def _letter(self, name: str, frame: bytes, step: str) -> bytes:
        """Return one site's frame, signed for it; the frame that begins a turn goes behind the weights."""
        now = self._now
        ask = now.ask
        message: Wire = Step(study_hash=ask.study_hash, run=ask.run, round=ask.round, attempt=ask.attempt)
        if step == _MASK:
            message = Turn(**message.model_dump(), parameters=ask.parameters, digest=ask.weights)
            frame = b"".join((now.weights, frame))
        return self._post.signed(message, frame, number=ask.round, attempt=ask.attempt, recipient=name)

    def _opened(self, answer: Answer, ask: Ask, kind: Kind) -> tuple[Wire, memoryview, str] | None:
        """Return an answer's message, body and verified sender; None, and a note, where there is none."""
        if answer.reply is None:
            for site in self._post.at(answer.node):
                self._now.silent.setdefault(site, answer.code or Code.DROPPED)
            return None
        roster = self._post.roster
        try:
            return open_reply(
                answer.reply, roster=roster, sealing_key=self._post.keys.sealing, ask=ask, answers=kind
            )
        except IntegrityError as error:
            signer = signer_of(answer.reply, roster, ask)
            if signer is not None:
                self._now.stray.setdefault(signer, error.code)
            self._listener(SiteRefused(round=ask.round, site=signer or "?", code=error.code))
            return None

    def _confirm(self, names: tuple[str, ...]) -> Collection[str]:
        """Return which sites, of those whose vectors wait, say that theirs may be added."""
        now, places = self._now, self._post.places
        ask = self._question(0)
        message = Confirm(study_hash=ask.study_hash, run=ask.run, round=ask.round, attempt=ask.attempt)
        frame = self._post.signed(message, number=ask.round, attempt=ask.attempt)
        nodes = [places[name] for name in names if name in places]  # a key may be used from another's node
        words: dict[str, bool] = {}
        for answer in self._post.exchange(to_all(frame, nodes), f"confirm-{ask.round}"):
            opened = self._opened(answer, ask, Kind.CONFIRMED)
            if opened is None:
                continue
            word, _body, site = opened
            if site in words or site not in names:
                self._note(site, Code.REPLAYED)
                continue
            words[site] = isinstance(word, Confirmed)
            if not words[site]:
                self._note(site, word.code if isinstance(word, Refusal) else Code.OUT_OF_ORDER)
        for site in names:
            if site not in words:
                self._note(site, now.silent.get(site, Code.DROPPED))
        return {site for site, yes in words.items() if yes}

    def _question(self, most: int) -> Ask:
        """Return what is asked now, with the longest answer it can have."""
        ask = self._now.ask
        return Ask(ask.study_hash, ask.run, ask.round, ask.attempt, ask.parameters, 1, ask.weights, most)

    def _note(self, site: str, code: Code) -> None:
        """Name a site whose answer did not count."""
        self._now.said.setdefault(site, code)
        self._listener(SiteRefused(round=self._now.ask.round, site=site, code=code))

    # ---- what came of it ----------------------------------------------------------------------------------------

    def _summed(self, now: _Now, ended: server.Aggregate) -> Closed:
        """Return the sum, and who is not in it."""
        survivors = ended.survivors
        codes = {**self._absent, **self._known, **now.codes()}
        missing = {name: codes.get(name, Code.DROPPED) for name in self._post.roster if name not in survivors}
        self._known = {name: code for name, code in missing.items() if name not in self._absent}
        total = self._plan.point.grid.decode(ended.values)
        excluded = {name: now.excluded[name] for name in survivors if name in now.excluded}
        return Closed(
            Aggregate(total=total, weight=float(len(survivors)), sites=survivors),
            missing,
            excluded,
            len(survivors),
            Fate.SUMMED,
        )

    def _void(self, now: _Now, ended: Void) -> Closed:
        """Return an attempt without a sum; after a round that is lost, everybody is asked anew."""
        if not ended.again:
            self._rounds.rejoin()
        codes = {**self._absent, **self._known, **now.codes()}
        missing = {
            name: codes.get(name, Code.DROPPED)
            for name in self._post.roster
            if name in codes or name in now.owing
        }
        fate = Fate.VOID if ended.again else Fate.LOST
        return nothing_summed(fate, missing=missing, answered=len(now.gave - set(now.said)))

    def _have_back(self, number: int) -> None:
        """Begin the next round with a new setup where sites sit out, and more and more seldom while they go on."""
        out = set(self._post.places) - self._now.asked - self._rounds.left_out
        if not self._now.asked:
            return  # no setup came about, so the next round begins with one
        if not out:
            self._pause, self._back_at = 1, 0
        elif self._rounds.terms.recovery is Recovery.UNMASK and number >= self._back_at:
            self._rounds.rejoin()
            self._back_at = number + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)


def _identities(roster: Mapping[str, VerifyKey]) -> dict[str, bytes]:
    """Return every site's public key: all of them are in what everybody signs, also those of sites that are absent."""
    keys = {}
    for name in roster:
        key = roster.get(name)
        if key is None:
            raise ConfigError(
                f"{name} is not enrolled any more, and the sums of this study are bound to its key",
                key="data.sites.names",
                hint="begin a new study without it, or enroll it again",
            )
        keys[name] = key.public
    return keys


def limits_of(terms: Terms, *, masked: bool) -> Mapping[str, int]:
    """Return the longest answer to each step, in bytes."""
    longest: dict[str, type[wire.Message]] = {
        "advertise": wire.Advertise,
        "offer": wire.Offers,
        "deal": wire.Deal if terms.recovery is Recovery.UNMASK else wire.Ready,
        _MASK: wire.Masked if masked else wire.Clear,
        "agree": wire.Agree,
        "reveal": wire.Reveal,
    }
    return {step: kind.limit(terms) for step, kind in longest.items()}
