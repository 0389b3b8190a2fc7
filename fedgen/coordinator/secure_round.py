"""The coordinator's part in sums that nobody sees through: setups, turns, and what to do when sites fall silent.

:class:`~fedgen.secagg.server.ServerEnd` knows one setup. This drives it, over whatever carries frames, and keeps what
the core asks of its wiring: setups count upwards across restarts; before sites are asked to open a round that is
written down, for they open it once, and a sum that is lost afterwards is lost, so its round is never asked again.

A round ends in an :class:`~fedgen.secagg.server.Aggregate` or in a :class:`Void`, never in something between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedgen.errors import Code, IntegrityError, QuorumLost, Refused
from fedgen.secagg import wire
from fedgen.secagg.plain import PlainSum
from fedgen.secagg.protocol import FalseDealing
from fedgen.secagg.server import Aggregate, ServerEnd
from fedgen.secagg.terms import Recovery

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

    from fedgen.coordinator.secure_store import Store
    from fedgen.secagg.terms import Terms

    Ring = NDArray[np.unsignedinteger[Any]]
    Frame = bytes | memoryview
    Ask = Callable[[Mapping[str, bytes], str], Iterable[tuple[str, Frame]]]
    Note = Callable[[str, Code], None]
    Confirm = Callable[[tuple[str, ...]], Collection[str]]

MOST_HELD: Final = 256 * 2**20  # bytes of vectors that wait for their sites' word before they are summed


@dataclass(frozen=True, slots=True)
class Void:
    """A turn that ended without a sum.

    Attributes:
        round: Round of the study.
        attempt: Attempt of that round.
        why: In one clause.
        again: Whether the round may be asked again under a later attempt; else it is lost, and the next one follows.
    """

    round: int
    attempt: int
    why: str
    again: bool


class SecureRounds:
    """Runs turns of secure aggregation under ``protocol: full``.

    Guarantees:
        - :meth:`round` returns the exact sum of at least as many sites as the terms say, or a :class:`Void`; nothing
          that a site sends makes it raise.
        - A site that fell silent, or lied, is named with a code and sat out; a new setup begins when too few are left.
        - Who dealt falsely by what it signed, or by the word of more sites than may lie, is in no later setup of this
          process; of two sites that do not hold the same secret both are named, and neither is left out.
        - Nothing is asked to be opened before that is written down.

    Args:
        terms: From the study and the roster.
        ask: Sends each site its frame and yields who answered what, verified by the envelope; a second argument names
            the step.
        store: What outlives this process.
        note: Hears of each answer that did not count.
        confirm: Says which of the sites, whose vectors wait, may be summed; None where a study does not confirm.
        fewest: Fewest sites in a sum, where that is more than the terms ask for.
    """

    def __init__(
        self,
        terms: Terms,
        ask: Ask,
        *,
        store: Store,
        note: Note,
        confirm: Confirm | None = None,
        fewest: int = 0,
    ) -> None:
        self.terms: Final = terms
        self._fewest = max(fewest, terms.least)
        self._ask, self._store, self._note, self._confirm = ask, store, note, confirm
        self._server: ServerEnd | None = None
        self._ready: set[str] = set()  # members that answered when they were last asked
        self.left_out: set[str] = set()  # who dealt falsely for certain

    def rejoin(self) -> None:
        """Begin the next round with a new setup, so that sites which sat out may come back."""
        self._server = None

    def round(self, number: int, attempt: int, weights: str) -> Aggregate | Void:
        """Run one attempt of one round.

        Args:
            number: Round of the study, one-based.
            attempt: Of that round; a number that was never used.
            weights: SHA-256 of the weights everybody starts from, 64 hex digits.
        """
        if number <= self._store.opened():
            return Void(number, attempt, "the round was opened before, and its sum was lost", again=False)
        try:
            server, starts = self._begin(number, attempt, weights)
            self._collect(server, starts)
            self._agree(server)
            self._open(server, number)
            return server.finish()
        except (QuorumLost, Refused) as error:
            return Void(number, attempt, error.what, again=number > self._store.opened())
        except IntegrityError as error:
            self._server = None  # nobody's secrets of this setup are relied on again
            if isinstance(error, FalseDealing):
                self._name(error)
            return Void(number, attempt, error.what, again=number > self._store.opened())

    # ---- once a setup -------------------------------------------------------------------------------------------

    def _setup(self) -> ServerEnd:
        """Agree on keys anew, without those that fall silent on the way.

        Raises:
            Refused: Too few sites are left for any sum.
            QuorumLost: Too few are left for this study's.
        """
        names = [name for name, _ in self.terms.sites if name not in self.left_out]
        while True:  # each time round at least one site fewer, and there is a fewest
            server = ServerEnd(self.terms, setup=self._store.next_setup())
            invite = wire.Invite(setup=server.setup).encode()
            names = self._take(dict.fromkeys(names, invite), "advertise", server.admit)
            self._enough(len(names))
            keys = server.keys()
            offered = self._take(dict.fromkeys(names, keys), "offer", server.relay)
            if len(offered) < len(names):
                names = offered
                continue  # the others wait for offers that will never come
            completed = self._take(
                {name: server.offered(name) for name in names}, "deal", self._completes(server)
            )
            self._enough(len(completed))
            self._ready = set(completed)
            return server

    def _completes(self, server: ServerEnd) -> Callable[[str, Frame], None]:
        """Return what is done with the answer to the last step of a setup."""

        def ready(sender: str, frame: Frame) -> None:
            message = wire.Ready.decode(frame, self.terms)
            if (message.setup, message.site) != (server.setup, self.terms.index(sender)):
                raise IntegrityError("an answer of another setup or site", code=Code.OUT_OF_ORDER)

        return ready if self.terms.recovery is Recovery.RESTART else server.collect

    # ---- each turn ----------------------------------------------------------------------------------------------

    def _begin(self, number: int, attempt: int, weights: str) -> tuple[ServerEnd, dict[str, bytes]]:
        """Return the setup's end and what begins the turn, after a new setup where too few are ready."""
        if self._server is not None:
            self._refill(self._server)
        if self._server is None or len(self._ready) < self._fewest:
            self._server = None
            self._server = self._setup()
        server = self._server
        return server, server.begin(number, attempt, weights, sorted(self._ready))

    def _refill(self, server: ServerEnd) -> None:
        """Ask those who sat out the last turn, and answered before, for their deals; who is silent again stays out."""
        turn, lacking = server.missing()
        wanted = {
            name: wire.Wanted(setup=server.setup, turn=turn, site=self.terms.index(name)).encode()
            for name in lacking
            if name in self._ready
        }
        if wanted:
            self._ready -= set(wanted)
            self._ready |= set(self._take(wanted, "deal", server.collect))

    def _collect(self, server: ServerEnd, starts: Mapping[str, bytes]) -> None:
        """Add up the vectors that come in; under a study that confirms, after their sites' word."""
        answers = confirmed(self._ask(starts, "mask"), starts, self._confirm, self._note)
        answered = self._accept(answers, starts, server.add)
        if self.terms.recovery is Recovery.RESTART:
            self._ready &= set(answered)  # nobody deals here, so nobody is asked before the next attempt
        self._enough(len(answered))

    def _agree(self, server: ServerEnd) -> None:
        """Close the sum; where somebody is missing, have the others sign who is in it."""
        propose = server.close()
        if propose is not None:
            survivors = self._sites(wire.Propose.decode(propose, self.terms).signatures)
            self._take(dict.fromkeys(survivors, propose), "agree", server.agreed)

    def _open(self, server: ServerEnd, number: int) -> None:
        """Have the survivors open what hides the sum; from here on the round is used up."""
        unmask = server.unmask()
        if unmask is None:
            return
        self._store.opening(number)
        message = wire.Unmask.decode(unmask, self.terms)
        agreed = self._sites(message.signatures)  # who did not agree on these survivors would refuse
        self._take(dict.fromkeys(agreed, unmask), "reveal", server.revealed)

    def _enough(self, sites: int) -> None:
        """Return if so many sites are enough for a sum of this study.

        Raises:
            QuorumLost: They are not; nothing was opened.
        """
        if sites < self._fewest:
            raise QuorumLost(
                f"{sites} of {len(self.terms.sites)} sites answered; the study needs {self._fewest}"
            )

    # ---- inside -------------------------------------------------------------------------------------------------

    def _take(
        self, frames: Mapping[str, bytes], step: str, accept: Callable[[str, Frame], object]
    ) -> list[str]:
        """Ask, hand each answer on, and return whose counted."""
        return self._accept(self._ask(frames, step), frames, accept)

    def _accept(
        self,
        answers: Iterable[tuple[str, Frame]],
        asked: Collection[str],
        accept: Callable[[str, Frame], object],
    ) -> list[str]:
        """Hand each answer on, note what did not count, and return whose did."""
        counted: dict[str, None] = {}  # each once, however often it answers
        for sender, frame in answers:
            if sender not in asked:
                self._note(sender, Code.UNKNOWN_SENDER)
                continue
            try:
                accept(sender, frame)
            except IntegrityError as error:
                self._note(sender, error.code)
            else:
                counted[sender] = None
        return list(counted)

    def _name(self, error: FalseDealing) -> None:
        """Name who dealt falsely or may have, and leave out who did for certain."""
        for name in (*error.liars, *error.suspects):
            self._note(name, error.code)
        self.left_out |= set(error.liars)

    def _sites(self, rows: Iterable[tuple[int, bytes]]) -> Iterator[str]:
        """Yield the names of the sites in a list."""
        return (self.terms.name(site) for site, _ in rows)


class PlainRounds:
    """Runs the same turns under ``protocol: sum``, for simulations: vectors come in clear and are added up.

    Guarantees:
        - For the same vectors of the same survivors, the aggregate has the same bits as that of :class:`SecureRounds`.
        - A turn that would be void there for want of vectors is void here.

    Args:
        terms: From the study and the roster.
        ask: As in :class:`SecureRounds`.
        note: As in :class:`SecureRounds`.
        confirm: As in :class:`SecureRounds`.
        fewest: As in :class:`SecureRounds`.
        reached: Returns who can be asked at all; everybody, unless given. The full protocol finds that out in its
            setup, which is charged to nobody.
    """

    def __init__(
        self,
        terms: Terms,
        ask: Ask,
        *,
        note: Note,
        confirm: Confirm | None = None,
        fewest: int = 0,
        reached: Callable[[], Collection[str]] | None = None,
    ) -> None:
        self._fewest = max(fewest, terms.least)
        self.terms: Final = terms
        self._ask, self._note, self._confirm, self._reached = ask, note, confirm, reached
        self._turn = 0
        self._ready = {name for name, _ in terms.sites}
        self.left_out: set[str] = set()  # nobody deals here

    def rejoin(self) -> None:
        """Ask everybody in the roster again in the next round."""
        self._ready = {name for name, _ in self.terms.sites}

    def round(self, number: int, attempt: int, weights: str) -> Aggregate | Void:
        """Run one attempt of one round; see :meth:`SecureRounds.round`."""
        self._turn += 1
        if len(self._asked()) < self._fewest:
            self.rejoin()
        names = self._asked()
        if len(names) < self._fewest:
            return Void(number, attempt, f"{len(names)} sites can be asked", again=True)
        plain = PlainSum(self.terms)
        plain.begin(number, attempt, names)
        asked = tuple(sorted(self.terms.index(name) for name in names))
        starts = {
            self.terms.name(site): wire.Start(
                setup=0,
                turn=self._turn,
                site=site,
                round=number,
                attempt=attempt,
                weights=bytes.fromhex(weights),
                participants=asked,
                shares=(),
            ).encode()
            for site in asked
        }
        answered = set()
        for sender, frame in confirmed(self._ask(starts, "mask"), starts, self._confirm, self._note):
            try:
                plain.add(sender, self._vector(sender, frame))
                answered.add(sender)
            except IntegrityError as error:
                self._note(sender, error.code)
        if self.terms.recovery is Recovery.RESTART:
            self._ready &= answered
        if len(answered) < self._fewest:
            return Void(number, attempt, f"{len(answered)} sites answered", again=True)
        try:
            return plain.finish()
        except QuorumLost as error:
            return Void(number, attempt, error.what, again=True)

    def _asked(self) -> set[str]:
        """Return who takes part in the next turn."""
        return self._ready if self._reached is None else self._ready & set(self._reached())

    def _vector(self, sender: str, frame: Frame) -> Ring:
        """Return the vector in a site's answer to this turn."""
        message = wire.Clear.decode(frame, self.terms)
        if message.site != self.terms.index(sender):
            raise IntegrityError("the message names another sender", code=Code.UNKNOWN_SENDER)
        if message.turn != self._turn:
            raise IntegrityError("the message belongs to another turn", code=Code.STALE_ROUND)
        body = memoryview(message.values)
        if len(body) != self.terms.dimension * self.terms.dtype.itemsize:
            raise IntegrityError("the vector has another length", code=Code.WRONG_SHAPE)
        return np.frombuffer(body, self.terms.dtype)


def confirmed(
    answers: Iterable[tuple[str, Frame]], asked: Collection[str], confirm: Confirm | None, note: Note
) -> Iterator[tuple[str, Frame]]:
    """Yield answers as they come; where a study confirms, each once its site said that it may be summed.

    What was added to a sum cannot be taken out again, and once it is opened nobody can take it back: so the word comes
    before the vector is added. Waiting vectors are bounded by :data:`MOST_HELD`; of one site's two, the first waits.
    """
    if confirm is None:
        yield from answers
        return
    held: dict[str, Frame] = {}
    seen: set[str] = set()
    for sender, frame in answers:
        if sender not in asked or sender in seen:
            note(sender, Code.REPLAYED if sender in seen else Code.UNKNOWN_SENDER)
            continue
        seen.add(sender)
        held[sender] = frame
        if sum(map(len, held.values())) > MOST_HELD:
            yield from _flushed(held, confirm)
    yield from _flushed(held, confirm)


def _flushed(held: dict[str, Frame], confirm: Confirm) -> list[tuple[str, Frame]]:
    """Return the waiting answers whose sites said yes; the others are dropped."""
    said = set(confirm(tuple(held))) if held else set()
    yes = [(sender, frame) for sender, frame in held.items() if sender in said]
    held.clear()
    return yes
