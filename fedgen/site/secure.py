"""A site's part in sums that nobody sees through: what it answers, in which order, and what it must not forget.

:class:`~fedgen.secagg.site.SiteEnd` keeps the rules of one setup. What outlives a setup, or this process, is kept here:

- a restarted site makes a new end, and so waits for the next setup; no setup number is joined twice, and an end whose
  setup another process of the site has overtaken says nothing more;
- a round or attempt that was begun is over, whatever happened to it, and a round in which anything was revealed too;
- an attempt is charged before anything of it is computed, let alone masked: every attempt is a release.

Frames come in and go out; who sent them and who may read them is the envelope's matter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from fedgen.errors import Code, IntegrityError
from fedgen.secagg import wire
from fedgen.secagg.site import SiteEnd
from fedgen.secagg.terms import Recovery
from fedgen.secagg.wire import Kind
from fedgen.site.standing import check_ahead

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from typing_extensions import Buffer

    from fedgen.crypto.keys import SigningKey
    from fedgen.secagg.terms import Terms
    from fedgen.site.standing import Keeper, Standing

    Ring = NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True, slots=True)
class Work:
    """What a site was asked to contribute, and how.

    Attributes:
        round: Of the study.
        attempt: Of that round.
        weights: SHA-256 of the weights it was given, 64 hex digits; every participant must start from these.
        charge: Writes the attempt into the ledger, or raises; called once, before anything is computed.
        share: Returns the vector on the grid with this site's share of the noise, in the ring; may be overwritten.
    """

    round: int
    attempt: int
    weights: str
    charge: Callable[[], object]
    share: Callable[[], Ring]


class SecureSite:
    """One site under ``protocol: full``.

    Guarantees:
        - No vector leaves unmasked, or before its attempt was charged.
        - A question about other weights, another round or another attempt than the site was asked to train on is
          refused before anything is charged.
        - No setup, attempt or revealed round is begun a second time, by this process, another or a later one.

    Args:
        terms: From the study and the roster this site holds.
        name: Its name in the roster.
        identity: The key the roster holds for it.
        keeper: What outlives this process.
    """

    def __init__(self, terms: Terms, name: str, identity: SigningKey, keeper: Keeper) -> None:
        self.terms: Final = terms
        self._name, self._identity, self._keeper = name, identity, keeper
        self._standing = keeper.load()  # what cannot be read back is found out before anything is asked
        self._end: SiteEnd | None = None
        self._steps: dict[Kind, Callable[[Buffer], bytes]] = {
            Kind.INVITE: self._join,
            Kind.KEYS: lambda frame: self._joined().offer(frame),
            Kind.OFFERED: self._complete,
            Kind.WANTED: self._deal,
            Kind.PROPOSE: lambda frame: self._joined().agree(frame),
            Kind.UNMASK: self._reveal,
        }

    @property
    def begun(self) -> tuple[int, int]:
        """Round and attempt of the turn that began last, zeros if none did."""
        return self._standing.round, self._standing.attempt

    def answer(self, frame: Buffer) -> bytes:
        """Return the answer to any step but the one that asks for a vector.

        Raises:
            IntegrityError: The frame is none of these steps, or a rule forbids the answer; nothing has left then.
            Refused: Fewer sites than a sum must hold.
        """
        step = self._steps.get(wire.kind_of(frame))
        if step is None:
            raise IntegrityError("a step that is not asked of a site this way", code=Code.OUT_OF_ORDER)
        return step(frame)

    def contribute(self, frame: Buffer, work: Work) -> bytes:
        """Return the masked vector for the turn that ``frame`` begins.

        Raises:
            IntegrityError: The turn is not about this work, or not ahead; nothing was charged then.
            Refused: Fewer participants than a sum must hold; nothing was charged then.
            BudgetExhausted: From ``work.charge``; the turn is over for this site.
        """
        end = self._joined()
        start = wire.Start.decode(frame, self.terms)
        _check_work(start, work)
        check_ahead(self._standing, start.round, start.attempt)
        end.start(frame)
        self._keep(replace(self._standing, round=start.round, attempt=start.attempt))
        work.charge()
        return end.mask(work.share())

    # ---- the other steps ----------------------------------------------------------------------------------------

    def _join(self, frame: Buffer) -> bytes:
        """Send a fresh key for a setup that was never joined; what was before it is over."""
        setup = wire.Invite.decode(frame, self.terms).setup
        self._standing = self._keeper.load()
        if setup <= self._standing.setup:
            raise IntegrityError("a setup this site has joined before", code=Code.STALE_ROUND)
        end = SiteEnd(self.terms, self._name, self._identity, setup=setup)
        self._keep(replace(self._standing, setup=setup))
        self._end = end
        return end.advertise()

    def _complete(self, frame: Buffer) -> bytes:
        """Complete the agreement, and deal for the first turn where there is anything to deal."""
        end = self._joined()
        end.accept(frame)
        if self.terms.recovery is Recovery.RESTART:
            return wire.Ready(setup=end.setup, site=end.index).encode()
        return end.deal(1)

    def _deal(self, frame: Buffer) -> bytes:
        """Deal for a turn ahead, having sat out the last one."""
        end, asked = self._joined(), wire.Wanted.decode(frame, self.terms)
        if (asked.setup, asked.site) != (end.setup, end.index):
            raise IntegrityError("a deal for another setup or site", code=Code.OUT_OF_ORDER)
        return end.deal(asked.turn)

    def _reveal(self, frame: Buffer) -> bytes:
        """Reveal, and remember it before it leaves."""
        opened = self._joined().reveal(frame)
        self._keep(replace(self._standing, revealed=self._standing.round))
        return opened

    def _joined(self) -> SiteEnd:
        """Return the end of the setup this process joined, unless another process of the site joined a later one."""
        self._standing = self._keeper.load()
        if self._end is None or self._end.setup != self._standing.setup:
            raise IntegrityError("this site waits for the next setup", code=Code.OUT_OF_ORDER)
        return self._end

    def _keep(self, standing: Standing) -> None:
        self._keeper.keep(standing)
        self._standing = standing


class PlainSite:
    """One site under ``protocol: sum``: the same vectors without masks, for a simulation; it hides nothing.

    Guarantees:
        - Charges and refuses as :class:`SecureSite` does.

    Args:
        terms: From the study and the roster this site holds.
        name: Its name in the roster.
        keeper: What outlives this process.
    """

    def __init__(self, terms: Terms, name: str, keeper: Keeper) -> None:
        self.terms: Final = terms
        self._index, self._keeper = terms.index(name), keeper
        keeper.load()  # what cannot be read back is found out before anything is asked

    def contribute(self, frame: Buffer, work: Work) -> bytes:
        """Return the vector, noise included, in clear; otherwise as :meth:`SecureSite.contribute`."""
        start = wire.Start.decode(frame, self.terms)
        if start.site != self._index:
            raise IntegrityError("the message is for another site", code=Code.WRONG_RECIPIENT)
        _check_work(start, work)
        standing = self._keeper.load()
        check_ahead(standing, start.round, start.attempt)
        self._keeper.keep(replace(standing, round=start.round, attempt=start.attempt))
        work.charge()
        values = work.share()
        if values.shape != (self.terms.dimension,) or values.dtype != self.terms.dtype:
            raise ValueError(f"the vector must have {self.terms.dimension} items of {self.terms.dtype}")
        return wire.Clear(setup=start.setup, turn=start.turn, site=self._index, values=values.data).encode()


def _check_work(start: wire.Start, work: Work) -> None:
    """Return if a turn is about what this site was asked to train on."""
    asked = (start.round, start.attempt, start.weights.hex())
    if asked != (work.round, work.attempt, work.weights):
        raise IntegrityError("the turn is about other weights, or another round", code=Code.STALE_ROUND)
