"""The page of a deployed run does not say that it was simulated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.studies import write_study

from fedgen.api.reporting import _about
from fedgen.api.simulation import simulate

if TYPE_CHECKING:
    from pathlib import Path


def test_only_a_simulated_run_says_that_it_was_simulated(tmp_path: Path) -> None:
    run = simulate(write_study(tmp_path / "study", training={"rounds": 1}), out=tmp_path / "run")
    assert _about(run.study, run.record).simulated
    deployed = run.record.model_copy(update={"backend": "deployed"})
    assert not _about(run.study, deployed).simulated
