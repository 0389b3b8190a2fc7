"""Whether a coordinator is reached: each thing that is in the way has its own line, and clocks are compared."""

from __future__ import annotations

import email.utils
import http.server
import socket
import ssl
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from fedgen.api import reaching
from fedgen.api.reaching import AHEAD_S, BEHIND_S, check_clock, reach
from fedgen.crypto.certificates import issue, make_authority
from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime.now(UTC)


class Office:
    """A proxy of a coordinator, as far as a site sees it."""

    def __init__(self, folder: Path, *, hosts: tuple[str, ...] = ("127.0.0.1",), days: int = 50) -> None:
        self.date: str | None = None
        self.status = 200
        begun = NOW if days > 0 else NOW - timedelta(days=9)
        pair = make_authority("office", days=3650, now=begun)
        key, certificate = issue(pair, hosts, days=abs(days), now=begun)
        self.authority = folder / "ca.crt"
        self.authority.write_bytes(pair[1])
        (folder / "tls.pem").write_bytes(certificate + key)
        office = self

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response_only(office.status)
                if office.date is not None:
                    self.send_header("Date", office.date)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "tls.pem")
        self.server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # who does not trust us hangs up
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def served(office: Office) -> Iterator[Office]:
    thread = threading.Thread(target=office.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield office
    finally:
        office.server.shutdown()
        thread.join()
        office.server.server_close()


def _http(seconds: float) -> str:
    """Return a ``Date`` header of a clock that is so far behind ours."""
    return email.utils.formatdate(time.time() - seconds, usegmt=True)


def test_a_coordinator_that_answers_says_how_long_and_what_time(tmp_path: Path) -> None:
    with served(Office(tmp_path)) as office:
        assert reach(office.address, office.authority).ahead is None
        for behind in (0.0, 90.0, -400.0):
            office.date = _http(behind)
            found = reach(office.address, office.authority)
            assert found.days in {48, 49}
            assert found.ahead is not None
            assert abs(found.ahead - behind) <= 1.5
        office.date = "yesterday"
        assert reach(office.address, office.authority).ahead is None


def test_whatever_else_answers_is_named(tmp_path: Path) -> None:
    with served(Office(tmp_path)) as office:
        office.status = 404
        with pytest.raises(ConfigError, match=r"answers with status 404 \(is it the coordinator's nginx"):
            reach(office.address, office.authority)
        stranger = tmp_path / "stranger.crt"
        stranger.write_bytes(make_authority("stranger", days=9, now=NOW)[1])
        with pytest.raises(ConfigError, match=r"a certificate that does not hold: .*newer invitation"):
            reach(office.address, stranger)


@pytest.mark.parametrize(
    ("hosts", "days", "word"), [(("a.example",), 50, "mismatch"), (("127.0.0.1",), -3, "expired")]
)
def test_a_certificate_for_another_host_or_an_old_one_does_not_hold(
    tmp_path: Path, hosts: tuple[str, ...], days: int, word: str
) -> None:
    with (
        served(Office(tmp_path, hosts=hosts, days=days)) as office,
        pytest.raises(ConfigError, match=f"does not hold: .*{word}"),
    ):
        reach(office.address, office.authority)


def test_nobody_there_and_no_such_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ca.crt").write_bytes(make_authority("office", days=9, now=NOW)[1])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and listens to nobody
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match=r"nobody listens there \(is `fedgen server up` running"):
            reach(address, tmp_path / "ca.crt")
    with pytest.raises(ConfigError, match="name is not known on this machine"):
        reach("nobody.invalid:8443", tmp_path / "ca.crt")
    monkeypatch.setattr(reaching, "_PATIENCE_S", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(ConfigError, match=r"no answer in .* firewalls"):
            reach(f"127.0.0.1:{silent.getsockname()[1]}", tmp_path / "ca.crt")


def test_plain_speech_is_not_a_coordinator(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(make_authority("office", days=9, now=NOW)[1])
    with socket.socket() as plain:
        plain.bind(("127.0.0.1", 0))
        plain.listen()

        def talk() -> None:
            connection, _ = plain.accept()
            with connection:
                connection.sendall(b"220 mail.example.org ESMTP\r\n")
                connection.recv(4096)

        thread = threading.Thread(target=talk)
        thread.start()
        with pytest.raises(ConfigError, match="does not speak as a coordinator does"):
            reach(f"127.0.0.1:{plain.getsockname()[1]}", tmp_path / "ca.crt")
        thread.join()


@pytest.mark.parametrize("ahead", [0.0, AHEAD_S, -5.0, -BEHIND_S + 1])
def test_a_clock_that_flower_takes_is_taken(ahead: float) -> None:
    assert "of the coordinator's" in check_clock(ahead)


@pytest.mark.parametrize(
    ("ahead", "word"), [(6.0, "6 s ahead of"), (-306.0, "306 s behind"), (-BEHIND_S, "behind")]
)
def test_a_clock_that_flower_would_refuse_is_named(ahead: float, word: str) -> None:
    with pytest.raises(ConfigError, match=rf"clock is .*{word}.*NTP"):
        check_clock(ahead)


def test_the_bounds_are_those_of_the_flower_that_is_installed() -> None:
    from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

    assert AHEAD_S == SYSTEM_TIME_TOLERANCE
    assert BEHIND_S == SYSTEM_TIME_TOLERANCE + TIMESTAMP_TOLERANCE
