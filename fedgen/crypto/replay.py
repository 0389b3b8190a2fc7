"""One acceptance per message: a repeated or overtaken one is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedgen.errors import Code, IntegrityError

if TYPE_CHECKING:
    from fedgen.crypto.header import Header


class ReplayGuard:
    """Remembers, for each sender and kind of message, the last round and attempt it accepted.

    Guarantees:
        - A message is accepted at most once; rounds, and attempts within a round, only move forward.
        - Memory grows with senders and runs, not with messages.
        - A refused message changes nothing.

    Edge cases:
        - A new guard remembers nothing: after a restart, take ``floor`` from the durable ledger.
        - Messages of no round (round 0) repeat with a higher attempt; ``floor`` does not touch them.

    Args:
        floor: Rounds below this are stale from the start.
    """

    __slots__ = ("_floor", "_last")

    def __init__(self, *, floor: int = 0) -> None:
        self._floor = floor
        self._last: dict[tuple[str, str, str, int], tuple[int, int]] = {}

    def accept(self, header: Header) -> None:
        """Accept the message of an opened envelope, once.

        Raises:
            IntegrityError: ``replayed``, or ``stale-round`` if a later one was accepted before.
        """
        place = (header.study_hash, header.run, header.sender, int(header.kind))
        position = (header.round, header.attempt)
        last = self._last.get(place)
        if position == last:
            raise IntegrityError("the message was accepted before", code=Code.REPLAYED)
        if (last is not None and position < last) or 0 < header.round < self._floor:
            raise IntegrityError("a later message was accepted before", code=Code.STALE_ROUND)
        self._last[place] = position
