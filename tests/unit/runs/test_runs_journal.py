"""metrics.jsonl and run.json: written and read are inverse."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from fedgen.errors import ConfigError, IntegrityError
from fedgen.runs.journal import (
    Artefact,
    RoundLine,
    RunRecord,
    SiteSummary,
    append_round,
    read_rounds,
    read_run,
    standing,
    write_run,
)

if TYPE_CHECKING:
    from pathlib import Path

RECORD = RunRecord(
    study="one",
    study_hash="a" * 64,
    run="b" * 64,
    outcome="completed",
    rounds=20,
    rounds_done=20,
    started_at=datetime(2026, 1, 31, 8, tzinfo=UTC),
    wall_s=12.5,
    backend="inprocess",
    seeds="os",
    versions={"fedgen": "0.1.0"},
    privacy=(
        {
            "unit": "record",
            "trust": "local",
            "scope": "site-01",
            "epsilon": 2.9,
            "delta": 1e-5,
            "accountant": "pld",
            "proved": True,
        },
    ),
    sites=(SiteSummary(name="site-01", rounds=19, epsilon=2.9, refusals={"late": 1}),),
    artefacts=(Artefact(path="report.html", sha256="c" * 64),),
)


def line(number: int, attempt: int = 1, **more: Any) -> RoundLine:
    return RoundLine(round=number, attempt=attempt, sites=("site-01",), seconds=0.1, **more)


def test_a_run_record_is_read_back_as_it_was(tmp_path: Path) -> None:
    write_run(tmp_path / "run.json", RECORD)
    assert read_run(tmp_path / "run.json") == RECORD


def test_a_run_record_holds_what_is_promised(tmp_path: Path) -> None:
    write_run(tmp_path / "run.json", RECORD)
    value = json.loads((tmp_path / "run.json").read_bytes())
    assert {
        "study",
        "study_hash",
        "outcome",
        "rounds_done",
        "wall_s",
        "privacy",
        "sites",
        "artefacts",
    } <= set(value)
    assert {"unit", "trust", "scope", "epsilon", "delta", "accountant", "proved"} <= set(value["privacy"][0])
    assert value["artefacts"] == [{"path": "report.html", "sha256": "c" * 64}]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("outcome", "fine"),
        ("study_hash", "short"),
        ("wall_s", float("nan")),
        ("rounds_done", -1),
        ("started_at", "2026-01-31T08:00:00"),
        ("format", 2),
    ],
)
def test_a_run_record_says_only_what_it_can(key: str, value: object) -> None:
    with pytest.raises(ValidationError):
        RunRecord.model_validate({**RECORD.model_dump(), key: value})


def test_a_run_record_that_is_missing_or_broken_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with pytest.raises(ConfigError, match="no such file"):
        read_run(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(IntegrityError, match="not JSON"):
        read_run(path)
    path.write_text(json.dumps({"format": 1}), encoding="utf-8")
    with pytest.raises(IntegrityError, match="at study"):
        read_run(path)
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(IntegrityError, match="at its top"):
        read_run(path)


def test_rounds_are_read_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = (
        line(1, missing={"site-02": "late"}, excluded={"site-01": {"consent-withdrawn": "<10"}}, epsilon=0.4),
        line(2, heldout_loss=-1.5, bytes_in=10, bytes_out=20),
    )
    for each in lines:
        append_round(path, each)
    with path.open("ab") as file:
        file.write(b'{"round":3,"att')
    assert read_rounds(path) == lines
    assert read_rounds(tmp_path / "none") == ()


def test_an_exact_count_cannot_be_written() -> None:
    with pytest.raises(ValidationError):
        line(1, excluded={"site-01": {"consent-withdrawn": "7"}})


def test_a_line_that_is_no_round_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"round": 0}\n', encoding="utf-8")
    with pytest.raises(IntegrityError, match="round"):
        read_rounds(path)


def test_of_several_attempts_the_last_stands() -> None:
    lines = (line(1), line(2, 1), line(3, 1), line(2, 2), line(3, 3), line(3, 2))
    assert [(each.round, each.attempt) for each in standing(lines)] == [(1, 1), (2, 2), (3, 3)]


def test_of_two_lines_of_one_attempt_the_later_stands() -> None:
    """A round of secure aggregation whose sum was lost to a kill, after its line was written."""
    lost = line(2, 1).model_copy(update={"sites": ()})
    assert line(2, 1).sites
    assert [each.sites for each in standing((line(2, 1), lost))] == [()]
