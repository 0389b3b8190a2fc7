"""The shipped nginx configuration before a real upstream: the fleet and health pass, and nothing else that is tried."""

from __future__ import annotations

import os
import ssl
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import proxying

from fedgen.config.proxy import FLEET_ROUTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.proxying import Front

pytestmark = [pytest.mark.deployment, pytest.mark.process, pytest.mark.needs("nginx")]


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with proxying.nginx(max_body=100_000, rate=500, burst=1000) as front:
        yield front


@pytest.fixture(autouse=True)
def _fresh(front: Front) -> None:
    front.upstream.seen.clear()


@pytest.mark.parametrize("route", FLEET_ROUTES)
def test_every_route_of_the_fleet_passes(front: Front, route: str) -> None:
    status, answer = front.ask("POST", f"/v1/fleet/{route}", b"payload")
    assert (status, answer[-2:]) == (200, b"ok")
    assert front.upstream.seen == [("POST", f"/v1/fleet/{route}")]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_health_passes(front: Front, method: str) -> None:
    assert front.ask(method, "/health")[0] == 200
    assert front.upstream.seen == [(method, "/health")]


REFUSED = [
    ("GET", "/"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/refused"),
    ("GET", "/v1/fleet"),
    ("GET", "/v1/fleet/"),
    ("POST", "/v1/fleet/"),
    ("POST", "/v1/control/start-run"),
    ("POST", "/v1/control/list-runs"),
    ("POST", "/v1/runtime/acquire-task"),
    ("GET", "/v1/control/stream-logs"),
    # a route of the fleet that is not one, another method, another case
    ("POST", "/v1/fleet/new-route"),
    ("GET", "/v1/fleet/pull-messages"),
    ("PUT", "/v1/fleet/push-object"),
    ("DELETE", "/v1/fleet/get-run"),
    ("OPTIONS", "/v1/fleet/get-run"),
    ("POST", "/V1/fleet/get-run"),
    ("POST", "/v1/fleet/GET-RUN"),
    ("POST", "/health"),
    ("CONNECT", "/v1/fleet/get-run"),
    ("TRACE", "/health"),
    # climbing
    ("POST", "/v1/fleet/../control/start-run"),
    ("POST", "/v1/fleet/./get-run"),
    ("POST", "/v1/control/../fleet/get-run"),
    ("POST", "/v1/fleet/get-run/../../control/start-run"),
    ("GET", "/health/../v1/control/list-runs"),
    # escaped: nginx would decode these and find a route of the fleet, the upstream might not
    ("POST", "/v1/fleet/%2e%2e/control/start-run"),
    ("POST", "/v1/fleet/%2e%2e%2fcontrol%2fstart-run"),
    ("POST", "/v1/control/..%2ffleet/get-run"),
    ("POST", "/v1/control/%2e%2e/fleet/get-run"),
    ("POST", "/v1/fleet/get%2drun"),
    ("POST", "/v1/%66leet/get-run"),
    ("POST", "/v1/fleet/%252e%252e/control/start-run"),
    ("POST", "/v1/fleet/get-run%00"),
    ("POST", "/v1/fleet/get-run%0a"),
    ("GET", "/health%2f..%2fv1/control/list-runs"),
    ("GET", "/%68ealth"),
    # doubled, backwards, with parameters, with a query or a fragment
    ("POST", "//v1/fleet/get-run"),
    ("POST", "/v1//fleet/get-run"),
    ("POST", "/v1/fleet//get-run"),
    ("POST", "/v1/fleet/get-run/"),
    ("POST", "/v1\\fleet\\get-run"),
    ("POST", "/v1/fleet/..\\control\\start-run"),
    ("POST", "/v1/fleet/get-run;/../../control/start-run"),
    ("POST", "/v1/fleet/get-run?x=/v1/control/start-run"),
    ("GET", "/health?"),
    ("GET", "/health#x"),
    # the whole address, another host, none
    ("GET", "http://localhost/v1/control/list-runs"),
    ("GET", "https://localhost/openapi.json"),
    ("GET", "http://localhost/health/../openapi.json"),
    ("GET", "*"),
    ("POST", "v1/fleet/get-run"),
]


@pytest.mark.parametrize(("method", "path"), REFUSED)
def test_everything_else_is_refused_and_never_reaches_the_upstream(
    front: Front, method: str, path: str
) -> None:
    status, answer = front.ask(method, path)
    assert status in {400, 403, 404, 405}, answer
    assert front.upstream.seen == []


def test_a_method_that_is_none_is_refused(front: Front) -> None:
    assert front.ask("get", "/health")[0] == 400
    assert front.ask("GET /v1/control/list-runs HTTP/1.1\r\nX:", "/health")[0] in {400, 404}
    assert front.upstream.seen == []


def test_a_second_request_smuggled_in_the_first_is_its_body_or_a_request_of_its_own(front: Front) -> None:
    inner = b"POST /v1/control/start-run HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    both = b"POST /v1/fleet/get-run HTTP/1.1\r\nHost: localhost\r\n"
    front.raw(both + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner)
    front.raw(both + b"Content-Length: 0\r\n\r\n" + inner)
    front.raw(both + b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(inner) + inner)
    front.raw(both + b"Transfer-Encoding: xchunked\r\nConnection: close\r\n\r\n" + inner)
    assert {path for _, path in front.upstream.seen} <= {"/v1/fleet/get-run"}


def test_no_request_is_turned_into_another_protocol(front: Front) -> None:
    front.upstream.headers.clear()
    upgrade = ("Upgrade: websocket", "Sec-WebSocket-Key: x", "TE: trailers", "X-Forwarded-For: 10.0.0.1")
    status, _ = front.ask("GET", "/health", b"", *upgrade)
    assert status == 200
    (headers,) = front.upstream.headers
    assert "Upgrade" not in headers
    assert "TE" not in headers
    assert headers["X-Forwarded-For"] == "127.0.0.1"
    assert headers["Host"] == "localhost"


def test_flowers_signature_headers_reach_the_superlink(front: Front) -> None:
    from flwr.supercore import constant

    front.upstream.headers.clear()
    names = [constant.FLEET_HTTP_PUBLIC_KEY_HEADER, constant.FLEET_HTTP_SIGNATURE_HEADER, "flwr-timestamp"]
    front.ask("POST", "/v1/fleet/get-run", b"x", *(f"{name}: value" for name in names))
    (headers,) = front.upstream.headers
    assert {name.lower(): value for name, value in headers.items()}.items() >= dict.fromkeys(
        names, "value"
    ).items()


def test_a_large_body_is_refused_by_its_length_and_by_its_size(front: Front) -> None:
    assert front.ask("POST", "/v1/fleet/push-object", b"x" * 99_000)[0] == 200
    front.upstream.seen.clear()
    declared = (
        b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
    )
    assert b" 413 " in front.raw(declared).split(b"\r\n", 1)[0]
    chunk = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    head = b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b" 413 " in front.raw(head + chunk * 8 + b"0\r\n\r\n").split(b"\r\n", 1)[0]
    assert front.upstream.seen == []


def test_large_headers_are_refused(front: Front) -> None:
    assert front.ask("GET", "/health", b"", "X-Long: " + "a" * 9_000)[0] in {400, 431, 494}
    assert front.ask("GET", "/" + "a" * 9_000)[0] == 414
    assert front.upstream.seen == []


def test_a_refusal_says_nothing_of_what_serves(front: Front) -> None:
    for path in ("/", "/v1/control/start-run", "/health"):
        answer = front.ask("GET", path)[1].lower()
        assert b"nginx/" not in answer
        assert b"python" not in answer
        assert b"<html" not in answer


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_current_versions_of_tls_are_spoken(front: Front, version: ssl.TLSVersion) -> None:
    with front.connect(version) as tls:
        assert tls.version() == version.name.replace("_", ".")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("version", ["TLSv1", "TLSv1_1"])
def test_old_versions_of_tls_are_not(front: Front, version: str) -> None:
    with pytest.raises(ssl.SSLError):
        front.connect(ssl.TLSVersion[version])


def test_plain_http_is_refused(front: Front) -> None:
    import socket

    with socket.create_connection(("127.0.0.1", front.port), timeout=10) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert plain.recv(1000).split(b"\r\n")[0].split()[1] in {b"400", b"497"}
    assert front.upstream.seen == []


def test_it_runs_without_privileges(front: Front) -> None:
    pids = [front.process.pid, *_children(front.process.pid)]
    assert len(pids) == 3
    uids = {Path(f"/proc/{pid}").stat().st_uid for pid in pids}
    assert uids == {proxying.NOBODY if os.geteuid() == 0 else os.geteuid()}


def test_everything_it_writes_is_in_its_folder(front: Front) -> None:
    front.ask("GET", "/health")
    written = {path.name for path in front.folder.iterdir()}
    assert {"nginx.pid", "access.log", "body", "proxy"} <= written
    for pid in [front.process.pid, *_children(front.process.pid)]:
        opened = [path.readlink() for path in Path(f"/proc/{pid}/fd").iterdir()]
        files = [path for path in opened if path.is_absolute() and path.is_file()]
        assert {path.parent for path in files} <= {front.folder}


def test_the_access_log_holds_no_path_that_a_stranger_chose(front: Front) -> None:
    import json

    canary = "jane-doe-1970"
    front.ask("GET", f"/{canary}", b"", f"User-Agent: {canary}", f"Referer: {canary}")
    front.ask("POST", f"/v1/fleet/{canary}")
    deadline = time.monotonic() + 10
    log = front.folder / "access.log"
    while '"route":"",' not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    text = log.read_text() + (front.folder / "stderr").read_text()
    assert canary not in text
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert {entry["route"] for entry in entries} <= {"", "fleet", "health"}


def test_a_superlink_with_another_certificate_is_not_believed() -> None:
    with proxying.nginx() as front:
        other = proxying.certificate(front.folder, "other")
        intruder = proxying.Upstream(*other)
        try:
            config = front.folder / "nginx.conf"
            text = config.read_text().replace(f":{front.upstream.port};", f":{intruder.port};")
            config.write_text(text)
            front.process.send_signal(1)
            deadline = time.monotonic() + 20
            status = 0
            while status != 502 and time.monotonic() < deadline:
                status, _ = front.ask("GET", "/health")
                time.sleep(0.1)
            assert status == 502
            assert intruder.seen == []
        finally:
            intruder.close()


def test_too_many_connections_at_once_are_refused() -> None:
    with proxying.nginx(connections=4, rate=1000, burst=1000) as front:
        front.upstream.hold.clear()
        answers: list[int] = []
        threads = [
            threading.Thread(target=lambda: answers.append(front.ask("POST", "/v1/fleet/get-run", b"x")[0]))
            for _ in range(12)
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 15
        while answers.count(429) < 8 and time.monotonic() < deadline:
            time.sleep(0.02)
        front.upstream.hold.set()
        for thread in threads:
            thread.join(20)
        assert sorted(answers) == [200] * 4 + [429] * 8
        assert len(front.upstream.seen) == 4


def test_too_many_requests_are_refused_and_the_next_minute_is_not() -> None:
    with proxying.nginx(rate=5, burst=10) as front:
        begun = time.monotonic()
        answers = [front.ask("GET", "/health")[0] for _ in range(60)]
        allowed = 10 + 5 * (time.monotonic() - begun) + 2
        assert set(answers) == {200, 429}
        assert answers[:10] == [200] * 10
        assert answers.count(200) <= allowed
        time.sleep(1.0)
        assert front.ask("GET", "/health")[0] == 200


def _children(pid: int) -> list[int]:
    done = subprocess.run(
        ["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=False
    )
    return [int(word) for word in done.stdout.split()]
