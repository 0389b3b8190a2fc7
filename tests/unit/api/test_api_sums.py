"""What a report says of sums under distributed trust."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from support.studies import write_study

from fedgen.api.prepare import prepare
from fedgen.api.sums import settings_of, sums_of
from fedgen.config.distributed import DistributedPlan
from fedgen.config.plan import plan_of, statements_of
from fedgen.privacy.accountant import epsilon
from fedgen.privacy.statement import at_most
from fedgen.runs.journal import RoundLine, RunRecord

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.config.resolve import ResolvedStudy
    from fedgen.report.model import Sums

ROUNDS = 3


@pytest.fixture
def study(tmp_path: Path) -> ResolvedStudy:
    return shared(tmp_path)


def shared(folder: Path, count: int = 6, **secagg: Any) -> ResolvedStudy:
    return prepare(
        write_study(
            folder,
            data={"sites": {"count": count}},
            privacy={"trust": "distributed"},
            secagg={"dropouts": 1, "colluders": 2, "threshold": 5, **secagg},
        )
    ).resolved


def planned(study: ResolvedStudy) -> DistributedPlan:
    plan = plan_of(study)
    assert isinstance(plan, DistributedPlan)
    return plan


def told(study: ResolvedStudy, *lines: RoundLine, private: bool = True) -> Sums:
    plan = planned(study)
    claims = statements_of(plan, {"site-01": ((plan.event, ROUNDS),)}, private=private)
    record = RunRecord(
        study="tiny", study_hash=study.study_hash, run="22" * 32, outcome="completed", rounds=ROUNDS,
        rounds_done=ROUNDS, started_at=datetime(2026, 1, 1, tzinfo=UTC), wall_s=1.0, backend="inprocess",
        seeds="os" if private else "insecure", versions={},
        privacy=tuple(it.to_json() for it in claims),
    )  # fmt: skip
    found = sums_of(study, plan, record, lines)
    assert found is not None
    return found


def line(study: ResolvedStudy, number: int, *missing: str, attempt: int = 1) -> RoundLine:
    names = [entry.name for entry in study.roster]
    return RoundLine(
        round=number,
        attempt=attempt,
        sites=tuple(name for name in names if name not in missing),
        missing=dict.fromkeys(missing, "late"),
        seconds=0.1,
    )


def test_each_observer_has_the_bound_for_the_shares_they_know(study: ResolvedStudy) -> None:
    plan, found = planned(study), told(study)
    shown = {it.who: it for it in found.observers}
    for who, helpers in (
        ("the coordinator, if no site helps it", 0),
        ("who reads the model or the synthetic rows", 0),
        ("the network, and whatever carries messages", 0),
        ("one curious site", 1),
        ("the coordinator with the help of one site, as the study assumes", 1),
        ("the coordinator with the help of 2 sites, as the study assumes", 2),
        ("the coordinator with the help of 3 sites, more than the study assumes", 3),
    ):
        figure = epsilon(((plan.against(helpers).event, ROUNDS),), plan.delta).epsilon
        assert shown[who].bound == at_most(figure)
        assert shown[who].estimate.startswith("about ")
    assert len(shown) == len(found.observers) == 7


def test_of_three_sites_one_may_be_curious_and_none_may_help(tmp_path: Path) -> None:
    """Two of three sites agree: with one site's help the coordinator could open two sets, so no figure is shown."""
    three = shared(tmp_path, 3, dropouts=0, colluders=0, threshold=2)
    shown = [it.who for it in told(three).observers]
    assert "one curious site" in shown
    assert not [who for who in shown if "with the help of" in who]


def test_a_seeded_run_promises_nothing_to_anybody(study: ResolvedStudy) -> None:
    found = told(study, private=False)
    assert {it.bound for it in found.observers} == {"nothing is promised"}
    assert {it.estimate for it in found.observers} == {""}


def test_survivors_and_dropouts_are_told_for_each_round(study: ResolvedStudy) -> None:
    found = told(
        study, line(study, 1), line(study, 2, "site-03", attempt=2), line(study, 3, "site-01", "site-02")
    )
    assert [(it.round, it.attempts, it.survivors) for it in found.rounds] == [(1, 1, 6), (2, 2, 5), (3, 1, 0)]
    assert [it.missing for it in found.rounds] == [(), ("site-03",), ("site-01", "site-02")]


def test_a_round_whose_opened_sum_was_lost_misses_nobody(study: ResolvedStudy) -> None:
    lost = RoundLine(round=2, attempt=1, sites=(), missing={}, seconds=0.1)
    (round_,) = told(study, lost).rounds
    assert (round_.survivors, round_.missing) == (0, ())


def test_a_rehearsal_says_what_whoever_runs_it_sees(tmp_path: Path) -> None:
    found = told(shared(tmp_path, protocol="sum"))
    assert not found.masked
    assert any("each site's noised vector too" in it.sees for it in found.observers)
    assert dict(found.settings)["protocol"].startswith("sum")


def test_the_settings_are_the_plans(study: ResolvedStudy) -> None:
    said = dict(settings_of(planned(study)))
    assert said["sites in a sum"] == "at least 5 of 6"
    assert said["colluders"] == "2 assumed; 3 withstood"
    assert said["noise of one site"] == "1/3 of the variance that is charged"
    assert said["noise if nobody is missing"].startswith("41.4 % more")


def test_other_trust_has_no_such_section(tmp_path: Path) -> None:
    study = prepare(write_study(tmp_path)).resolved
    record = RunRecord(
        study="tiny", study_hash=study.study_hash, run="22" * 32, outcome="completed", rounds=3, rounds_done=3,
        started_at=datetime(2026, 1, 1, tzinfo=UTC), wall_s=1.0, backend="inprocess", seeds="os", versions={},
    )  # fmt: skip
    assert sums_of(study, plan_of(study), record, ()) is None
