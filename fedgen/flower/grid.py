"""A Flower ``Grid`` inside one process: the same apps as in a deployment, no start-up, flat memory.

Flower's own simulator starts Ray for every run and keeps all replies until the round ends. This grid runs
unmodified ``ClientApp`` objects on a few threads and yields replies as they come, so that memory does not
grow with the number of nodes.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING

import fedgen.flower.environment  # noqa: F401  # isort: skip - before the first import of flwr
from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedgen.flower.records import copy_shell
from fedgen.flower.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future

    from flwr.clientapp import ClientApp

_FIRST_NODE = 1000
_AHEAD_PER_WORKER = 4


class InProcessGrid(Grid):
    """Runs ``nodes`` copies of one ClientApp in this process.

    Guarantees:
        - Every node is present from the start, so the first round sees the whole roster.
        - One node handles one message at a time; a node still busy with a late message is not sent another.
        - Replies come in the order of the messages and no more than a small window is held.
        - A reply after ``timeout`` is dropped, as Flower's own grids do.
        - Whatever the app raises becomes Flower's error reply with a code and no text.

    Args:
        app: The ClientApp every node runs.
        nodes: Number of nodes, at least one; node ``i`` sees ``partition-id = i``.
        workers: Threads that run nodes, at least one.
    """

    def __init__(self, app: ClientApp, nodes: int, *, workers: int) -> None:
        self._app = app
        self._run = Run.create_empty(run_id=secrets.randbits(62) + 1)
        TaskIdentity.run_id = self._run.run_id
        TaskIdentity.node_id = SUPERLINK_NODE_ID
        TaskIdentity.task_id = 1
        self._count = nodes
        self._numbers = itertools.count(1)
        self._workers: Workers[Message] = Workers(workers)
        self._window = max(1, workers) * _AHEAD_PER_WORKER
        self._busy: set[int] = set()
        self._lock = threading.Lock()
        self._pushed: dict[str, tuple[int, Future[Message]]] = {}

    @property
    def run(self) -> Run:
        """Flower's record of this run."""
        return self._run

    def set_run(self, run: Run) -> None:
        """Replace Flower's record of this run."""
        self._run = run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message, as Flower's deprecated factory does."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return every node; constant for the life of the grid."""
        return list(range(_FIRST_NODE, _FIRST_NODE + self._count))

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Start every message; unlike :meth:`send_and_receive` this holds all replies until pulled."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return the replies that are ready among ``message_ids``."""
        ready = [name for name in message_ids if name in self._pushed and self._pushed[name][1].done()]
        return [self._pushed.pop(name)[1].result() for name in ready]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        """Yield the replies as they come, in the order of the messages; lazily, one window ahead."""
        deadline = None if timeout is None else time.monotonic() + timeout
        waiting: list[str] = []
        queue = iter(messages)
        try:
            while True:
                ahead = itertools.islice(queue, self._window - len(waiting))
                waiting += [self._push(m) for m in ahead if not self._is_busy(m.metadata.dst_node_id)]
                if not waiting:
                    return
                reply = self._await(waiting.pop(0), deadline)
                if reply is not None:
                    yield reply
        finally:
            for name in waiting:
                self._abandon(name)

    def close(self) -> None:
        """End the idle threads."""
        self._workers.close()

    def _is_busy(self, node: int) -> bool:
        with self._lock:
            return node in self._busy

    def _push(self, message: Message) -> str:
        name = f"m{next(self._numbers)}"
        message.metadata.__dict__["_message_id"] = name
        node = message.metadata.dst_node_id
        with self._lock:
            self._busy.add(node)
        own = Message(metadata=message.metadata, content=copy_shell(message.content))  # type: ignore[call-overload]  # as Flower's own grids do
        self._pushed[name] = (node, self._workers.submit(lambda: self._call(own, node)))
        return name

    def _call(self, message: Message, node: int) -> Message:
        """Run the app for one message; the node is free again whatever happens."""
        context = Context(
            run_id=self._run.run_id,
            node_id=node,
            node_config={"partition-id": node - _FIRST_NODE, "num-partitions": self._count},
            state=RecordDict(),
            run_config={},
        )
        try:
            reply = self._app(message, context)
            reply.metadata.__dict__["_message_id"] = f"r{next(self._numbers)}"
        except BaseException:  # noqa: BLE001 - one node's exit must not end the others, nor its text leave it
            error = Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason="fault")
            reply = Message(error, reply_to=message)
            reply.metadata.__dict__["_message_id"] = f"r{next(self._numbers)}"
        finally:
            self._free(node)
        return reply

    def _free(self, node: int) -> None:
        with self._lock:
            self._busy.discard(node)

    def _await(self, name: str, deadline: float | None) -> Message | None:
        _node, future = self._pushed[name]
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        try:
            reply = future.result(left)
        except FutureTimeout:
            self._abandon(name)
            return None
        del self._pushed[name]
        return reply

    def _abandon(self, name: str) -> None:
        """Stop waiting for a reply; it is dropped when it comes."""
        node, future = self._pushed.pop(name)
        if self._workers.give_up(future):
            self._free(node)  # it never ran, so nothing else would
