"""Sites that were absent when a run began and come later: they are invited once more, now and then, before a round.

Whoever joins is in from that round on. A site whose ledger says that it took part in a later round than this run knows
stays out, as it does at the beginning: one of the two was rolled back.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from fedgen.coordinator.rollcall import RollCall
from fedgen.coordinator.transport import to_all
from fedgen.errors import Code

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fedgen.coordinator.post import Post
    from fedgen.messages import Join

AGAIN_S: Final = 30.0
_MOST_TIMES_LONGER: Final = 20
_ANSWER_S: Final = 60.0


class Latecomers:
    """Invites absent sites again; pauses double while nobody comes.

    Guarantees:
        - Nobody who takes part is asked, and nobody is unseated.
        - What a site answers changes its own standing only.

    Args:
        post: The run's post.
        join: What a site is shown.
        absent: Site to code, of the sites that do not take part; changed here as they come.
        again_s: Seconds from one invitation to the next; None never invites again.
        clock: Seconds, never set back.
    """

    def __init__(
        self,
        post: Post,
        join: Join,
        absent: dict[str, Code],
        *,
        again_s: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._post, self._join, self._absent = post, join, absent
        self._again_s, self._clock = again_s, clock
        self._times = 1
        self._last = clock()

    def invite(self, done: int) -> tuple[str, ...]:
        """Invite absent sites whose nodes are there, if it is time; return who came.

        Args:
            done: Rounds this run has finished.
        """
        if self._again_s is None or not self._absent:
            return ()
        if self._clock() < self._last + self._again_s * self._times:
            return ()
        post = self._post
        nodes = [node for node in post.transport.nodes(0, 0.0) if node not in post.nodes]
        self._last = self._clock()
        if not nodes:
            return ()  # to look costs nothing
        roll = RollCall(post.study_hash, post.run, post.roster, post.keys.sealing, done=done)
        frames = to_all(post.signed(self._join), nodes)
        for answer in post.transport.exchange(frames, min(post.timeout, _ANSWER_S), "join-late"):
            if answer.reply is not None:
                roll.accept(answer.node, answer.reply)
        present = roll.close()
        came = {site: node for site, node in present.places.items() if site in self._absent}
        self._note(present.absent)
        for site in came:
            del self._absent[site]
        if came:
            post.seat({**post.places, **came})
        self._times = 1 if came else min(2 * self._times, _MOST_TIMES_LONGER)
        self._last = self._clock()
        return tuple(came)

    def _note(self, said: Mapping[str, Code]) -> None:
        """Keep the newest reason of each absent site that gave one."""
        for site, code in said.items():
            if site in self._absent and code is not Code.DROPPED:
                self._absent[site] = code
