"""The page of a deployed run says what a deployed run is, and names commands that work for one."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest
from support.studies import write_study

from fedgen.api.ledgers import ledgers_in
from fedgen.api.reporting import _about, _commands
from fedgen.api.simulation import simulate
from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.api.run import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("deployed-report")
    return simulate(write_study(root / "study", training={"rounds": 1}), out=root / "run")


def test_only_a_simulated_run_says_that_it_was_simulated_and_on_which_rows(run: Run) -> None:
    simulated = _about(run.study, run.record)
    assert simulated.simulated
    assert simulated.data.startswith("csv://rows.csv, about ")
    deployed = _about(run.study, run.record.model_copy(update={"backend": "deployed"}))
    assert not deployed.simulated
    assert deployed.data.startswith("each site's own data, about ")


def _ledger_commands(run: Run, *, deployed: bool) -> list[tuple[str, str]]:
    found = [
        it
        for it in _commands(run, deployed=deployed)
        if it.text.startswith(("fedgen audit", "fedgen ledger"))
    ]
    return [(shlex.split(it.text)[-1], it.shows) for it in found]


def test_a_simulated_run_is_verified_from_its_folder(run: Run) -> None:
    for where, _ in _ledger_commands(run, deployed=False):
        assert where == str(run.path)


def test_a_deployed_run_is_verified_where_the_ledgers_are(run: Run, tmp_path: Path) -> None:
    """Its folder holds none: the commands that a simulation's page names would only say so."""
    bare = tmp_path / "run"
    bare.mkdir()
    (bare / "study.yaml").write_bytes((run.path / "study.yaml").read_bytes())
    with pytest.raises(ConfigError, match="no ledger"):
        ledgers_in(bare)
    (site, *_) = (run.path / "sites").iterdir()
    named = _ledger_commands(run, deployed=True)
    assert len(named) == 2
    for where, shows in named:
        assert (site / where).is_file()
        assert shows.startswith("at a site, in its home: ")
