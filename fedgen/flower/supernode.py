"""Flower's SuperNode in a process that ends when the SuperNode does, so that it can be started again.

``python -m fedgen.flower.supernode [ARGUMENT...]``, with the arguments of ``flower-supernode``.

Flower 1.41 leaves four ways to a node that runs and is of no use. An error that is raised out of the main thread leaves
the thread that serves the node's own API, and so the process, alive. A SuperLink that fails for an instant ends the
thread of the node's heartbeats (:mod:`fedgen.flower.failures`). The SuperExec, which starts the app for each message,
is started once and never looked at again. And a message whose run ends while it is pulled is ignored, but its reply is
still made: from then on each reply is sent one message too late.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

MODULE: Final = "fedgen.flower.supernode"
_LOOK_S: Final = 1.0
_SENT_S: Final = 5.0
_LEAVE_S: Final = 10.0
_FAILED: Final = 1


class OutOfStep(Exception):
    """A message was taken in and ignored: replies would come one message too late."""


def in_step(pull: Callable[..., int | None]) -> Callable[..., int | None]:
    """Return Flower's function that pulls a message, for which an ignored message is the end of the SuperNode.

    Started again, it has forgotten what it was late with.

    Args:
        pull: Takes ``receive``, which returns a message or None, and others; returns the message's run, or None if
            there was no message or it is ignored.

    Raises:
        OutOfStep: There was a message, and it is ignored.
    """

    def pulled(*, receive: Callable[[], object], **others: object) -> int | None:
        got: list[object] = []

        def receiving() -> object:
            found = receive()
            if found is not None:
                got.append(found)
            return found

        run = pull(receive=receiving, **others)
        if run is None and got:
            raise OutOfStep
        return run

    return pulled


def ends(
    program: Callable[[], object], say: Callable[[str], object], leave: Callable[[int], object] = os._exit
) -> None:
    """Run a program, and then leave the process whatever other threads still run; does not return.

    Args:
        program: Returns, exits or raises when it is done.
        say: Hears in a line why it ended, where that is not its own word; no text of an error is passed on.
        leave: Ends the process at once.
    """
    code: object = _FAILED
    try:
        program()
        code = 0
    except SystemExit as told:
        code = told.code
    except BaseException as error:  # noqa: BLE001 - whatever it is, the process must end
        say(f"the SuperNode failed: {type(error).__name__}")
    leave(code if isinstance(code, int) else _FAILED if code else 0)


def watch_children(
    lost: Callable[[int], object], stop: threading.Event | None = None, look_s: float = _LOOK_S
) -> None:
    """Wait until a child of this process has ended and nobody asks how; say which.

    A child whose end is waited for, as usual, is gone from one look to the next. The SuperExec's never is.

    Args:
        lost: Hears the number of the process; called once.
        stop: Ends the watch.
        look_s: Seconds between two looks.
    """
    stop = stop or threading.Event()
    before = 0
    while not stop.wait(look_s):
        ended = _ended_child()
        if ended and ended == before:
            lost(ended)
            return
        before = ended


def _ended_child() -> int:
    """Return a child that has ended and was not waited for, or 0; it stays as it is."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    except ChildProcessError:
        return 0
    return 0 if found is None else found.si_pid


def main() -> None:
    """Run the SuperNode with this process's arguments."""
    from flwr.supernode.cli import flower_supernode

    import fedgen.flower.environment  # noqa: F401 - before the first import of flwr
    from fedgen.flower.failures import asking_on, steady
    from fedgen.flower.own_user import guard

    guard(())  # its own interface hands out the site's messages to whoever asks on this machine

    def say(line: str) -> None:
        print(f"fedgen: {line}", file=sys.stderr, flush=True)  # noqa: T201 - its whole voice

    def leave(why: str) -> None:
        say(f"the SuperNode {why}")
        time.sleep(_SENT_S)  # a reply that is on its way arrives whole, and its round counts
        os.kill(os.getpid(), signal.SIGTERM)  # it then takes its leave, and is let in again at once
        time.sleep(_LEAVE_S)
        os._exit(_FAILED)

    def lost(number: int) -> None:
        leave(f"has lost its SuperExec (process {number})")

    def unheard(error: str) -> None:
        # In a thread of its own: taking its leave, the SuperNode waits for the end of the one that sends heartbeats.
        threading.Thread(target=leave, args=(f"is not heard any more ({error})",), daemon=True).start()

    # Flower has no other doors.
    inner: Any = importlib.import_module("flwr.supernode.start_client_internal")
    inner._pull_and_store_message = asking_on(in_step(inner._pull_and_store_message), say)  # noqa: SLF001
    connection: Any = importlib.import_module("flwr.supernode.fleet_http_connection")
    sender = connection.HeartbeatSender
    connection.HeartbeatSender = lambda beat: sender(steady(beat, unheard))
    threading.Thread(target=watch_children, args=(lost,), daemon=True).start()
    ends(flower_supernode, say)


if __name__ == "__main__":
    main()
