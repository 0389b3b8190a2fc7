"""Consent at the site: read anew each round, asked again before anything leaves, and silence means no."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.federation import NOW, Desk, consent_log, make_site, small_rows, small_study

from fedgen.errors import Code
from fedgen.messages import Joined, Refusal, Trained

if TYPE_CHECKING:
    from pathlib import Path

    from support.federation import Holder

    from fedgen.policy.consent import ConsentLog


class Shelf:
    """Hands out one consent log after another, the last one for ever."""

    def __init__(self, folder: Path, *logs: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.logs = [consent_log(folder / f"{i}.csv", **log) for i, log in enumerate(logs)]
        self.asked = 0

    def __call__(self) -> ConsentLog:
        self.asked += 1
        return self.logs.pop(0) if len(self.logs) > 1 else self.logs[0]


def _joined(folder: Path, consent: Any, study: dict[str, Any] | None = None, **parts: Any) -> Holder:
    desk = Desk(small_study(**(study or {})))
    holder = make_site(folder, desk, consent=consent, **parts)
    assert isinstance(holder.ask(desk.join())[0], Joined)
    return holder


def _code(holder: Holder, request: bytes) -> Code:
    message, _ = holder.ask(request)
    assert isinstance(message, Refusal), message
    return message.code


def test_only_permitted_rows_are_used_and_only_buckets_leave(tmp_path: Path) -> None:
    holder = _joined(tmp_path, Shelf(tmp_path, {"granted": 30, "withdrawn": 3}))
    message, _ = holder.ask(holder.desk.train(1))
    assert isinstance(message, Trained)
    assert message.excluded == {"consent-missing": "10-99", "consent-withdrawn": "<10"}


def test_consent_is_read_anew_each_round(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, {"granted": 40}, {"granted": 40}, {"granted": 40, "withdrawn": 2})
    holder = _joined(tmp_path, shelf)
    first, _ = holder.ask(holder.desk.train(1))
    second, _ = holder.ask(holder.desk.train(2))
    assert isinstance(first, Trained)
    assert isinstance(second, Trained)
    assert (first.excluded, second.excluded) == ({}, {"consent-withdrawn": "<10"})
    assert shelf.asked == 4, "once before a round and once before its update leaves"


def test_a_withdrawal_while_a_round_is_computed_discards_the_update(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, {"granted": 40}, {"granted": 40, "withdrawn": 1})
    holder = _joined(tmp_path, shelf)
    assert _code(holder, holder.desk.train(1)) is Code.CONSENT
    assert len(holder.entries("reserved")) == 1, "noise was drawn, so it stays charged"
    assert holder.entries("settled") == []
    message, _ = holder.ask(holder.desk.train(1, 2))
    assert isinstance(message, Trained)
    assert message.excluded == {"consent-withdrawn": "<10"}


def test_a_grant_while_a_round_is_computed_discards_nothing(tmp_path: Path) -> None:
    holder = _joined(tmp_path, Shelf(tmp_path, {"granted": 30}, {"granted": 31}))
    message, _ = holder.ask(holder.desk.train(1))
    assert isinstance(message, Trained)
    assert message.excluded == {"consent-missing": "10-99"}


def test_consent_that_expires_while_a_round_is_computed_discards_the_update(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    lines = ["subject,purpose,status,recorded_at,expires_at"]
    lines += [
        f"p{i:04d},train_generator,granted,2026-01-01T00:00:00Z,2026-06-01T12:00:01Z" for i in range(40)
    ]
    path.write_text("\n".join(lines) + "\n")
    from datetime import timedelta

    from fedgen.policy.consent import ConsentLog

    log = ConsentLog.read(path)
    ticks = iter([0, 2, 2])
    holder = _joined(tmp_path, lambda: log, clock=lambda _round: NOW + timedelta(seconds=next(ticks)))
    assert _code(holder, holder.desk.train(1)) is Code.CONSENT
    assert holder.entries("settled") == []


def test_consent_for_another_purpose_is_no_consent(tmp_path: Path) -> None:
    holder = _joined(tmp_path, Shelf(tmp_path, {"granted": 40, "purpose": "research"}))
    assert _code(holder, holder.desk.train(1)) is Code.CONSENT
    assert holder.entries("reserved") == []


def test_opt_out_lets_the_silent_in_and_the_withdrawn_out(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, {"granted": 3, "withdrawn": 3})
    holder = _joined(tmp_path, shelf, {"policy": {"regime": "opt-out"}})
    message, _ = holder.ask(holder.desk.train(1))
    assert isinstance(message, Trained)
    assert message.excluded == {"consent-withdrawn": "<10"}


@pytest.mark.parametrize(("granted", "floor", "study_floor"), [(20, 21, 1), (20, 1, 21)])
def test_too_few_permitted_people_sit_the_round_out_unspent(
    tmp_path: Path, granted: int, floor: int, study_floor: int
) -> None:
    holder = _joined(
        tmp_path,
        Shelf(tmp_path, {"granted": granted}),
        {"policy": {"min_cohort": study_floor}},
        rules={"min_cohort": floor},
    )
    assert _code(holder, holder.desk.train(1)) is Code.COHORT_TOO_SMALL
    assert holder.entries("reserved") == []


def test_just_enough_people_train(tmp_path: Path) -> None:
    holder = _joined(
        tmp_path,
        Shelf(tmp_path, {"granted": 20}),
        {"policy": {"min_cohort": 20}},
        rules={"min_cohort": 20},
    )
    assert isinstance(holder.ask(holder.desk.train(1))[0], Trained)


def test_a_site_that_requires_consent_and_has_no_log_says_no(tmp_path: Path) -> None:
    holder = _joined(tmp_path, None, rules={"consent_required": True})
    assert _code(holder, holder.desk.train(1)) is Code.CONSENT
    assert holder.entries("reserved") == []


def test_a_study_that_rests_on_consent_is_refused_where_there_is_no_log(tmp_path: Path) -> None:
    holder = _joined(tmp_path, None, {"policy": {"consent": "consent.csv"}})
    assert _code(holder, holder.desk.train(1)) is Code.CONSENT


@pytest.mark.parametrize("required", [False, True])
def test_a_log_without_knowing_whose_the_rows_are_means_no(tmp_path: Path, required: bool) -> None:  # noqa: FBT001 - a row
    nameless = small_rows(people=False)
    holder = _joined(
        tmp_path,
        Shelf(tmp_path, {"granted": 40}),
        table=lambda: nameless,
        rules={"consent_required": required},
    )
    assert _code(holder, holder.desk.train(1)) is Code.CONSENT
    assert holder.entries("reserved") == []


def test_without_any_need_for_consent_every_row_is_used(tmp_path: Path) -> None:
    holder = _joined(tmp_path, None)
    message, _ = holder.ask(holder.desk.train(1))
    assert isinstance(message, Trained)
    assert message.excluded == {}


def test_a_log_that_vanished_stops_the_round_and_nothing_is_spent(tmp_path: Path) -> None:
    log = consent_log(tmp_path / "log.csv", granted=40)
    holder = _joined(tmp_path, log.reread)
    (tmp_path / "log.csv").unlink()
    assert _code(holder, holder.desk.train(1)) is Code.DATA
    assert holder.entries("reserved") == []
    consent_log(tmp_path / "log.csv", granted=40)
    assert isinstance(holder.ask(holder.desk.train(1))[0], Trained)
