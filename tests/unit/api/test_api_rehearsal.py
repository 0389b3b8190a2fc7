"""Faults on purpose happen in their round, at their site, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.federation import Desk, small_study

from fedgen.api import rehearsal
from fedgen.api.rehearsal import Twice, late_or_lost
from fedgen.config.training import FaultSpec
from fedgen.coordinator.transport import Answer, to_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

DESK = Desk(small_study())


def _echo(request: bytes) -> bytes:
    return b"answer to " + request[:4]


def test_an_answer_is_lost_in_its_round_only() -> None:
    door = late_or_lost(_echo, {2: "drop"}, 1.0)
    assert door(DESK.train(1)).startswith(b"answer")
    with pytest.raises(ConnectionError):
        door(DESK.train(2))
    assert door(DESK.train(3)).startswith(b"answer")


def test_a_late_answer_comes_after_the_time_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(rehearsal.time, "sleep", slept.append)
    door = late_or_lost(_echo, {2: "late"}, 7.0)
    door(DESK.train(1))
    assert slept == []
    assert door(DESK.train(2)).startswith(b"answer")
    assert slept
    assert slept[0] > 7.0


def test_bytes_that_are_no_request_pass_through() -> None:
    assert late_or_lost(_echo, {1: "drop"}, 1.0)(b"nonsense").startswith(b"answer")


class _Inner:
    """A transport that answers with what the desk would send."""

    def nodes(self, expected: int, timeout: float) -> Sequence[int]:
        return list(range(expected))

    def exchange(self, frames: Iterable[tuple[int, bytes]], timeout: float, group: str) -> Iterator[Answer]:
        yield Answer(node=0, reply=DESK.train(2))
        yield Answer(node=1, reply=DESK.train(3))
        yield Answer(node=2, reply=None)


def test_an_answer_comes_twice_for_its_sender_and_round_only() -> None:
    faults = [
        FaultSpec(site="coordinator", round=2, kind="twice"),
        FaultSpec(site="other", round=3, kind="twice"),
    ]
    twice = Twice(_Inner(), faults)
    assert [answer.node for answer in twice.exchange(to_all(b"", [0, 1, 2]), 1.0, "g")] == [0, 0, 1, 2]
    assert twice.nodes(4, 0.0) == [0, 1, 2, 3]
