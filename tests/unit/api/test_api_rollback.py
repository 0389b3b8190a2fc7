"""What a rollback would mean, before anything is done; and how many checkpoints are kept for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.studies import write_consent, write_study

from fedgen.api.checks import check
from fedgen.api.desk import rollback_step
from fedgen.api.rollback import Outlook, outlook, roll_back, rounds_that_fit
from fedgen.errors import ConfigError
from fedgen.policy.remedy import Remedy
from fedgen.runs.atomic import write_text
from fedgen.runs.folder import RunFolder, open_run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("rounds", "consent", "step"),
    [(3, True, 1), (10, True, 1), (11, True, 2), (300, True, 30), (300, False, 0)],
)
def test_about_ten_checkpoints_are_kept_where_somebody_may_be_erased(
    tmp_path: Path,
    rounds: int,
    consent: bool,  # noqa: FBT001 - a parameter of the test
    step: int,
) -> None:
    write_consent(tmp_path / "consent.csv", granted=120)
    policy = {"consent": "consent.csv"} if consent else {}
    study = check(write_study(tmp_path, training={"rounds": rounds}, policy=policy)).study
    assert rollback_step(study) == step


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run folder with checkpoints of three rounds, and nothing charged."""
    study = check(write_study(tmp_path, training={"rounds": 9})).study
    it = RunFolder(tmp_path / "run")
    it.checkpoints.mkdir(parents=True)
    write_text(it.study, study.to_yaml())
    for number in (2, 4, 6):
        it.checkpoint(number).write_bytes(bytes([number]))
    return it


def test_what_it_means_is_said_in_a_sentence(folder: RunFolder) -> None:
    def words(first: int | None) -> str:
        return outlook(folder.root, first).words()

    assert words(None) == words(7) == "nothing has to be undone"
    assert words(5) == "the run goes back from round 6 to 4 and needs 5 rounds to finish"
    assert words(2) == "the run begins anew and needs 9 rounds to finish"
    unknown: Outlook = outlook(folder.root, 1, lineage_known=False)
    assert unknown.remedy is Remedy.UNSUPPORTED
    assert "nobody can say" in unknown.words()


def test_where_nothing_was_charged_nothing_is_said_of_the_budget(folder: RunFolder) -> None:
    assert rounds_that_fit(*open_run(folder.root)) is None


def test_looking_touches_nothing(folder: RunFolder) -> None:
    before = sorted(path for path in folder.root.rglob("*"))
    outlook(folder.root, 3)
    assert sorted(path for path in folder.root.rglob("*")) == before


def test_what_is_no_round_and_no_run_is_refused(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="from one"):
        roll_back(folder.root, 0)
    with pytest.raises(ConfigError, match="not a run folder"):
        roll_back(tmp_path / "none", 3)
    assert not (tmp_path / "none").exists()
    with pytest.raises(ConfigError, match="no identity"):
        roll_back(folder.root, 5)  # a run that never began has nothing to go on under
    assert len(folder.checkpoints_newest_first()) == 3
