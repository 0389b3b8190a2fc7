"""A cable between two ports of this machine: it can be cut, made slow and listened to. No rights are needed."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress

_BLOCK = 65536


class Cable:
    """Carries connections to a port; what passed is kept.

    A cut is silent, as a cable's is: nothing is refused and nothing arrives, until it is mended.

    Args:
        to: The port on loopback that it leads to.
    """

    def __init__(self, to: int) -> None:
        self._to = to
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self.port = int(self._listener.getsockname()[1])
        self.heard = bytearray()
        self.connections = 0
        self.bytes_per_s: float | None = None
        self._whole = threading.Event()
        self._whole.set()
        self._lock = threading.Lock()
        self._closed = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._whole.clear()

    def mend(self) -> None:
        self._whole.set()

    def close(self) -> None:
        self._closed = True
        self._whole.set()
        # A thread in accept() is not woken by close(); a connection wakes it.
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
            pass
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        self._whole.wait()
        if self._closed:
            near.close()
            return
        self.connections += 1
        far = self._reach()
        if far is None:
            near.close()
            return
        for one, other in ((near, far), (far, near)):
            threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _reach(self) -> socket.socket | None:
        """Return a connection to the far end, which may be starting; to hang up would look like an attack on TLS."""
        deadline = time.monotonic() + 60
        while not self._closed and time.monotonic() < deadline:
            with suppress(OSError):
                far = socket.create_connection(("127.0.0.1", self._to), timeout=10)
                far.settimeout(None)
                return far
            time.sleep(0.2)
        return None

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(_BLOCK):
                self._whole.wait()
                with self._lock:
                    self.heard += data
                if self.bytes_per_s is not None:
                    time.sleep(len(data) / self.bytes_per_s)
                other.sendall(data)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        one.close()
