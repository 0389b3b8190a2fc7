"""A SuperLink that fails for a while: what asks it asks again, and is there when it is back.

Flower 1.41 takes a 500 (a full disk, a locked database) for the end. A SuperNode that asks for messages stops working.
The heartbeats of a node, and those of a ServerApp, come from a thread that ends of such an answer, and nobody looks at
that thread. The node goes on asking for messages, and from a minute later on, for good, it counts as gone: each message
to it is answered with an error. The ServerApp goes on working, and a minute later its run counts as failed.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

import fedgen.flower.environment  # noqa: F401  # isort: skip - before the first import of flwr
import httpx
from flwr.proto.runtime_pb2 import SendTaskHeartbeatRequest
from flwr.supercore.run import RunNotRunningException

from fedgen.coordinator.transport import LinkFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_EVERY_S: Final = 15.0
_FAILED: Final = 500  # and above


def failed_itself(error: BaseException) -> bool:
    """Say whether an error is the SuperLink's answer that it failed, which may pass."""
    return isinstance(error, httpx.HTTPStatusError) and error.response.status_code >= _FAILED


def steady(beat: Callable[[], bool], refused: Callable[[str], object]) -> Callable[[], bool]:
    """Return a heartbeat that is sent again, after Flower's own pauses, when the SuperLink failed to take it.

    Args:
        beat: Sends one; returns whether it was taken.
        refused: Hears the name of any other error, before it is raised: the heart then stands still for good.
    """

    def beats() -> bool:
        try:
            return beat()
        except Exception as error:
            if failed_itself(error):
                return False
            refused(type(error).__name__)
            raise

    return beats


def asking_on(pull: Callable[..., int | None], said: Callable[[str], object]) -> Callable[..., int | None]:
    """Return Flower's function that pulls a message, for which a SuperLink that failed has none just now.

    Args:
        pull: Takes ``receive``, which returns a message or None, and others; returns the message's run, or None.
        said: Hears a line when the SuperLink begins to fail, and when it is back.
    """
    failing = False

    def pulled(*, receive: Callable[[], object], **others: object) -> int | None:
        def receiving() -> object:
            nonlocal failing
            was = failing
            try:
                found = receive()
            except httpx.HTTPStatusError as error:
                if not failed_itself(error):
                    raise
                failing, found = True, None
            else:
                failing = False
            if failing != was:
                said("the SuperLink fails; it is asked again" if failing else "the SuperLink is back")
            return found

        return pull(receive=receiving, **others)

    return pulled


class TaskLink(Protocol):
    """What of a SuperLink's Runtime API a heartbeat needs; the name is Flower's."""

    def SendTaskHeartbeat(self, request: SendTaskHeartbeatRequest) -> Any:  # noqa: N802
        """Say that this ServerApp lives."""
        ...


@contextmanager
def alive(link: Callable[[], TaskLink], every_s: float = _EVERY_S) -> Iterator[None]:
    """Send a ServerApp's heartbeats for the length of the block, beside Flower's own, of which one may be the last.

    Guarantees:
        - Whatever the SuperLink answers, or does not, the next heartbeat is sent.
        - It decides nothing: that a run was stopped is for whoever asks the SuperLink something next.
        - The end of the block does not wait for an answer.

    Args:
        link: Returns what may be used by several threads; asked for with each heartbeat.
        every_s: Seconds between two; Flower counts a ServerApp as gone after sixty without one.
    """
    stop = threading.Event()

    def beats() -> None:
        while not stop.wait(every_s):
            with suppress(Exception, RunNotRunningException):
                link().SendTaskHeartbeat(SendTaskHeartbeatRequest())

    threading.Thread(target=beats, name="heartbeats", daemon=True).start()
    try:
        yield
    finally:
        stop.set()


@contextmanager
def link_failures() -> Iterator[None]:
    """Have what a ServerApp's SuperLink fails with raised as what it means, without its text.

    Raises:
        LinkFailed: An error of HTTP that Flower does not ask again after.
    """
    try:
        yield
    except httpx.HTTPError as error:
        hint = "see the output of `fedgen server up`; `fedgen doctor --home HOME` may say why"
        raise LinkFailed(f"the SuperLink failed ({type(error).__name__})", hint=hint) from None
