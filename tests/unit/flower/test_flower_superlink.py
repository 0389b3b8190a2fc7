"""The grid over a SuperLink: looks often, forgets what is late, and knows whose error it was."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from flwr.app import Error, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedgen.coordinator.transport import LinkFailed
from fedgen.errors import Code
from fedgen.flower.records import to_record
from fedgen.flower.superlink import POLL_S, SuperLinkGrid
from fedgen.flower.transport import FlowerTransport
from tests.unit.flower.parts import Parts

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullAppMessagesResponse


class FakeLink(Grid):
    """A SuperLink whose clock only moves when somebody sleeps; each node answers after so many seconds.

    It keeps messages as Flower's does, in parts; :class:`fedgen.flower.replies.Link` is played by itself.
    """

    def __init__(self, delays: dict[int, float | None]) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 7, SUPERLINK_NODE_ID, 1
        self.now = 0.0
        self.delays = delays
        self.errors: set[int] = set()
        self.refuses: set[int] = set()
        self.pending: dict[str, tuple[float, Message]] = {}
        self.parts = Parts()
        self.PullObject, self.ConfirmMessageReceived = (
            self.parts.PullObject,
            self.parts.ConfirmMessageReceived,
        )
        self._runtime_client = self
        self.numbers = itertools.count(1)
        self.pulls: list[int] = []
        self.pushes: list[int] = []
        self.double = False

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def set_run(self, run: Run) -> None:
        self.my_run = run

    @property
    def run(self) -> Run:
        return Run.create_empty(7)

    def create_message(self, *_: Any, **__: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return list(self.delays)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        names: list[Any] = []
        for message in messages:
            node = message.metadata.dst_node_id
            self.pushes.append(node)
            if node in self.refuses:
                names.append(None)
                continue
            name = f"m{next(self.numbers)}"
            message.metadata.__dict__["_message_id"] = name
            names.append(name)
            delay = self.delays[node]
            if delay is not None:
                self.pending[name] = (self.now + delay, self._reply(message, node))
        return names

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        raise AssertionError("Flower's own waits are what is avoided")

    def _reply(self, message: Message, node: int) -> Message:
        if node in self.errors:
            reply = Message(Error(code=5, reason="gone"), reply_to=message)
            reply.metadata.__dict__["_src_node_id"] = SUPERLINK_NODE_ID
        else:
            reply = Message(message.content, reply_to=message)
        return reply

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise AssertionError("Flower's own waits for a reply of which a part is missing")

    def PullMessages(self, request: PullAppMessagesRequest) -> PullAppMessagesResponse:  # noqa: N802 - Flower's
        wanted = list(request.message_ids)
        self.pulls.append(len(wanted))
        ready = [name for name in wanted if name in self.pending and self.pending[name][0] <= self.now]
        replies = [self.pending.pop(name)[1] for name in ready]
        return self.parts.response(replies * 2 if self.double else replies)


def exchange(
    link: FakeLink, grid: SuperLinkGrid, nodes: list[int], timeout: float = 10.0
) -> list[tuple[int, Any]]:
    frames = ((node, b"to %d" % node) for node in nodes)
    answers = FlowerTransport(grid).exchange(frames, timeout, "round-1")
    return [(it.node, it.code if it.reply is None else it.reply) for it in answers]


def made(delays: dict[int, float | None]) -> tuple[FakeLink, SuperLinkGrid]:
    link = FakeLink(delays)
    return link, SuperLinkGrid(link, clock=link.clock, sleep=link.sleep)


def test_replies_are_had_within_a_look_of_their_coming() -> None:
    link, grid = made({11: 0.0, 12: 1.0})
    assert exchange(link, grid, [11, 12]) == [(11, b"to 11"), (12, b"to 12")]
    assert 1.0 <= link.now <= 1.0 + 2 * POLL_S


def test_messages_are_made_one_at_a_time() -> None:
    link, grid = made({11: 0.0, 12: 0.0})
    made_for: list[int] = []

    def messages() -> Iterable[Message]:
        for node in (11, 12):
            assert link.pushes == made_for  # the one before is out already
            made_for.append(node)
            yield Message(to_record(b"x"), dst_node_id=node, message_type="train")

    assert len(list(grid.send_and_receive(messages(), timeout=5))) == 2


def test_an_error_of_the_superlink_bears_the_number_of_the_node_that_failed() -> None:
    link, grid = made({11: 0.5, 12: 0.0})
    link.errors = {11}
    assert exchange(link, grid, [11, 12]) == [(12, b"to 12"), (11, Code.DROPPED)]


def test_what_comes_after_the_deadline_is_never_handed_on_and_is_taken_off_the_link() -> None:
    link, grid = made({11: 20.0, 12: 0.0, 13: None})
    assert exchange(link, grid, [11, 12, 13], timeout=2.0) == [
        (12, b"to 12"),
        (11, Code.LATE),
        (13, Code.LATE),
    ]
    assert 2.0 <= link.now <= 2.0 + POLL_S
    link.now = 60.0
    link.delays[11] = 0.0
    assert exchange(link, grid, [11], timeout=2.0) == [(11, b"to 11")]
    assert link.pending == {}  # the late one is gone from the database, and was not taken for an answer


def test_a_message_that_was_not_taken_is_a_silent_node() -> None:
    link, grid = made({11: 0.0, 12: 0.0})
    link.refuses = {11}
    assert exchange(link, grid, [11, 12]) == [(12, b"to 12"), (11, Code.LATE)]


def test_of_two_replies_to_one_message_the_first_counts() -> None:
    link, grid = made({11: 0.0})
    link.double = True
    assert exchange(link, grid, [11]) == [(11, b"to 11")]


def test_no_more_than_a_few_replies_are_pulled_at_once() -> None:
    link, grid = made(dict.fromkeys(range(100, 140), 0.0))
    assert len(exchange(link, grid, list(link.delays))) == 40
    assert max(link.pulls) <= 8


def test_half_a_reply_costs_nobody_else_anything() -> None:
    nodes = list(range(100, 140))
    link, grid = made(dict.fromkeys(nodes, 0.0))
    link.parts.keep_back = lambda reply: reply.metadata.src_node_id in {100, 103, 139}
    answers = exchange(link, grid, nodes, timeout=5.0)
    assert sorted(answers) == sorted(
        (node, Code.LATE if node in {100, 103, 139} else b"to %d" % node) for node in nodes
    )
    assert [node for node, _ in answers[-3:]] == [100, 103, 139]
    assert 5.0 <= link.now <= 5.0 + POLL_S


def test_the_rest_of_a_reply_may_come_later_and_in_the_next_round_it_is_taken_off_the_link() -> None:
    link, grid = made({11: 0.0, 12: 0.0})
    link.parts.keep_back = lambda reply: reply.metadata.src_node_id == 11
    link.parts.until = lambda: link.now >= 2.0
    assert exchange(link, grid, [11, 12], timeout=10.0) == [(12, b"to 12"), (11, b"to 11")]
    assert 2.0 <= link.now <= 5.0
    link.parts.until = lambda: link.now >= 60.0
    assert exchange(link, grid, [11, 12], timeout=5.0) == [(12, b"to 12"), (11, Code.LATE)]
    link.now = 70.0
    link.parts.keep_back = lambda _: False
    assert exchange(link, grid, [11, 12], timeout=5.0) == [(11, b"to 11"), (12, b"to 12")]
    assert link.parts.contents == {}


def test_everything_else_is_flowers_own() -> None:
    link, grid = made({11: 0.0})
    assert list(grid.get_node_ids()) == [11]
    run = Run.create_empty(9)
    grid.set_run(run)
    assert link.my_run is run
    assert grid.run.run_id == 7
    message = Message(RecordDict(), dst_node_id=11, message_type="train")
    assert list(grid.push_messages([message])) == ["m1"]
    with pytest.raises(AssertionError, match="waits"):
        grid.pull_messages(["m1"])


# -- a SuperLink that fails -------------------------------------------------------------------------


class Failing(FakeLink):
    """A SuperLink that answers one of its three questions with a 500."""

    def __init__(self, question: str) -> None:
        super().__init__({1: 0.1, 2: 0.1})
        self.question = question

    def _ask(self, question: str) -> None:
        if question == self.question:
            request = httpx.Request("POST", "https://127.0.0.1/canary-4711")
            answer = httpx.Response(500, request=request)
            raise httpx.HTTPStatusError("canary-4711", request=request, response=answer)

    def get_node_ids(self) -> Iterable[int]:
        self._ask("nodes")
        return super().get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self._ask("push")
        return super().push_messages(messages)

    def PullMessages(self, request: PullAppMessagesRequest) -> PullAppMessagesResponse:  # noqa: N802 - Flower's
        self._ask("pull")
        return super().PullMessages(request)


@pytest.mark.parametrize("question", ["nodes", "push", "pull"])
def test_a_superlink_that_fails_is_not_a_defect_of_ours(question: str) -> None:
    link = Failing(question)
    grid = SuperLinkGrid(link, clock=link.clock, sleep=link.sleep)
    with pytest.raises(LinkFailed, match="the SuperLink failed") as caught:
        exchange(link, grid, list(grid.get_node_ids()))
    assert "canary" not in f"{caught.value} {caught.value.__cause__}"
