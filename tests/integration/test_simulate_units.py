"""Studies that protect persons, and whole sites: finished runs, what they are charged and what they state."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import torch
from support.ledgers import reserved
from support.processes import PATIENCE_S, start, wait_for_rounds
from support.studies import people, write_consent, write_study

import fedgen
from fedgen.config.plan import plan_of
from fedgen.errors import BudgetExhausted, ConfigError, DataError
from fedgen.models.state import load_tensors
from fedgen.privacy.accountant import epsilon
from fedgen.runs.journal import read_rounds, standing

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from conftest import Said

PERSON: dict[str, Any] = {"unit": "person", "rows_per_person": 3}
SITE: dict[str, Any] = {"unit": "site", "epsilon": 20.0}
GAN: dict[str, Any] = {"name": "tabular-gan", "generator": [8], "fake_batch": 8}


def visits(persons: int = 60) -> list[tuple[str, ...]]:
    """Return rows of made-up people, from one to five of each."""
    rows = people(persons * 5)
    return [
        (f"p{number:04d}", *rows[number * 5 + visit][1:])
        for number in range(persons)
        for visit in range(1 + number % 5)
    ]


def _weights(run: fedgen.Run) -> torch.Tensor:
    newest = max((run.path / "checkpoints").glob("*.safetensors"))
    return load_tensors(newest)[0]["weights"]


def _study(folder: Path, privacy: dict[str, Any], **sections: Any) -> Path:
    return write_study(folder, rows=visits(), privacy=privacy, **sections)


def _run(folder: Path, privacy: dict[str, Any], **sections: Any) -> fedgen.Run:
    return fedgen.simulate(_study(folder, privacy, **sections), out=folder / "run")


@pytest.mark.parametrize(
    ("privacy", "sections"),
    [
        pytest.param(PERSON, {}, id="person-gradient-local"),
        pytest.param({**PERSON, "trust": "central"}, {}, id="person-gradient-central"),
        pytest.param(PERSON, {"training": {"local_steps": 2, "rounds": 2}}, id="person-update"),
        pytest.param(PERSON, {"training": {"engine": "opacus", "rounds": 2}}, id="person-opacus"),
        pytest.param(PERSON, {"model": GAN}, id="person-gan"),
        pytest.param({**PERSON, "trust": "central"}, {"model": GAN}, id="person-gan-central"),
        pytest.param(
            PERSON, {"model": GAN, "training": {"local_steps": 2, "rounds": 2}}, id="person-gan-update"
        ),
        pytest.param(SITE, {"training": {"local_steps": 4}}, id="site-local"),
        pytest.param(SITE, {}, id="site-local-one-step"),
        pytest.param({**SITE, "trust": "central"}, {"training": {"local_steps": 4}}, id="site-central"),
        pytest.param(SITE, {"training": {"engine": "opacus", "rounds": 2}}, id="site-opacus"),
        pytest.param(SITE, {"model": GAN, "training": {"local_steps": 2}}, id="site-gan"),
        pytest.param({**SITE, "trust": "central"}, {"model": GAN}, id="site-gan-central"),
    ],
)
def test_a_study_finishes(tmp_path: Path, privacy: dict[str, Any], sections: dict[str, Any]) -> None:
    run = _run(tmp_path, privacy, **sections)
    assert run.record.outcome == "completed"
    assert torch.isfinite(_weights(run)).all()
    rounds = run.record.rounds
    for site in ("site-01", "site-02", "site-03"):
        assert reserved(run.path / "sites" / site / "ledger.db") == [(n, 1) for n in range(1, rounds + 1)]
    plan = plan_of(run.study)
    event, count = plan.event_per_round()
    spent = epsilon(((event, count * rounds),), plan.delta, relation=plan.relation).epsilon
    assert count == (1 if privacy["unit"] == "site" else run.study.study.training.local_steps)
    allowed = plan.epsilon_allowed
    assert allowed is not None
    assert spent <= allowed
    union = next(s for s in run.privacy if s["scope"] == "union")
    assert (union["unit"], union["proved"]) == (privacy["unit"], True)
    assert union["epsilon"] == pytest.approx(spent)


def test_a_report_names_the_unit_and_the_persons(tmp_path: Path) -> None:
    run = _run(tmp_path, PERSON)
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "one person, all records" in page
    assert "all records of one person" in page
    assert f"{run.study.total_sampled:,} persons" in page
    page = (_run(tmp_path / "site", SITE).path / "report.html").read_text(encoding="utf-8")
    assert "one whole site" in page
    assert "which sites are on the roster" in page


def test_persons_are_declared_and_sampled_by(tmp_path: Path) -> None:
    run = _run(tmp_path, PERSON, training={"sample_rate": None, "batch": 4, "rounds": 2})
    persons = [entry.persons or 0 for entry in run.study.roster]
    assert sum(persons) == pytest.approx(48, abs=2), "60 persons, a fifth of them held out"
    assert run.study.total_rows > 2 * sum(persons)
    assert run.study.sample_rate == pytest.approx(4 * 3 / sum(persons))


def test_check_names_the_unit(tmp_path: Path, fedgen: Callable[..., Said]) -> None:
    for privacy, words in ((PERSON, "one person, all records"), (SITE, "one whole site")):
        study = _study(tmp_path / str(privacy["unit"]), privacy)
        assert words in fedgen("check", study).out
        document = fedgen("check", study, "--json").document
        assert document["unit"] == privacy["unit"]
        assert all(("declared_persons" in site) == (privacy is PERSON) for site in document["sites"])
        assert all(statement["unit"] == privacy["unit"] for statement in document["privacy"])


@pytest.mark.parametrize("model", [{}, GAN])
@pytest.mark.parametrize(
    "privacy", [PERSON, {**PERSON, "trust": "central"}, SITE, {**SITE, "trust": "central"}]
)
def test_the_self_test_examines_the_unit(
    tmp_path: Path, fedgen: Callable[..., Said], privacy: dict[str, Any], model: dict[str, Any]
) -> None:
    study = _study(tmp_path, privacy, model=model)
    document = fedgen("audit", "selftest", study, "--json").document
    assert document["passed"]
    assert document["unit"] == privacy["unit"]
    sensitivity = document["sensitivity"]
    assert 0.5 < sensitivity["moved"] <= 1 + 1e-4
    assert sensitivity["without_clipping"] > 1.5, "the control: without the bound it moves further"
    said = fedgen("audit", "selftest", study)
    assert said.code == 0
    assert ("one extreme person" if privacy["unit"] == "person" else "one whole site") in said.out


# -- what is refused --------------------------------------------------------------------------------


def test_persons_without_a_subject_in_the_schema_are_refused_at_the_key(tmp_path: Path) -> None:
    from support.studies import SCHEMA

    study = write_study(tmp_path, schema={**SCHEMA, "subject": None}, privacy=PERSON)
    with pytest.raises(ConfigError) as caught:
        fedgen.check(study)
    assert caught.value.key == "privacy.unit"
    assert caught.value.line is not None
    assert "subject" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["", " p0001"])
def test_a_row_that_names_nobody_is_refused(tmp_path: Path, name: str) -> None:
    rows = [*visits(), (name, *people(1)[0][1:])]
    with pytest.raises(DataError, match="row"):
        fedgen.check(write_study(tmp_path, rows=rows, privacy=PERSON))


# -- consent, and being stopped ---------------------------------------------------------------------


@pytest.mark.parametrize("privacy", [PERSON, SITE])
def test_a_person_who_withdraws_in_mid_run_leaves_with_all_rows_and_nothing_else_changes(
    tmp_path: Path, privacy: dict[str, Any]
) -> None:
    study = _study(
        tmp_path,
        privacy,
        policy={"consent": "consent.csv", "min_cohort": 3},
        training={"rounds": 4},
        simulation={"clock_start": "2026-03-01T00:00:00Z", "clock_step_s": 3600},
    )
    gone = dict.fromkeys(range(4, 60, 5), "2026-03-01T02:30:00Z")  # everybody with five rows, before round 3
    write_consent(tmp_path / "consent.csv", granted=60, withdrawn=gone)
    run = fedgen.simulate(study, out=tmp_path / "run")
    assert run.record.outcome == "completed"
    lines = standing(read_rounds(run.folder.metrics))
    seen = [sorted({reason for site in line.excluded.values() for reason in site}) for line in lines]
    assert seen == [[], [], ["consent-withdrawn"], ["consent-withdrawn"]]
    plan = plan_of(run.study)
    event, count = plan.event_per_round()
    spent = epsilon(((event, 4 * count),), plan.delta, relation=plan.relation).epsilon
    for statement in run.privacy:
        assert statement["epsilon"] == pytest.approx(spent), "rate, noise and charge are the study's"


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize(
    "privacy",
    [
        pytest.param(PERSON, id="person"),
        pytest.param(SITE, id="site"),
        pytest.param({**SITE, "trust": "central"}, id="site-central"),
    ],
)
def test_a_killed_run_resumes_and_no_round_is_counted_twice(tmp_path: Path, privacy: dict[str, Any]) -> None:
    rounds = 40
    study = _study(
        tmp_path, privacy, training={"rounds": rounds, "local_steps": 1}, data={"sites": {"count": 4}}
    )
    process: subprocess.Popen[str] = start("simulate", study, "--out", tmp_path / "run")
    try:
        wait_for_rounds(process, tmp_path / "run" / "metrics.jsonl", 4)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    with suppress(
        BudgetExhausted
    ):  # a site that was killed between reserving and answering sits out the last round
        fedgen.simulate(study, out=tmp_path / "run", resume=True)
    run = fedgen.load_run(tmp_path / "run")
    assert (run.record.outcome, run.record.rounds_done) in {("completed", rounds), ("budget", rounds - 1)}
    lines = standing(read_rounds(run.folder.metrics))
    assert [line.round for line in lines][: rounds - 1] == list(range(1, rounds))
    allowed = plan_of(run.study).epsilon_allowed
    assert allowed is not None
    assert all(s["epsilon"] <= allowed for s in run.privacy if s["epsilon"] is not None)
