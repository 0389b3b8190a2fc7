"""The door of a site: a Unix socket behind which one ``Site.handle`` answers, one request at a time.

Who may knock is decided by the operating system (the peer's user, and the mode of the socket); how much, by
:class:`~fedgen.site.limits.Limits`. What a request says is decided by the site alone: the door never looks inside.
Requests are read on threads of their own and answered on the thread that calls :meth:`Daemon.serve`, so that noise,
ledger and learner belong to one thread.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, Literal, Protocol

from fedgen.errors import ConfigError
from fedgen.runs.atomic import storage
from fedgen.site import frames
from fedgen.site.limits import Limits, TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred: pid, uid, gid
_STOP_S: Final = 10.0
_BACKLOG: Final = 16
_WAKE_S: Final = 0.5


Away = Literal["user", "rate", "busy", "size", "timeout", "magic", "gone"]


class Watcher(Protocol):
    """Hears what happens at the door; nothing of what a message says."""

    def answered(self, seconds: float, size: int) -> None:
        """One request was answered, in so many seconds, with so many bytes."""

    def turned_away(self, why: Away) -> None:
        """A connection brought no request that was answered.

        ``user``: who may not connect; ``rate`` or ``busy``: too many, or too many at once; ``size``, ``timeout``,
        ``magic``: too long, too slow, or no request at all; ``gone``: it hung up before its turn.
        """


class Counts:
    """Counts what came to the door since the daemon started."""

    def __init__(self) -> None:
        self.answers = 0
        self.away: Counter[Away] = Counter()
        self._lock = threading.Lock()

    def answered(self, seconds: float, size: int) -> None:  # noqa: ARG002 - a count
        """As :meth:`Watcher.answered`."""
        with self._lock:
            self.answers += 1

    def turned_away(self, why: Away) -> None:
        """As :meth:`Watcher.turned_away`."""
        with self._lock:
            self.away[why] += 1


@dataclass(slots=True)
class _Waiting:
    """A request in the queue, and where its answer goes."""

    request: bytes
    connection: socket.socket
    done: threading.Event
    answer: bytes = b""


class Daemon:
    """Serves one socket until it is told to stop.

    Guarantees:
        - A connection of another user than ``users`` is closed before a byte of it is read.
        - One request is answered at a time. A request whose sender hung up before its turn is not begun.
        - Whatever a connection sends, it costs the site bounded memory, a bounded number of threads and bounded
          time, and the next honest request is answered.
        - After :meth:`stop` the request that is being answered is finished and its answer sent; no other is begun.

    Args:
        handle: ``Site.handle``; raises nothing.
        path: Of the socket. A file left by a daemon that was killed is replaced.
        users: Numbers of the users who may connect; others are refused by the operating system's word for who
            they are.
        group: Number of the group that the socket belongs to, or None for the daemon's own.
        limits: What is let in.
        watcher: Hears what happens; it raises nothing.
    """

    def __init__(
        self,
        handle: Callable[[bytes], bytes],
        path: Path,
        *,
        users: Collection[int],
        group: int | None = None,
        limits: Limits | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self._handle, self.path = handle, path
        self._users, self._group = frozenset(users), group
        self._limits = limits or Limits()
        self._bucket = TokenBucket(self._limits.rate, self._limits.burst)
        self._slots = threading.Semaphore(self._limits.connections)
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._threads: set[threading.Thread] = set()
        self._listener: socket.socket | None = None
        self._watcher: Watcher = watcher or Counts()

    def listen(self) -> None:
        """Open the socket; from here on connections wait, and :meth:`serve` answers them.

        Raises:
            ConfigError: Another daemon answers there, something else lies there, or the place cannot be used.
        """
        where = os.fspath(self.path)
        if len(os.fsencode(where)) > frames.MAX_PATH:
            hint = "name a shorter one in the site's file, such as /run/fedgen/site.sock"
            raise ConfigError(
                "the path of a socket has at most 107 bytes", where=where, key="socket", hint=hint
            )
        with storage(self.path):
            self._make_room()
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                # With its mode from the first instant, and no link followed: others may be able to write the folder.
                before = os.umask(0o777 & ~self._mode())
                try:
                    listener.bind(where)  # nobody can connect before listen()
                finally:
                    os.umask(before)
                if self._group is not None:
                    self._give_to(self._group)
                listener.listen(_BACKLOG)
            except BaseException:
                listener.close()
                raise
        self._listener = listener

    def _give_to(self, group: int) -> None:
        """Let the socket belong to a group; who is not root can do that for a group it is in itself, and no other.

        Raises:
            ConfigError: This process may not.
        """
        try:
            os.chown(self.path, -1, group, follow_symlinks=False)
        except PermissionError:
            self.path.unlink()  # it is this process's own, and nobody listens there
            hint = "the daemon's user has to be in the group (usermod -aG GROUP USER), and be started anew"
            what = f"the socket cannot be given to group {group}"
            raise ConfigError(what, where=self.path, key="relay_group", hint=hint) from None

    def serve(self) -> None:
        """Answer requests on this thread until :meth:`stop`."""
        listener = self._listener
        if listener is None:
            raise RuntimeError("listen() comes first")
        mine = self.path.stat().st_ino
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        try:
            while not self._stopping.is_set():
                waiting = self._next()
                if waiting is not None:
                    self._answer(waiting)
        finally:
            self._stopping.set()
            self._close(listener, mine)

    def stop(self) -> None:
        """Finish the request that is being answered, and no other; may be called from a signal handler."""
        self._stopping.set()
        self._queue.put(None)

    # -- one request --------------------------------------------------------------------------------

    def _next(self) -> _Waiting | None:
        """Return what is asked next, or None for a look at whether to stop.

        A signal may reach another thread; its handler then runs when this one wakes up.
        """
        try:
            return self._queue.get(timeout=_WAKE_S)
        except Empty:
            return None

    def _answer(self, waiting: _Waiting) -> None:
        """Answer one request, if anybody still waits for it."""
        try:
            if self._stopping.is_set():
                return
            if _hung_up(waiting.connection):
                self._watcher.turned_away("gone")
                return
            began = time.monotonic()
            waiting.answer = self._handle(waiting.request)
            self._watcher.answered(time.monotonic() - began, len(waiting.answer))
        finally:
            waiting.request = b""
            waiting.done.set()

    def _accept(self, listener: socket.socket) -> None:
        """Take connections until the listener is closed."""
        while not self._stopping.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                if self._stopping.is_set():
                    return
                time.sleep(0.05)  # out of descriptors, perhaps; the next one may go
                continue
            self._admit(connection)

    def _admit(self, connection: socket.socket) -> None:
        """Give a connection a thread, or close it."""
        why: Away | None = None
        if _user(connection) not in self._users:
            why = "user"
        elif not self._bucket.take():
            why = "rate"
        elif not self._slots.acquire(blocking=False):
            why = "busy"
        if why is not None:
            self._watcher.turned_away(why)
            connection.close()
        else:
            thread = threading.Thread(target=self._converse, args=(connection,), daemon=True)
            self._threads.add(thread)
            try:
                thread.start()
            except RuntimeError:  # no more threads
                self._threads.discard(thread)
                self._slots.release()
                connection.close()

    def _converse(self, connection: socket.socket) -> None:
        """Read one request, wait for its turn, send the answer."""
        try:
            with connection:
                request = self._read(connection)
                waiting = _Waiting(request, connection, threading.Event())
                del request
                self._queue.put(waiting)
                waiting.done.wait()
                self._write(connection, waiting.answer)
        except frames.Broken as broken:
            self._watcher.turned_away(broken.why)
        finally:
            self._slots.release()
            self._threads.discard(threading.current_thread())

    def _read(self, connection: socket.socket) -> bytes:
        """Return a whole request within the limits."""
        size = frames.receive_head(connection, until=time.monotonic() + self._limits.head_s)
        if not 0 < size <= self._limits.request:
            raise frames.Broken("size")
        seconds = self._limits.seconds_for(size, self._limits.body_s)
        return frames.receive_body(connection, size, until=time.monotonic() + seconds)

    def _write(self, connection: socket.socket, answer: bytes) -> None:
        seconds = self._limits.seconds_for(len(answer), self._limits.write_s)
        with suppress(frames.Broken):  # who asked has gone; the site remembers what it answered
            frames.send(connection, answer, until=time.monotonic() + seconds)

    # -- the socket's file --------------------------------------------------------------------------

    def _mode(self) -> int:
        """Return who may connect, as the file's mode says it: nobody else where that can be said."""
        if self._users == {os.getuid()}:
            return 0o600
        return 0o660 if self._group is not None else 0o666  # then the peer's user alone decides

    def _make_room(self) -> None:
        """Remove what a killed daemon left; anything else stays and is an error."""
        folder = self.path.parent
        if not folder.is_dir():
            folder.mkdir(mode=0o700 if self._users == {os.getuid()} else 0o755, parents=True)
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise ConfigError("something else is in the place of the socket", where=self.path, key="socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            try:
                probe.connect(os.fspath(self.path))
            except ConnectionRefusedError:
                self.path.unlink()
                return
            except OSError:
                pass
        raise ConfigError(
            "another daemon serves this socket", where=self.path, key="socket", hint="give each site its own"
        )

    def _close(self, listener: socket.socket, inode: int) -> None:
        """Close the door, let the last answer out, and remove the socket's file if it is still ours."""
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes accept()
        listener.close()
        with suppress(OSError):
            if os.lstat(self.path).st_ino == inode:
                self.path.unlink()
        until = time.monotonic() + _STOP_S
        while self._threads and time.monotonic() < until:
            while not self._queue.empty():
                waiting = self._queue.get()
                if waiting is not None:
                    waiting.done.set()
            time.sleep(0.01)


def _user(connection: socket.socket) -> int:
    """Return who is at the other end, by the word of the operating system."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(data)[1])


def _hung_up(connection: socket.socket) -> bool:
    """Return whether the other end is gone, or sends more than one request."""
    try:
        connection.setblocking(False)
        connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True  # the end of the stream, or bytes nobody asked for
