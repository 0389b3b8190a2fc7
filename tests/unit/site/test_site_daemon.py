"""The door of a site: who gets in, how much, one at a time, and what is left when it closes."""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from support.site_homes import short_folder, wait_until

from fedgen.errors import ConfigError
from fedgen.site import frames
from fedgen.site.daemon import Counts, Daemon
from fedgen.site.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ME = os.getuid()
QUICK = Limits(request=1000, connections=3, rate=1e6, burst=10**6, head_s=1.0, body_s=1.0, write_s=2.0)


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as root:
        yield root


class Open:
    """A daemon that serves on a thread of this process."""

    def __init__(self, path: Path, handle: Callable[[bytes], bytes], **parts: Any) -> None:
        self.counts = Counts()
        made = {"users": {ME}, "limits": QUICK, "watcher": self.counts, **parts}
        self.daemon = Daemon(handle, path, **made)
        self.daemon.listen()
        self.path = str(path)
        self.thread = threading.Thread(target=self.daemon.serve)
        self.thread.start()

    def ask(self, request: bytes = b"hello") -> bytes:
        return frames.ask(self.path, request, timeout=20)

    def raw(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(20)
        connection.connect(self.path)
        return connection


@contextmanager
def opened(path: Path, handle: Callable[[bytes], bytes] = bytes.upper, **parts: Any) -> Iterator[Open]:
    it = Open(path, handle, **parts)
    try:
        yield it
    finally:
        it.daemon.stop()
        it.thread.join(30)
        assert not it.thread.is_alive()


def test_no_other_file_is_opened_to_the_relay_in_place_of_the_socket(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may write the socket's folder may put a link there as soon as the socket is."""
    key, path = folder / "identity.key", folder / "site.sock"
    key.write_bytes(b"secret")
    key.chmod(0o600)
    group = key.stat().st_gid
    given = list[tuple[object, ...]]()

    class Swapped(socket.socket):
        def bind(self, where: Any) -> None:
            super().bind(where)
            path.unlink()
            path.symlink_to(key)

    monkeypatch.setattr("fedgen.site.daemon.socket.socket", Swapped)
    chown = os.chown
    monkeypatch.setattr(os, "chown", lambda *args, **options: given.append(args) or chown(*args, **options))
    daemon = Daemon(bytes.upper, path, users={ME, 4711}, group=os.getgid() if ME else 4712)
    daemon.listen()
    assert daemon._listener is not None
    daemon._listener.close()
    assert given
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert key.stat().st_gid == group


def _closed(connection: socket.socket) -> bool:
    """Whether the other end closes without a byte."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_request_is_answered(folder: Path) -> None:
    with opened(folder / "s") as it:
        assert it.ask(b"abc") == b"ABC"
        assert it.ask(b"x" * 1000) == b"X" * 1000
        assert it.counts.answers == 2


def test_an_answer_of_no_bytes_comes_as_no_bytes(folder: Path) -> None:
    with opened(folder / "s", lambda _request: b"") as it:
        assert it.ask() == b""


@pytest.mark.parametrize(
    ("bytes_", "why"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "magic"),
        (b"\0" * 12, "magic"),
        (frames.HEAD.pack(b"FDS2", 3) + b"abc", "magic"),
        (frames.HEAD.pack(frames.MAGIC, 1001) + b"a" * 1001, "size"),
        (frames.HEAD.pack(frames.MAGIC, 2**64 - 1), "size"),
        (frames.HEAD.pack(frames.MAGIC, 0), "size"),
    ],
    ids=["http", "zeros", "version", "one too long", "longest", "empty"],
)
def test_what_is_no_request_is_closed_without_a_word(folder: Path, bytes_: bytes, why: str) -> None:
    with opened(folder / "s") as it:
        with it.raw() as connection:
            connection.sendall(bytes_)
            assert _closed(connection)
        assert it.ask() == b"HELLO"
        wait_until(lambda: it.counts.away[why] == 1)
        assert it.counts.answers == 1


def test_half_a_request_that_ends_is_forgotten(folder: Path) -> None:
    with opened(folder / "s") as it:
        for part in (
            b"F",
            frames.HEAD.pack(frames.MAGIC, 10),
            frames.HEAD.pack(frames.MAGIC, 10) + b"123456789",
        ):
            with it.raw() as connection:
                connection.sendall(part)
        assert it.ask() == b"HELLO"
        wait_until(lambda: it.counts.away["gone"] == 3)
        assert it.counts.answers == 1


def test_a_request_that_trickles_in_is_closed_at_its_deadline(folder: Path) -> None:
    with opened(folder / "s") as it:
        with it.raw() as silent, it.raw() as slow:
            slow.sendall(frames.HEAD.pack(frames.MAGIC, 500))
            with pytest.raises(OSError, match=r".*"):  # noqa: PT012 - the daemon closes while we trickle
                for _ in range(1000):
                    slow.sendall(b"x")
                    time.sleep(0.01)
            assert _closed(silent)
        assert it.ask() == b"HELLO"
        wait_until(lambda: it.counts.away["timeout"] == 2)


def test_who_never_reads_the_answer_does_not_hold_the_door(folder: Path) -> None:
    with opened(folder / "s", lambda _request: b"x" * 2**22) as it:
        with it.raw() as deaf:
            deaf.sendall(frames.HEAD.pack(frames.MAGIC, 3) + b"abc")
            wait_until(lambda: it.counts.answers == 1)
            assert it.ask() == b"x" * 2**22
        wait_until(lambda: not it.daemon._threads)


def test_a_stranger_is_closed_before_a_byte_is_read(folder: Path) -> None:
    with opened(folder / "s", users={ME + 1}) as it:
        with pytest.raises(frames.Broken):
            it.ask()
        assert it.counts.away["user"] == 1
        assert it.counts.answers == 0


def test_no_more_connections_at_once_than_allowed(folder: Path) -> None:
    with opened(folder / "s", limits=Limits(connections=2, head_s=60)) as it:
        with it.raw() as one, it.raw() as two:
            wait_until(lambda: len(it.daemon._threads) == 2)
            with pytest.raises(frames.Broken):
                it.ask()
            assert it.counts.away["busy"] == 1
            one.close()
            two.close()
        wait_until(lambda: not it.daemon._threads)
        assert it.ask() == b"HELLO"


def test_a_flood_is_closed_and_passes(folder: Path) -> None:
    limits = Limits(rate=2.0, burst=5)  # sixty at this rate would take half a minute
    with opened(folder / "s", limits=limits) as it:
        answered = 0
        for _ in range(60):
            try:
                it.ask()
                answered += 1
            except frames.Broken:
                pass
        assert 5 <= answered < 60
        assert it.counts.away["rate"] > 0
        time.sleep(1.0)
        assert it.ask() == b"HELLO"


def test_one_request_is_answered_at_a_time_and_all_on_one_thread(folder: Path) -> None:
    inside: list[int] = []
    most: list[int] = []
    threads: set[int] = set()

    def handle(request: bytes) -> bytes:
        inside.append(1)
        most.append(len(inside))
        threads.add(threading.get_ident())
        time.sleep(0.02)
        inside.pop()
        return request

    with opened(folder / "s", handle) as it:
        askers = [threading.Thread(target=it.ask, args=(b"x",)) for _ in range(3)]
        for asker in askers:
            asker.start()
        for asker in askers:
            asker.join()
        assert most == [1, 1, 1]
        assert threads == {it.thread.ident}


def test_a_request_whose_sender_hung_up_is_not_begun(folder: Path) -> None:
    go, seen = threading.Event(), []

    def handle(request: bytes) -> bytes:
        seen.append(request)
        go.wait(20)
        return request

    with opened(folder / "s", handle) as it:
        first = threading.Thread(target=it.ask, args=(b"first",))
        first.start()
        wait_until(lambda: seen == [b"first"])
        with it.raw() as gone:
            gone.sendall(frames.HEAD.pack(frames.MAGIC, 4) + b"gone")
            wait_until(lambda: it.daemon._queue.qsize() == 1)
        go.set()
        first.join()
        assert it.ask(b"last") == b"last"
        assert seen == [b"first", b"last"]
        assert it.counts.away["gone"] == 1


def test_stopping_finishes_the_answer_and_begins_no_other(folder: Path) -> None:
    go, seen, answers = threading.Event(), [], []

    def handle(request: bytes) -> bytes:
        seen.append(request)
        go.wait(20)
        return request.upper()

    with opened(folder / "s", handle) as it:
        first = threading.Thread(target=lambda: answers.append(it.ask(b"first")))
        second = threading.Thread(target=lambda: answers.append(it.ask(b"second")))
        first.start()
        wait_until(lambda: seen == [b"first"])
        second.start()
        wait_until(lambda: it.daemon._queue.qsize() == 1)
        it.daemon.stop()
        time.sleep(0.05)
        go.set()
        first.join()
        second.join()
        it.thread.join(20)
        assert not it.thread.is_alive()
    assert seen == [b"first"]
    assert sorted(answers) == [b"", b"FIRST"]
    assert not (folder / "s").exists()


@pytest.mark.parametrize(
    ("users", "group", "mode"),
    [({ME}, None, 0o600), ({ME, ME + 1}, None, 0o666), ({ME, ME + 1}, os.getgid(), 0o660)],
)
def test_the_sockets_mode_lets_in_nobody_it_need_not(
    folder: Path, users: set[int], group: int | None, mode: int
) -> None:
    with opened(folder / "s", users=users, group=group):
        found = (folder / "s").lstat()
        assert stat.S_IMODE(found.st_mode) == mode
        assert stat.S_ISSOCK(found.st_mode)


def test_what_a_killed_daemon_left_is_replaced(folder: Path) -> None:
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(folder / "s"))
    left.close()
    with opened(folder / "s") as it:
        assert it.ask() == b"HELLO"


def test_the_socket_of_a_daemon_that_answers_is_left_alone(folder: Path) -> None:
    with opened(folder / "s") as it:
        with pytest.raises(ConfigError, match="another daemon"):
            Daemon(bytes, folder / "s", users={ME}).listen()
        assert it.ask() == b"HELLO"


def test_something_else_in_its_place_is_left_alone(folder: Path) -> None:
    (folder / "s").write_text("mine")
    with pytest.raises(ConfigError, match="something else"):
        Daemon(bytes, folder / "s", users={ME}).listen()
    assert (folder / "s").read_text() == "mine"


def test_a_path_that_no_socket_can_have_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="107 bytes"):
        Daemon(bytes, folder / ("s" * 120), users={ME}).listen()


def test_nobody_there_is_said_and_waited_for(folder: Path) -> None:
    with pytest.raises(frames.Broken):
        frames.ask(str(folder / "s"), b"x", timeout=5)
    answers: list[bytes] = []
    asker = threading.Thread(
        target=lambda: answers.append(frames.ask(str(folder / "s"), b"late", timeout=30, patience=30))
    )
    asker.start()
    time.sleep(0.3)
    with opened(folder / "s"):
        asker.join()
    assert answers == [b"LATE"]


def test_an_answer_that_is_announced_too_long_is_not_read(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(folder / "s"))
        listener.listen(1)

        def lie() -> None:
            connection, _ = listener.accept()
            with connection:  # the whole request is taken first: a hang-up before that is another error
                until = time.monotonic() + 10
                frames.receive_body(connection, frames.receive_head(connection, until=until), until=until)
                connection.sendall(frames.HEAD.pack(frames.MAGIC, frames.MAX_ANSWER + 1))

        liar = threading.Thread(target=lie)
        liar.start()
        with pytest.raises(frames.Broken, match="size"):
            frames.ask(str(folder / "s"), b"x", timeout=10)
        liar.join()


def test_a_group_that_is_not_the_daemons_is_named_and_nothing_is_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    daemon = Daemon(bytes.upper, folder / "s", users={ME}, group=4711)
    with pytest.raises(
        ConfigError, match=r"relay_group: the socket cannot be given to group 4711 \(.*usermod"
    ):
        daemon.listen()
    assert not (folder / "s").exists()
