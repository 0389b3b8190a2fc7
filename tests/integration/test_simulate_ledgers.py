"""Ledgers that outlive a run: a second study sees what the first spent, whatever its name, cut or process."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from dp_accounting import dp_event
from dp_accounting.pld import pld_privacy_accountant
from dp_accounting.rdp import rdp_privacy_accountant
from support.ledgers import entries
from support.processes import PATIENCE_S, start, wait_for_rounds
from support.studies import SCHEMA, people, write_rows, write_study

import fedgen as package
from fedgen.api import allowance
from fedgen.api.budgets import recompute
from fedgen.ledger import store
from fedgen.ledger.entries import Reserved
from fedgen.privacy.accountant import epsilon

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAMES = ("site-01", "site-02", "site-03")
SHARED: dict[str, Any] = {"ledgers": "ledgers", "ceiling": 3.2}


def second(folder: Path, **sections: Any) -> Path:
    """Write another study beside the first, on the same rows unless a section says otherwise."""
    simulation = {**SHARED, **sections.pop("simulation", {})}
    path = write_study(folder, study="second", simulation=simulation, **sections)
    return path.rename(folder / "second.yaml")


def spent_at(ledger: Path, *, delta: float = 1e-5) -> float:
    """Return ε of everything reserved in a ledger."""
    counts = tuple((it.event, it.count) for it in entries(ledger) if isinstance(it, Reserved))
    return epsilon(counts, delta).epsilon


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a first study spent ε = 2 of 3.2 on each site's data."""
    folder = tmp_path_factory.mktemp("studies")
    study = write_study(folder, privacy={"epsilon": 2.0}, simulation=SHARED)
    assert package.simulate(study, out=folder / "run").record.outcome == "completed"
    return folder


def test_the_run_folder_keeps_a_copy_of_each_ledger(first: Path, fedgen: Callable[..., Any]) -> None:
    for name in NAMES:
        copied = entries(first / "run" / "sites" / name / "ledger.db")
        assert copied == entries(first / "ledgers" / name / "ledger.db")
        assert not list((first / "run" / "sites" / name).glob("ledger.db-*"))
        assert (first / "run" / "sites" / name / "ledger.db").stat().st_mode & 0o077 == 0
    assert fedgen("ledger", "verify", first / "run").code == 0
    assert fedgen("ledger", "verify", first / "ledgers").code == 0
    assert fedgen("audit", "budget", first / "run").code == 0


@pytest.mark.slow
def test_check_says_what_would_still_fit(first: Path, fedgen: Callable[..., Any]) -> None:
    said = fedgen("check", second(first))
    assert said.code == 5
    assert "data set in its life" in said.err
    assert "of 3 rounds would still fit with this noise; all 3 would with privacy.epsilon" in said.err
    assert "1 study before" in said.out
    document = fedgen("check", first / "second.yaml", "--json").document["budget"]
    assert not document["fits"]
    assert document["studies_before"] == 1
    assert 1.9 < document["spent"]["life"] <= 2.0
    assert document["spent"]["year"] == document["spent"]["life"]
    assert document["spent"]["this_study"] == 0
    assert document["ceilings"]["epsilon_life"] == 3.2
    asked = document["hint"].rsplit(" ", 1)[1]
    assert fedgen("check", first / "second.yaml", "--set", f"privacy.epsilon={asked}").code == 0
    more = str(float(asked) + 0.15)
    assert fedgen("check", first / "second.yaml", "--set", f"privacy.epsilon={more}").code == 5


def test_simulate_refuses_before_anything_is_spent(first: Path, fedgen: Callable[..., Any]) -> None:
    before = entries(first / "ledgers" / "site-01" / "ledger.db")
    said = fedgen("simulate", second(first), "--out", first / "refused")
    assert said.code == 5
    assert "would still fit" in said.err
    assert not (first / "refused").exists()
    assert entries(first / "ledgers" / "site-01" / "ledger.db") == before


def test_the_same_study_again_has_nothing_left(first: Path, fedgen: Callable[..., Any]) -> None:
    again = write_study(first, privacy={"epsilon": 2.0}, simulation=SHARED)
    said = fedgen("simulate", again, "--out", first / "again")
    assert said.code == 5
    assert "a name of its own" in said.err


@pytest.mark.parametrize(
    "data",
    [
        {"sites": {"count": 3, "seed": 1}},
        {"sites": {"count": 4}},
        {"sites": {"count": 3, "split": "by", "by": "ward"}},
        {"limit": 100},
        {"holdout": 0.1},
    ],
)
def test_another_cut_of_the_same_rows_is_refused(
    first: Path, data: dict[str, Any], fedgen: Callable[..., Any]
) -> None:
    study = second(first, data=data, privacy={"epsilon": 0.5})
    for verb in (("check", study), ("simulate", study, "--out", first / "other")):
        said = fedgen(*verb)
        assert said.code == 3
        assert "simulation.ledgers" in said.err
        assert "another folder" in said.err
    assert not (first / "other").exists()


def test_rows_that_changed_are_other_data(first: Path, fedgen: Callable[..., Any]) -> None:
    study = second(first, rows=people(119), privacy={"epsilon": 0.5})
    said = fedgen("check", study)
    assert said.code == 3
    assert "other data at 3 of 3 sites" in said.err


def test_a_schema_that_names_nobody_is_other_data(first: Path, fedgen: Callable[..., Any]) -> None:
    nobody = {key: value for key, value in SCHEMA.items() if key != "subject"}
    assert fedgen("check", second(first, schema=nobody, privacy={"epsilon": 0.5})).code == 3


def test_other_bins_another_order_and_a_copied_source_draw_on_the_same_budget(
    first: Path, fedgen: Callable[..., Any]
) -> None:
    finer = copy.deepcopy(SCHEMA)
    finer["columns"][2]["bins"] = 2
    rows = people()
    write_rows(first / "copied.csv", rows)
    study = second(first, schema=finer, data={"source": "csv://copied.csv"}, privacy={"epsilon": 3.0})
    said = fedgen("check", study, "--json")
    assert said.code == 5
    assert said.document["budget"]["studies_before"] == 1


def test_a_study_cannot_raise_what_the_first_one_said(first: Path, fedgen: Callable[..., Any]) -> None:
    for ceiling in (None, 100.0):
        study = second(first, simulation={"ceiling": ceiling}, privacy={"epsilon": 3.0})
        assert fedgen("check", study).code == 5
    lower = second(first, simulation={"ceiling": 2.05}, privacy={"epsilon": 1.0})
    said = fedgen("check", lower, "--json")
    assert said.code == 5
    assert said.document["budget"]["ceilings"]["epsilon_life"] == 2.05


def test_another_unit_does_not_add_up(first: Path, fedgen: Callable[..., Any]) -> None:
    said = fedgen("check", second(first, privacy={"unit": "person", "epsilon": 0.5}))
    assert said.code == 5
    assert "per record before" in said.err


def test_seeded_noise_has_no_place_in_shared_ledgers(first: Path, fedgen: Callable[..., Any]) -> None:
    said = fedgen("check", second(first, privacy={"insecure_seed": 1}))
    assert said.code == 3
    assert "insecure_seed" in said.err


def test_a_lost_memory_of_the_data_is_not_made_anew(tmp_path: Path, fedgen: Callable[..., Any]) -> None:
    study = write_study(tmp_path, training={"rounds": 1}, simulation=SHARED)
    assert fedgen("simulate", study, "--out", tmp_path / "run").code == 0
    book = tmp_path / "ledgers" / "dataset.json"
    kept = book.read_text(encoding="utf-8")
    book.unlink()
    assert fedgen("check", study).code == 6
    book.write_text("{}", encoding="utf-8")
    assert fedgen("simulate", study, "--out", tmp_path / "other").code == 6
    book.write_text(kept, encoding="utf-8")
    assert fedgen("check", study, "--set", "study=other", "--set", "privacy.epsilon=0.5").code == 0


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which two studies of different noise spent on the same data."""
    folder = tmp_path_factory.mktemp("both")
    earlier = write_study(folder, privacy={"epsilon": 2.0}, simulation=SHARED)
    package.simulate(earlier, out=folder / "one")
    later = second(folder, privacy={"epsilon": 1.2}, training={"rounds": 4, "sample_rate": 0.1})
    package.simulate(later, out=folder / "two")
    return folder


def independently(parts: list[tuple[float, float, int]], delta: float) -> tuple[float, float]:
    """Return ε of sampled Gaussians (rate, noise, steps), by dp_accounting's own PLD and RDP accountants."""
    event = dp_event.ComposedDpEvent(
        [
            dp_event.SelfComposedDpEvent(
                dp_event.PoissonSampledDpEvent(rate, dp_event.GaussianDpEvent(noise)), steps
            )
            for rate, noise, steps in parts
        ]
    )
    pld = pld_privacy_accountant.PLDAccountant(value_discretization_interval=1e-4).compose(event)
    rdp = rdp_privacy_accountant.RdpAccountant().compose(event)
    return pld.get_epsilon(delta), rdp.get_epsilon(delta)


@pytest.mark.slow
def test_an_audit_of_two_studies_agrees_with_dp_accounting_to_a_thousandth(both: Path) -> None:
    found = recompute(both / "ledgers", delta=1e-5)
    assert found.ok
    ledger = both / "ledgers" / "site-02" / "ledger.db"
    charged = [it for it in entries(ledger) if isinstance(it, Reserved)]
    studies = {it.study_hash for it in charged}
    assert len(studies) == 2
    for study in (*studies, None):
        parts = [
            (it.event.q, it.event.sigma, it.count)  # type: ignore[union-attr]
            for it in charged
            if study is None or it.study_hash == study
        ]
        pld, rdp = independently(parts, 1e-5)
        (figure,) = [it for it in found.figures if (it.ledger, it.study_hash) == ("site site-02", study)]
        assert figure.pld == pytest.approx(pld, rel=1e-3)
        assert figure.rdp == pytest.approx(rdp, rel=1e-3)
        assert figure.unit == "record"
    (whole,) = [it for it in found.figures if (it.ledger, it.study_hash) == ("site site-02", None)]
    assert whole.reservations == 7
    assert all(whole.pld > it.pld for it in found.figures if it.study_hash is not None)


def test_the_second_report_shows_what_the_first_study_spent(both: Path, fedgen: Callable[..., Any]) -> None:
    report = json.loads((both / "two" / "report.json").read_text(encoding="utf-8"))
    assert [(row["site"], row["studies"]) for row in report["budgets"]] == [(name, 1) for name in NAMES]
    assert {row["others"] for row in report["budgets"]} == {"ε at most 2"}
    assert all("3.2 for the life of the data" in row["ceilings"] for row in report["budgets"])
    page = (both / "two" / "report.html").read_text(encoding="utf-8")
    assert "What the data have spent over all studies" in page
    said = fedgen("audit", "budget", both / "two")
    assert said.code == 0
    assert "all together" in said.out
    assert "record" in said.out


def test_a_claim_that_forgets_its_own_rounds_is_found_out(both: Path, fedgen: Callable[..., Any]) -> None:
    record = both / "two" / "run.json"
    kept = record.read_text(encoding="utf-8")
    document = json.loads(kept)
    for statement in document["privacy"]:
        statement["epsilon"] *= 0.99
    record.write_text(json.dumps(document), encoding="utf-8")
    try:
        assert fedgen("audit", "budget", both / "two").code == 6
    finally:
        record.write_text(kept, encoding="utf-8")


@pytest.mark.slow
def test_a_year_that_has_passed_frees_the_year_and_not_the_life(
    tmp_path: Path, fedgen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ceiling = {"epsilon_per_study": 2.0, "epsilon_per_year": 2.1, "epsilon_life": 3.5, "delta": 1e-5}
    simulation = {"ledgers": "ledgers", "ceiling": ceiling}
    study = write_study(tmp_path, privacy={"epsilon": 2.0}, training={"rounds": 2}, simulation=simulation)
    then = datetime.now(UTC) - timedelta(days=367)
    with monkeypatch.context() as past:
        past.setattr(store, "datetime", _stopped(then))
        assert fedgen("simulate", study, "--out", tmp_path / "one").code == 0
        past.setattr(allowance, "datetime", _stopped(then))
        assert fedgen("check", study, *_named("b")).code == 5
    assert fedgen("simulate", study, "--out", tmp_path / "two", *_named("b")).code == 0
    said = fedgen("check", study, *_named("c"))
    assert said.code == 5
    assert "the data set in 365 days" in said.err


def _named(name: str) -> tuple[str, ...]:
    """Return the changes that make another study of it."""
    return ("--set", f"study={name}", "--set", "privacy.epsilon=1.9")


def _stopped(now: datetime) -> type[datetime]:
    """Return a clock that stands still."""

    class Stopped(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return now.astimezone(tz)

    return Stopped


@pytest.mark.slow
def test_two_runs_at_once_cannot_overspend_together(tmp_path: Path) -> None:
    simulation = {"ledgers": "ledgers", "ceiling": 3.0}
    training = {"rounds": 40}
    one = write_study(
        tmp_path, study="one", simulation=simulation, training=training, privacy={"epsilon": 2.5}
    )
    one = one.rename(tmp_path / "one.yaml")
    two = write_study(
        tmp_path, study="two", simulation=simulation, training=training, privacy={"epsilon": 2.5}
    )
    running = [start("simulate", study, "--out", tmp_path / study.stem) for study in (one, two)]
    said = [process.communicate(timeout=PATIENCE_S) for process in running]
    codes = sorted(process.returncode for process in running)
    assert codes in ([0, 5], [5, 5]), said
    for process, (_out, err) in zip(running, said, strict=True):
        assert "Traceback" not in err
        if process.returncode == 5:
            assert "the budget of the sites ended the run" in err or "may spend" in err
    for name in NAMES:
        assert 2.0 < spent_at(tmp_path / "ledgers" / name / "ledger.db") <= 3.0
    found = recompute(tmp_path / "ledgers", delta=1e-5)
    assert found.ok


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_ledgers_it_shares(tmp_path: Path, fedgen: Callable[..., Any]) -> None:
    study = write_study(tmp_path, training={"rounds": 60}, simulation=SHARED)
    process = start("simulate", study, "--out", tmp_path / "run")
    wait_for_rounds(process, tmp_path / "run" / "metrics.jsonl", 5)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    so_far = spent_at(tmp_path / "ledgers" / "site-01" / "ledger.db")
    assert 0 < so_far < 3.0
    meanwhile = fedgen("check", study, "--set", "study=other", "--json").document["budget"]
    assert meanwhile["spent"]["life"] == pytest.approx(so_far)
    said = fedgen("simulate", study, "--out", tmp_path / "run", "--resume")
    assert said.code in {0, 5}
    assert fedgen("audit", "budget", tmp_path / "run").code == 0
    assert fedgen("ledger", "verify", tmp_path / "ledgers").code == 0
    for name in NAMES:
        ledger = tmp_path / "ledgers" / name / "ledger.db"
        assert spent_at(ledger) <= 3.0
        assert entries(ledger) == entries(tmp_path / "run" / "sites" / name / "ledger.db")
