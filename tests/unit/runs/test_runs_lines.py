"""Append-only lines: durable, and whole up to the last."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

import pytest

from fedgen.errors import ConfigError, IntegrityError
from fedgen.runs import lines
from fedgen.runs.lines import append_line, read_lines

if TYPE_CHECKING:
    from pathlib import Path


def test_lines_are_read_in_the_order_written(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    values = [{"round": 1, "ε": 0.5}, 2, "drei\nvier", None, [1]]
    for value in values:
        append_line(path, value)
    assert read_lines(path) == values
    assert path.read_bytes().count(b"\n") == len(values)


def test_a_private_file_is_its_owner_s_from_its_first_line(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        append_line(tmp_path / "private", 1, private=True)
        append_line(tmp_path / "open", 1)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"private": 0o600, "open": 0o644}


def test_no_file_is_no_lines(tmp_path: Path) -> None:
    assert read_lines(tmp_path / "none") == []


@pytest.mark.parametrize("torn", [b"{", b'{"round": 3', b'{"round":3}', b"\x00\x00", b"x" * 200_000])
def test_a_torn_last_line_is_left_out_and_then_cut_off(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "a.jsonl"
    append_line(path, 1)
    append_line(path, 2)
    with path.open("ab") as file:
        file.write(torn)
    assert read_lines(path) == [1, 2]
    append_line(path, 3)
    assert read_lines(path) == [1, 2, 3]


def test_a_file_that_is_one_torn_line_starts_afresh(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"half" * 40_000)
    append_line(path, 1)
    assert read_lines(path) == [1]


def test_a_broken_line_before_the_last_is_no_accident(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"1\nnot json\n3\n")
    with pytest.raises(IntegrityError, match="line 2"):
        read_lines(path)


def test_a_full_disk_leaves_the_lines_there_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    append_line(path, 1)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(lines.os, "fsync", full)
        with pytest.raises(ConfigError, match="no room left"):
            append_line(path, 2)
    assert path.read_bytes() == b"1\n"


def test_bytes_the_system_takes_in_parts_all_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = lines.os.pwrite
    monkeypatch.setattr(lines.os, "pwrite", lambda fd, data, at: whole(fd, data[:3], at))
    append_line(tmp_path / "a.jsonl", "a longer text")
    assert read_lines(tmp_path / "a.jsonl") == ["a longer text"]


def test_a_line_is_flushed_before_the_call_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[bytes] = []
    path = tmp_path / "a.jsonl"
    monkeypatch.setattr(lines.os, "fsync", lambda _descriptor: flushed.append(path.read_bytes()))
    append_line(path, 1)
    assert flushed == [b"1\n"]


def test_a_number_json_cannot_say_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_line(tmp_path / "a.jsonl", float("inf"))
    assert not (tmp_path / "a.jsonl").exists()
