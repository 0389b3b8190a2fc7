"""What a SuperLink answers with a 500 is asked again: messages are pulled, and hearts beat, when it is back."""

from __future__ import annotations

import importlib
import inspect
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.run import RunNotRunningException

from fedgen.flower.failures import alive, asking_on, steady

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_S = 20.0


def answered(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "https://127.0.0.1/")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, request=request))


class Heart:
    """Is told what each heartbeat meets, an error or whether it is taken; after that all are taken."""

    def __init__(self, *meets: BaseException | bool) -> None:
        self.meets = [*meets]
        self.beats = 0
        self.taken = threading.Event()

    def __call__(self) -> bool:
        self.beats += 1
        met = self.meets.pop(0) if self.meets else True
        if isinstance(met, BaseException):
            raise met
        if met:
            self.taken.set()
        return met

    def SendTaskHeartbeat(self, _request: object) -> bool:  # noqa: N802 - Flower's
        return self()


@pytest.mark.parametrize("status", [500, 503, 599])
def test_what_the_superlink_failed_at_is_tried_again(status: int) -> None:
    refused: list[str] = []
    assert steady(Heart(answered(status)), refused.append)() is False
    assert refused == []


@pytest.mark.parametrize(
    "error", [answered(401), answered(404), RuntimeError("no such node"), ValueError("no answer")]
)
def test_what_it_refused_is_told_and_raised(error: Exception) -> None:
    refused: list[str] = []
    with pytest.raises(type(error)):
        steady(Heart(error), refused.append)()
    assert refused == [type(error).__name__]  # and no text


@pytest.mark.parametrize("taken", [True, False])
def test_what_flower_makes_of_it_stays(*, taken: bool) -> None:
    assert steady(Heart(taken), lambda _: None)() is taken


def beating(heart: Callable[[], bool]) -> HeartbeatSender:
    sender = HeartbeatSender(heart)
    sender.start()
    return sender


def test_flowers_heart_beats_on() -> None:
    heart = Heart(answered(500), answered(500))
    sender = beating(steady(heart, lambda _: None))
    assert heart.taken.wait(WAIT_S)
    assert sender.is_running
    sender.stop()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_without_it_the_first_such_answer_is_its_last() -> None:
    """The negative control: what Flower does by itself."""
    heart = Heart(answered(500))
    sender = beating(heart)
    sender._thread.join(WAIT_S)
    assert not sender.is_running
    assert heart.beats == 1


def test_flowers_heart_is_where_it_is_looked_for() -> None:
    connection = importlib.import_module("flwr.supernode.fleet_http_connection")
    called = inspect.getsource(connection.http_request_response.__wrapped__)
    assert "heartbeat_sender = HeartbeatSender(send_node_heartbeat)" in called
    assert connection.HeartbeatSender is HeartbeatSender


# -- messages ---------------------------------------------------------------------------------------


def pull(*, receive: Callable[[], object], run: int) -> int | None:
    """Take a message as Flower does."""
    return None if receive() is None else run


def test_a_superlink_that_failed_has_no_message_just_now() -> None:
    heart, said = Heart(answered(500), answered(503), False, answered(502), True), list[str]()
    asked = asking_on(pull, said.append)
    runs = [asked(receive=lambda: heart() or None, run=7) for _ in range(5)]
    assert runs == [None, None, None, None, 7]
    fails, back = "the SuperLink fails; it is asked again", "the SuperLink is back"
    assert said == [fails, back, fails, back]  # a line for each change


@pytest.mark.parametrize("error", [answered(401), RuntimeError("another"), RunNotRunningException()])
def test_every_other_error_ends_the_node_as_before(error: BaseException) -> None:
    said: list[str] = []
    with pytest.raises(type(error)):
        asking_on(pull, said.append)(receive=Heart(error), run=7)
    assert said == []


def test_what_fails_once_there_is_a_message_is_not_asked_again() -> None:
    def pulling(*, receive: Callable[[], object]) -> int:
        receive()
        raise answered(500)

    with pytest.raises(httpx.HTTPStatusError):
        asking_on(pulling, lambda _: None)(receive=lambda: "a message")


# -- a ServerApp's heart ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [answered(500), answered(404), httpx.ConnectError("gone"), RunNotRunningException(), RuntimeError()],
)
def test_a_serverapps_heart_beats_on_whatever_it_meets(error: BaseException) -> None:
    heart = Heart(error)
    with alive(lambda: heart, 0.01):
        assert heart.taken.wait(WAIT_S)


def test_it_beats_on_while_there_is_no_link() -> None:
    heart, fails = Heart(), [AttributeError()]

    def link() -> Heart:
        if fails:
            raise fails.pop()
        return heart

    with alive(link, 0.01):
        assert heart.taken.wait(WAIT_S)


def test_it_stands_still_after_the_block_and_nobody_waits_for_an_answer() -> None:
    asked, answer = threading.Event(), threading.Event()

    class Slow:
        def SendTaskHeartbeat(self, _request: Any) -> None:  # noqa: N802 - Flower's
            asked.set()
            answer.wait(WAIT_S)

    with alive(Slow, 0.01):
        assert asked.wait(WAIT_S)
    asked.clear()
    (heart,) = (it for it in threading.enumerate() if it.name == "heartbeats")
    answer.set()
    heart.join(WAIT_S)
    assert not heart.is_alive()
    assert not asked.is_set()
