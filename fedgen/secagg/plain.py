"""The same sums without the cryptography that cancels: for simulations of hundreds of rounds (``protocol: sum``).

Sites encode, add their noise and wrap into the ring exactly as under the full protocol; only masks, shares and
signatures are left out, whose sum is zero. So the aggregate has the same bits. It hides nothing from whoever runs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedgen.errors import Code, IntegrityError, QuorumLost
from fedgen.secagg import protocol
from fedgen.secagg.server import Aggregate
from fedgen.secagg.terms import Recovery

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from fedgen.secagg.terms import Terms

    Ring = NDArray[np.unsignedinteger[Any]]


class PlainSum:
    """Adds up one turn after another, by the rules about who may be missing that :class:`ServerEnd` has.

    Guarantees:
        - For the same vectors of the same survivors, the aggregate equals that of the full protocol, bit for bit.
        - A turn that the full protocol would give up for want of sites is given up here.

    Args:
        terms: The run's terms.
    """

    __slots__ = ("_question", "_sum", "_survivors", "terms")

    def __init__(self, terms: Terms) -> None:
        self.terms: Final = terms
        self._survivors: dict[str, bool] = {}  # participant to whether it is in the sum
        self._question = (0, 0)
        self._sum: Ring = np.zeros(0, terms.dtype)

    def begin(self, round_number: int, attempt: int, names: Iterable[str] | None = None) -> None:
        """Begin a turn; everybody in the roster takes part unless ``names`` says who.

        Raises:
            Refused: There are too few participants (code ``cohort-too-small``).
            IntegrityError: A name is not in the roster (code ``unknown-sender``).
        """
        chosen = {name for name, _ in self.terms.sites} if names is None else set(names)
        for name in chosen:
            self.terms.index(name)
        protocol.enough(self.terms, len(chosen))
        self._survivors = dict.fromkeys(sorted(chosen), False)
        self._question = (round_number, attempt)
        self._sum = np.zeros(self.terms.dimension, self.terms.dtype)

    def add(self, sender: str, values: Ring) -> None:
        """Add a site's vector, noise included.

        Raises:
            IntegrityError: The site takes no part (``unknown-sender``), is in the sum (``replayed``), or the vector has
                another shape or type (``wrong-shape``).
        """
        if sender not in self._survivors:
            raise IntegrityError("the site takes no part in this turn", code=Code.UNKNOWN_SENDER)
        if self._survivors[sender]:
            raise IntegrityError("the site's vector is in the sum already", code=Code.REPLAYED)
        if values.shape != self._sum.shape or values.dtype != self._sum.dtype:
            raise IntegrityError("the vector has another shape", code=Code.WRONG_SHAPE)
        np.add(self._sum, values, out=self._sum)
        self._survivors[sender] = True

    def finish(self) -> Aggregate:
        """Return the sum; the turn is over.

        Raises:
            QuorumLost: Too few sites are in it, or under ``Recovery.RESTART`` not all.
        """
        everyone = len(self._survivors)
        names = tuple(name for name, present in self._survivors.items() if present)
        needed = everyone if self.terms.recovery is Recovery.RESTART else self.terms.least
        self._survivors = {}
        if len(names) < needed or not names:
            raise QuorumLost(f"{len(names)} of {everyone} sites answered; the turn needs {needed}")
        return Aggregate(self._sum, names, *self._question)
