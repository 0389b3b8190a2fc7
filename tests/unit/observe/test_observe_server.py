"""The small server: three paths, loopback, codes."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fedgen.errors import ConfigError
from fedgen.observe import Meters, Probes, Reason, start
from fedgen.observe.probe import probe
from fedgen.observe.server import Served, split

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def probes() -> Probes:
    return Probes()


@pytest.fixture
def served(probes: Probes) -> Iterator[Served]:
    with start("127.0.0.1:0", probes, Meters("site")) as served:
        yield served


def _ask(served: Served, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(served.address, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def test_it_is_alive_before_it_is_ready(served: Served, probes: Probes) -> None:
    assert _ask(served, "/health")[:2] == (200, b'{"live": true}\n')
    status, body, _ = _ask(served, "/ready")
    assert (status, json.loads(body)) == (503, {"ready": False, "reasons": ["starting"]})
    probes.set("ledger", None)
    assert _ask(served, "/ready")[:2] == (200, b'{"ready": true}\n')
    probes.set("data", Reason.DATA_UNREACHABLE)
    assert json.loads(_ask(served, "/ready")[1])["reasons"] == ["data-unreachable"]


def test_a_probe_that_raises_is_a_code(served: Served, probes: Probes) -> None:
    def ask() -> None:
        raise OSError("postgresql://fedgen:hunter2@db")

    probes.watch("data", ask)
    status, body, _ = _ask(served, "/ready")
    assert status == 503
    assert json.loads(body)["reasons"] == ["fault"]


def test_metrics_say_whether_it_is_ready(served: Served, probes: Probes) -> None:
    assert b"fedgen_ready 0.0" in _ask(served, "/metrics")[1]
    probes.set("ledger", None)
    status, body, headers = _ask(served, "/metrics")
    assert status == 200
    assert b"fedgen_ready 1.0" in body
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize("path", ["/", "/metrics/", "/health?x=1", "/../etc/passwd", "/%2e%2e/health"])
def test_any_other_path_is_not_found_and_named_nowhere(served: Served, path: str) -> None:
    status, body, headers = _ask(served, path)
    assert status == 404
    assert body == b"404\n"
    assert headers["Server"] == "fedgen"


def test_other_methods_are_refused_and_head_has_no_body(served: Served) -> None:
    assert _ask(served, "/health", "POST")[0] == 501
    assert _ask(served, "/health", "DELETE")[0] == 501
    assert _ask(served, "/health", "HEAD")[:2] == (200, b"")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9464", "127.0.0.1.evil.example", "10.0.0.1", ""]
)
def test_a_page_in_a_browser_cannot_read_it_by_another_name(served: Served, host: str) -> None:
    assert _ask(served, "/metrics", Host=host)[0] == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:9464", "127.0.0.1:1", "[::1]:9464"])
def test_loopback_by_its_names_is_answered(served: Served, host: str) -> None:
    assert _ask(served, "/health", Host=host)[0] == 200


def test_silent_connections_do_not_keep_others_out_for_long(served: Served) -> None:
    host, port = served.address.split(":")
    idle = [socket.create_connection((host, int(port)), timeout=10) for _ in range(40)]
    try:
        for connection in idle[:16]:
            connection.settimeout(10)
            assert connection.recv(1) == b""  # let go after five seconds
        assert _ask(served, "/health")[0] == 200
    finally:
        for connection in idle:
            connection.close()


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "192.0.2.1:1"])
def test_it_is_not_seen_by_others_unasked(address: str) -> None:
    with pytest.raises(ConfigError, match="seen by other machines"):
        start(address, Probes(), Meters("site"))
    assert split(address, beyond_loopback=True)[1] == 1


@pytest.mark.parametrize(
    "address", ["", "9464", "localhost", "example.org:1", "127.0.0.1:65536", "127.0.0.1:x"]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="not an address"):
        split(address, beyond_loopback=True)


def test_a_taken_port_is_one_line(served: Served) -> None:
    with pytest.raises(ConfigError, match="cannot be listened on"):
        start(served.address, Probes(), Meters("site"))


def test_beyond_loopback_any_host_is_answered(probes: Probes) -> None:
    with start("0.0.0.0:0", probes, Meters("site"), beyond_loopback=True) as served:
        port = int(served.address.rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/health", headers={"Host": "10.1.2.3:9464"})
        assert connection.getresponse().status == 200
        connection.close()


def test_it_serves_on_the_other_loopback(probes: Probes) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.xfail("no IPv6 on this machine")
    with start("[::1]:0", probes, Meters("site")) as served:
        assert _ask(served, "/health")[0] == 200


def test_the_health_check_of_a_container(served: Served, probes: Probes) -> None:
    words = [sys.executable, "-m", "fedgen.observe.probe"]
    assert subprocess.run([*words, "/health", served.address], check=False).returncode == 0
    assert subprocess.run([*words, "/ready", served.address], check=False).returncode == 1
    probes.set("ledger", None)
    assert probe("/ready", served.address)
    assert not probe("/metrics", served.address)
    assert not probe("/health", "127.0.0.1:1")
    assert not probe("/health", "nonsense")


def test_importing_it_loads_nothing_heavy() -> None:
    script = (
        "import sys, fedgen.observe, fedgen.observe.probe; print({n.partition('.')[0] for n in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for name in ("torch", "pydantic", "numpy", "prometheus_client", "opentelemetry", "flwr", "cryptography"):
        assert f"'{name}'" not in done.stdout
