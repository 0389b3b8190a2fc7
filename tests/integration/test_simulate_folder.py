"""A finished run folder holds every promised file, and the files agree with each other."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from support.ledgers import entries, reserved, settled
from support.studies import write_study

import fedgen
from fedgen.config.plan import plan_of
from fedgen.config.resolve import read_resolved
from fedgen.errors import ConfigError
from fedgen.ledger.entries import Closed
from fedgen.models.state import load_tensors
from fedgen.privacy.accountant import epsilon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fedgen.Run]:
    folder = tmp_path_factory.mktemp("finished")
    return fedgen.simulate(write_study(folder, simulation={"judge": True}), out=folder / "run")


def test_every_promised_file_is_there(run: fedgen.Run) -> None:
    wanted = ["study.yaml", "run.json", "ledger.db", "metrics.jsonl", "report.html", "synthetic.parquet"]
    wanted += ["synthetic.csv", "evaluation.json", "report.json"]
    wanted += [f"sites/site-0{number}/ledger.db" for number in (1, 2, 3)]
    assert [name for name in wanted if not (run.path / name).is_file()] == []
    assert list((run.path / "checkpoints").glob("*.safetensors"))


def test_nothing_is_left_that_was_being_written(run: fedgen.Run) -> None:
    assert [str(path) for path in run.path.rglob(".*") if path.name != ".lock"] == []


def test_run_json_names_the_digest_of_every_result(run: fedgen.Run) -> None:
    made = {item.path: item.sha256 for item in run.record.artefacts}
    assert {"synthetic.parquet", "synthetic.csv", "report.html", "report.json", "evaluation.json"} <= set(
        made
    )
    for path, digest in made.items():
        assert hashlib.sha256((run.path / path).read_bytes()).hexdigest() == digest, path


def test_run_json_holds_what_is_promised(run: fedgen.Run) -> None:
    document = json.loads((run.path / "run.json").read_text())
    assert {
        "study",
        "study_hash",
        "outcome",
        "rounds_done",
        "wall_s",
        "privacy",
        "sites",
        "artefacts",
    } <= set(document)
    assert document["outcome"] == "completed"
    assert document["rounds_done"] == 3
    for statement in document["privacy"]:
        assert {"unit", "trust", "scope", "epsilon", "delta", "accountant", "proved"} <= set(statement)
    assert [site["name"] for site in document["sites"]] == ["site-01", "site-02", "site-03"]
    assert all(site["rounds"] == 3 for site in document["sites"])


def test_study_yaml_has_the_hash_that_everything_else_names(run: fedgen.Run) -> None:
    study = read_resolved(run.path / "study.yaml")
    assert study.study_hash == run.record.study_hash
    assert json.loads((run.path / "report.json").read_text())["study_hash"] == study.study_hash
    newest = max((run.path / "checkpoints").glob("*.safetensors"))
    assert load_tensors(newest)[1]["study_hash"] == study.study_hash


def test_study_yaml_is_refused_when_edited(run: fedgen.Run, tmp_path: Path) -> None:
    edited = tmp_path / "study.yaml"
    edited.write_text((run.path / "study.yaml").read_text().replace("epsilon: 3.0", "epsilon: 2.0"))
    with pytest.raises(ConfigError, match="changed"):
        fedgen.check(edited)


def test_check_of_a_run_folder_states_the_same_promises(run: fedgen.Run) -> None:
    plan = fedgen.check(run.path / "study.yaml").to_json()
    stated = {(item["scope"], item["epsilon"]) for item in run.record.privacy}
    assert {(item["scope"], item["epsilon"]) for item in plan["privacy"]} == stated


def test_metrics_have_one_line_for_each_round(run: fedgen.Run) -> None:
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines] == [1, 2, 3]
    assert all(sorted(line["sites"]) == ["site-01", "site-02", "site-03"] for line in lines)
    assert all(line["missing"] == {} for line in lines)
    spent = [line["epsilon"] for line in lines]
    assert spent == sorted(spent)
    assert spent[-1] <= 3.0


def test_every_ledger_verifies_and_its_epsilon_is_the_one_stated(run: fedgen.Run) -> None:
    plan = plan_of(run.study)
    event, count = plan.event_per_round()
    stated = {item["scope"]: item["epsilon"] for item in run.privacy}
    for name in ("site-01", "site-02", "site-03"):
        ledger = run.path / "sites" / name / "ledger.db"
        assert reserved(ledger) == settled(ledger) == [(1, 1), (2, 1), (3, 1)]
        assert entries(ledger)[-1] == Closed(
            study_hash=run.study.study_hash, run=run.record.run, outcome="completed", rounds=3
        )
        spent = epsilon(((event, 3 * count),), plan.delta, relation=plan.relation).epsilon
        assert stated[f"site {name}"] == pytest.approx(spent)


def test_the_coordinators_own_log_names_every_round_it_asked(run: fedgen.Run) -> None:
    ledger = run.path / "ledger.db"
    assert reserved(ledger) == settled(ledger) == [(1, 1), (2, 1), (3, 1)]


def test_synthetic_files_hold_the_same_rows_within_the_declared_bounds(run: fedgen.Run) -> None:
    table = pq.read_table(run.path / "synthetic.parquet")
    assert table.num_rows == 40
    assert table.column_names == ["age", "ward", "height", "sick"]
    assert set(table["ward"].to_pylist()) <= {"north", "south", "west"}
    assert all(0 <= value <= 9 for value in table["age"].to_pylist())
    assert all(0 <= value <= 2 for value in table["height"].to_pylist())
    assert pc.read_csv(run.path / "synthetic.csv").num_rows == 40


def test_no_subject_and_no_row_file_is_in_what_is_meant_for_others(run: fedgen.Run) -> None:
    for name in ("run.json", "metrics.jsonl", "report.html", "report.json", "study.yaml", "synthetic.csv"):
        text = (run.path / name).read_text()
        assert not any(f"p{number:04d}" in text for number in range(120)), name


def test_keys_and_the_sites_own_files_are_for_their_owner_only(run: fedgen.Run) -> None:
    private = [*run.path.glob("coordinator/*.key"), *run.path.glob("sites/*/*")]
    assert private
    assert {oct(path.stat().st_mode & 0o777) for path in private} == {"0o600"}


def test_a_run_is_loaded_again_and_sampled(run: fedgen.Run) -> None:
    again = fedgen.load_run(run.path)
    frame = again.sample(25)
    assert list(frame.columns) == ["age", "ward", "height", "sick"]
    assert len(frame) == 25


def test_a_second_start_refuses_and_leaves_every_file_as_it_was(run: fedgen.Run) -> None:
    before = _contents(run.path)
    with pytest.raises(ConfigError, match="already holds this study"):
        fedgen.simulate(run.path.parent / "study.yaml", out=run.path)
    assert _contents(run.path) == before


def test_resuming_a_finished_run_is_no_work_and_changes_nothing(run: fedgen.Run) -> None:
    before = _contents(run.path)
    again = fedgen.simulate(run.path.parent / "study.yaml", out=run.path, resume=True)
    assert _contents(run.path) == before
    assert again.record == run.record


def test_a_lost_result_is_made_again_without_another_charge(run: fedgen.Run) -> None:
    ledger = run.path / "sites" / "site-01" / "ledger.db"
    before = reserved(ledger)
    (run.path / "report.html").unlink()
    again = fedgen.simulate(run.path.parent / "study.yaml", out=run.path, resume=True)
    assert (run.path / "report.html").is_file()
    assert again.record.outcome == "completed"
    assert reserved(ledger) == before


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
