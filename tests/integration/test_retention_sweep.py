"""The sweep on a real run: birth is written down, what is past its time goes, a hold keeps it, the verbs say so."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from support.erasing import ask_the_store, grant
from support.studies import write_consent, write_study

import fedgen
from fedgen.api.retention import checkpoint_header, stored_in
from fedgen.policy.store import ConsentStore, RightSaid
from fedgen.runs.folder import RunFolder
from fedgen.runs.journal import read_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FUTURE = "2035-01-01T00:00:00+01:00"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    fedgen.simulate(write_study(tmp_path), out=tmp_path / "run")
    return tmp_path / "run"


def test_everything_says_at_birth_until_when_it_may_stay(run: Path) -> None:
    folder = RunFolder(run)
    found = stored_in(folder)
    assert {it.path.name for it in found} >= {
        "synthetic.parquet",
        "synthetic.csv",
        "report.html",
        "report.json",
    }
    ends = [datetime.fromtimestamp(it.until / 1e6, UTC) - datetime.now(UTC) for it in found]
    assert all(timedelta(days=729) < left < timedelta(days=732) for left in ends)
    header = checkpoint_header(folder.checkpoints_newest_first()[0])
    assert header["run"] == read_run(folder.record).run
    assert datetime.fromisoformat(header["created_at"]).tzinfo is not None


def test_the_verbs_foresee_sweep_and_find_nothing_more(run: Path, fedgen: Callable[..., Any]) -> None:
    early = fedgen("retention", "sweep", "--run", run, "--json")
    assert (early.code, early.document["runs"][0]["due"]) == (0, [])
    foreseen = fedgen("retention", "sweep", "--run", run, "--at", FUTURE, "--dry-run", "--json")
    assert foreseen.document["runs"][0]["removed"] == []
    due = foreseen.document["runs"][0]["due"]
    assert "synthetic.parquet" in due
    assert all((run / path).is_file() for path in due)
    swept = fedgen("retention", "sweep", "--run", run, "--at", FUTURE, "--json")
    assert sorted(it["path"] for it in swept.document["runs"][0]["removed"]) == sorted(due)
    assert not any((run / path).exists() for path in due)
    again = fedgen("retention", "sweep", "--run", run, "--at", FUTURE)
    assert again.code == 0
    assert "0 removed" in again.out
    assert read_run(run / "run.json").artefacts == ()
    assert fedgen("audit", "budget", run).code == 0
    gone = fedgen("sample", run, "--rows", 3, "--out", run.parent / "rows.csv")
    assert gone.code == 3


def test_a_file_legal_hold_keeps_everything(run: Path, fedgen: Callable[..., Any]) -> None:
    (run / "legal-hold").write_text("matter 17\n")
    swept = fedgen("retention", "sweep", "--run", run, "--at", FUTURE, "--json").document["runs"][0]
    assert (swept["removed"], swept["due"]) == ([], [])
    assert "synthetic.parquet" in swept["held"]
    (run / "legal-hold").unlink()
    assert fedgen("retention", "sweep", "--run", run, "--at", FUTURE, "--json").document["runs"][0]["removed"]


def test_a_hold_on_somebody_who_was_in_a_round_keeps_what_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fedgen: Callable[..., Any]
) -> None:
    import fedgen as package

    study = write_study(tmp_path, policy={"consent": "consent.csv"}, data={"holdout": 0.0})
    write_consent(tmp_path / "consent.csv", granted=120)
    with ConsentStore.open(tmp_path / "consent.db") as store:
        grant(store, *range(1, 120))
        ask_the_store(monkeypatch, store, tmp_path / "consent.db.d" / "used")

        def join(event: Any) -> None:
            if hasattr(event, "roster") and event.round == 2:
                grant(store, 0)

        package.simulate(study, out=tmp_path / "run", listener=join)
        store.record(
            RightSaid(
                subject_id="p0000",
                kind="legal_hold",
                scope="m",
                effective_at=datetime.now(UTC),
                given_by=None,
            )
        )
    said = fedgen(
        "retention",
        "sweep",
        "--store",
        tmp_path / "consent.db",
        "--run",
        tmp_path / "run",
        "--at",
        FUTURE,
        "--json",
    )
    swept = said.document["runs"][0]
    assert {it["path"] for it in swept["removed"]} == {
        "checkpoints/round-000001.safetensors",
        "checkpoints/round-000002.safetensors",
    }
    assert "checkpoints/round-000003.safetensors" in swept["held"]
    assert "synthetic.parquet" in swept["held"]


def test_one_line_says_what_is_wrong(run: Path, tmp_path: Path, fedgen: Callable[..., Any]) -> None:
    for words, code in (
        (("retention", "sweep"), 2),
        (("retention", "sweep", "--run", run, "--at", "tomorrow"), 2),
        (("retention", "sweep", "--run", run, "--at", "2035-01-01T00:00:00"), 2),
        (("retention", "sweep", "--run", tmp_path / "none"), 3),
        (("retention", "sweep", "--store", tmp_path / "none.db"), 3),
        (("retention", "rollback", run, "--before", 0), 2),
        (("retention", "rollback", tmp_path / "none", "--before", 1), 3),
        (("erase",), 2),
        (("erase", "anna"), 2),
        (("erase", " anna", "--store", tmp_path / "none.db"), 3),
        (("erase", "anna", "--store", tmp_path / "none.db"), 3),
        (("erase", "--verify", tmp_path / "none.json"), 3),
        (("erase", "--verify", run / "run.json"), 6),
    ):
        said = fedgen(*words)
        assert said.code == code, (words, said.err)
        assert said.err.count("\n") == 1, said.err
        assert "(" in said.err, said.err  # a hint


def test_a_rollback_by_hand_is_foreseen_done_and_gone_on_from(
    run: Path, tmp_path: Path, fedgen: Callable[..., Any]
) -> None:
    foreseen = fedgen("retention", "rollback", run, "--before", 3, "--dry-run", "--json").document
    assert (foreseen["back_to"], foreseen["rounds_that_fit"], foreseen["dry_run"]) == (2, 0, True)
    assert (run / "synthetic.parquet").is_file()
    assert fedgen("retention", "rollback", run, "--before", 9, "--json").document["removed"] == []
    done = fedgen("retention", "rollback", run, "--before", 3)
    assert done.code == 0
    assert "--resume" in done.err
    # Nothing fits any more: the run ends at once, with exit 5 and the model it went back to.
    went_on = fedgen("simulate", tmp_path / "study.yaml", "--out", run, "--resume")
    assert went_on.code == 5
    record = read_run(run / "run.json")
    assert (record.outcome, record.rounds_done) == ("budget", 2)
    assert fedgen("audit", "budget", run).code == 0
