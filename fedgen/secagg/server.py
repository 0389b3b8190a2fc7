"""The server's end: collects masked vectors into one sum and opens what hides the sum, and nothing else.

A pure state machine: bytes in, bytes out. A message that is refused leaves the state as it was; the sender counts as
absent unless it sends a better one in time. Memory is one vector, whatever the number of sites.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from fedgen.crypto.agreement import check_public
from fedgen.crypto.keys import SIGNATURE_BYTES
from fedgen.errors import Code, IntegrityError, QuorumLost
from fedgen.secagg import protocol, shamir, wire
from fedgen.secagg.opening import Turn, is_true, unmask
from fedgen.secagg.protocol import FalseDealing, Members, Transcript
from fedgen.secagg.terms import Recovery

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from fedgen.secagg.terms import Terms
    from fedgen.secagg.wire import Sites

    Ring = NDArray[np.unsignedinteger[Any]]

M = TypeVar("M", bound=wire.Message)


class _Phase(Enum):
    """Where the turn stands."""

    IDLE = auto()
    COLLECTING = auto()
    PROPOSED = auto()
    OPENING = auto()


@dataclass(frozen=True, slots=True)
class Aggregate:
    """The sum of the survivors' vectors in the ring, noise included.

    Attributes:
        values: Shape ``(dimension,)``, items of the terms' ring.
        survivors: Names of the sites in it.
        round: Round of the study.
        attempt: Attempt of that round.
    """

    values: Ring
    survivors: tuple[str, ...]
    round: int
    attempt: int


class ServerEnd:
    """The server's part in one setup of secure aggregation.

    Guarantees:
        - :meth:`finish` returns the exact sum of the survivors' vectors in the ring, or raises.
        - What was opened was what its owner committed to before the turn began.
        - Nothing is summed twice, and nothing that belongs to another transcript.

    Args:
        terms: From the study and the roster.
        setup: Which key agreement of the run.
    """

    __slots__ = (
        "_advertised",
        "_deals",
        "_members",
        "_offers",
        "_phase",
        "_state",
        "_turn",
        "setup",
        "terms",
    )

    def __init__(self, terms: Terms, *, setup: int = 1) -> None:
        self.terms: Final = terms
        self.setup: Final = setup
        self._advertised: dict[int, bytes] = {}
        self._members: Members | None = None
        self._offers: dict[int, dict[int, bytes]] = {}  # recipient to (sender to ciphertext and signature)
        self._deals: dict[int, wire.Deal] = {}  # the deals for the next turn
        self._turn = 0
        self._phase = _Phase.IDLE
        self._state: Turn | None = None

    # ---- once a run ---------------------------------------------------------------------------------------------

    def admit(self, sender: str, frame: Buffer) -> None:
        """Take a site's agreement key.

        Raises:
            IntegrityError: It is not signed by the site, is no key, came twice, or came late.
        """
        message = self._read(wire.Advertise, sender, frame, turn=0)
        if self._members is not None or message.site in self._advertised:
            raise IntegrityError("the key came twice or late", code=Code.REPLAYED)
        statement = protocol.advertised(self.terms, self.setup, message.site, message.public)
        self.terms.verify_key(message.site).verify(protocol.ADVERTISE, statement, message.signature)
        check_public(message.public)  # else every other site would refuse the keys, and be named in its place
        self._advertised[message.site] = message.public + message.signature

    def keys(self) -> bytes:
        """Return all keys for everyone, and close the list of members.

        Raises:
            Refused: There are too few (code ``cohort-too-small``).
        """
        message = wire.Keys(setup=self.setup, keys=tuple(sorted(self._advertised.items())))
        if self._members is None:
            self._members = protocol.read_keys(self.terms, message)
        return message.encode()

    def relay(self, sender: str, frame: Buffer) -> None:
        """Take a site's offers to its neighbours.

        Raises:
            IntegrityError: They are not one for each neighbour later in the roster, each signed, once.
        """
        message, members = self._read(wire.Offers, sender, frame, turn=0), self._known()
        wanted = tuple(peer for peer in self._graph(message.site) if peer > message.site)
        if tuple(peer for peer, _ in message.offers) != wanted:
            raise IntegrityError("an offer is missing or for nobody", code=Code.MALFORMED)
        if any(message.site in self._offers.get(peer, ()) for peer in wanted):
            raise IntegrityError("the offers came twice", code=Code.REPLAYED)
        key = self.terms.verify_key(message.site)
        for peer, row in message.offers:
            statement = protocol.offered(members, message.site, peer, row[:-SIGNATURE_BYTES])
            key.verify(protocol.OFFER, statement, row[-SIGNATURE_BYTES:])
        for peer, row in message.offers:
            self._offers.setdefault(peer, {})[message.site] = row

    def offered(self, name: str) -> bytes:
        """Return the offers for one site."""
        index = self.terms.index(name)
        rows = tuple(sorted(self._offers.get(index, {}).items()))
        return wire.Offered(setup=self.setup, site=index, offers=rows).encode()

    def missing(self) -> tuple[int, tuple[str, ...]]:
        """Return the next turn, and the names of the members whose deal for it is not here."""
        lacking = tuple(self.terms.name(site) for site in self._known().sites if site not in self._deals)
        return self._turn + 1, () if self.terms.recovery is Recovery.RESTART else lacking

    def collect(self, sender: str, frame: Buffer) -> None:
        """Take a site's deal for the next turn.

        Raises:
            IntegrityError: It is not signed by the site, not for the next turn, or does not fit the graph.
        """
        deal = self._checked_deal(sender, frame, turn=self._turn + 1)
        if deal.site in self._deals and self._deals[deal.site].encode() != deal.encode():
            raise IntegrityError("another deal for the same turn", code=Code.REPLAYED)
        self._deals[deal.site] = deal

    # ---- each turn ----------------------------------------------------------------------------------------------

    def begin(
        self, round_number: int, attempt: int, weights: str, names: Iterable[str] | None = None
    ) -> dict[str, bytes]:
        """Begin a turn and return what to send to each participant.

        An unfinished turn before it is given up.

        Args:
            round_number: Round of the study.
            attempt: Attempt of that round.
            weights: SHA-256 of the weights everybody starts from, 64 hex digits.
            names: Who takes part; all members that dealt, unless said.

        Raises:
            Refused: There are too few (code ``cohort-too-small``).
            FalseDealing: Two participants do not hold the same secret: one of the two lies.
            ValueError: Somebody named is no member, or did not deal.
        """
        members = self._known()
        ready = set(members.sites if self.terms.recovery is Recovery.RESTART else self._deals)
        chosen = ready if names is None else {self.terms.index(name) for name in names}
        if not chosen <= ready:
            raise ValueError("somebody named is no member or did not deal")
        participants = tuple(sorted(chosen))
        protocol.enough(self.terms, len(participants))
        deals = {site: self._deals[site] for site in participants if site in self._deals}
        self._check_pairs(deals)
        self._turn += 1
        transcript = Transcript(
            members.digest, self._turn, round_number, attempt, bytes.fromhex(weights), participants
        )
        empty = np.zeros(self.terms.dimension, self.terms.dtype)
        checks = {site: dict(deal.checks) for site, deal in deals.items()}
        self._state = Turn(transcript, empty, deals=deals, checks=checks)
        self._deals, self._phase = {}, _Phase.COLLECTING
        sealed = {site: dict(deal.shares) for site, deal in deals.items()}
        return {
            self.terms.name(site): wire.Start(
                setup=self.setup,
                turn=self._turn,
                site=site,
                round=round_number,
                attempt=attempt,
                weights=transcript.weights,
                participants=participants,
                shares=tuple((peer, sealed[peer][site]) for peer in self._graph(site) if peer in sealed),
            ).encode()
            for site in participants
        }

    def add(self, sender: str, frame: Buffer) -> None:
        """Add a site's masked vector to the sum, and keep its deal for the next turn.

        Raises:
            IntegrityError: ``replayed`` if it is in the sum already, ``out-of-order`` or ``stale-round`` if it belongs
                to another turn, ``late`` if the sum is closed, ``bad-signature`` if it did not sign this transcript.
        """
        state = self._at(_Phase.COLLECTING)
        message = self._read(wire.Masked, sender, frame, turn=self._turn)
        site, digest = message.site, state.transcript.digest
        if site not in state.transcript.participants:
            raise IntegrityError("the site takes no part in this turn", code=Code.UNKNOWN_SENDER)
        if site in state.inputs:
            raise IntegrityError("the site's vector is in the sum already", code=Code.REPLAYED)
        if message.transcript != digest:
            raise IntegrityError("the site answers another question", code=Code.WRONG_STUDY)
        self.terms.verify_key(site).verify(protocol.INPUT, digest, message.signature)
        body = memoryview(message.values)
        if len(body) != state.sum.nbytes:  # before it is read as numbers: it may end in the middle of one
            raise IntegrityError("the vector has another length", code=Code.WRONG_SHAPE)
        values = np.frombuffer(body, self.terms.dtype)
        deal = None
        if self.terms.recovery is Recovery.UNMASK:
            own = bytes(message.deal)  # a view of it, kept for the next turn, would keep the whole vector
            deal = self._checked_deal(sender, own, turn=self._turn + 1)
        elif memoryview(message.deal):
            raise IntegrityError("a deal where none belongs", code=Code.MALFORMED)
        np.add(state.sum, values, out=state.sum)
        state.inputs[site] = message.signature
        if deal is not None:
            self._deals[site] = deal

    def close(self) -> bytes | None:
        """Let nobody else into the sum; return what to ask the survivors to sign, or None if nothing is to be asked.

        Raises:
            QuorumLost: Too few sites are in the sum to hide each of them and to carry the noise, or under
                ``Recovery.RESTART`` not all are: the turn is void.
        """
        state = self._at(_Phase.COLLECTING)
        survivors, all_of_them = tuple(sorted(state.inputs)), state.transcript.participants
        needed = len(all_of_them) if self.terms.recovery is Recovery.RESTART else self.terms.least
        if len(survivors) < needed:
            self._give_up()
            raise QuorumLost(
                f"{len(survivors)} of {len(all_of_them)} sites answered; the turn needs {needed}"
            )
        state.survivors = survivors
        if survivors == all_of_them:
            self._phase = _Phase.OPENING
            return None
        self._phase = _Phase.PROPOSED
        rows = tuple(sorted(state.inputs.items()))
        return wire.Propose(setup=self.setup, turn=self._turn, signatures=rows).encode()

    def agreed(self, sender: str, frame: Buffer) -> None:
        """Take a survivor's signature under the survivor set.

        Raises:
            IntegrityError: It is no survivor's, or signs something else.
        """
        state = self._at(_Phase.PROPOSED)
        message = self._read(wire.Agree, sender, frame, turn=self._turn)
        if message.site not in state.survivors:
            raise IntegrityError("the site is no survivor of this turn", code=Code.UNKNOWN_SENDER)
        statement = state.transcript.survivors(state.survivors)
        self.terms.verify_key(message.site).verify(protocol.SURVIVORS, statement, message.signature)
        state.agreed[message.site] = message.signature

    def unmask(self) -> bytes | None:
        """Return what to ask the survivors to open, with the proof that enough agreed; None if nothing is to be opened.

        Raises:
            QuorumLost: Fewer than the threshold agreed: the turn is void.
        """
        if self._phase is _Phase.PROPOSED:
            state = self._at(_Phase.PROPOSED)
            if len(state.agreed) < self.terms.threshold:
                self._give_up()
                raise QuorumLost(f"{len(state.agreed)} sites agreed; the turn needs {self.terms.threshold}")
            self._phase = _Phase.OPENING
        state = self._at(_Phase.OPENING)
        if self.terms.recovery is Recovery.RESTART:
            return None
        signed = state.agreed if state.survivors != state.transcript.participants else state.inputs
        return wire.Unmask(
            setup=self.setup,
            turn=self._turn,
            survivors=state.survivors,
            signatures=tuple(sorted(signed.items())),
        ).encode()

    def revealed(self, sender: str, frame: Buffer) -> None:
        """Take the shares a survivor opened; a share that is not the one its owner dealt is left out.

        Raises:
            IntegrityError: They are no survivor's, came twice, or are no shares.
        """
        state = self._at(_Phase.OPENING)
        message = self._read(wire.Reveal, sender, frame, turn=self._turn)
        if message.site not in state.survivors:
            raise IntegrityError("the site is no survivor of this turn", code=Code.UNKNOWN_SENDER)
        if message.site in state.revealed:
            raise IntegrityError("the shares came twice", code=Code.REPLAYED)
        held = {*self._graph(message.site), message.site} & set(state.transcript.participants)
        if not {owner for owner, _ in message.shares} <= held:
            raise IntegrityError("a share this site cannot hold", code=Code.MALFORMED)
        state.revealed[message.site] = {
            owner: shamir.from_bytes(share)
            for owner, share in message.shares
            if is_true(self._known(), state, owner, message.site, share)
        }

    def finish(self) -> Aggregate:
        """Return the sum, after opening what hides it; the turn is over, whatever happens.

        Raises:
            QuorumLost: Too few shares of some secret: the turn is void.
            FalseDealing: A secret or a box is not what was committed to: the turn is void.
        """
        state = self._at(_Phase.OPENING)
        self._give_up()
        if self.terms.recovery is Recovery.UNMASK:
            unmask(self._known(), state)
        return Aggregate(
            values=state.sum,
            survivors=tuple(self.terms.name(site) for site in state.survivors),
            round=state.transcript.round,
            attempt=state.transcript.attempt,
        )

    # ---- inside -------------------------------------------------------------------------------------------------

    def _read(self, kind: type[M], sender: str, frame: Buffer, *, turn: int) -> M:
        """Return a message of this setup and turn that says it is from its sender."""
        message = kind.decode(frame, self.terms)
        if message.site != self.terms.index(sender):
            raise IntegrityError("the message names another sender", code=Code.UNKNOWN_SENDER)
        if (message.setup, message.turn) != (self.setup, turn):
            late = (message.setup, message.turn) < (self.setup, turn)
            raise IntegrityError(
                "the message belongs to another turn", code=Code.STALE_ROUND if late else Code.OUT_OF_ORDER
            )
        return message

    def _known(self) -> Members:
        """Return the members, once the list is closed."""
        if self._members is None:
            raise IntegrityError("the members are not settled yet", code=Code.OUT_OF_ORDER)
        return self._members

    def _graph(self, site: int) -> Sites:
        """Return a member's neighbours."""
        graph = self._known().graph
        if site not in graph:
            raise IntegrityError("the site is no member of this setup", code=Code.UNKNOWN_SENDER)
        return graph[site]

    def _at(self, phase: _Phase) -> Turn:
        """Return the turn if it stands at ``phase``."""
        if self._phase is not phase or self._state is None:
            late = phase is _Phase.COLLECTING and self._phase is not _Phase.IDLE
            raise IntegrityError("not now", code=Code.LATE if late else Code.OUT_OF_ORDER)
        return self._state

    def _give_up(self) -> None:
        """End the turn."""
        self._state, self._phase = None, _Phase.IDLE

    def _checked_deal(self, sender: str, frame: Buffer, *, turn: int) -> wire.Deal:
        """Return a deal that fits the graph and is its site's own."""
        deal, members = self._read(wire.Deal, sender, frame, turn=turn), self._known()
        peers = self._graph(deal.site)
        holders = tuple(sorted((*peers, deal.site)))
        if tuple(peer for peer, _ in deal.checks) != holders or any(
            tuple(peer for peer, _ in rows) != peers for rows in (deal.shares, deal.pairs)
        ):
            raise IntegrityError("a deal for others than the neighbours", code=Code.MALFORMED)
        self.terms.verify_key(deal.site).verify(protocol.DEAL, protocol.dealt(members, deal), deal.signature)
        return deal

    def _check_pairs(self, deals: dict[int, wire.Deal]) -> None:
        """Return if any two participants committed to the same secret between them.

        Who disagrees with more sites than may lie is the one that lies; of any other two nobody can say which does.
        """
        pairs = {site: dict(deal.pairs) for site, deal in deals.items()}
        apart = [
            (site, peer)
            for site, mine in pairs.items()
            for peer, commitment in mine.items()
            if site < peer and peer in pairs and pairs[peer].get(site) != commitment
        ]
        if not apart:
            return
        often = Counter(site for pair in apart for site in pair)
        liars = {site for site, times in often.items() if times > self.terms.believed}
        unclear = [pair for pair in apart if not liars & set(pair)]
        first = unclear[0] if unclear else apart[0]
        raise FalseDealing(
            f"{self.terms.name(first[0])} and {self.terms.name(first[1])} do not hold the same secret",
            liars=tuple(self.terms.name(site) for site in sorted(liars)),
            suspects=tuple(
                self.terms.name(site) for site in sorted({site for pair in unclear for site in pair})
            ),
        )
