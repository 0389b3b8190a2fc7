"""Readiness: silence is not health, and what a part says is a code."""

from __future__ import annotations

from fedgen.observe import Probes, Reason


def test_nothing_told_is_not_ready() -> None:
    assert Probes().reasons() == (Reason.STARTING,)


def test_ready_when_every_part_is() -> None:
    probes = Probes()
    probes.set("ledger", None)
    assert probes.reasons() == ()
    probes.set("data", Reason.DATA_UNREACHABLE)
    probes.set("other", Reason.DATA_UNREACHABLE)
    assert probes.reasons() == (Reason.DATA_UNREACHABLE,)
    probes.set("data", None)
    probes.set("other", None)
    assert probes.reasons() == ()


def test_an_expected_part_is_starting_until_it_speaks_and_expecting_it_again_changes_nothing() -> None:
    probes = Probes()
    probes.expect("ledger", "data")
    probes.set("ledger", None)
    assert probes.reasons() == (Reason.STARTING,)
    probes.set("data", None)
    probes.expect("data")
    assert probes.reasons() == ()


def test_a_watched_part_is_asked_each_time_and_its_error_is_a_code() -> None:
    answers: list[Reason | Exception | None] = [None, Reason.LEDGER_CLOSED, OSError("/data/jane-doe.csv")]

    def ask() -> Reason | None:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    probes = Probes()
    probes.watch("ledger", ask)
    assert [probes.reasons() for _ in range(3)] == [(), (Reason.LEDGER_CLOSED,), (Reason.FAULT,)]


def test_an_answer_that_is_no_reason_is_a_fault() -> None:
    probes = Probes()
    probes.watch("data", lambda: "postgresql://user:secret@db")  # type: ignore[arg-type, return-value]
    assert probes.reasons() == (Reason.FAULT,)
