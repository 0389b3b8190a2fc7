"""``insecure_seed`` makes a run repeatable to the bit, and everything it writes says that nothing is private."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from support.studies import write_study

import fedgen
from fedgen.models.state import load_tensors

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[fedgen.Run, fedgen.Run]:
    folder = tmp_path_factory.mktemp("seeded")
    study = write_study(folder, privacy={"insecure_seed": 5})
    return fedgen.simulate(study, out=folder / "one"), fedgen.simulate(study, out=folder / "two")


def _weights(run: fedgen.Run) -> torch.Tensor:
    return load_tensors(max((run.path / "checkpoints").glob("*.safetensors")))[0]["weights"]


def test_two_runs_end_with_bit_identical_weights(twins: tuple[fedgen.Run, fedgen.Run]) -> None:
    assert torch.equal(_weights(twins[0]), _weights(twins[1]))


def test_another_seed_gives_other_weights(twins: tuple[fedgen.Run, fedgen.Run], tmp_path: Path) -> None:
    study = write_study(tmp_path, privacy={"insecure_seed": 6})
    assert not torch.equal(_weights(twins[0]), _weights(fedgen.simulate(study, out=tmp_path / "run")))


def test_without_a_seed_two_runs_differ(tmp_path: Path) -> None:
    study = write_study(tmp_path, training={"rounds": 1})
    one = fedgen.simulate(study, out=tmp_path / "one")
    two = fedgen.simulate(study, out=tmp_path / "two")
    assert not torch.equal(_weights(one), _weights(two))


def test_every_statement_promises_nothing(twins: tuple[fedgen.Run, fedgen.Run]) -> None:
    assert twins[0].record.seeds == "insecure"
    for statement in twins[0].privacy:
        assert statement["epsilon"] is None
        assert statement["proved"] is False
        assert "nothing is promised" in str(statement["sentence"])
    assert all(site.epsilon is None for site in twins[0].record.sites)


def test_the_report_says_that_nothing_is_private(twins: tuple[fedgen.Run, fedgen.Run]) -> None:
    report = json.loads((twins[0].path / "report.json").read_text())
    assert report["about"]["private"] is False
    assert report["epsilon"] == []
    page = (twins[0].path / "report.html").read_text()
    assert "insecure_seed" in page
    assert "is hidden up to" not in page


def test_no_round_shows_an_epsilon(twins: tuple[fedgen.Run, fedgen.Run]) -> None:
    lines = [json.loads(line) for line in (twins[0].path / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 3
    assert all("epsilon" not in line for line in lines)
