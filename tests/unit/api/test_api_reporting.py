"""From the record of a run to what a report shows."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from support.federation import small_study

from fedgen.api.bounds import cost_of_rounds
from fedgen.api.reporting import _epsilon, _participation, _promises
from fedgen.config.plan import plan_of
from fedgen.privacy.statement import state
from fedgen.runs.journal import RoundLine, RunRecord, SiteSummary

if TYPE_CHECKING:
    from fedgen.privacy.plan import PrivacyPlan

STUDY = small_study(sites=4, training={"rounds": 6})
NAMES = [entry.name for entry in STUDY.roster]


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    return plan_of(STUDY)


def _record(plan: PrivacyPlan, rounds: dict[str, int], *, private: bool = True) -> RunRecord:
    event, count = plan.event_per_round()
    statements = state(plan, {name: ((event, count * n),) for name, n in rounds.items()}, private=private)
    return RunRecord(
        study="small",
        study_hash=STUDY.study_hash,
        run="22" * 32,
        outcome="completed",
        rounds=6,
        rounds_done=6,
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
        wall_s=1.0,
        backend="inprocess",
        seeds="os" if private else "insecure",
        versions={},
        privacy=tuple(statement.to_json() for statement in statements),
        sites=tuple(SiteSummary(name=name, rounds=n) for name, n in rounds.items()),
    )


def _lines(**missing: Any) -> tuple[RoundLine, ...]:
    return tuple(
        RoundLine(
            round=number,
            attempt=1,
            sites=tuple(name for name in NAMES if name not in missing.get(f"r{number}", {})),
            missing=missing.get(f"r{number}", {}),
            seconds=0.1,
        )
        for number in range(1, 7)
    )


def test_sites_that_spent_alike_share_one_promise(plan: PrivacyPlan) -> None:
    promises = _promises(_record(plan, dict.fromkeys(NAMES, 6)))
    assert [promise.scope for promise in promises] == [
        "union",
        "site site-01; the same holds at 3 more sites",
    ]


def test_a_site_that_spent_less_has_a_promise_of_its_own(plan: PrivacyPlan) -> None:
    promises = _promises(_record(plan, {**dict.fromkeys(NAMES, 6), "site-03": 2}))
    scopes = [promise.scope for promise in promises]
    assert scopes[0] == "union"
    assert "site site-03" in scopes
    assert "site site-01; the same holds at 2 more sites" in scopes
    assert all(promise.proved for promise in promises)


def test_without_privacy_every_promise_says_that_nothing_is_promised(plan: PrivacyPlan) -> None:
    promises = _promises(_record(plan, dict.fromkeys(NAMES, 6), private=False))
    assert promises
    assert all("nothing is promised" in promise.sentence and not promise.proved for promise in promises)


def test_the_curve_counts_what_a_ledger_was_charged_not_what_reached_the_sum(plan: PrivacyPlan) -> None:
    record = _record(plan, dict.fromkeys(NAMES, 6))
    lines = _lines(r2={"site-02": "dropped"})
    charged = dict.fromkeys(NAMES, tuple(range(1, 7))) | {"site-04": (1, 2, 2, 3, 4, 5, 6)}
    curves = {series.label: series.values for series in _epsilon(lines, record, plan, charged)}
    assert curves["site-02"] == curves["site-01"]  # lost on the way, and charged all the same
    assert curves["site-04"][1] > curves["site-01"][1]  # a crashed attempt was charged, too
    assert list(curves["site-01"]) == sorted(curves["site-01"])


def test_the_curve_of_a_seeded_run_is_empty(plan: PrivacyPlan) -> None:
    record = _record(plan, dict.fromkeys(NAMES, 6), private=False)
    assert _epsilon(_lines(), record, plan, {}) == ()


def test_participation_names_absent_sites_by_their_reason() -> None:
    lines = _lines(r1={"site-01": "consent"}, r3={"site-02": "dropped"})
    cells = {row.site: row.cells for row in _participation(STUDY, lines)}
    assert cells["site-01"][:2] == ("consent", "took-part")
    assert cells["site-02"][2] == "absent"


def test_a_bound_is_never_below_the_truth() -> None:
    plan = plan_of(
        small_study(sites=4, training={"rounds": 6}, privacy={"epsilon": 2.0, "noise_multiplier": None})
    )
    cost = cost_of_rounds(plan)
    for charged in range(7):
        assert cost(charged) >= plan.epsilon_of(charged) - 1e-12
    assert cost(7) == plan.epsilon_allowed == 2.0
    given = plan_of(small_study(sites=4, training={"rounds": 6}))
    assert cost_of_rounds(given)(9) == pytest.approx(given.epsilon_of(6), rel=1e-6)
