"""Flower's own interfaces are this user's: the kernel says who is at the other end, and nobody else can."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn

from fedgen.flower.own_user import FLEET, OwnUser, guard, user_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOBODY = 65534
_CONNECT = """
import encodings.idna, os, socket, sys  # now: another user may not read Python's own files
if sys.argv[3] != "-":
    os.setgroups([]); os.setgid(int(sys.argv[3])); os.setuid(int(sys.argv[3]))
held = socket.create_connection((sys.argv[1], int(sys.argv[2])))
print(held.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["127.0.0.1", "::1", "mapped"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A server of either kind; where this machine has no IPv6, all are of the first."""
    kind = request.param if socket.has_ipv6 and os.path.exists("/proc/net/if_inet6") else "127.0.0.1"  # noqa: PTH110
    with socket.socket(socket.AF_INET if kind == "127.0.0.1" else socket.AF_INET6) as found:
        if kind == "mapped":
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        found.bind(("::" if kind == "mapped" else kind, 0))
        found.listen()
        found.settimeout(20.0)
        yield found


def _of(server: socket.socket) -> tuple[str, int]:
    host = server.getsockname()[0]
    return ("127.0.0.1" if host == "::" else host), server.getsockname()[1]


def _plain(address: Any) -> tuple[str, int]:
    return address[0], address[1]


def test_a_process_of_this_user_is_known(listener: socket.socket) -> None:
    with socket.create_connection(_of(listener)):
        held, client = listener.accept()
        with held:
            assert user_of(_plain(client), _plain(held.getsockname())) == os.geteuid()
            assert user_of((client[0], 1), _plain(held.getsockname())) is None


def test_a_process_of_another_user_is_known_as_that(listener: socket.socket) -> None:
    if os.geteuid() != 0:
        assert user_of(("127.0.0.1", 1), ("127.0.0.1", 2)) is None  # nobody else can be put on here
        return
    host, port = _of(listener)
    with subprocess.Popen(
        [sys.executable, "-c", _CONNECT, host, str(port), str(NOBODY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        held, client = listener.accept()
        with held:
            assert user_of(_plain(client), _plain(held.getsockname())) == NOBODY
            other.communicate("")


def test_a_connection_that_was_closed_is_nobodys() -> None:
    """The kernel lists what its process has closed as root's: it must not open what is root's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = socket.create_connection(server.getsockname())
        held, client = server.accept()
        with held:
            connection.close()
            assert user_of(client, held.getsockname()) is None


def test_a_table_that_is_not_there_or_odd_knows_nobody(tmp_path: Path) -> None:
    odd = tmp_path / "tcp"
    odd.write_text("sl\n\nx\n 0: 0100007F:0001 0100007F:0002 01\n")
    for tables in ((), (tmp_path / "none",), (odd,)):
        assert user_of(("127.0.0.1", 1), ("127.0.0.1", 2), tables) is None


class _App:
    def __init__(self) -> None:
        self.answered: list[str] = []

    async def __call__(self, scope: Any, _receive: Any, _send: Any) -> None:
        self.answered.append(scope.get("path", scope["type"]))


def _asked(user: int | None, path: str, *, kind: str = "http", client: Any = ("127.0.0.1", 5)) -> list[Any]:
    app, said = _App(), list[Any]()

    async def send(message: Any) -> None:
        said.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing of it is read")

    door = OwnUser(app, FLEET, mine=7, asked=lambda _client, _server: user)
    scope = {"type": kind, "path": path, "client": client, "server": ("127.0.0.1", 9092)}
    asyncio.run(door(scope, receive, send))
    return [app.answered, [it.get("status", it.get("code")) for it in said if "body" not in it["type"]]]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run", "/v1/runtime/pull-task", "/", "/docs", "/openapi.json", "/v1/fleet/", "/v1/fleet",
        "/v1/fleet/../control/start-run", "/v1/fleet/pull-messages/", "/V1/fleet/pull-messages", "/health/",
        "/v1/fleet/pull-messages/../../control/start-run",
    ],
)  # fmt: skip
@pytest.mark.parametrize("user", [0, 8, None])
def test_everything_else_is_this_users(path: str, user: int | None) -> None:
    assert _asked(user, path) == [[], [403]]
    assert _asked(7, path) == [[path], []]


def test_the_fleet_and_health_are_open_to_who_passes_the_proxy() -> None:
    for path in FLEET:
        assert _asked(8, path) == [[path], []]
    assert len(FLEET) == 13


def test_who_comes_from_nowhere_is_refused() -> None:
    assert _asked(7, "/v1/control/list-runs", client=None) == [[], [403]]


def test_other_kinds_of_traffic() -> None:
    assert _asked(8, "/v1/fleet/pull-messages", kind="websocket") == [[], [1008]]
    assert _asked(8, "", kind="lifespan") == [[""], []]


def test_a_client_does_not_say_where_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn would take `X-Forwarded-For` of a client on loopback for its address, and the port in it as well."""
    monkeypatch.setattr(uvicorn.Config, "__init__", uvicorn.Config.__init__)  # put back at the end
    guard(FLEET)
    app = _App()
    config = uvicorn.Config(app, port=0, log_config=None, ws="none", interface="asgi3")
    config.load()
    assert isinstance(config.loaded_app, OwnUser)  # and nothing before it that believes what it is told
