"""Flower's own interfaces on loopback, for the user that runs them and for nobody else of the machine.

``python -m fedgen.flower.own_user PROGRAM [ARGUMENT...]`` is ``flower-superlink`` behind this door; the first word is
what it is called.

Flower's Control API asks nobody for a key, and whoever reaches it runs code as the coordinator's user, who has its
keys. On loopback that is every process of the machine, of any user. The kernel knows whose they are: for each
connection it lists the user at the other end. So the routes of the fleet, where Flower asks for a node's key, and
``/health`` are open to who passes the proxy; everything else is for processes of this very user.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, Any, Final

from fedgen.config.proxy import FLEET_ROUTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, MutableMapping
    from pathlib import Path

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Any]]
    Send = Callable[[dict[str, Any]], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]
    Address = tuple[str, int]

MODULE: Final = "fedgen.flower.own_user"
FLEET: Final = frozenset({"/health", *(f"/v1/fleet/{route}" for route in FLEET_ROUTES)})
_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")
_MAPPED: Final = b"\0" * 10 + b"\xff\xff"
_USER, _INODE, _FIELDS = 7, 9, 10
_FORBIDDEN: Final = 403


def user_of(client: Address, server: Address, tables: Collection[str | Path] = _TABLES) -> int | None:
    """Return the user of the process at the other end of a connection within this machine, or None if there is none.

    Guarantees:
        - A connection that its process has closed already is nobody's: the kernel would call it root's.

    Args:
        client: Numeric address and port of the other end, as this end's socket says them.
        server: The same of this end.
        tables: What the kernel lists.

    Source: proc(5), ``/proc/net/tcp``.
    """
    wanted = {(here, there) for here, there in zip(_written(*client), _written(*server), strict=True) if here}
    for table in tables:
        try:
            with open(table, encoding="ascii") as file:  # noqa: PTH123 - one of the kernel's
                lines = file.readlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) >= _FIELDS and (fields[1], fields[2]) in wanted and fields[_INODE] != "0":
                return int(fields[_USER])
    return None


class OwnUser:
    """An ASGI app that answers this user's processes alone, but for some paths.

    Guarantees:
        - Who is not known is refused, and nothing of the request is read.

    Args:
        app: What answers.
        everybody: Paths that are open to all, exactly as they are sent.
        mine: The user that may; None is this process's own.
        asked: Returns the user at the other end of a connection.
    """

    def __init__(
        self,
        app: App,
        everybody: Collection[str],
        *,
        mine: int | None = None,
        asked: Callable[[Address, Address], int | None] = user_of,
    ) -> None:
        self._app, self._everybody, self._asked = app, frozenset(everybody), asked
        self._mine = os.geteuid() if mine is None else mine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse."""
        if scope["type"] == "lifespan" or self._may(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": _FORBIDDEN, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _may(self, scope: Scope) -> bool:
        if scope["type"] == "http" and scope["path"] in self._everybody:
            return True
        client, server = scope.get("client"), scope.get("server")
        if client is None or server is None:
            return False
        return self._asked((client[0], client[1]), (server[0], server[1])) == self._mine


def guard(everybody: Collection[str]) -> None:
    """Put every server that uvicorn runs in this process behind :class:`OwnUser`."""
    import uvicorn

    begin = uvicorn.Config.__init__

    def guarded(self: Any, app: Any, *others: Any, **settings: Any) -> None:
        # What a client says of where it comes from would else be taken for where it comes from.
        settings["proxy_headers"] = False
        begin(self, OwnUser(app, everybody), *others, **settings)

    uvicorn.Config.__init__ = guarded  # type: ignore[method-assign]


def _written(host: str, port: int) -> tuple[str, ...]:
    """Return an address as the kernel lists it: as IPv4, and as IPv4 within IPv6; empty where it has no such form."""
    if ":" in host:
        whole = socket.inet_pton(socket.AF_INET6, host)
        if not whole.startswith(_MAPPED):
            return "", _words(whole) + f":{port:04X}"
        plain = whole[len(_MAPPED) :]
    else:
        plain = socket.inet_aton(host)
    return _words(plain) + f":{port:04X}", _words(_MAPPED + plain) + f":{port:04X}"


def _words(data: bytes) -> str:
    """Return bytes as words of this machine's order, in hex."""
    return "".join(f"{word:08X}" for word in struct.unpack(f"={len(data) // 4}I", data))


def main() -> None:
    """Run the SuperLink with this process's arguments."""
    import fedgen.flower.environment  # noqa: F401 - before the first import of flwr

    guard(FLEET)
    from flwr.superlink.cli import flower_superlink

    del sys.argv[0]
    flower_superlink()


if __name__ == "__main__":
    main()
