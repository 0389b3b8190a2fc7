"""A SuperNode that can do nothing any more ends: whatever threads still run, and when its SuperExec is gone."""

from __future__ import annotations

import importlib
import inspect
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest

from fedgen.flower.supernode import OutOfStep, in_step, watch_children

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[3]
TOLD = "canary-4711"


def left(program: str) -> subprocess.CompletedProcess[str]:
    """Run :func:`ends` in a process of its own, beside a thread that never ends."""
    code = (
        "import sys, threading\n"
        "from fedgen.flower.supernode import ends\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        f"def program():\n    {program}\n"
        "ends(program, lambda line: print(line, flush=True))\n"
    )
    words = [sys.executable, "-c", code]
    return subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)


@pytest.mark.process
@pytest.mark.parametrize(
    ("program", "code", "said"),
    [
        ("return", 0, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit(7)", 7, ""),
        ("sys.exit('in words')", 1, ""),
        (f"raise RuntimeError({TOLD!r})", 1, "the SuperNode failed: RuntimeError\n"),
        ("raise KeyboardInterrupt", 1, "the SuperNode failed: KeyboardInterrupt\n"),
    ],
)
def test_the_process_ends_with_its_program_though_a_thread_lives(program: str, code: int, said: str) -> None:
    done = left(program)
    assert (done.returncode, done.stdout) == (code, said)
    assert TOLD not in done.stderr


@pytest.mark.process
def test_without_it_a_thread_keeps_the_process() -> None:
    """The negative control: what happens to Flower's own command."""
    code = "import threading; threading.Thread(target=threading.Event().wait).start(); raise RuntimeError"
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=2, check=False)


class Watched:
    """A watch over the children of this process."""

    def __init__(self) -> None:
        self.lost: list[int] = []
        self.stop = threading.Event()
        arguments = (self.lost.append, self.stop, 0.05)
        self.thread = threading.Thread(target=watch_children, args=arguments)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join(20)


@pytest.mark.process
def test_a_child_that_ended_and_is_not_asked_for_is_lost() -> None:
    with Watched() as watched:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        try:
            watched.thread.join(0.5)
            assert watched.lost == []
            os.kill(child.pid, signal.SIGKILL)
            watched.thread.join(20)
            assert watched.lost == [child.pid]
        finally:
            assert child.wait(20) == -signal.SIGKILL  # it is still there to be waited for


@pytest.mark.process
def test_children_that_are_waited_for_and_no_children_are_nobodys_loss() -> None:
    with Watched() as watched:
        for _ in range(20):
            subprocess.run([sys.executable, "-S", "-c", ""], check=True)
        watched.thread.join(0.3)
        assert watched.lost == []
        assert watched.thread.is_alive()


def pulls(run: int | None) -> Callable[..., int | None]:
    """Return what Flower's function does with a message: take it in, and return its run or ignore it."""

    def pull(*, receive: Callable[[], object], **_others: object) -> int | None:
        return None if receive() is None else run

    return pull


def test_a_message_that_was_taken_in_and_ignored_ends_the_node() -> None:
    """Its reply would be sent in the place of the next one, and so on for ever."""
    with pytest.raises(OutOfStep):
        in_step(pulls(None))(receive=lambda: "a message", state=1)


def test_a_message_that_is_worked_on_and_no_message_do_not() -> None:
    assert in_step(pulls(7))(receive=lambda: "a message", state=1) == 7
    assert in_step(pulls(7))(receive=lambda: None, state=1) is None


def test_flowers_function_is_where_it_is_looked_for_and_takes_its_words() -> None:
    inner = importlib.import_module("flwr.supernode.start_client_internal")
    assert "receive" in inspect.signature(inner._pull_and_store_message).parameters
    called = inspect.getsource(inner.start_client_internal)
    assert "_pull_and_store_message(" in called
    assert "receive=receive," in called  # by its name
