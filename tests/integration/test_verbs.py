"""Every verb: its result on stdout, the conversation on stderr, and with ``--json`` exactly one document."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest
from support.studies import write_study

import fedgen as package
from fedgen.cli.later import LATER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verbs")
    package.simulate(write_study(folder, simulation={"judge": True}), out=folder / "run")
    return folder


def _one_document(said: Any) -> Any:
    assert said.code == 0, said.err
    document = json.loads(said.out)  # fails on a second document, or on anything beside it
    assert said.out.endswith("\n")
    return document


def test_check_prints_a_plan_for_people(place: Path, fedgen: Callable[..., Any]) -> None:
    said = fedgen("check", place / "study.yaml")
    assert said.code == 0
    for part in ("tiny", "tabular-vae", "site-01", "noise", "multiplier", "is hidden up to ε = "):
        assert part in said.out


def test_check_json(place: Path, fedgen: Callable[..., Any]) -> None:
    document = _one_document(fedgen("check", place / "study.yaml", "--json"))
    assert {"study_hash", "sites", "rounds", "noise_multiplier", "privacy", "warnings", "quorum"} <= set(
        document
    )
    assert [site["name"] for site in document["sites"]] == ["site-01", "site-02", "site-03"]


def test_check_writes_nothing(tmp_path: Path, fedgen: Callable[..., Any]) -> None:
    study = write_study(tmp_path)
    before = sorted(tmp_path.iterdir())
    assert fedgen("check", study).code == 0
    assert sorted(tmp_path.iterdir()) == before


def test_an_override_changes_the_plan_and_the_hash(place: Path, fedgen: Callable[..., Any]) -> None:
    plain = _one_document(fedgen("check", place / "study.yaml", "--json"))
    more = _one_document(fedgen("check", place / "study.yaml", "--set", "training.rounds=9", "--json"))
    assert more["rounds"] == 9
    assert more["study_hash"] != plain["study_hash"]
    assert more["noise_multiplier"] > plain["noise_multiplier"]


def test_simulate_json_is_the_run_record(tmp_path: Path, fedgen: Callable[..., Any]) -> None:
    said = fedgen("simulate", write_study(tmp_path), "--out", tmp_path / "run", "--json")
    document = _one_document(said)
    assert document["outcome"] == "completed"
    assert document["path"] == str(tmp_path / "run")
    written = json.loads((tmp_path / "run" / "run.json").read_text())
    assert {key: value for key, value in document.items() if key != "path"} == written
    assert "round  3/3" in said.err
    assert "completed" in said.err


def test_simulate_shows_round_sites_epsilon_and_where_the_results_are(
    tmp_path: Path, fedgen: Callable[..., Any]
) -> None:
    said = fedgen("simulate", write_study(tmp_path), "--out", tmp_path / "run")
    assert said.code == 0
    assert str(tmp_path / "run" / "report.html") in said.out
    assert "is hidden up to" in said.out
    assert "sites 3/3" in said.err
    assert "ε at most" in said.err
    assert "\x1b" not in said.out + said.err  # no colour in a pipe


def test_simulate_without_a_place_makes_one_named_by_the_study(
    tmp_path: Path, fedgen: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    document = _one_document(fedgen("simulate", study, "--json"))
    assert document["path"] == f"runs/tiny-{document['study_hash'][:8]}"


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_sample_writes_rows_by_suffix(
    place: Path, tmp_path: Path, fedgen: Callable[..., Any], suffix: str
) -> None:
    out = tmp_path / "new" / f"rows.{suffix}"
    assert _one_document(fedgen("sample", place / "run", "--rows", 17, "--out", out, "--json")) == {
        "out": str(out),
        "rows": 17,
    }
    table = pq.read_table(out) if suffix == "parquet" else pc.read_csv(out)
    assert table.num_rows == 17
    assert table.column_names == ["age", "ward", "height", "sick"]


@pytest.mark.parametrize("name", ["rows.png", "rows.npz", "rows.xlsx", "rows"])
def test_sample_refuses_a_suffix_a_table_cannot_have(
    place: Path, tmp_path: Path, fedgen: Callable[..., Any], name: str
) -> None:
    said = fedgen("sample", place / "run", "--rows", 3, "--out", tmp_path / name)
    assert said.code == 2
    assert "parquet, csv" in said.err
    assert list(tmp_path.iterdir()) == []


def test_sampling_costs_no_budget(place: Path, tmp_path: Path, fedgen: Callable[..., Any]) -> None:
    ledger = place / "run" / "sites" / "site-01" / "ledger.db"
    before = ledger.read_bytes()
    assert fedgen("sample", place / "run", "--rows", 5, "--out", tmp_path / "x.csv").code == 0
    assert ledger.read_bytes() == before


def _evaluate(place: Path, *more: object) -> tuple[object, ...]:
    return (
        "evaluate",
        "--real",
        place / "rows.csv",
        "--synthetic",
        place / "run" / "synthetic.parquet",
        "--schema",
        place / "schema.yaml",
        *more,
    )


def test_evaluate_prints_scores_and_whose_rows_they_are_from(place: Path, fedgen: Callable[..., Any]) -> None:
    said = fedgen(*_evaluate(place))
    assert said.code == 0
    for part in ("mean 2-way distance", "ward", "shape"):
        assert part in said.out


def test_evaluate_json_with_a_holdout_has_utility(place: Path, fedgen: Callable[..., Any]) -> None:
    document = _one_document(fedgen(*_evaluate(place, "--holdout", place / "rows.csv", "--json")))
    assert set(document["column_shapes"]) == {"age", "ward", "height", "sick"}
    assert document["tstr"] is not None


def test_report_writes_the_page_again_from_its_figures(
    place: Path, tmp_path: Path, fedgen: Callable[..., Any]
) -> None:
    said = fedgen("report", place / "run", "--out", tmp_path / "again.html")
    assert said.code == 0
    assert said.out == f"{tmp_path / 'again.html'}\n"
    assert (tmp_path / "again.html").read_bytes() == (place / "run" / "report.html").read_bytes()


def test_report_json_is_every_figure_of_the_page(
    place: Path, tmp_path: Path, fedgen: Callable[..., Any]
) -> None:
    document = _one_document(fedgen("report", place / "run", "--out", tmp_path / "x.html", "--json"))
    assert document.pop("out") == str(tmp_path / "x.html")
    assert document == json.loads((place / "run" / "report.json").read_text())


def test_the_report_takes_nothing_from_outside(place: Path) -> None:
    page = (place / "run" / "report.html").read_text()
    for outside in ("<script src", '<link rel="stylesheet"', "@import", 'src="http', "url(http"):
        assert outside not in page


def test_doctor(fedgen: Callable[..., Any]) -> None:
    document = _one_document(fedgen("doctor", "--json"))
    assert document["versions"]["fedgen"] == package.__version__
    assert document["checks"]["entropy"] is True
    assert document["checks"]["hybrid_encryption"] is True
    said = fedgen("doctor")
    assert "versions.torch" in said.out


def test_init_from_a_file_then_fill_in_then_check(tmp_path: Path, fedgen: Callable[..., Any]) -> None:
    write_study(tmp_path / "source")
    document = _one_document(
        fedgen("init", tmp_path / "new", "--from", tmp_path / "source" / "rows.csv", "--json")
    )
    assert document["files"] == [str(tmp_path / "new" / name) for name in ("study.yaml", "schema.yaml")]
    assert document["to_do"]
    said = fedgen("check", tmp_path / "new" / "study.yaml")
    assert said.code == 3  # what a person must fill in is not guessed
    assert "schema.yaml" in said.err
    (tmp_path / "new" / "schema.yaml").write_text((tmp_path / "source" / "schema.yaml").read_text())
    assert fedgen("check", tmp_path / "new" / "study.yaml").code == 0


def test_init_without_a_file_makes_a_study_that_checks(tmp_path: Path, fedgen: Callable[..., Any]) -> None:
    assert fedgen("init", tmp_path / "new").code == 0
    assert fedgen("check", tmp_path / "new" / "study.yaml").code == 0


def test_init_never_overwrites(tmp_path: Path, fedgen: Callable[..., Any]) -> None:
    assert fedgen("init", tmp_path / "new").code == 0
    before = (tmp_path / "new" / "study.yaml").read_bytes()
    said = fedgen("init", tmp_path / "new")
    assert said.code == 3
    assert "not overwritten" in said.err
    assert (tmp_path / "new" / "study.yaml").read_bytes() == before


@pytest.mark.parametrize("verb", sorted(LATER))
def test_a_verb_of_a_later_version_says_so_whatever_follows_it(verb: str, fedgen: Callable[..., Any]) -> None:
    said = fedgen(verb, "show", "--server", "x", "--json")
    assert said.code == 2
    assert said.document["what"] == f"`fedgen {verb}` is not in this version"
    assert f"`fedgen {verb}` is not in this version" in said.err


@pytest.mark.parametrize(
    "words", [("check",), ("simulate",), ("sample", "x"), ("nonsense",), ("check", "--wat")]
)
def test_a_wrong_command_line_is_one_document_with_json(
    words: tuple[str, ...], fedgen: Callable[..., Any]
) -> None:
    said = fedgen(*words, "--json")
    assert said.code == 2
    assert said.document["error"] == "UsageError"
    assert said.err.count("\n") == 1


def test_help_is_not_an_error(fedgen: Callable[..., Any]) -> None:
    for words in (("--help",), ("simulate", "--help"), ("init", "--help")):
        said = fedgen(*words)
        assert said.code == 0
        assert "Usage: fedgen" in said.out
        assert "\\[" not in said.out
    assert fedgen("simulate", "--help").out.count("STUDY ") == 1
