"""A file of ours is the old one or the new one, closed to others from its first byte, whatever fails."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import stat
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fedgen._files import TEMPORARY, create, new_private, replacing, sweep, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOBODY = 65534
both = pytest.mark.parametrize("private", [True, False])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def full(*_arguments: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@contextmanager
def umask(bits: int) -> Iterator[None]:
    before = os.umask(bits)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Let no file grow over ``size``: the system cuts a write short, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def in_child(work: Callable[[], Any]) -> int:
    """Fork, work, and return how the child ended: a signal is negative, an ``OSError`` is its number."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except OSError as error:
            os._exit(error.errno or 255)
        except BaseException:  # noqa: BLE001 - a child of a test must end here
            os._exit(255)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# -- whole ----------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("data", [b"", b"x", b"\x00" * 100_000, memoryview(b"a view")])
def test_what_is_written_is_read_back_and_nothing_else_is_left(
    tmp_path: Path, data: bytes, *, private: bool
) -> None:
    for before in (b"", b"something longer than the next one" * 9999):
        (tmp_path / "a").write_bytes(before)
        write(tmp_path / "a", data, private=private)
        assert (tmp_path / "a").read_bytes() == data
        assert names(tmp_path) == ["a"]


@both
@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
def test_a_disk_that_fails_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, *, private: bool
) -> None:
    write(tmp_path / "a", b"old", private=private)
    with monkeypatch.context() as patched:
        patched.setattr(call, full)
        with pytest.raises(OSError, match="No space") as caught:
            write(tmp_path / "a", b"new", private=private)
    assert caught.value.errno == errno.ENOSPC
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@both
@pytest.mark.parametrize("durable", [True, False])
def test_a_write_the_system_cuts_short_leaves_the_old_file(
    tmp_path: Path, *, private: bool, durable: bool
) -> None:
    write(tmp_path / "a", b"old", private=private)
    with at_most(1_000_000), pytest.raises(OSError, match="File too large"):
        write(tmp_path / "a", b"x" * 2_000_000, private=private, durable=durable)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_an_error_of_another_writer_is_its_own(tmp_path: Path) -> None:
    def half(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), replacing(tmp_path / "a") as temporary:
        half(temporary)
    assert names(tmp_path) == []


def test_another_writer_gets_a_path_of_the_same_suffix_in_the_same_folder(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.parquet") as temporary:
        assert (temporary.suffix, temporary.parent) == (".parquet", tmp_path)
        assert temporary.name.startswith(".a.parquet.")
        assert not temporary.exists()
        temporary.write_bytes(b"whole")
        assert not (tmp_path / "a.parquet").exists()
    assert (tmp_path / "a.parquet").read_bytes() == b"whole"


def test_a_writer_that_wrote_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    for durable in (True, False):
        with pytest.raises(FileNotFoundError), replacing(tmp_path / "a", durable=durable):
            pass
    assert (tmp_path / "a").read_bytes() == b"old"


@both
def test_a_link_is_replaced_and_what_it_points_to_is_not_touched(tmp_path: Path, *, private: bool) -> None:
    (tmp_path / "theirs").write_bytes(b"theirs")
    for points_to in ("theirs", "nothing"):
        (tmp_path / "a").unlink(missing_ok=True)
        (tmp_path / "a").symlink_to(tmp_path / points_to)
        write(tmp_path / "a", b"ours", private=private)
        assert not (tmp_path / "a").is_symlink()
        assert (tmp_path / "a").read_bytes() == b"ours"
    assert (tmp_path / "theirs").read_bytes() == b"theirs"
    assert not (tmp_path / "nothing").exists()


def test_a_folder_in_the_place_stays(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        write(tmp_path / "a", b"x", private=True)
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize(
    "make", [lambda path: write(path, b"x", private=True), lambda path: create(path, b"x")]
)
def test_a_folder_that_cannot_be_written_or_is_none_is_said_by_the_system(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    with pytest.raises(FileNotFoundError):
        make(tmp_path / "none" / "a")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        make(tmp_path / "file" / "a")
    closed = Path(tempfile.mkdtemp())  # tmp_path lies in folders that another user may not enter
    closed.chmod(0o555)

    def as_nobody() -> None:
        if os.geteuid() == 0:
            os.setuid(NOBODY)
        make(closed / "a")

    try:
        assert in_child(as_nobody) == errno.EACCES
        assert names(closed) == []
    finally:
        shutil.rmtree(closed)


# -- on the disk ----------------------------------------------------------------------------------------


def test_the_file_is_flushed_before_it_has_its_name_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    flush, rename = os.fsync, Path.replace

    def flushed(descriptor: int) -> None:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        seen.append("folder" if folder else f"file of {os.fstat(descriptor).st_size}")
        flush(descriptor)

    def renamed(self: Path, target: Path) -> Path:
        seen.append("rename")
        return rename(self, target)

    monkeypatch.setattr("os.fsync", flushed)
    monkeypatch.setattr(Path, "replace", renamed)
    write(tmp_path / "a", b"new", private=True)
    assert seen == ["file of 3", "rename", "folder"]
    seen.clear()
    write(tmp_path / "a", b"newer", private=True, durable=False)
    assert seen == ["rename"]
    seen.clear()
    create(tmp_path / "b", b"key")
    assert seen == ["file of 3", "folder"]


@both
def test_killed_at_any_step_the_file_is_the_old_or_the_new_one(tmp_path: Path, *, private: bool) -> None:
    step, ends = 0, []
    while True:
        step += 1
        write(tmp_path / "a", b"old" * 9000, private=private)

        def dies(step: int = step) -> None:
            left = [step]
            for name in ("open", "fsync", "replace", "unlink", "close"):
                setattr(os, name, counted(getattr(os, name), left))
            write(tmp_path / "a", b"new" * 8000, private=private)

        end = in_child(dies)
        found = (tmp_path / "a").read_bytes()
        ends.append(found[:3])
        assert found in {b"old" * 9000, b"new" * 8000}, step
        assert all(mode(path) == 0o600 for path in tmp_path.iterdir()) or not private
        sweep(tmp_path)
        assert names(tmp_path) == ["a"]
        if end == 0:
            break
        assert end == -signal.SIGKILL
    assert ends[0] == b"old"
    assert ends[-2] == b"new"  # killed with the new one in place already
    assert ends.count(b"old") >= 3  # before, after and amid its flush


def counted(call: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    """Count what happens before and after a call of the system, and die when nothing is left."""

    def wrapped(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*arguments, **named)
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


def test_what_a_killed_process_was_writing_is_swept_and_nothing_else(tmp_path: Path) -> None:
    def dies() -> None:
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        write(tmp_path / "a.json", b"new", private=True)

    write(tmp_path / "a.json", b"old", private=True)
    (tmp_path / ".hidden").write_bytes(b"a person's own")
    assert in_child(dies) == -signal.SIGKILL
    (left,) = set(names(tmp_path)) - {"a.json", ".hidden"}
    assert (tmp_path / left).read_bytes() == b"new"
    assert mode(tmp_path / left) == 0o600
    (tmp_path / left.replace("a.json", "b.json")).write_bytes(b"of another file")
    sweep(tmp_path, "a.json")
    assert TEMPORARY in names(tmp_path)[0]
    assert len(names(tmp_path)) == 3
    sweep(tmp_path)
    assert names(tmp_path) == [".hidden", "a.json"]
    assert (tmp_path / "a.json").read_bytes() == b"old"


# -- private --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [0o000, 0o022, 0o077])
def test_a_private_file_is_closed_from_its_first_byte_whatever_the_umask(
    tmp_path: Path, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    flush = os.fsync

    def flushed(descriptor: int) -> None:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        flush(descriptor)

    def never(*_: object) -> None:
        raise AssertionError("a mode that is set later comes too late")

    monkeypatch.setattr("os.fsync", flushed)
    for name in ("chmod", "fchmod"):
        monkeypatch.setattr(os, name, never)
    with umask(bits):
        with new_private(tmp_path / "a") as file:
            assert os.fstat(file.fileno()).st_size == 0
            assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == 0o600
        write(tmp_path / "a", b"x", private=True)
        create(tmp_path / "b", b"x")
    assert seen == [0o600, 0o600]
    assert (mode(tmp_path / "a"), mode(tmp_path / "b")) == (0o600, 0o600)


def test_what_is_not_private_is_for_whom_the_umask_lets(tmp_path: Path) -> None:
    with umask(0o027):
        write(tmp_path / "a", b"x", private=False)
    assert mode(tmp_path / "a") == 0o640


def test_a_private_file_takes_the_place_of_an_open_one_with_its_own_mode(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"open")
    (tmp_path / "a").chmod(0o666)
    write(tmp_path / "a", b"closed", private=True)
    assert mode(tmp_path / "a") == 0o600


# -- new ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [new_private, lambda path: create(path, b"key")])
def test_what_lies_there_is_neither_overwritten_nor_followed(
    tmp_path: Path, make: Callable[[Path], object]
) -> None:
    (tmp_path / "file").write_bytes(b"precious")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "dangling").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "folder").mkdir()
    there = names(tmp_path)
    for name in there:
        with pytest.raises(FileExistsError):
            make(tmp_path / name)
    assert names(tmp_path) == there
    assert (tmp_path / "file").read_bytes() == b"precious"


def test_a_key_that_does_not_fit_on_the_disk_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with at_most(16), pytest.raises(OSError, match="File too large"):
        create(tmp_path / "key", b"x" * 32)
    assert names(tmp_path) == []
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            create(tmp_path / "key", b"x" * 32)
    assert names(tmp_path) == []
    create(tmp_path / "key", b"x" * 32)
    assert (tmp_path / "key").read_bytes() == b"x" * 32


def test_of_many_who_make_one_file_one_succeeds(tmp_path: Path) -> None:
    gate, won = threading.Barrier(8), []

    def one(number: int) -> None:
        gate.wait()
        try:
            create(tmp_path / "key", bytes([number]) * 32)
        except FileExistsError:
            return
        won.append(number)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert (tmp_path / "key").read_bytes() == bytes(won) * 32


def test_many_who_replace_one_file_leave_the_whole_of_one(tmp_path: Path) -> None:
    gate = threading.Barrier(8)

    def one(number: int) -> None:
        gate.wait()
        for _ in range(20):
            write(tmp_path / "a", bytes([number]) * 30_000, private=True, durable=False)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    found = {(tmp_path / "a").read_bytes() for _ in range(200) if (tmp_path / "a").exists()}
    for thread in threads:
        thread.join()
    found.add((tmp_path / "a").read_bytes())
    assert all(data in {bytes([number]) * 30_000 for number in range(8)} for data in found)
    assert names(tmp_path) == ["a"]
