"""Rehearsed faults: the faulty site is left out and named, the round goes on, and the quorum is what ends a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support.ledgers import reserved
from support.studies import write_study

import fedgen
from fedgen.errors import QuorumLost
from fedgen.runs.journal import RoundLine, read_rounds

if TYPE_CHECKING:
    from pathlib import Path

FAULTY = "site-02"


def _rehearse(folder: Path, kind: str, **sections: Any) -> fedgen.Run:
    fault = {"site": FAULTY, "round": 2, "kind": kind}
    study = write_study(folder, simulation={"faults": [fault]}, **sections)
    return fedgen.simulate(study, out=folder / "run")


def _rounds(run: fedgen.Run) -> dict[int, RoundLine]:
    return {line.round: line for line in read_rounds(run.folder.metrics)}


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        pytest.param("raise", "fault", id="raises"),
        pytest.param("refuse", "study-refused", id="refuses"),
        pytest.param("nan", "not-finite", id="answers-NaN"),
        pytest.param("drop", "dropped", id="drops"),
    ],
)
def test_a_faulty_site_is_left_out_of_its_round_and_named(tmp_path: Path, kind: str, code: str) -> None:
    run = _rehearse(tmp_path, kind)
    lines = _rounds(run)
    assert run.record.outcome == "completed"
    assert lines[2].missing == {FAULTY: code}
    assert FAULTY not in lines[2].sites
    assert FAULTY in lines[1].sites
    assert FAULTY in lines[3].sites
    summary = {site.name: site for site in run.record.sites}
    assert summary[FAULTY].refusals == {code: 1}
    assert summary[FAULTY].rounds == 2
    assert summary["site-01"].refusals == {}
    report = json.loads((run.path / "report.json").read_text())
    cells = {site["site"]: site["cells"] for site in report["participation"]}
    assert cells[FAULTY][1] == ("absent" if code == "dropped" else code)
    assert FAULTY in (run.path / "report.html").read_text()


def test_what_a_lost_answer_cost_stays_charged(tmp_path: Path) -> None:
    run = _rehearse(tmp_path, "drop")
    assert reserved(run.path / "sites" / FAULTY / "ledger.db") == [(1, 1), (2, 1), (3, 1)]
    stated = {statement["scope"]: statement["epsilon"] for statement in run.privacy}
    assert stated[f"site {FAULTY}"] == stated["site site-01"]


def test_an_answer_that_comes_twice_counts_once_and_is_named(tmp_path: Path) -> None:
    run = _rehearse(tmp_path, "twice")
    line = _rounds(run)[2]
    assert sorted(line.sites) == ["site-01", FAULTY, "site-03"]
    assert line.missing == {}
    assert line.rejected == {FAULTY: "replayed"}
    summary = {site.name: site for site in run.record.sites}
    assert summary[FAULTY].rounds == 3
    assert summary[FAULTY].refusals == {"replayed": 1}


def test_a_site_that_answers_too_late_is_left_out_and_the_run_ends(tmp_path: Path) -> None:
    run = _rehearse(tmp_path, "late", training={"timeout_s": 4.0, "quorum": 1})
    line = _rounds(run)[2]
    assert run.record.outcome == "completed"
    assert FAULTY not in line.sites
    assert line.missing[FAULTY] == "late"
    assert run.record.rounds_done == 3


def test_without_a_quorum_the_run_ends_with_the_last_good_model(tmp_path: Path) -> None:
    with pytest.raises(QuorumLost) as lost:
        _rehearse(tmp_path, "raise", training={"quorum": 3})
    assert lost.value.exit_code == 8
    run = fedgen.load_run(tmp_path / "run")
    assert run.record.outcome == "quorum"
    assert run.record.rounds_done == 1
    assert len(run.sample(5)) == 5
    assert (run.path / "report.html").is_file()
    assert _rounds(run)[2].missing == {FAULTY: "fault"}


def test_sites_that_answered_a_lost_round_are_not_charged_again_for_it(tmp_path: Path) -> None:
    with pytest.raises(QuorumLost):
        _rehearse(tmp_path, "drop", training={"quorum": 3})
    with pytest.raises(QuorumLost):  # the fault is rehearsed again in the same round
        fedgen.simulate(tmp_path / "study.yaml", out=tmp_path / "run", resume=True)
    for name in ("site-01", "site-03"):
        assert reserved(tmp_path / "run" / "sites" / name / "ledger.db") == [(1, 1), (2, 1)]


def test_a_defect_at_every_site_before_round_one_leaves_a_report_without_a_model(tmp_path: Path) -> None:
    faults = [{"site": f"site-0{number}", "round": 1, "kind": "raise"} for number in (1, 2, 3)]
    study = write_study(tmp_path, simulation={"faults": faults})
    with pytest.raises(QuorumLost):
        fedgen.simulate(study, out=tmp_path / "run")
    assert (tmp_path / "run" / "report.html").is_file()
    assert not (tmp_path / "run" / "synthetic.parquet").exists()


def test_the_sites_own_log_says_in_words_what_the_coordinator_learns_as_a_code(tmp_path: Path) -> None:
    run = _rehearse(tmp_path, "raise")
    incident = json.loads((run.path / "sites" / FAULTY / "incidents.jsonl").read_text())
    assert incident["code"] == "fault"
    assert incident["text"] == "a rehearsed defect"
    assert "a rehearsed defect" not in (run.path / "metrics.jsonl").read_text()
    assert "a rehearsed defect" not in (run.path / "report.html").read_text()
