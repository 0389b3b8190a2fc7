"""A ceiling of a site ends a run before it is passed: exit 5, nothing overspent, the last safe model kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.ledgers import entries, reserved
from support.studies import write_study

import fedgen as package
from fedgen.api.homes import Home
from fedgen.api.prepare import prepare
from fedgen.config.plan import plan_of
from fedgen.errors import BudgetExhausted
from fedgen.events import RoundFinished
from fedgen.ledger.entries import Refused, Reserved
from fedgen.ledger.store import Ledger
from fedgen.privacy.accountant import epsilon

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fedgen.api.prepare import Prepared

CEILING = 2.8


class Elsewhere:
    """Another study that spends on the same data while a run goes on."""

    def __init__(self, home: Path, prepared: Prepared, *, after: int) -> None:
        self.home, self.prepared, self.after = Home(home, shared=True), prepared, after

    def __call__(self, event: object) -> None:
        if not (isinstance(event, RoundFinished) and event.round == self.after):
            return
        step, _count = plan_of(self.prepared.resolved).event_per_round()
        for name, dataset in (self.home.datasets(self.prepared) or {}).items():
            with Ledger.open(
                self.home.ledger(name),
                origin=f"fedgen/simulated/{name}",
                signing_key=self.home.key(name),
            ) as ledger:
                ledger.reserve(dataset, "ab" * 32, "cd" * 32, 1, 1, step, 1, check=lambda _spent: None)


@pytest.fixture
def ended(tmp_path: Path) -> tuple[Path, Any]:
    """A run that fitted when it began, and does not any more once somebody else has spent too."""
    study = write_study(
        tmp_path,
        privacy={"epsilon": 2.7},
        training={"rounds": 4},
        simulation={"ceiling": CEILING, "ledgers": "ledgers"},
    )
    elsewhere = Elsewhere(tmp_path / "ledgers", prepare(study), after=2)
    with pytest.raises(BudgetExhausted) as caught:
        package.simulate(study, out=tmp_path / "run", listener=elsewhere)
    return tmp_path / "run", caught.value


def test_the_run_ends_with_the_budget_code_and_says_what_is_kept(ended: tuple[Path, Any]) -> None:
    _folder, error = ended
    assert error.exit_code == 5
    assert "last safe model" in error.what
    assert "other studies spend" in str(error.hint)


def test_model_synthetic_data_and_report_are_kept(ended: tuple[Path, Any]) -> None:
    folder, _said = ended
    run = package.load_run(folder)
    assert run.record.outcome == "budget"
    assert 0 < run.record.rounds_done < 4
    assert len(run.sample(7)) == 7
    for name in ("synthetic.parquet", "report.html", "run.json"):
        assert (folder / name).is_file()


def test_no_site_spends_more_than_its_ceiling_and_the_refusal_is_on_record(ended: tuple[Path, Any]) -> None:
    folder, _said = ended
    run = package.load_run(folder)
    plan = plan_of(run.study)
    event, _count = plan.event_per_round()
    for name in ("site-01", "site-02", "site-03"):
        book = entries(folder / "sites" / name / "ledger.db")
        steps = sum(entry.count for entry in book if isinstance(entry, Reserved))
        assert epsilon(((event, steps),), plan.delta, relation=plan.relation).epsilon <= CEILING
        assert [entry.code for entry in book if isinstance(entry, Refused)] == ["budget"]
    assert all(statement["epsilon"] <= CEILING for statement in run.privacy)


def test_resuming_an_exhausted_run_ends_the_same_way_and_spends_nothing(ended: tuple[Path, Any]) -> None:
    folder, _said = ended
    before = reserved(folder / "sites" / "site-01" / "ledger.db")
    with pytest.raises(BudgetExhausted):
        package.simulate(folder.parent / "study.yaml", out=folder, resume=True)
    assert reserved(folder / "sites" / "site-01" / "ledger.db") == before


def test_a_ceiling_above_the_study_changes_nothing(tmp_path: Path) -> None:
    study = write_study(tmp_path, simulation={"ceiling": 3.5})
    assert package.simulate(study, out=tmp_path / "run").record.outcome == "completed"


def test_a_study_that_cannot_fit_is_refused_before_anything_is_spent(
    tmp_path: Path, fedgen: Callable[..., Any]
) -> None:
    study = write_study(tmp_path, training={"rounds": 4}, simulation={"ceiling": CEILING})
    said = fedgen("simulate", study, "--out", tmp_path / "run")
    assert said.code == 5
    assert "data set in its life" in said.err
    assert "of 4 rounds would still fit with this noise; all 4 would with privacy.epsilon 2.7" in said.err
    assert not (tmp_path / "run").exists()
    mended = fedgen("simulate", study, "--out", tmp_path / "run", "--set", "privacy.epsilon=2.7")
    assert mended.code == 0
