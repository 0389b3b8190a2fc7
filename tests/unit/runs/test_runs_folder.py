"""A run folder belongs to one study, and to one process at a time."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fedgen.errors import ConfigError
from fedgen.runs.folder import RunFolder, claim, default_root, open_run

if TYPE_CHECKING:
    from fedgen.config.resolve import ResolvedStudy


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_the_paths_are_the_promised_ones() -> None:
    folder = RunFolder(Path("r"))
    promised = {
        folder.study: "r/study.yaml",
        folder.record: "r/run.json",
        folder.ledger: "r/ledger.db",
        folder.metrics: "r/metrics.jsonl",
        folder.checkpoints: "r/checkpoints",
        folder.report: "r/report.html",
        folder.synthetic(): "r/synthetic.parquet",
        folder.synthetic("csv"): "r/synthetic.csv",
        folder.site("site-01"): "r/sites/site-01",
    }
    assert {path: path.as_posix() for path in promised} == promised


def test_the_default_name_is_study_and_hash(study: ResolvedStudy) -> None:
    assert default_root(study) == Path("runs") / f"one-{study.study_hash[:8]}"
    assert default_root(study, Path("/x")) == Path("/x") / f"one-{study.study_hash[:8]}"


def test_a_new_folder_is_made_with_its_parents(tmp_path: Path, study: ResolvedStudy) -> None:
    with claim(tmp_path / "a" / "b", study) as folder:
        assert folder.checkpoints.is_dir()
    opened, there = open_run(tmp_path / "a" / "b")
    assert opened == folder
    assert there == study


def test_an_empty_folder_is_taken(tmp_path: Path, study: ResolvedStudy) -> None:
    with claim(tmp_path, study) as folder:
        assert folder.study.is_file()


def test_a_second_run_of_the_same_study_resumes_or_is_refused(tmp_path: Path, study: ResolvedStudy) -> None:
    with claim(tmp_path, study) as folder:
        (folder.checkpoints / ".round-000001.safetensors.0123.writing.safetensors").write_bytes(b"half")
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match="already holds this study") as caught, claim(tmp_path, study):
        pass
    assert "--resume" in (caught.value.hint or "")
    assert contents(tmp_path) == before
    with claim(tmp_path, study, resume=True) as folder:
        assert list(folder.checkpoints.iterdir()) == []


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_another_study_is_left_as_it_was(
    tmp_path: Path, study: ResolvedStudy, other: ResolvedStudy, *, resume: bool
) -> None:
    with claim(tmp_path, study):
        pass
    before = contents(tmp_path)
    with (
        pytest.raises(ConfigError, match="belongs to another study") as caught,
        claim(tmp_path, other, resume=resume),
    ):
        pass
    assert study.study_hash[:8] in caught.value.what
    assert other.study_hash[:8] in caught.value.what
    assert contents(tmp_path) == before


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_with_foreign_files_is_left_as_it_was(
    tmp_path: Path, study: ResolvedStudy, *, resume: bool
) -> None:
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"thesis\.tex"), claim(tmp_path, study, resume=resume):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_runs_in_one_folder_are_kept_apart(tmp_path: Path, study: ResolvedStudy) -> None:
    with (
        claim(tmp_path, study),
        pytest.raises(ConfigError, match="another run is using this folder"),
        claim(tmp_path, study, resume=True),
    ):
        pass


def test_a_kill_before_the_study_was_written_can_be_started_again(
    tmp_path: Path, study: ResolvedStudy
) -> None:
    (tmp_path / ".lock").write_text("1\n", encoding="utf-8")
    (tmp_path / ".study.yaml.0123.writing.yaml").write_text("half", encoding="utf-8")
    with claim(tmp_path, study) as folder:
        assert folder.study.is_file()


def test_a_full_disk_is_one_line_and_leaves_no_study(
    tmp_path: Path, study: ResolvedStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(ConfigError, match="no room left"), claim(tmp_path / "run", study):
            pass
    assert contents(tmp_path / "run") == {}
    with claim(tmp_path / "run", study):
        pass


def test_an_unwritable_place_is_one_line(
    tmp_path: Path, study: ResolvedStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_arguments: object, **_named: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(ConfigError, match="cannot be written") as caught, claim(tmp_path / "run", study):
        pass
    assert caught.value.where == str(tmp_path / "run")
    assert "--out" in (caught.value.hint or "")


def test_a_file_in_the_way_is_one_line(tmp_path: Path, study: ResolvedStudy) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(ConfigError, match="in the way"), claim(place, study):
            pass


def test_what_is_no_run_cannot_be_opened(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigError, match="not a run folder"):
            open_run(place)


def test_a_study_that_was_edited_cannot_be_opened(tmp_path: Path, study: ResolvedStudy) -> None:
    with claim(tmp_path, study) as folder:
        text = folder.study.read_text(encoding="utf-8")
        folder.study.write_text(text.replace("epsilon: 3.0", "epsilon: 1.0"), encoding="utf-8")
    with pytest.raises(ConfigError, match="was changed"):
        open_run(tmp_path)


def _checkpoints(folder: RunFolder, numbers: list[int]) -> None:
    folder.checkpoints.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        folder.checkpoint(number).write_bytes(b"model")


def _rounds(folder: RunFolder) -> list[int]:
    return [int(path.stem.removeprefix("round-")) for path in folder.checkpoints_newest_first()]


def test_checkpoints_come_newest_first_by_round_not_by_name(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.checkpoints_newest_first() == []
    _checkpoints(folder, [9, 10, 999_999, 1_000_000, 2])
    (folder.checkpoints / "round-x.safetensors").write_bytes(b"")
    (folder.checkpoints / ".round-000011.safetensors.00.writing.safetensors").write_bytes(b"")
    assert _rounds(folder) == [1_000_000, 999_999, 10, 9, 2]


def test_pruning_keeps_the_newest_two_and_the_best(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    _checkpoints(folder, [1, 2, 3, 4, 5])
    folder.mark_best(2)
    folder.prune_checkpoints()
    assert _rounds(folder) == [5, 4, 2]
    assert folder.best_checkpoint() == folder.checkpoint(2)
    folder.mark_best(5)
    folder.prune_checkpoints(keep=1)
    assert _rounds(folder) == [5]


def test_no_best_is_none(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.best_checkpoint() is None
    _checkpoints(folder, [1])
    folder.mark_best(7)
    assert folder.best_checkpoint() is None
    (folder.checkpoints / "best").write_text("nonsense", encoding="utf-8")
    assert folder.best_checkpoint() is None


def test_checkpoint_arguments_are_checked(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(ValueError, match="number must be at least zero"):
        folder.checkpoint(-1)
    with pytest.raises(ValueError, match="keep must be at least one"):
        folder.prune_checkpoints(keep=0)


def test_an_attempt_number_is_never_given_twice(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert [folder.next_attempt(1), folder.next_attempt(2), folder.next_attempt(2)] == [1, 1, 2]
    assert RunFolder(tmp_path).next_attempt(2) == 3
    with (tmp_path / "attempts.jsonl").open("ab") as file:
        file.write(b"2")  # torn by a crash: it was never used
    assert RunFolder(tmp_path).next_attempt(2) == 4
    assert RunFolder(tmp_path).next_attempt(1) == 2
    assert [RunFolder(tmp_path).attempts(number) for number in (1, 2, 3)] == [2, 4, 0]
