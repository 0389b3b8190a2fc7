"""One request and one answer over a Unix socket: ``FDS1 | length, 8 bytes | that many bytes``, both ways.

An answer of no bytes says that there is none, and not why. Both ends use this module: a site's daemon, and the relay
that runs as another user in Flower's process; so it imports nothing but the standard library.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from typing_extensions import Buffer

MAGIC: Final = b"FDS1"
HEAD: Final = struct.Struct(">4sQ")
MAX_ANSWER: Final = 2**30 + 2**23  # as much as an envelope can be
MAX_PATH: Final = 107  # of a Unix socket, Linux
Why = Literal["gone", "timeout", "magic", "size"]
_PIECE: Final = 2**20
_RETRY_S: Final = 0.2


class Broken(Exception):
    """A message did not come, or did not get, through.

    Attributes:
        why: ``gone`` (hung up, or nobody there), ``timeout``, ``magic`` (does not speak this protocol) or ``size``.
    """

    def __init__(self, why: Why) -> None:
        super().__init__(why)
        self.why: Final = why


def send(connection: socket.socket, data: Buffer, *, until: float) -> None:
    """Send one message.

    Args:
        connection: A connected socket.
        data: The message.
        until: Instant of the monotonic clock by which the other end must have taken it.

    Raises:
        Broken: It has not.
    """
    view = memoryview(data).cast("B")
    for part in (memoryview(HEAD.pack(MAGIC, len(view))), view):
        sent = 0
        while sent < len(part):
            try:
                connection.settimeout(_left(until))
                sent += connection.send(part[sent : sent + _PIECE])
            except OSError as error:
                raise _broken(error) from None


def receive_head(connection: socket.socket, *, until: float) -> int:
    """Return the length of the message that comes.

    Raises:
        Broken: The other end hung up, was too slow, or began with something else.
    """
    magic, size = HEAD.unpack(receive_body(connection, HEAD.size, until=until))
    if magic != MAGIC:
        raise Broken("magic")
    return int(size)


def receive_body(connection: socket.socket, size: int, *, until: float) -> bytes:
    """Return the next ``size`` bytes; memory grows as they come, not as they are announced.

    Raises:
        Broken: The other end hung up or was too slow.
    """
    data = bytearray()
    while len(data) < size:
        try:
            connection.settimeout(_left(until))
            piece = connection.recv(min(_PIECE, size - len(data)))
        except OSError as error:
            raise _broken(error) from None
        if not piece:
            raise Broken("gone")
        data += piece
    return bytes(data)


def ask(path: str, request: Buffer, *, timeout: float, patience: float = 0.0) -> bytes:
    """Return the answer of the daemon behind ``path``; no bytes if it gives none.

    Args:
        path: Of the daemon's socket.
        request: The bytes to hand over.
        timeout: Seconds for everything together.
        patience: Seconds to wait for a daemon that is being started; a request is never sent twice.

    Raises:
        Broken: There is no daemon, or it hung up, or took too long.
    """
    until = time.monotonic() + timeout
    with _connected(path, min(until, time.monotonic() + patience)) as connection:
        send(connection, request, until=until)
        size = receive_head(connection, until=until)
        if size > MAX_ANSWER:
            raise Broken("size")
        return receive_body(connection, size, until=until)


def _connected(path: str, until: float) -> socket.socket:
    """Return a connection to the daemon, trying again until an instant."""
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(path)
        except OSError:
            connection.close()
            if time.monotonic() >= until:
                raise Broken("gone") from None
            time.sleep(_RETRY_S)
        else:
            return connection


def _broken(error: OSError) -> Broken:
    return Broken("timeout" if isinstance(error, TimeoutError) else "gone")


def _left(until: float) -> float:
    """Return how many seconds are left; ``TimeoutError`` if none."""
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
