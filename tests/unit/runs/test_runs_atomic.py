"""A file is the old one or the new one, whatever fails."""

from __future__ import annotations

import errno
import json
import os
import resource
import stat
from pathlib import Path

import pytest

from fedgen.errors import ConfigError
from fedgen.runs.atomic import replacing, storage_error, write_bytes, write_json, write_private, write_text


@pytest.mark.parametrize("data", [b"", b"x", b"\x00" * 100_000])
def test_what_is_written_is_read_back(tmp_path: Path, data: bytes) -> None:
    write_bytes(tmp_path / "a", data)
    assert (tmp_path / "a").read_bytes() == data


def test_text_and_json_are_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "ε = 3\n")
    write_json(tmp_path / "b", {"ε": [1, None, True]})
    assert (tmp_path / "a").read_text(encoding="utf-8") == "ε = 3\n"
    assert json.loads((tmp_path / "b").read_bytes()) == {"ε": [1, None, True]}
    assert (tmp_path / "b").read_bytes().endswith(b"}\n")


def test_a_number_json_cannot_say_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a", 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a", float("nan"))
    assert (tmp_path / "a").read_text(encoding="utf-8") == "1\n"


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "report.html", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "report.html").stat().st_mode) == 0o644


def test_only_its_owner_may_read_what_is_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "a", b"x")
        write_json(tmp_path / "b", 1, private=True)
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def _full(*_arguments: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    write_text(tmp_path / "a", "old")
    with monkeypatch.context() as patched:
        if call == "fsync":
            patched.setattr("os.fsync", _full)
        else:
            patched.setattr(Path, "replace", _full)
        with pytest.raises(ConfigError, match="no room left") as caught:
            write_text(tmp_path / "a", "new")
    assert caught.value.where == str(tmp_path / "a")
    assert caught.value.exit_code == 3
    assert (tmp_path / "a").read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_write_the_system_cuts_short_leaves_the_old_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(ConfigError, match="no room left"):
            write_bytes(tmp_path / "a", b"x" * 2_000_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "a").read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_another_writer_can_fill_the_file(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.parquet") as temporary:
        assert temporary.suffix == ".parquet"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"whole")
        assert not (tmp_path / "a.parquet").exists()
    assert (tmp_path / "a.parquet").read_bytes() == b"whole"


def test_an_error_of_the_writer_is_its_own(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a") as temporary:
        _write_half_and_stop(temporary)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (errno.ENOSPC, "no room left"),
        (errno.EDQUOT, "no room left"),
        (errno.EACCES, "cannot be written"),
        (errno.EROFS, "cannot be written"),
        (errno.ENOTDIR, "in the way"),
        (errno.EISDIR, "in the way"),
        (errno.EIO, "input/output error"),
        (None, "input or output failed"),
    ],
)
def test_a_system_error_becomes_one_line(number: int | None, what: str) -> None:
    error = OSError(number, "text") if number else OSError("CANARY")
    line = str(storage_error(error, Path("/x/run.json")))
    assert what in line
    assert "/x/run.json" in line
    assert "\n" not in line
    assert "CANARY" not in line


def _write_half_and_stop(temporary: Path) -> None:
    temporary.write_bytes(b"half")
    raise ZeroDivisionError
