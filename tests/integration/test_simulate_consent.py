"""Consent at the gate: who withdraws in mid-run is out from the next round, and no consent at all is a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.ledgers import reserved
from support.studies import SCHEMA, write_consent, write_study

import fedgen
from fedgen.errors import ConfigError, DataError, QuorumLost, Refused
from fedgen.runs.journal import read_rounds

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLOCK = {"clock_start": "2026-03-01T00:00:00Z", "clock_step_s": 3600}


def _study(folder: Path, **sections: Any) -> Path:
    policy = {"consent": "consent.csv", **sections.pop("policy", {})}
    return write_study(folder, policy=policy, simulation=CLOCK, **sections)


def test_a_withdrawal_takes_effect_in_the_next_round_and_is_counted(tmp_path: Path) -> None:
    study = _study(tmp_path, training={"rounds": 4})
    # The clock stands at one hour in round 1: forty people withdraw between the rounds 2 and 3.
    write_consent(
        tmp_path / "consent.csv", granted=120, withdrawn=dict.fromkeys(range(40), "2026-03-01T02:30:00Z")
    )
    run = fedgen.simulate(study, out=tmp_path / "run")
    lines = {line.round: line for line in read_rounds(run.folder.metrics)}
    assert lines[1].excluded == lines[2].excluded == {}
    assert lines[3].excluded == lines[4].excluded
    assert set(lines[3].excluded) == {"site-01", "site-02", "site-03"}
    for counts in lines[3].excluded.values():
        assert set(counts) == {"consent-withdrawn"}
        assert counts["consent-withdrawn"] in {"<10", "10-99"}
    page = (run.path / "report.html").read_text()
    assert "Consent withdrawn" in page


def test_people_who_never_agreed_are_out_from_the_first_round(tmp_path: Path) -> None:
    study = _study(tmp_path)
    write_consent(tmp_path / "consent.csv", granted=90)
    run = fedgen.simulate(study, out=tmp_path / "run")
    for line in read_rounds(run.folder.metrics):
        assert {reason for counts in line.excluded.values() for reason in counts} == {"consent-missing"}


def test_the_log_is_read_again_in_every_round(tmp_path: Path) -> None:
    study = _study(tmp_path)
    log = tmp_path / "consent.csv"
    write_consent(log, granted=120)

    def withdraw(event: object) -> None:
        if getattr(event, "round", None) == 1 and hasattr(event, "roster"):
            write_consent(log, granted=120, withdrawn=dict.fromkeys(range(30), "2026-02-01T00:00:00Z"))

    run = fedgen.simulate(study, out=tmp_path / "run", listener=withdraw)
    lines = {line.round: line for line in read_rounds(run.folder.metrics)}
    assert lines[1].excluded == {}
    assert lines[2].excluded != {}


@pytest.mark.parametrize("purpose", ["train_generator", "research_elsewhere"])
def test_no_consent_at_any_site_is_a_refusal_with_its_reason(
    tmp_path: Path, fedgen: Callable[..., Any], purpose: str
) -> None:
    study = _study(tmp_path)
    write_consent(
        tmp_path / "consent.csv", granted=0 if purpose == "train_generator" else 120, purpose=purpose
    )
    said = fedgen("simulate", study, "--out", tmp_path / "run", "--json")
    assert said.code == 4
    assert said.document["error"] == "Refused"
    assert "consent" in said.document["what"]
    ledger = tmp_path / "run" / "sites" / "site-01" / "ledger.db"
    assert reserved(ledger) == []  # nothing was spent
    assert (tmp_path / "run" / "report.html").is_file()


def test_so_few_consenting_people_that_no_site_has_a_cohort_is_a_refusal_too(tmp_path: Path) -> None:
    study = _study(tmp_path, policy={"min_cohort": 20})
    write_consent(tmp_path / "consent.csv", granted=1)
    with pytest.raises(Refused, match="consent"):
        fedgen.simulate(study, out=tmp_path / "run")


def test_a_cohort_that_is_too_small_by_itself_is_a_lost_quorum(tmp_path: Path) -> None:
    study = write_study(tmp_path, policy={"min_cohort": 1000})
    with pytest.raises(QuorumLost) as lost:
        fedgen.simulate(study, out=tmp_path / "run")
    assert lost.value.exit_code == 8
    assert any("min_cohort" in warning for warning in fedgen.check(study).warnings)


def test_a_site_under_the_minimum_cohort_sits_out_and_the_others_go_on(tmp_path: Path) -> None:
    study = _study(
        tmp_path, data={"sites": {"count": 3, "split": "by", "by": "ward"}}, policy={"min_cohort": 4}
    )
    rows = [row.split(",") for row in (tmp_path / "rows.csv").read_text().splitlines()[1:]]
    people = [int(row[0][1:]) for row in rows if row[2] != "north"]
    lines = ["subject,purpose,status,recorded_at"]
    lines += [f"p{number:04d},train_generator,granted,2026-01-01T00:00:00Z" for number in people]
    (tmp_path / "consent.csv").write_text("\n".join(lines) + "\n")
    run = fedgen.simulate(study, out=tmp_path / "run")
    assert run.record.outcome == "completed"
    refused = {site.name: site.refusals for site in run.record.sites}
    assert sorted(map(bool, refused.values())) == [False, False, True]
    assert {"consent": 3} in refused.values()


def test_a_consent_log_without_a_subject_column_is_refused_before_anything_runs(tmp_path: Path) -> None:
    schema = {key: value for key, value in SCHEMA.items() if key != "subject"}
    study = _study(tmp_path, schema=schema)
    write_consent(tmp_path / "consent.csv", granted=120)
    with pytest.raises(ConfigError, match="person") as wrong:
        fedgen.simulate(study, out=tmp_path / "run")
    assert wrong.value.key == "policy.consent"
    assert wrong.value.line is not None
    assert not (tmp_path / "run").exists()


def test_a_consent_log_that_cannot_be_read_is_refused_before_anything_runs(tmp_path: Path) -> None:
    study = _study(tmp_path)
    with pytest.raises(DataError):
        fedgen.simulate(study, out=tmp_path / "run")
    (tmp_path / "consent.csv").write_text(
        "subject,purpose,status,recorded_at\np0001,train_generator,perhaps,2026-01-01T00:00:00Z\n"
    )
    with pytest.raises(DataError) as wrong:
        fedgen.check(study)
    assert "perhaps" not in str(wrong.value)
    assert not (tmp_path / "run").exists()
