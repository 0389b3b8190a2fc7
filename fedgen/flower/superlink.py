"""A Flower ``Grid`` over a SuperLink that looks for replies ten times a second, and knows whose failed.

Flower's own ``send_and_receive`` pushes every message before it looks for the first reply, sleeps three seconds
between two looks, and keeps all replies; an error that the SuperLink itself reports (a node that is gone, a message
that expired) bears the SuperLink's number instead of the node's.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Final

import fedgen.flower.environment  # noqa: F401  # isort: skip - before the first import of flwr
from flwr.serverapp import Grid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from flwr.app import Message, RecordDict
    from flwr.supercore.run import Run

POLL_S: Final = 0.15
_PULLED: Final = 8  # replies asked for in one request: memory must not grow with the number of sites


class SuperLinkGrid(Grid):
    """Carries messages over another grid, Flower's own, without its waits.

    Guarantees:
        - Messages are made one at a time, each when it is pushed; replies are handed on as they come, a few at a time.
        - A reply, or an error, bears the number of the node that was asked.
        - A reply that comes after the deadline is never handed on, nor one nobody waits for; of a node's two replies
          to one message, the first counts.
        - A message that the SuperLink did not take is left out, as if its node had been silent.

    Args:
        inner: Flower's grid.
        poll_s: Seconds between two looks, positive.
        clock: Seconds, never set back.
        sleep: Waits so many seconds.
    """

    def __init__(
        self,
        inner: Grid,
        *,
        poll_s: float = POLL_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._inner = inner
        self._poll_s, self._clock, self._sleep = poll_s, clock, sleep
        self._late: list[str] = []

    @property
    def run(self) -> Run:
        """Flower's record of this run."""
        return self._inner.run

    def set_run(self, run: Run) -> None:
        """Replace Flower's record of this run."""
        self._inner.set_run(run)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message, as Flower's deprecated factory does."""
        return self._inner.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the nodes that are connected now."""
        return self._inner.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Push messages, all in one request."""
        return self._inner.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there."""
        return self._inner.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Yield the replies as they come; none after ``timeout`` seconds."""
        deadline = None if timeout is None else self._clock() + timeout
        waiting: dict[str, int] = {}
        try:
            for message in messages:
                node = message.metadata.dst_node_id
                for name in self._inner.push_messages([message]):
                    if name:  # None: the SuperLink did not take it
                        waiting[name] = node
            while waiting and not self._is_over(deadline):
                came = False
                for names in _in_parts(list(waiting)):
                    for reply in self._inner.pull_messages(names):
                        node_asked = waiting.pop(reply.metadata.reply_to_message_id, None)
                        if node_asked is None or self._is_over(deadline):
                            continue
                        came = True
                        reply.metadata.__dict__["_src_node_id"] = node_asked
                        yield reply
                if waiting and not came:
                    self._sleep(self._poll_s)
        finally:
            self._forget_late()
            self._late += waiting

    def _is_over(self, deadline: float | None) -> bool:
        return deadline is not None and self._clock() >= deadline

    def _forget_late(self) -> None:
        """Take what came too late off the SuperLink, so that sealed updates do not pile up in its database."""
        for names in _in_parts(self._late):
            for reply in self._inner.pull_messages(names):
                name = reply.metadata.reply_to_message_id
                if name in self._late:
                    self._late.remove(name)


def _in_parts(names: list[str]) -> Iterator[list[str]]:
    """Yield the names a few at a time."""
    rest = iter(names)
    while part := list(itertools.islice(rest, _PULLED)):
        yield part
