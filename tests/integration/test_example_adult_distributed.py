"""The example whose sums nobody sees runs as it stands, only smaller and on made-up rows: report, audit, dropouts."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fedgen.api.checks import check
from fedgen.api.simulation import simulate
from fedgen.runs.journal import read_rounds
from fedgen.schema.table import load_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedgen.api.run import Run

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "adult"
ROUNDS, NAMES = 5, [f"site-{number:02d}" for number in range(1, 11)]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of made-up people that fits the example's schema."""
    schema, draw = load_schema(EXAMPLES / "schema.yaml"), random.Random(5)
    path = tmp_path_factory.mktemp("adult") / "adult.csv"

    def cell(column: Any) -> object:
        values = getattr(column, "categories", None) or getattr(column, "levels", None)
        return draw.choice(values) if values else draw.randint(int(column.min), int(column.max))

    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(schema.names)
        writer.writerows([[cell(column) for column in schema.columns] for _ in range(800)])
    return path


def small(rows: Path) -> list[str]:
    return [
        f"data.source=csv://{rows}",
        "model.latent=2",
        "model.hidden=[4]",
        f"training.rounds={ROUNDS}",
        "training.batch=200",
        "release.rows=40",
        "simulation.judge=false",
    ]


@pytest.fixture(scope="module")
def run(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("run") / "adult"
    return simulate(EXAMPLES / "distributed.yaml", out=folder, overrides=small(rows))


def test_the_example_keeps_its_budget_against_the_colluders_it_assumes(rows: Path) -> None:
    said = check(EXAMPLES / "distributed.yaml", [f"data.source=csv://{rows}"]).to_json()
    charged = next(it for it in said["privacy"] if it["colluders"] == 1)
    assert 0.99 < charged["epsilon"] <= 1.0
    assert (said["secagg"]["protocol"], said["quorum"]) == ("full", 9)
    assert [it["colluders"] for it in said["privacy"]] == [0, 1, 3]


def test_the_other_example_takes_the_trust_from_the_command_line(rows: Path) -> None:
    said = check(
        EXAMPLES / "study.yaml",
        [f"data.source=csv://{rows}", "privacy.trust=distributed", "secagg.dropouts=2", "secagg.ring=64"],
    ).to_json()
    assert (said["secagg"]["dropouts"], said["secagg"]["ring_bits"], said["quorum"]) == (2, 64, 8)


def test_the_full_protocol_runs_with_the_dropouts_it_rehearses(run: Run) -> None:
    assert run.record.outcome == "completed"
    lines = {line.round: line for line in read_rounds(run.folder.metrics)}
    assert {number: set(NAMES) - set(line.sites) for number, line in lines.items()} == {
        1: set(), 2: {"site-03"}, 3: set(), 4: {"site-07"}, 5: set(),
    }  # fmt: skip
    assert len(run.sample(7)) == 7


def test_the_report_shows_every_observers_figure_and_who_was_missing(run: Run) -> None:
    model = json.loads((run.path / "report.json").read_text(encoding="utf-8"))
    shown = {it["who"]: it["bound"] for it in model["sums"]["observers"]}
    assert {"the coordinator, if no site helps it", "one curious site"} < set(shown)
    assert len(set(shown.values())) == 3, "alone, one, and as many as are withstood"
    assert [(it["round"], it["missing"]) for it in model["sums"]["rounds"] if it["missing"]] == [
        (2, ["site-03"]),
        (4, ["site-07"]),
    ]
    page = run.folder.report.read_text(encoding="utf-8")
    for words in ("How sums were taken", "with the help of 3 sites", "an estimate", "at least 9 of 10"):
        assert words in page
    assert "rehearsal" not in page
    assert len(model["promises"]) == 3


def test_the_audit_agrees_and_finds_a_lie(run: Run, fedgen: Callable[..., Any]) -> None:
    said = fedgen("audit", "budget", str(run.path), "--json")
    assert said.code == 0
    claims = said.document["claims"]
    assert [(it["colluders"], it["holds"]) for it in claims] == [(0, True), (1, True), (3, True)]
    assert all(it["claimed"] == pytest.approx(it["recomputed"], rel=1e-9) for it in claims)
    figures = [it for it in said.document["figures"] if it["ledger"].startswith("site")]
    assert all(it["pld"] is None and it["estimate"] < it["rdp"] for it in figures)
    assert {it["rdp"] for it in figures} == {claims[1]["claimed"]}

    record = run.folder.record
    before = record.read_text(encoding="utf-8")
    lie = json.loads(before)
    lie["privacy"][2]["epsilon"] = claims[0]["claimed"]
    record.write_text(json.dumps(lie), encoding="utf-8")
    try:
        assert fedgen("audit", "budget", str(run.path)).code == 6
    finally:
        record.write_text(before, encoding="utf-8")


def test_what_a_dropped_site_was_charged_stays_charged(run: Run) -> None:
    sites = {site.name: site for site in run.record.sites}
    assert sites["site-03"].rounds == ROUNDS - 1
    charged = next(it["epsilon"] for it in run.privacy if it["colluders"] == 1)
    assert {site.epsilon for site in sites.values()} == {charged}
