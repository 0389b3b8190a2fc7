"""Homes on the disk: folders of ours alone, files that are private from their first byte on."""

from __future__ import annotations

import os
import stat
import threading
import time
from typing import TYPE_CHECKING

import pytest

from fedgen.enrolment import places
from fedgen.enrolment.places import alone, check_folder, make_folder, read_private
from fedgen.errors import ConfigError, IntegrityError
from fedgen.runs.atomic import write_private

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_folders_and_files_are_private_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        make_folder(tmp_path / "home")
        write_private(tmp_path / "home" / "file", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "home" / "file").stat().st_mode) == 0o600
    make_folder(tmp_path / "home")  # once more changes nothing
    write_private(tmp_path / "home" / "file", b"y")
    assert read_private(tmp_path / "home" / "file") == b"y"
    assert [it.name for it in (tmp_path / "home").iterdir()] == ["file"]


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701, 0o770])
def test_a_folder_open_to_others_is_refused_with_a_remedy(mode: int, tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    folder.chmod(mode)
    for check in (check_folder, make_folder):
        with pytest.raises(ConfigError, match=f"mode {mode:04o}") as error:
            check(folder)
        assert error.value.hint == f"chmod 700 {folder}"


def test_what_is_no_folder_of_ours_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "file").write_text("")
    for name, words in (("none", "no such folder"), ("link", "symbolic link"), ("file", "not a folder")):
        with pytest.raises(ConfigError, match=words):
            check_folder(tmp_path / name)
    monkeypatch.setattr(places.os, "geteuid", lambda: 4321)
    with pytest.raises(ConfigError, match="another user"):
        check_folder(real)


def test_a_private_file_open_to_others_or_a_link_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_private(path, b"SECRET")
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(ConfigError, match="symbolic link"):
        read_private(tmp_path / "link")
    for mode in (0o640, 0o604, 0o660):
        path.chmod(mode)
        with pytest.raises(ConfigError, match=f"mode {mode:04o}") as error:
            read_private(path)
        assert "SECRET" not in str(error.value)
    path.chmod(0o600)
    path.write_bytes(b"x" * 10_000)
    with pytest.raises(IntegrityError):
        read_private(path)


def test_writing_replaces_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("theirs")
    (tmp_path / "file").symlink_to(other)
    write_private(tmp_path / "file", b"ours")
    assert other.read_text() == "theirs"
    assert not (tmp_path / "file").is_symlink()


def test_two_commands_never_change_a_home_at_once(tmp_path: Path) -> None:
    make_folder(tmp_path / "home")
    order: list[str] = []

    def second() -> None:
        with alone(tmp_path / "home"):
            order.append("second")

    with alone(tmp_path / "home"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.05)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_the_lock_follows_no_link(tmp_path: Path) -> None:
    make_folder(tmp_path / "home")
    (tmp_path / "home" / ".enrolment.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError), alone(tmp_path / "home"):
        raise AssertionError
    assert not (tmp_path / "elsewhere").exists()


def test_who_is_the_wrong_user_or_in_the_wrong_folder_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"no such folder \(check the path; it starts from the folder"):
        check_folder(tmp_path / "nowhere")
    (tmp_path / "home").mkdir(mode=0o700)
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(ConfigError, match=rf"another user \(uid {mine}\) \(.*sudo -u '#{mine}' fedgen"):
        check_folder(tmp_path / "home")

    def out_of_reach(_path: Path) -> os.stat_result:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "lstat", out_of_reach)
    with pytest.raises(ConfigError, match=r"permission denied \(give the command as the user whose"):
        check_folder(tmp_path / "home")
