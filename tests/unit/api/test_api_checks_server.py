"""``check`` at a coordinator: the plan of a deployed study, by what its sites declared and without a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.deployed import let_in
from support.studies import write_study

from fedgen.api.checks import check
from fedgen.api.enrolment import server_init
from fedgen.api.prepare import prepare
from fedgen.api.training import prepare_deployed
from fedgen.cli.app import command, guarded
from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.enrolment.server_home import ServerHome


@pytest.fixture
def home(tmp_path: Path) -> ServerHome:
    return server_init(tmp_path / "server", "127.0.0.1:18443")


def study_of(folder: Path, names: list[str]) -> Path:
    return write_study(folder / "study", data={"sites": {"names": names}, "holdout": 0.0})


def test_the_plan_is_that_of_train_and_needs_no_rows(tmp_path: Path, home: ServerHome) -> None:
    study = study_of(tmp_path, ["a", "b"])
    simulated = check(study)
    for entry in prepare(study).resolved.roster:
        let_in(home, entry.name, entry.rows)
    for rows in study.parent.glob("*.csv"):
        rows.unlink()
    found = check(study, server=home.root)
    assert found.study.study_hash == prepare_deployed(study, (), home).resolved.study_hash
    assert found.study.study_hash == simulated.study.study_hash
    assert found.to_json()["privacy"] == simulated.to_json()["privacy"]
    assert found.parameters == simulated.parameters
    assert found.allowance is None
    assert "site approve" in found.warnings[-1]
    more = check(study, ["training.rounds=9"], server=home.root)
    assert more.privacy.sigma > found.privacy.sigma


def test_a_site_that_is_not_enrolled_is_named(tmp_path: Path, home: ServerHome) -> None:
    let_in(home, "a", 100)
    with pytest.raises(ConfigError, match="b") as caught:
        check(study_of(tmp_path, ["a", "b"]), server=home.root)
    assert "names" in str(caught.value)


def test_a_folder_that_is_no_home_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        check(study_of(tmp_path, ["a", "b"]), server=tmp_path / "nowhere")
    assert "nowhere" in str(caught.value)


def test_the_verb_prints_the_plan(
    tmp_path: Path, home: ServerHome, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b"):
        let_in(home, name, 100)
    words = ["check", str(study_of(tmp_path, ["a", "b"])), "--server", str(home.root)]
    assert guarded(lambda: command().main(words, standalone_mode=False), words) == 0
    said = capsys.readouterr()
    assert "is hidden up to ε = " in said.out
    assert "warning: what each site's budget has left" in said.err
