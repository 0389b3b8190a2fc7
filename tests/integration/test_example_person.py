"""The example that protects whole persons runs as it stands, only smaller."""

from __future__ import annotations

from pathlib import Path

import pytest

import fedgen

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "health-person" / "study.yaml"
SMALL = (
    "data.limit=1500",
    "data.sites={count: 2}",
    "training.rounds=2",
    "release.rows=50",
    "simulation.judge=false",
    "simulation.evaluate_every=1",
)


def test_the_example_protects_persons_and_fits_its_budget() -> None:
    plan = fedgen.check(EXAMPLE)
    assert plan.privacy.unit.value == "person"
    assert plan.study.total_rows > 3 * plan.study.total_sampled, "several years of each person"
    assert plan.privacy.epsilon_of(plan.privacy.rounds) <= 3.0
    assert plan.warnings == ()


@pytest.mark.slow
def test_the_example_runs(tmp_path: Path) -> None:
    run = fedgen.simulate(EXAMPLE, out=tmp_path / "run", overrides=SMALL)
    assert run.record.outcome == "completed"
    assert {statement["unit"] for statement in run.privacy} == {"person"}
    assert len(run.sample(7)) == 7
