"""`fedgen server up` with a real SuperLink behind a real nginx: what is open, what is not, and what can be watched."""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import proxying
from support.kit import ROOT

from fedgen.config.proxy import FLEET_ROUTES
from fedgen.flower.silence import SILENT_S

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.deployment, pytest.mark.process, pytest.mark.needs("nginx")]
PATIENCE_S = 120.0


class Coordinator:
    """A coordinator that runs."""

    def __init__(self, home: Path, ports: tuple[int, int, int]) -> None:
        self.home, (self.public, self.superlink, self.observed) = home, ports
        self.log = (home.parent / "log").open("wb")
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fedgen", "server", "up", str(home)],
            env=environment, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
        )  # fmt: skip

    def watch(self, path: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.observed, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
            return answer.status, body if path == "/metrics" else json.loads(body)
        except OSError:
            return 0, None
        finally:
            connection.close()

    def ask(self, port: int, method: str, path: str) -> int:
        context = ssl.create_default_context(cafile=str(self.home / "keys" / "ca.crt"))
        connection = http.client.HTTPSConnection("localhost", port, timeout=20, context=context)
        try:
            connection.request(method, path)
            return connection.getresponse().status
        finally:
            connection.close()

    def until(self, status: int) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            found, body = self.watch("/ready")
            if found == status:
                return body
            assert self.process.poll() is None, (self.home.parent / "log").read_text()
            assert time.monotonic() < deadline, (found, body)
            time.sleep(0.1)

    def child(self, name: str) -> int:
        # -ww: a terminal's width in the environment would cut the line before the program's name.
        words = ["ps", "-ww", "--ppid", str(self.process.pid), "-o", "pid=,args="]
        lines = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
        found = [int(line.split()[0]) for line in lines if name in line]
        assert found, (name, lines, (self.home.parent / "log").read_text())
        return found[0]

    def stop(self) -> int:
        self.process.terminate()
        try:
            return self.process.wait(60)
        finally:
            self.log.close()


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    home = tmp_path_factory.mktemp("coordinator") / "home"
    ports = (proxying.free_port(), proxying.free_port(), proxying.free_port())
    words = [
        sys.executable,
        "-m",
        "fedgen",
        "server",
        "init",
        "--address",
        f"localhost:{ports[0]}",
        str(home),
    ]
    subprocess.run(words, check=True, capture_output=True, cwd=ROOT)
    text = (home / "server.yaml").read_text()
    assert "superlink_port: 9092" in text
    text = text.replace("superlink_port: 9092", f"superlink_port: {ports[1]}")
    (home / "server.yaml").write_text(text + f"\nobserve:\n  address: 127.0.0.1:{ports[2]}\n  logs: json\n")
    running = Coordinator(home, ports)
    try:
        running.until(200)
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()


def test_only_the_fleet_and_health_are_open_to_the_world(coordinator: Coordinator) -> None:
    assert coordinator.ask(coordinator.public, "GET", "/health") == 200
    refused = [
        "/v1/control/list-runs",
        "/v1/control/start-run",
        "/v1/runtime/acquire-task",
        "/v1/fleet/nothing",
    ]
    assert {coordinator.ask(coordinator.public, "POST", path) for path in refused} == {404}
    assert coordinator.ask(coordinator.public, "GET", "/openapi.json") == 404
    # They are there, on loopback: what keeps them from the world is the proxy.
    assert coordinator.ask(coordinator.superlink, "GET", "/openapi.json") == 200
    assert coordinator.ask(coordinator.superlink, "POST", "/v1/control/list-runs") != 404


_ASKS = """
import encodings.idna, http.client, os, ssl, sys  # now: another user may not read Python's own files
context = ssl._create_unverified_context()  # who attacks need not know the authority
if sys.argv[2] != "-":
    os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
for path in sys.argv[3:]:
    connection = http.client.HTTPSConnection("127.0.0.1", int(sys.argv[1]), timeout=20, context=context)
    connection.request("POST", path, headers={"Content-Type": "application/protobuf", "X-Forwarded-For": "127.0.0.1"})
    print(connection.getresponse().status)
    connection.close()
"""


def test_flowers_control_is_for_the_coordinators_own_user(coordinator: Coordinator) -> None:
    """Who reaches it runs code as the coordinator; on loopback that would be every user of the machine."""

    def asks(user: str) -> list[int]:
        paths = ("/v1/control/list-runs", "/v1/fleet/pull-messages")
        words = [sys.executable, "-c", _ASKS, str(coordinator.superlink), user, *paths]
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
        return [int(it) for it in done.stdout.split()]

    assert asks("-") == [200, 401]
    if (
        os.geteuid() == 0
    ):  # else nobody else can be put on; tests/unit/flower/test_flower_own_user.py tries the rest
        assert asks("65534") == [403, 401]


@pytest.mark.parametrize("route", FLEET_ROUTES)
def test_every_fleet_route_reaches_the_superlink_which_refuses_who_signed_nothing(
    coordinator: Coordinator, route: str
) -> None:
    assert coordinator.ask(coordinator.public, "POST", f"/v1/fleet/{route}") in {400, 401, 403, 415, 422}


def test_nothing_but_the_proxy_listens_beyond_loopback(coordinator: Coordinator) -> None:
    with open("/proc/net/tcp", encoding="ascii") as table:  # noqa: PTH123 - no file of a folder
        rows = [line.split() for line in table][1:]
    listening = {tuple(row[1].split(":")) for row in rows if row[3] == "0A"}
    open_ports = {int(port, 16) for address, port in listening if address == "00000000"}
    assert coordinator.public in open_ports
    assert not {coordinator.superlink, coordinator.observed} & open_ports
    assert ("0100007F", f"{coordinator.superlink:04X}") in listening


def test_metrics_hold_only_what_is_declared(coordinator: Coordinator) -> None:
    status, text = coordinator.watch("/metrics")
    assert status == 200
    assert b'fedgen_build_info{role="coordinator"' in text
    assert b"fedgen_ready 1.0" in text
    assert str(coordinator.home).encode() not in text


def test_a_proxy_that_dies_is_seen_and_comes_back(coordinator: Coordinator) -> None:
    before = coordinator.child("nginx")
    os.kill(before, signal.SIGKILL)
    assert coordinator.until(503) == {"ready": False, "reasons": ["proxy-down"]}
    coordinator.until(200)
    assert coordinator.child("nginx") != before
    deadline = time.monotonic() + 20
    while True:
        try:
            assert coordinator.ask(coordinator.public, "GET", "/health") == 200
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            break


def test_a_superlink_that_runs_and_answers_nobody_is_started_again(coordinator: Coordinator) -> None:
    before = coordinator.child("flower-superlink")
    os.kill(before, signal.SIGSTOP)
    deadline = time.monotonic() + SILENT_S + PATIENCE_S
    while Path(f"/proc/{before}").exists():
        assert time.monotonic() < deadline, "it is borne for ever"
        time.sleep(0.5)
    coordinator.until(200)
    assert coordinator.child("flower-superlink") != before


def test_it_stops_when_it_is_told_and_leaves_nothing_running(coordinator: Coordinator) -> None:
    pids = [coordinator.child(name) for name in ("flower-superlink", "flower-superexec", "nginx")]
    assert coordinator.stop() == 0
    assert [pid for pid in pids if os.path.exists(f"/proc/{pid}")] == []  # noqa: PTH110
    lines = [
        line for line in (coordinator.home.parent / "log").read_text().splitlines() if line.startswith("{")
    ]
    events = [json.loads(line)["event"] for line in lines]
    assert "ready" in events
    assert events[-1] == "stopped"
