"""A coordinator's transport over a Flower grid: the whole roster is waited for, and errors become codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from fedgen.coordinator.transport import Answer, to_all
from fedgen.errors import Code
from fedgen.flower import transport as transport_module
from fedgen.flower.records import from_record, to_record
from fedgen.flower.transport import FlowerTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from flwr.supercore.run import Run


@pytest.fixture(autouse=True)
def _known_to_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class Scripted(Grid):
    """A grid of which only what the transport uses exists.

    Args:
        answer: Returns the replies to one message.
        arriving: Node numbers present at the first look, the second, and so on; the last for ever.
    """

    def __init__(self, answer: Callable[[Message], list[Message]], arriving: list[list[int]]) -> None:
        self.answer, self.arriving = answer, list(arriving)
        self.looks = 0
        self.timeouts: list[float | None] = []

    def get_node_ids(self) -> list[int]:
        self.looks += 1
        return self.arriving.pop(0) if len(self.arriving) > 1 else self.arriving[0]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterator[Message]:
        self.timeouts.append(timeout)
        for message in messages:
            message.metadata.__dict__["_message_id"] = f"m{message.metadata.dst_node_id}"
            yield from self.answer(message)

    def set_run(self, run: Run) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Run:
        raise NotImplementedError

    def create_message(self, *_args: Any, **_kwargs: Any) -> Message:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        raise NotImplementedError


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(transport_module, "time", clock)
    return clock


def _echo(message: Message) -> list[Message]:
    content = to_record(b"re: " + from_record(message.content))
    return [Message(content, reply_to=message)]


def _exchange(answer: Callable[[Message], list[Message]]) -> list[Answer]:
    grid = Scripted(answer, [[1]])
    return list(FlowerTransport(grid).exchange(to_all(b"frame", [4, 5]), 7.0, "round-1"))


def test_the_whole_roster_is_waited_for(clock: Clock) -> None:
    grid = Scripted(_echo, [[], [3], [3, 1], [3, 1, 2]])
    assert FlowerTransport(grid).nodes(3, timeout=10) == [1, 2, 3]
    assert grid.looks == 4
    assert clock.now < 101


def test_but_not_for_ever(clock: Clock) -> None:
    grid = Scripted(_echo, [[2, 1]])
    assert FlowerTransport(grid).nodes(3, timeout=10) == [1, 2]
    assert 110 <= clock.now < 111


def test_nobody_waits_for_a_roster_that_is_there(clock: Clock) -> None:
    grid = Scripted(_echo, [[1, 2, 3, 4]])
    assert FlowerTransport(grid).nodes(3, timeout=10) == [1, 2, 3, 4]
    assert (grid.looks, clock.now) == (1, 100.0)


def test_a_frame_goes_to_every_node_and_the_answers_come_back_with_their_node() -> None:
    seen: list[tuple[str, str, bytes]] = []

    def answer(message: Message) -> list[Message]:
        seen.append((message.metadata.message_type, message.metadata.group_id, from_record(message.content)))
        return _echo(message)

    assert _exchange(answer) == [Answer(4, b"re: frame"), Answer(5, b"re: frame")]
    assert seen == [("train", "round-1", b"frame")] * 2


def test_the_timeout_is_flowers_to_keep() -> None:
    grid = Scripted(_echo, [[1]])
    list(FlowerTransport(grid).exchange(to_all(b"frame", [4]), 7.0, "g"))
    assert grid.timeouts == [7.0]


def test_answers_are_streamed_one_by_one() -> None:
    asked: list[int] = []

    def answer(message: Message) -> list[Message]:
        asked.append(message.metadata.dst_node_id)
        return _echo(message)

    answers = FlowerTransport(Scripted(answer, [[1]])).exchange(to_all(b"frame", [4, 5, 6]), 7.0, "g")
    assert next(iter(answers)).node == 4
    assert asked == [4]


def test_an_error_becomes_a_code_and_its_text_is_not_read() -> None:
    def answer(message: Message) -> list[Message]:
        return [Message(Error(code=2, reason="row 12: patient 4711"), reply_to=message)]

    answers = _exchange(answer)
    assert answers == [Answer(4, None, Code.DROPPED), Answer(5, None, Code.DROPPED)]
    assert "4711" not in repr(answers)


@pytest.mark.parametrize("content", [RecordDict(), RecordDict({"fedgen": ConfigRecord({"envelope": b"x"})})])
def test_a_foreign_record_becomes_a_code(content: RecordDict) -> None:
    answers = _exchange(lambda message: [Message(content, reply_to=message)])
    assert answers == [Answer(4, None, Code.MALFORMED), Answer(5, None, Code.MALFORMED)]


def test_a_node_may_answer_twice_or_not_at_all() -> None:
    def answer(message: Message) -> list[Message]:
        return _echo(message) * 2 if message.metadata.dst_node_id == 4 else []

    assert _exchange(answer) == [Answer(4, b"re: frame"), Answer(4, b"re: frame"), Answer(5, None, Code.LATE)]


def test_who_sent_an_error_is_not_late() -> None:
    def answer(message: Message) -> list[Message]:
        return [Message(Error(code=2, reason=""), reply_to=message)]

    assert [answer.code for answer in _exchange(answer)] == [Code.DROPPED, Code.DROPPED]


def test_each_node_gets_its_own_frame_made_when_it_is_sent() -> None:
    made: list[int] = []
    sent: list[tuple[int, bytes]] = []

    def frames() -> Iterator[tuple[int, bytes]]:
        for node in (4, 5, 6):
            made.append(node)
            yield node, f"for {node}".encode()

    def answer(message: Message) -> list[Message]:
        assert made[-1] == message.metadata.dst_node_id, "no frame was made ahead"
        sent.append((message.metadata.dst_node_id, from_record(message.content)))
        return _echo(message)

    list(FlowerTransport(Scripted(answer, [[1]])).exchange(frames(), 7.0, "g"))
    assert sent == [(4, b"for 4"), (5, b"for 5"), (6, b"for 6")]
