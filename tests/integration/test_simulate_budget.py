"""A ceiling of a site ends a run before it is passed: exit 5, nothing overspent, the last safe model kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.ledgers import entries, reserved
from support.studies import write_study

import fedgen as package
from fedgen.config.plan import plan_of
from fedgen.errors import BudgetExhausted
from fedgen.ledger.entries import Refused, Reserved
from fedgen.privacy.accountant import epsilon

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CEILING = 2.8


@pytest.fixture
def ended(tmp_path: Path, fedgen: Callable[..., Any]) -> tuple[Path, Any]:
    study = write_study(tmp_path, training={"rounds": 4}, simulation={"ceiling": CEILING})
    said = fedgen("simulate", study, "--out", tmp_path / "run", "--json")
    return tmp_path / "run", said


def test_the_run_ends_with_the_budget_code_and_says_what_is_kept(ended: tuple[Path, Any]) -> None:
    _folder, said = ended
    assert said.code == 5
    assert said.document["error"] == "BudgetExhausted"
    assert "last safe model" in said.document["what"]


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
