"""A Flower ``Grid`` over a SuperLink that looks for replies ten times a second, and knows whose failed.

Flower's own ``send_and_receive`` pushes every message before it looks for the first reply, sleeps three seconds
between two looks, and keeps all replies; an error that the SuperLink itself reports (a node that is gone, a message
that expired) bears the SuperLink's number instead of the node's. How a reply is taken is in
:mod:`fedgen.flower.replies`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import fedgen.flower.environment  # noqa: F401  # isort: skip - before the first import of flwr
from flwr.serverapp import Grid

from fedgen.flower.failures import alive, link_failures
from fedgen.flower.replies import Replies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from flwr.app import Message, RecordDict
    from flwr.supercore.run import Run

POLL_S: Final = 0.15


class SuperLinkGrid(Grid):
    """Carries messages over another grid, Flower's own, without its waits.

    Guarantees:
        - Messages are made one at a time, each when it is pushed; replies are handed on as they come, one at a time.
        - A node that sends a part of a reply, or nonsense, costs nobody else anything.
        - A reply, or an error, bears the number of the node that was asked.
        - A reply that comes after the deadline is never handed on, nor one nobody waits for; of a node's two replies
          to one message, the first counts.
        - A message that the SuperLink did not take is left out, as if its node had been silent.
        - Flower asks again while the SuperLink is away, for as long as that takes. Where it answers with an error of
          its own instead, :class:`~fedgen.coordinator.transport.LinkFailed` is raised, without its text.

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
        self._late: dict[str, None] = {}
        self._replies: Replies | None = None

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
        with link_failures():
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
        with link_failures():
            yield from self._exchanged(messages, None if timeout is None else self._clock() + timeout)

    def _exchanged(self, messages: Iterable[Message], deadline: float | None) -> Iterator[Message]:
        waiting: dict[str, int] = {}
        try:
            for message in messages:
                node = message.metadata.dst_node_id
                for name in self._inner.push_messages([message]):
                    if name:  # None: the SuperLink did not take it
                        waiting[name] = node
            while waiting and not self._is_over(deadline):
                came = False
                for name, reply in self._looker().look(waiting):
                    if self._is_over(deadline):
                        break
                    came = True
                    reply.metadata.__dict__["_src_node_id"] = waiting.pop(name)
                    yield reply
                if waiting and not came:
                    self._sleep(self._poll_s)
        finally:
            self._forget_late()
            self._late |= dict.fromkeys(waiting)

    def alive(self) -> AbstractContextManager[None]:
        """Have the SuperLink know that this ServerApp lives, for the length of a block."""
        return alive(self._link)

    def _is_over(self, deadline: float | None) -> bool:
        return deadline is not None and self._clock() >= deadline

    def _forget_late(self) -> None:
        """Take what came too late off the SuperLink, so that sealed updates do not pile up in its database."""
        for name, _ in self._looker().look(self._late):
            del self._late[name]

    def _looker(self) -> Replies:
        """Return what looks for replies; it is made when there is a run, and then knows what is half there."""
        if self._replies is None:
            self._replies = Replies(self._link(), self._inner.run.run_id, self._clock)
        return self._replies

    def _link(self) -> Any:
        """Return what Flower's grid asks the SuperLink by."""
        return self._inner._runtime_client  # type: ignore[attr-defined]  # noqa: SLF001 - Flower has no other
