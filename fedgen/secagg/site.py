"""The site's end: what one site says and refuses to say. A pure state machine: bytes in, bytes out, no clock, no files.

A refusal leaves the state as it was. The rules are in :mod:`fedgen.secagg.protocol`; each has a test in tests/protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fedgen.crypto.agreement import AgreementKey
from fedgen.crypto.keys import SIGNATURE_BYTES
from fedgen.crypto.stream import KeyStream
from fedgen.errors import Code, IntegrityError, Refused
from fedgen.secagg import masks, protocol, shamir, wire
from fedgen.secagg.dealing import Dealt, deal_out
from fedgen.secagg.protocol import Members, Transcript
from fedgen.secagg.terms import Recovery

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from fedgen.crypto.keys import SigningKey
    from fedgen.secagg.terms import Terms
    from fedgen.secagg.wire import Rows, Sites

    Ring = NDArray[np.unsignedinteger[Any]]


M = TypeVar("M", bound=wire.Message)


class _Phase(Enum):
    """Where a turn stands at this site."""

    IDLE = auto()
    STARTED = auto()
    MASKED = auto()
    AGREED = auto()
    REVEALED = auto()


@dataclass(frozen=True, slots=True)
class Question:
    """What a turn that this site let begin is about; the caller compares it with what it was asked to train on.

    Attributes:
        round: Round of the study.
        attempt: Attempt of that round.
        weights: SHA-256 of the weights that every participant starts from, 64 hex digits.
        participants: Their names.
    """

    round: int
    attempt: int
    weights: str
    participants: tuple[str, ...]


class SiteEnd:
    """One site's part in one setup of secure aggregation.

    Guarantees:
        - Of each participant it reveals a share of the seed or of the backup key, never both.
        - It reveals at most once in a round, and only for a survivor set that the threshold, or all, signed.
        - No vector leaves it unmasked, and no turn's masks are used twice.
        - It never goes back: not to an earlier turn, round or attempt.

    Edge cases:
        - A site that restarts makes a new end, with a new key: it sits out until the next setup.
        - Under ``Recovery.RESTART`` the masked vector is all there is: whoever gets everybody's has the sum.

    Args:
        terms: From the study and the roster this site holds.
        name: Its name in the roster.
        identity: The key the roster holds for it.
        setup: Which key agreement of the run; the wiring counts it upwards.
        stream: Where its secrets come from; the operating system's unless a test says otherwise.

    Raises:
        IntegrityError: The name is not in the roster (code ``unknown-sender``).
        ValueError: The identity is not the roster's key for this name.
    """

    __slots__ = (
        "_agreed",
        "_dealt",
        "_identity",
        "_key",
        "_last",
        "_members",
        "_offered",
        "_own",
        "_pairs",
        "_phase",
        "_revealed",
        "_shares",
        "_stream",
        "_transcript",
        "_turn",
        "index",
        "setup",
        "terms",
    )

    def __init__(
        self,
        terms: Terms,
        name: str,
        identity: SigningKey,
        *,
        setup: int = 1,
        stream: KeyStream | None = None,
    ) -> None:
        self.terms: Final = terms
        self.index: Final = terms.index(name)
        self.setup: Final = setup
        if terms.sites[self.index][1] != identity.public:
            raise ValueError("the identity is not the roster's key for this site")
        self._identity = identity
        self._stream = KeyStream.from_os() if stream is None else stream
        self._key = AgreementKey.generate(self._stream)
        self._members: Members | None = None
        self._pairs: dict[int, bytes] = {}  # site to the secret with it, for the whole setup
        self._offered = False
        self._dealt: Dealt | None = None
        self._own: tuple[bytes, bytes] = (
            b"",
            b"",
        )  # its shares of its own secrets of the turn that was masked
        self._phase = _Phase.IDLE
        self._turn = 0  # the last turn begun
        self._last = (0, 0)  # its round and attempt
        self._revealed = 0  # the last round in which anything was revealed
        self._transcript: Transcript | None = None
        self._shares: Rows = ()
        self._agreed: Sites = ()

    # ---- once a run ---------------------------------------------------------------------------------------------

    def advertise(self) -> bytes:
        """Return this setup's agreement key, signed."""
        statement = protocol.advertised(self.terms, self.setup, self.index, self._key.public)
        return wire.Advertise(
            setup=self.setup,
            site=self.index,
            public=self._key.public,
            signature=self._identity.sign(protocol.ADVERTISE, statement),
        ).encode()

    def offer(self, keys: Buffer) -> bytes:
        """Return ciphertexts for the neighbours later in the roster, once every key was found to be its site's own.

        Raises:
            IntegrityError: A key is not signed by its site, this site's own is not among them, or keys came before.
            Refused: There are fewer members than a sum must hold.
        """
        message = self._read(wire.Keys, keys, turn=0, alike=True)
        if self._members is not None:
            raise IntegrityError("keys were accepted already", code=Code.REPLAYED)
        members = protocol.read_keys(self.terms, message)
        if members.keys.get(self.index) != self._key.public:
            raise IntegrityError("this site's own key is not among the keys", code=Code.BAD_SIGNATURE)
        rows, pairs = [], {}
        for peer in members.graph[self.index]:
            if peer > self.index:
                ciphertext, pairs[peer] = self._key.offer(
                    members.keys[peer], context=members.pair(self.index, peer)
                )
                statement = protocol.offered(members, self.index, peer, ciphertext)
                rows.append((peer, ciphertext + self._identity.sign(protocol.OFFER, statement)))
        self._members, self._pairs = members, pairs
        return wire.Offers(setup=self.setup, site=self.index, offers=tuple(rows)).encode()

    def accept(self, offered: Buffer) -> None:
        """Take the ciphertexts of the neighbours earlier in the roster; the agreement is complete then.

        Raises:
            IntegrityError: A ciphertext is missing, or not signed by its site.
        """
        message = self._read(wire.Offered, offered, turn=0)
        members = self._known()
        if self._offered:
            raise IntegrityError("offers were accepted already", code=Code.REPLAYED)
        if tuple(peer for peer, _ in message.offers) != tuple(
            peer for peer in members.graph[self.index] if peer < self.index
        ):
            raise IntegrityError("an offer is missing or not for this site", code=Code.MALFORMED)
        pairs = {}
        for peer, row in message.offers:
            ciphertext, signature = row[:-SIGNATURE_BYTES], row[-SIGNATURE_BYTES:]
            statement = protocol.offered(members, peer, self.index, ciphertext)
            self.terms.verify_key(peer).verify(protocol.OFFER, statement, signature)
            pairs[peer] = self._key.accept(
                members.keys[peer], ciphertext, context=members.pair(peer, self.index)
            )
        self._pairs |= pairs
        self._offered = True

    def deal(self, turn: int) -> bytes:
        """Return this site's sealed shares for a turn that has not begun; asked again, the same bytes again.

        Raises:
            IntegrityError: The agreement is not complete, or the turn is not ahead (code ``out-of-order``).
        """
        self._complete()
        self._unmasking()
        if self._dealt is not None and self._dealt.turn == turn > self._turn:
            return self._dealt.frame
        if turn <= max(self._turn, 0 if self._dealt is None else self._dealt.turn):
            raise IntegrityError("a turn is dealt once, and ahead", code=Code.OUT_OF_ORDER)
        self._dealt = self._deal(turn)
        return self._dealt.frame

    # ---- each turn ----------------------------------------------------------------------------------------------

    def start(self, frame: Buffer) -> Question:
        """Let a turn begin, and say what it is about.

        Raises:
            IntegrityError: The turn, round or attempt was there before (``stale-round`` or ``replayed``), it was not
                dealt for (``out-of-order``), or its lists do not fit.
            Refused: There are fewer participants than a sum must hold, or fewer of this site's neighbours among
                them than open a secret (code ``cohort-too-small``).
        """
        self._complete()
        message = self._read(wire.Start, frame)
        if message.turn <= self._turn:
            raise IntegrityError("the turn has begun before", code=Code.REPLAYED)
        if (message.round, message.attempt) <= self._last or message.round <= self._revealed:
            raise IntegrityError("the round or attempt is not ahead", code=Code.STALE_ROUND)
        self._check_participants(message)
        self._transcript = Transcript(
            members=self._known().digest,
            turn=message.turn,
            round=message.round,
            attempt=message.attempt,
            weights=message.weights,
            participants=message.participants,
        )
        self._turn, self._last = message.turn, (message.round, message.attempt)
        self._shares, self._agreed, self._phase = message.shares, (), _Phase.STARTED
        return Question(
            message.round,
            message.attempt,
            message.weights.hex(),
            tuple(self.terms.name(site) for site in message.participants),
        )

    def mask(self, values: Ring) -> bytes:
        """Return the masked vector; ``values`` is overwritten, and this turn's masks are spent.

        Args:
            values: Shape ``(dimension,)``, items of the terms' ring, noise included. It is masked in place.

        Raises:
            IntegrityError: No turn has begun, or it was masked already (code ``out-of-order``).
            ValueError: The vector has another shape or type.
        """
        if values.shape != (self.terms.dimension,) or values.dtype != self.terms.dtype:
            raise ValueError(f"the vector must have {self.terms.dimension} items of {self.terms.dtype}")
        transcript = self._at(_Phase.STARTED)
        self._phase = _Phase.MASKED
        plus: list[bytes] = []
        minus: list[bytes] = []
        for peer in self._peers():
            key = masks.mask_key(masks.turn_secret(self._pairs[peer], self._turn), transcript.digest)
            (plus if self.index < peer else minus).append(key)
        deal = b""
        if self._dealt is not None:
            plus.append(masks.self_key(self._dealt.seed, transcript.digest))
            self._own = self._dealt.own
            self._dealt = self._deal(self._turn + 1)
            deal = self._dealt.frame
        masks.add_streams(values, plus, minus)
        return wire.Masked(
            setup=self.setup,
            turn=self._turn,
            site=self.index,
            transcript=transcript.digest,
            signature=self._identity.sign(protocol.INPUT, transcript.digest),
            deal=deal,
            values=values.data,
        ).encode()

    def agree(self, frame: Buffer) -> bytes:
        """Return this site's signature under a survivor set smaller than all participants; once a turn.

        Raises:
            IntegrityError: Another set was signed already (``replayed``), a survivor gave no input to this transcript
                (``bad-signature``), or the set does not fit (``malformed``).
            Refused: The set is smaller than a sum must be (code ``cohort-too-small``).
        """
        self._unmasking()
        message = self._read(wire.Propose, frame, turn=self._turn, alike=True)
        if self._phase is _Phase.AGREED:
            raise IntegrityError("a survivor set was signed already", code=Code.REPLAYED)
        transcript = self._at(_Phase.MASKED)
        survivors = tuple(site for site, _ in message.signatures)
        if not set(survivors) < set(transcript.participants) or self.index not in survivors:
            raise IntegrityError("these are not survivors of this turn", code=Code.MALFORMED)
        protocol.enough(self.terms, len(survivors))
        protocol.check_inputs(self.terms, transcript, message.signatures)
        self._agreed, self._phase = survivors, _Phase.AGREED
        signature = self._identity.sign(protocol.SURVIVORS, transcript.survivors(survivors))
        return wire.Agree(setup=self.setup, turn=self._turn, site=self.index, signature=signature).encode()

    def reveal(self, frame: Buffer) -> bytes:
        """Return one share for each participant: of its seed if it survived, else of its backup key; once a round.

        Raises:
            IntegrityError: It was done already, too few sites agreed on these survivors, or this site agreed on others.
        """
        self._unmasking()
        message = self._read(wire.Unmask, frame, turn=self._turn, alike=True)
        if self._phase is _Phase.REVEALED:
            raise IntegrityError("this round was revealed already", code=Code.REPLAYED)
        if self._transcript is not None and message.survivors == self._transcript.participants:
            transcript = self._at(_Phase.MASKED)
            if tuple(site for site, _ in message.signatures) != message.survivors:
                raise IntegrityError("a participant's signature is missing", code=Code.BAD_SIGNATURE)
            protocol.check_inputs(self.terms, transcript, message.signatures)
        else:
            transcript = self._at(_Phase.AGREED)
            if message.survivors != self._agreed:
                raise IntegrityError("this site agreed on other survivors", code=Code.OUT_OF_ORDER)
            protocol.check_agreement(self.terms, transcript, message.survivors, message.signatures)
        shares = self._opened(set(message.survivors), transcript)
        self._phase, self._revealed, self._shares = _Phase.REVEALED, transcript.round, ()
        return wire.Reveal(setup=self.setup, turn=self._turn, site=self.index, shares=shares).encode()

    # ---- inside -------------------------------------------------------------------------------------------------

    def _read(self, kind: type[M], frame: Buffer, *, turn: int | None = None, alike: bool = False) -> M:
        """Return a message of this setup and turn, for this site or for everyone alike."""
        message = kind.decode(frame, self.terms)
        if message.setup != self.setup:
            code = Code.STALE_ROUND if message.setup < self.setup else Code.OUT_OF_ORDER
            raise IntegrityError("the message belongs to another setup", code=code)
        if turn is not None and message.turn != turn:
            code = Code.STALE_ROUND if message.turn < turn else Code.OUT_OF_ORDER
            raise IntegrityError("the message belongs to another turn", code=code)
        if message.site != (wire.EVERYONE if alike else self.index):
            raise IntegrityError("the message is for another site", code=Code.WRONG_RECIPIENT)
        return message

    def _known(self) -> Members:
        """Return the members, once their keys were accepted."""
        if self._members is None:
            raise IntegrityError("no keys were accepted yet", code=Code.OUT_OF_ORDER)
        return self._members

    def _complete(self) -> None:
        """Return if the key agreement is complete."""
        self._known()
        if not self._offered:
            raise IntegrityError("the key agreement is not complete", code=Code.OUT_OF_ORDER)

    def _unmasking(self) -> None:
        """Return if there is anything to deal, agree on or reveal in this run."""
        if self.terms.recovery is not Recovery.UNMASK:
            raise IntegrityError("a step that a run with restarts does not have", code=Code.OUT_OF_ORDER)

    def _at(self, phase: _Phase) -> Transcript:
        """Return the turn's transcript if the turn stands at ``phase``."""
        if self._phase is not phase or self._transcript is None:
            raise IntegrityError(
                f"a step of a turn that is {self._phase.name.lower()}", code=Code.OUT_OF_ORDER
            )
        return self._transcript

    def _peers(self) -> tuple[int, ...]:
        """Return this site's neighbours among the participants."""
        transcript, members = self._transcript, self._known()
        taking_part = set(transcript.participants) if transcript else set()
        return tuple(peer for peer in members.graph[self.index] if peer in taking_part)

    def _check_participants(self, message: wire.Start) -> None:
        """Return if the participants are members, enough, this site among them, with the shares that go with them."""
        members = self._known()
        if not set(message.participants) <= set(members.keys) or self.index not in message.participants:
            raise IntegrityError("these are not participants this site can join", code=Code.MALFORMED)
        protocol.enough(self.terms, len(message.participants))
        if message.round < 1 or message.attempt < 1:
            raise IntegrityError("rounds and attempts count from one", code=Code.MALFORMED)
        wanted: tuple[int, ...] = ()
        taking_part = set(message.participants)
        peers = tuple(peer for peer in members.graph[self.index] if peer in taking_part)
        if len(peers) + 1 < members.holders:
            raise Refused(
                f"{len(peers)} of this site's neighbours take part; {members.holders - 1} are needed",
                code=Code.COHORT_TOO_SMALL,
                key="secagg.dropouts",
            )
        if self.terms.recovery is Recovery.UNMASK:
            if self._dealt is None or self._dealt.turn != message.turn:
                raise IntegrityError("this site did not deal for the turn", code=Code.OUT_OF_ORDER)
            wanted = peers
        if tuple(peer for peer, _ in message.shares) != wanted:
            raise IntegrityError("the shares are not those of the participants", code=Code.MALFORMED)

    def _deal(self, turn: int) -> Dealt:
        """Return fresh secrets for a turn, shared out and boxed."""
        return deal_out(self._known(), self._pairs, self.index, self._identity, self._stream, turn)

    def _opened(self, survivors: set[int], transcript: Transcript) -> Rows:
        """Return the one share for each participant that may be told; what does not open is left out."""
        found = {self.index: self._own[0]}
        for peer, sealed in self._shares:
            key = masks.share_key(self._pairs[peer], transcript.turn, peer, self.index)
            try:
                both = masks.open_once(key, sealed)
            except IntegrityError:
                continue  # somebody altered it: the others' shares are enough, or the server aborts
            found[peer] = both[: shamir.BYTES] if peer in survivors else both[shamir.BYTES :]
        return tuple(sorted(found.items()))
