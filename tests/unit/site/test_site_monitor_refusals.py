"""What a site refused stands in its ledger, once; and whoever repeats messages writes nothing there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.federation import NOW, Desk, consent_log, make_site, small_rows, small_study

from fedgen.errors import Code
from fedgen.ledger.checkpoint import Checkpoint
from fedgen.messages import Joined, Refusal, Settled, Trained

if TYPE_CHECKING:
    from pathlib import Path

    from support.federation import Holder


def _joined(folder: Path, study: dict[str, Any] | None = None, **parts: Any) -> Holder:
    desk = Desk(small_study(**(study or {})))
    holder = make_site(folder, desk, **parts)
    assert isinstance(holder.ask(desk.join())[0], Joined)
    return holder


def _code(holder: Holder, request: bytes) -> Code:
    message, _ = holder.ask(request)
    assert isinstance(message, Refusal), message
    return message.code


def _refused(holder: Holder) -> list[tuple[int, int, str]]:
    return [(it.round, it.attempt, it.code) for it in holder.entries("refused")]


def test_consent_that_is_missing_is_recorded_once_for_each_attempt(tmp_path: Path) -> None:
    holder = _joined(tmp_path, consent=lambda: consent_log(tmp_path / "log.csv", granted=0))
    for _ in range(3):
        assert _code(holder, holder.desk.train(1)) is Code.CONSENT
    assert _code(holder, holder.desk.train(1, 2)) is Code.CONSENT
    assert _code(holder, holder.desk.train(2)) is Code.CONSENT
    assert _code(holder, holder.desk.train(1, 3)) is Code.CONSENT  # over by now, and not written down
    assert _refused(holder) == [(1, 1, "consent"), (1, 2, "consent"), (2, 1, "consent")]
    assert holder.entries("reserved") == []


def test_a_cohort_that_is_too_small_is_recorded(tmp_path: Path) -> None:
    holder = _joined(tmp_path, rules={"min_cohort": 41})
    assert _code(holder, holder.desk.train(1)) is Code.COHORT_TOO_SMALL
    assert _refused(holder) == [(1, 1, "cohort-too-small")]


def test_a_withdrawal_while_a_round_is_computed_is_recorded_beside_the_charge(tmp_path: Path) -> None:
    logs = [consent_log(tmp_path / f"{i}.csv", granted=40, withdrawn=i) for i in (0, 1)]
    holder = _joined(tmp_path, consent=lambda: logs.pop(0) if len(logs) > 1 else logs[0])
    assert _code(holder, holder.desk.train(1)) is Code.CONSENT
    assert [it.kind for it in holder.entries()] == ["opened", "admitted", "reserved", "refused"]


def test_a_budget_that_is_gone_is_recorded_once(tmp_path: Path) -> None:
    holder = _joined(tmp_path, {"training": {"rounds": 1}})
    assert isinstance(holder.ask(holder.desk.train(1))[0], Trained)
    for _ in range(3):
        assert _code(holder, holder.desk.train(2)) is Code.BUDGET
    assert _refused(holder) == [(2, 1, "budget")]


def test_a_flood_of_rounds_that_are_refused_fills_no_disk(tmp_path: Path) -> None:
    holder = _joined(tmp_path, {"training": {"rounds": 2}}, rules={"min_cohort": 41})
    for attempt in range(1, 80):
        assert _code(holder, holder.desk.train(1, attempt)) is Code.COHORT_TOO_SMALL
    for number in range(2, 60):
        assert _code(holder, holder.desk.train(number)) is Code.COHORT_TOO_SMALL
    assert len(_refused(holder)) == 64 + 2  # of the first round, of the second, and of one round too many


@pytest.mark.parametrize("body", [bytes(4), b"\0\0\xc0\x7f"])
def test_a_message_that_is_wrong_is_no_refusal_of_the_sites(tmp_path: Path, body: bytes) -> None:
    holder = _joined(tmp_path)
    _code(holder, holder.desk.train(1, body=body))
    assert _refused(holder) == []


def test_a_round_already_answered_leaves_no_line_when_consent_is_gone(tmp_path: Path) -> None:
    logs = [consent_log(tmp_path / f"{i}.csv", granted=granted) for i, granted in enumerate((40, 40, 0))]
    holder = _joined(tmp_path, consent=lambda: logs.pop(0) if len(logs) > 1 else logs[0])
    request = holder.desk.train(2)
    assert isinstance(holder.ask(request)[0], Trained)
    assert _code(holder, holder.desk.train(1)) is Code.CONSENT
    assert _refused(holder) == []


def test_invitations_and_ends_that_are_repeated_add_no_lines(tmp_path: Path) -> None:
    holder = _joined(tmp_path)
    for _ in range(4):
        assert isinstance(holder.ask(holder.desk.join())[0], Joined)
    assert isinstance(holder.ask(holder.desk.train(1))[0], Trained)
    for _ in range(4):
        assert isinstance(holder.ask(holder.desk.join())[0], Joined)
        assert isinstance(holder.ask(holder.desk.settle(rounds=1))[0], Settled)
    kinds = [it.kind for it in holder.entries()]
    assert kinds == ["opened", "admitted", "reserved", "settled", "admitted", "closed"]


def test_a_study_that_is_over_leaves_a_checkpoint_beside_the_ledger(tmp_path: Path) -> None:
    holder = _joined(tmp_path)
    holder.ask(holder.desk.train(1))
    assert not (tmp_path / "ledger.db.checkpoint").exists()
    assert isinstance(holder.ask(holder.desk.settle(rounds=1))[0], Settled)
    kept = Checkpoint.read(tmp_path / "ledger.db.checkpoint")
    kept.verify(holder.identity.verify_key)
    assert kept.size == len(holder.entries())


def test_a_ledger_that_cannot_take_the_refusal_says_so(tmp_path: Path) -> None:
    holder = _joined(tmp_path, rules={"min_cohort": 41})
    path = tmp_path / "ledger.db"
    path.write_bytes(path.read_bytes()[:4096])
    assert _code(holder, holder.desk.train(1)) is Code.LEDGER


def test_the_clock_of_a_refusal_is_the_ledgers(tmp_path: Path) -> None:
    holder = _joined(
        tmp_path, rules={"min_cohort": 41}, clock=lambda _round: NOW, table=lambda: small_rows(3)
    )
    assert _code(holder, holder.desk.train(1)) is Code.COHORT_TOO_SMALL
    with holder.ledger() as ledger:
        times = [it.time for it in ledger.entries()]
    assert times == sorted(times)
