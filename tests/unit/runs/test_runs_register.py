"""What a run has made, and how it goes: announced, removed, seen gone, written down."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fedgen.errors import IntegrityError
from fedgen.runs.folder import RunFolder
from fedgen.runs.lines import append_line, read_lines
from fedgen.runs.register import (
    REGISTER,
    born_releases,
    finish_removals,
    note_releases,
    on_hold,
    releases_in,
    removals,
    remove,
    sha256_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 5, 1, tzinfo=UTC)
RUN = "a" * 64


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    for name in ("synthetic.parquet", "synthetic.csv", "report.html", "study.yaml", "run.json"):
        (tmp_path / name).write_text(f"this is {name}")
    return RunFolder(tmp_path)


def _note(folder: RunFolder, round_number: int = 3) -> None:
    until = NOW + timedelta(days=1)
    note_releases(folder, releases_in(folder), run=RUN, round_number=round_number, at=NOW, until=until)


def test_releases_are_what_shows_what_the_model_says(folder: RunFolder) -> None:
    assert [it.name for it in releases_in(folder)] == ["report.html", "synthetic.csv", "synthetic.parquet"]


def test_a_release_is_known_as_long_as_it_is_as_it_was_made(folder: RunFolder) -> None:
    _note(folder)
    _note(folder, 4)  # the same bytes: no news
    assert len(read_lines(folder.root / REGISTER)) == 3
    assert {born.round for born in born_releases(folder).values()} == {3}
    (folder.root / "synthetic.csv").write_text("made anew")
    assert set(born_releases(folder)) == {"report.html", "synthetic.parquet"}
    _note(folder, 5)
    assert born_releases(folder)["synthetic.csv"].round == 5


def test_what_is_removed_is_gone_with_evidence(folder: RunFolder) -> None:
    file = folder.root / "synthetic.csv"
    digest = sha256_of(file)
    (gone,) = remove(folder, [file, folder.root / "not-there"], reason="X")
    assert not file.exists()
    assert (gone.path, gone.sha256, gone.reason, gone.method) == ("synthetic.csv", digest, "X", "deleted")
    assert gone.verified_at >= gone.at
    assert removals(folder) == [gone]
    assert remove(folder, [file], reason="X") == []


def test_what_is_withheld_is_kept_where_nothing_uses_it(folder: RunFolder) -> None:
    file = folder.root / "synthetic.csv"
    remove(folder, [file], reason="X", method="withheld")
    assert releases_in(folder) == [folder.root / "report.html", folder.root / "synthetic.parquet"]
    (kept,) = (folder.root / "withheld").rglob("synthetic.csv")
    assert kept.read_text() == "this is synthetic.csv"
    assert kept.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("reached", ["announced", "removed"])
def test_a_removal_that_was_killed_is_finished_once(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, reached: str
) -> None:
    file = folder.root / "synthetic.csv"
    with monkeypatch.context() as patch:
        if reached == "announced":
            patch.setattr(Path, "unlink", _killed)
        else:
            patch.setattr("fedgen.runs.register._seen_gone", _killed)
        with pytest.raises(KeyboardInterrupt):
            remove(folder, [file], reason="X")
    assert removals(folder) == []
    assert file.exists() == (reached == "announced")
    assert [it.path for it in finish_removals(folder)] == ["synthetic.csv"]
    assert finish_removals(folder) == []
    assert not file.exists()
    assert len(removals(folder)) == 1


def _killed(*_arguments: object, **_named: object) -> None:
    raise KeyboardInterrupt


def test_a_file_that_was_made_after_the_announcement_stays(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder.root / "synthetic.csv"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", _killed)
        with pytest.raises(KeyboardInterrupt):
            remove(folder, [file], reason="X")
    file.write_text("another file")
    finish_removals(folder)
    assert file.read_text() == "another file"


def test_a_file_that_does_not_go_is_not_signed_off(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = folder.root / "synthetic.csv"
    monkeypatch.setattr(Path, "unlink", lambda *_arguments, **_named: None)
    with pytest.raises(IntegrityError, match="still there"):
        remove(folder, [file], reason="X")
    assert removals(folder) == []


def _outside(line: dict[str, object]) -> object:
    return {**line, "path": "../elsewhere"}


def _absolute(line: dict[str, object]) -> object:
    return {**line, "path": "/etc/passwd"}


@pytest.mark.parametrize(
    "change",
    [
        _outside,
        _absolute,
        lambda line: {**line, "kind": "other"},
        lambda line: {**line, "more": 1},
        lambda _line: 3,
    ],
)
def test_a_register_that_was_tampered_with_is_refused(
    folder: RunFolder, change: Callable[[dict[str, object]], object]
) -> None:
    _note(folder)
    line = read_lines(folder.root / REGISTER)[0]
    append_line(folder.root / REGISTER, change(line))
    with pytest.raises(IntegrityError):
        finish_removals(folder)


def test_a_file_in_the_folder_puts_it_on_hold(folder: RunFolder) -> None:
    assert not on_hold(folder)
    (folder.root / "legal-hold").write_text("matter 17")
    assert on_hold(folder)
