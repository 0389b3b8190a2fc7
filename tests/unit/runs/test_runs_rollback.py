"""A rollback: announced, carried out, signed off; whoever is killed in between, the next one finishes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fedgen.errors import ConfigError, IntegrityError
from fedgen.policy.lineage import Stretch
from fedgen.runs import rollback as module
from fedgen.runs.atomic import write_text
from fedgen.runs.folder import RunFolder
from fedgen.runs.journal import RoundLine, standing
from fedgen.runs.rollback import (
    decide,
    finish_rollback,
    lineage,
    roll_back,
    rollbacks,
    run_id,
    undone,
    unfinished,
)

if TYPE_CHECKING:
    from pathlib import Path

OLD = "a" * 64


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    it = RunFolder(tmp_path)
    (tmp_path / "coordinator").mkdir()
    it.checkpoints.mkdir()
    write_text(tmp_path / "coordinator" / "run", OLD + "\n")
    for number in (2, 4, 6, 7):
        it.checkpoint(number).write_bytes(bytes([number]) * 9)
    it.mark_best(6)
    it.site("here").mkdir(parents=True)
    (it.site("here") / "answer").write_bytes(b"an update")
    it.synthetic().write_bytes(b"rows")
    return it


def _rounds(folder: RunFolder) -> list[int]:
    return [folder.round_of(path) for path in folder.checkpoints_newest_first()]


def test_what_came_later_goes_and_the_run_has_a_new_identity(folder: RunFolder) -> None:
    wanted = decide(folder, back_to=4, done=7, lines=7, reason="ARTEFACT_LINEAGE_REVOKED")
    gone = roll_back(folder, wanted)
    assert _rounds(folder) == [4, 2]
    assert sorted(it.path for it in gone) == [
        "checkpoints/round-000006.safetensors",
        "checkpoints/round-000007.safetensors",
        "synthetic.parquet",
    ]
    assert run_id(folder) == wanted.next_run != OLD
    assert folder.best_checkpoint() is None
    assert not (folder.checkpoints / "best").exists()
    assert not (folder.site("here") / "answer").exists()
    assert rollbacks(folder) == (wanted,)
    assert unfinished(folder) is None
    assert lineage(folder, 5) == (Stretch(OLD, 1, 4), Stretch(wanted.next_run, 5, 5))


def test_a_mark_on_a_checkpoint_that_stays_stays(folder: RunFolder) -> None:
    folder.mark_best(4)
    roll_back(folder, decide(folder, back_to=4, done=7, lines=7, reason="X"))
    assert folder.best_checkpoint() == folder.checkpoint(4)


@pytest.mark.parametrize("step", ["remove", "_forget", "write_text", "append_line"])
def test_killed_at_any_step_the_next_one_finishes(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    wanted = decide(folder, back_to=4, done=7, lines=7, reason="X")
    real, calls = getattr(module, step), []

    def killed(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if step != "append_line" or len(calls) == 2:  # the second line signs the rollback off
            raise KeyboardInterrupt
        return real(*arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(module, step, killed)
        with pytest.raises(KeyboardInterrupt):
            roll_back(folder, wanted)
    assert unfinished(folder) == wanted
    finish_rollback(folder)
    assert (_rounds(folder), run_id(folder), unfinished(folder)) == ([4, 2], wanted.next_run, None)
    assert finish_rollback(folder) == []
    assert rollbacks(folder) == (wanted,)


def test_rounds_that_were_undone_do_not_count_and_those_asked_again_do(folder: RunFolder) -> None:
    def line(number: int, attempt: int) -> RoundLine:
        return RoundLine(round=number, attempt=attempt, sites=("here",), seconds=0.0)

    first = tuple(line(number, 1) for number in range(1, 8))
    wanted = decide(folder, back_to=4, done=7, lines=7, reason="X")
    assert [it.round for it in standing(first)] == list(range(1, 8))
    assert [it.round for it in standing(first, [wanted])] == [1, 2, 3, 4]
    again = (*first, line(5, 2), line(6, 2), line(6, 3))
    assert [(it.round, it.attempt) for it in standing(again, [wanted])][-2:] == [(5, 2), (6, 3)]
    further = decide(folder, back_to=2, done=6, lines=10, reason="X")
    assert [it.round for it in standing(again, [wanted, further])] == [1, 2]
    assert undone(5, 4, [wanted])
    assert not undone(4, 3, [wanted])
    assert not undone(5, 7, [wanted])


def test_a_run_that_never_began_has_no_identity(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no identity"):
        decide(RunFolder(tmp_path), back_to=0, done=0, lines=0, reason="X")


def test_a_journal_that_was_tampered_with_is_refused(folder: RunFolder) -> None:
    (folder.root / module.JOURNAL).write_text('{"kind": "begun", "run": "short"}\n')
    with pytest.raises(IntegrityError, match="form"):
        rollbacks(folder)


def test_checkpoints_for_a_rollback_are_kept_and_the_others_pruned(folder: RunFolder) -> None:
    for number in range(1, 13):
        folder.checkpoint(number).write_bytes(b"x")
    folder.prune_checkpoints(keep=2, every=5)
    assert _rounds(folder) == [12, 11, 10, 6, 5]  # six is marked best
    with pytest.raises(ValueError, match="every"):
        folder.prune_checkpoints(every=-1)
    with pytest.raises(ValueError, match="not named"):
        folder.round_of(folder.checkpoints / "best")
