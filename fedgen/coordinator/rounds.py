"""One round as a pure state machine over untrusted replies: no clock, no network, no disk.

Rules, in the order they are checked for each reply:

1. It is bounded, parses, and names a sender on the roster.
2. Its signature verifies under that sender's key, and its seal opens under ours.
3. It is for this study, run, round and attempt, and is the sender's first for them.
4. It answers the weights we sent, with the number of parameters and steps the study says.
5. Every value is finite, and none is larger than the study can explain.

A reply that breaks a rule changes nothing: it is named with a code and the round goes on. At the end the
round stands if the quorum holds, else it never happened and the last good model is kept.

Where a study confirms, an update that passed waits until its site says once more that it may be summed; a no, or
silence, drops it (docs/adr/0015-confirm-before-summing.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.coordinator.aggregate import Aggregate, StreamingSum
from fedgen.crypto.envelope import Expectation, ReplayGuard, agree, open_frame, peek
from fedgen.errors import Code, IntegrityError
from fedgen.messages import Confirmed, Kind, Refusal, Trained, Wire, decode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedgen.crypto.keys import SealingKey, VerifyKey


COORDINATOR: Final = "coordinator"
_FRAME_ROOM: Final = 64 * 1024  # a reply's own header: a name, digests, bucketed counts


@dataclass(frozen=True, slots=True)
class Ask:
    """What a round asked for, so that an answer can be held against it.

    Attributes:
        study_hash: Identity of the study.
        run: Identity of the run.
        round: One-based.
        attempt: One-based.
        parameters: Length of an update.
        steps: Noised sums each site was told to make, as the plan charges them.
        weights: SHA-256 of the weights sent, hex.
        most: Longest body of an answer in bytes; None where an answer is ``parameters`` float32 values.
    """

    study_hash: str
    run: str
    round: int
    attempt: int
    parameters: int
    steps: int
    weights: str
    most: int | None = None

    @property
    def longest(self) -> int:
        """The longest body of an answer, in bytes."""
        return 4 * self.parameters if self.most is None else self.most


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one reply.

    Attributes:
        site: Whose signature the reply bears, or None when nobody's could be verified.
        code: None if the update went into the sum.
        excluded: Bucketed counts of excluded rows by reason, as the site reported them.
    """

    site: str | None
    code: Code | None
    excluded: Mapping[str, str] | None = None


class Fate(Enum):
    """What becomes of an attempt at a round."""

    SUMMED = auto()
    VOID = auto()  # no sum, and the round may be asked again
    LOST = auto()  # no sum, and the round may never be asked again: something of it was opened


@dataclass(frozen=True, slots=True)
class Closed:
    """A closed attempt at a round: what was summed, and who is missing with which code.

    Attributes:
        aggregate: The sum; of nobody unless the attempt was summed.
        missing: Sites that are not in the sum, with the code that says why. Where there is no sum, sites that did as
            they were asked are not in it.
        excluded: Bucketed counts of excluded rows, by site in the sum.
        answered: How many sites gave an update that could be summed.
        fate: What became of the attempt.
    """

    aggregate: Aggregate
    missing: Mapping[str, Code]
    excluded: Mapping[str, Mapping[str, str]]
    answered: int
    fate: Fate

    @property
    def present(self) -> int:
        """How many sites are in the sum."""
        return len(self.aggregate.sites)


def nothing_summed(fate: Fate, *, missing: Mapping[str, Code] | None = None, answered: int = 0) -> Closed:
    """Return an attempt that ended without a sum."""
    empty = Aggregate(total=np.zeros(0), weight=0.0, sites=())
    return Closed(empty, missing or {}, {}, answered, fate)


class Round:
    """Folds the replies of one round.

    Args:
        ask: What was asked.
        roster: Verification key of every site of the study, by name.
        weights: Weight of each site in the sum, by name.
        sealing_key: Our private key, to open sealed updates.
        limits: Largest absolute value an update of each site can hold; a site left out has none.
        absent: Sites that do not take part, with the code they gave when they were invited.
        confirms: Whether an update waits for its site's word before it is summed.
    """

    def __init__(
        self,
        ask: Ask,
        roster: Mapping[str, VerifyKey],
        weights: Mapping[str, float],
        sealing_key: SealingKey,
        *,
        limits: Mapping[str, float] | None = None,
        absent: Mapping[str, Code] | None = None,
        confirms: bool = False,
    ) -> None:
        self._ask = ask
        self._confirms = confirms
        self._held: dict[str, tuple[bytes, Mapping[str, str]]] = {}
        self._dropped: set[str] = set()
        self._roster = roster
        self._weights = weights
        self._sealing_key = sealing_key
        self._limits = limits or {}
        self._absent = absent or {}
        self._sum = StreamingSum(ask.parameters)
        self._said: dict[str, Code] = {}
        self._stray: dict[str, Code] = {}
        self._silent: dict[str, Code] = {}
        self._excluded: dict[str, Mapping[str, str]] = {}
        self._guard = ReplayGuard()

    def accept(self, reply: bytes) -> Verdict:
        """Check one reply and fold it, or say why not; never raises for what a peer sent."""
        try:
            message, body, site = open_reply(
                reply,
                roster=self._roster,
                sealing_key=self._sealing_key,
                ask=self._ask,
                answers=Kind.TRAINED,
                guard=self._guard,
            )
        except IntegrityError as error:
            signer = signer_of(reply, self._roster, self._ask)
            if signer is not None:
                self._stray.setdefault(signer, error.code)
            return Verdict(site=signer, code=error.code)
        try:
            excluded = self._fold(message, body, site)
        except IntegrityError as error:
            return self._no(site, error.code)
        if isinstance(message, Refusal):
            return self._no(site, message.code)
        if self._confirms:
            self._held[site] = bytes(body), excluded
        else:
            self._excluded[site] = excluded
        return Verdict(site=site, code=None, excluded=excluded)

    def silent(self, site: str, code: Code) -> None:
        """Note why the transport has no answer of a site; what the site itself says counts before it."""
        self._silent.setdefault(site, code)

    @property
    def held(self) -> tuple[str, ...]:
        """Sites whose updates wait for a word before they are summed."""
        return tuple(self._held)

    @property
    def held_bytes(self) -> int:
        """Bytes of these updates."""
        return sum(len(body) for body, _ in self._held.values())

    def confirm(self, reply: bytes) -> Verdict:
        """Sum the update of a site that says it still may be; drop it on any other word of that site.

        An answer that bears nobody's signature changes nothing, and so drops nothing.
        """
        try:
            message, _body, site = open_reply(
                reply,
                roster=self._roster,
                sealing_key=self._sealing_key,
                ask=self._ask,
                answers=Kind.CONFIRMED,
            )
        except IntegrityError as error:
            return Verdict(site=signer_of(reply, self._roster, self._ask), code=error.code)
        if site not in self._held:
            return Verdict(site=site, code=Code.REPLAYED)
        body, excluded = self._held.pop(site)
        if not isinstance(message, Confirmed):
            self._dropped.add(site)
            return self._no(site, message.code if isinstance(message, Refusal) else Code.OUT_OF_ORDER)
        self._sum.add(site, body, self._weights[site], limit=self._limits.get(site, math.inf))
        self._excluded[site] = excluded
        return Verdict(site=site, code=None, excluded=excluded)

    def drop_held(self) -> Mapping[str, Code]:
        """Drop the updates whose sites did not say a word, and return whose they were, with the code."""
        silent = {site: self._silent.get(site, Code.DROPPED) for site in self._held}
        for site, code in silent.items():
            del self._held[site]
            self._dropped.add(site)
            self._no(site, code)
        return silent

    def _no(self, site: str, code: Code) -> Verdict:
        """Note the first answer a site gave to this very question that is not in the sum."""
        self._said.setdefault(site, code)
        return Verdict(site=site, code=code)

    def _fold(self, message: Wire, body: memoryview, site: str) -> Mapping[str, str]:
        """Hold an update against the ask and add it; a refusal adds nothing."""
        if isinstance(message, Refusal):
            return {}
        if not isinstance(message, Trained):
            raise IntegrityError("an unexpected kind of reply", code=Code.OUT_OF_ORDER)
        ask = self._ask
        if message.weights != ask.weights:
            raise IntegrityError("an update for other weights", code=Code.STALE_ROUND)
        if message.parameters != ask.parameters or message.steps != ask.steps:
            raise IntegrityError("an update of another shape", code=Code.WRONG_SHAPE)
        if site in self._held or site in self._dropped:
            raise IntegrityError("a second update from one site", code=Code.REPLAYED)
        limit = self._limits.get(site, math.inf)
        if self._confirms:
            self._sum.check(site, body, limit=limit)
        else:
            self._sum.add(site, body, self._weights[site], limit=limit)
        return message.excluded

    def close(self) -> Closed:
        """End the round: late replies are no longer looked at.

        What a site answered to this very question counts first; then what else it signed (an old round, another
        study); then why there was no answer; then what it said when it was invited. An update that still waits for its
        site's word is dropped.
        """
        self.drop_held()
        present = set(self._sum.sites)
        codes = {**self._absent, **self._silent, **self._stray, **self._said}
        missing = {site: codes.get(site, Code.DROPPED) for site in self._roster if site not in present}
        return Closed(self._sum.finish(), missing, dict(self._excluded), len(present), Fate.SUMMED)


def signer_of(reply: bytes, roster: Mapping[str, VerifyKey], ask: Ask) -> str | None:
    """Return the site whose signature a refused reply bears, or None; proves nothing about when it was made."""
    limit = _limit(ask)
    try:
        header = peek(reply, max_frame=limit)
        # No kind is expected, so the check after the signature fails, and it alone fails with this code.
        nothing = Expectation(study_hash=None, run=None, recipient=header.recipient, kinds=frozenset())
        open_frame(
            reply,
            verify_key=roster.get(header.sender),
            sealing_key=None,
            expect=nothing,
            max_frame=limit,
        )
    except IntegrityError as error:
        return header.sender if error.code is Code.OUT_OF_ORDER else None
    return None


def _limit(ask: Ask) -> int:
    """Return the longest frame that can answer ``ask``."""
    return _FRAME_ROOM + ask.longest


def open_reply(
    reply: bytes,
    *,
    roster: Mapping[str, VerifyKey],
    sealing_key: SealingKey,
    ask: Ask,
    answers: Kind,
    guard: ReplayGuard | None = None,
) -> tuple[Wire, memoryview, str]:
    """Return a reply's message, body and verified sender.

    Guarantees:
        - The sender is on the roster and its signature verified before anything inside is parsed.
        - An update is accepted only sealed; only a refusal or a join may come in clear.

    Raises:
        IntegrityError: With the code of the first rule broken.
    """
    limit = _limit(ask)
    header = peek(reply, max_frame=limit)
    expectation = Expectation(
        study_hash=ask.study_hash,
        run=ask.run,
        round=ask.round,
        attempt=ask.attempt,
        sender=header.sender,
        recipient=COORDINATOR,
        kinds=frozenset({answers, Kind.REFUSAL}),
    )
    header, frame = open_frame(
        reply,
        verify_key=roster.get(header.sender),
        sealing_key=sealing_key,
        expect=expectation,
        max_frame=limit,
    )
    if guard is not None:
        guard.accept(header)
    message, body = decode(frame, max_body=ask.longest)
    agree(header, message)
    return message, body, header.sender
