"""Threads that survive a stuck task."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from fedgen.flower.workers import Workers

if TYPE_CHECKING:
    from concurrent.futures import Future


def _stuck(workers: Workers[str], gate: threading.Event) -> Future[str]:
    """Submit a call that waits at the gate, and return once it is running."""
    running = threading.Event()

    def call() -> str:
        running.set()
        gate.wait(20)
        return "late"

    future = workers.submit(call)
    assert running.wait(20)
    return future


def test_calls_run_in_order_on_one_thread() -> None:
    workers: Workers[int] = Workers(1)
    seen: list[int] = []
    futures = [workers.submit(lambda n=n: (seen.append(n), n)[1]) for n in range(20)]
    assert [future.result(20) for future in futures] == list(range(20))
    assert seen == list(range(20))
    workers.close()


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit("x")])
def test_whatever_a_call_raises_is_its_callers_and_the_thread_lives_on(error: BaseException) -> None:
    workers: Workers[str] = Workers(1)

    def call() -> str:
        raise error

    with pytest.raises(type(error)):
        workers.submit(call).result(20)
    assert workers.submit(lambda: "next").result(20) == "next"
    workers.close()


def test_giving_up_a_running_call_frees_the_queue_behind_it() -> None:
    workers: Workers[str] = Workers(1)
    gate = threading.Event()
    stuck = _stuck(workers, gate)
    behind = workers.submit(lambda: "next")
    assert workers.give_up(stuck) is False, "it is running, and will end by itself"
    assert behind.result(20) == "next"
    gate.set()
    assert stuck.result(20) == "late"
    assert workers.submit(lambda: "after").result(20) == "after"
    workers.close()


def test_giving_up_a_queued_call_says_that_it_will_never_run() -> None:
    workers: Workers[str] = Workers(1)
    gate = threading.Event()
    stuck = _stuck(workers, gate)
    ran: list[str] = []
    queued = workers.submit(lambda: (ran.append("queued"), "x")[1])
    assert workers.give_up(queued) is True
    gate.set()
    assert stuck.result(20) == "late"
    assert workers.submit(lambda: "next").result(20) == "next"
    assert queued.cancelled()
    assert ran == []
    workers.close()


def test_giving_up_what_is_done_or_given_up_changes_nothing() -> None:
    workers: Workers[str] = Workers(1)
    done = workers.submit(lambda: "done")
    assert done.result(20) == "done"
    assert workers.give_up(done) is False
    gate = threading.Event()
    stuck = _stuck(workers, gate)
    assert [workers.give_up(stuck) for _ in range(3)] == [False] * 3
    assert workers._live == 2, "one thread took the place of the stuck one, not three"
    gate.set()
    assert stuck.result(20) == "late"
    workers.close()


def test_there_is_always_one_thread() -> None:
    workers: Workers[str] = Workers(0)
    assert workers.submit(lambda: "x").result(20) == "x"
    workers.close()
