"""A coordinator's transport over any Flower grid: in this process, Ray, or a SuperLink."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fedgen.coordinator.transport import Answer
from fedgen.errors import Code, IntegrityError
from fedgen.flower.records import from_record, request

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from flwr.app import Message
    from flwr.serverapp import Grid

_POLL_S = 0.1


class FlowerTransport:
    """Carries envelopes over a Flower grid.

    Guarantees:
        - The node list is waited for before the first message, with a limit; Flower's own strategies count
          nodes before they wait and may start with a fraction of them.
        - Error replies become a code; their text is never read.
        - A node whose answer did not come in time is named at the end, whatever else it sent.

    Args:
        grid: The grid of the ServerApp.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def nodes(self, expected: int, timeout: float) -> Sequence[int]:
        """Return the nodes present, waiting up to ``timeout`` seconds for ``expected`` of them."""
        deadline = time.monotonic() + timeout
        while True:
            present = sorted(self._grid.get_node_ids())
            if len(present) >= expected or time.monotonic() >= deadline:
                return present
            time.sleep(_POLL_S)

    def exchange(self, frames: Iterable[tuple[int, bytes]], timeout: float, group: str) -> Iterator[Answer]:
        """Send each node its frame; yield what comes back within ``timeout`` seconds, then who is late."""
        silent: dict[int, None] = {}

        def messages() -> Iterator[Message]:
            for node, frame in frames:
                silent[node] = None
                yield request(frame, node, group)

        for reply in self._grid.send_and_receive(messages(), timeout=timeout):
            node = reply.metadata.src_node_id
            silent.pop(node, None)
            yield _answer(node, reply)
        for node in silent:
            yield Answer(node=node, reply=None, code=Code.LATE)


def _answer(node: int, reply: Message) -> Answer:
    """Return what a node's reply brings: bytes, or a code."""
    if reply.has_error():
        return Answer(node=node, reply=None, code=Code.DROPPED)
    try:
        return Answer(node=node, reply=from_record(reply.content))
    except IntegrityError as error:
        return Answer(node=node, reply=None, code=error.code)
