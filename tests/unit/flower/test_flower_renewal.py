"""When a running server's certificate is made again, and who is told."""

from __future__ import annotations

import signal
import socket
import ssl
import stat
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from fedgen.api.enrolment import server_init
from fedgen.api.keys import keys_rotate
from fedgen.crypto.certificates import belongs, read_certificate, signed_by
from fedgen.enrolment.authority import renew_inner
from fedgen.flower import renewal
from fedgen.flower.children import Child
from fedgen.flower.renewal import Renewal, shown_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fedgen.crypto.certificates import Certificate
    from fedgen.enrolment.server_home import ServerHome

NOW = datetime.now(UTC)


class Process:
    """Stands where a kept process does; it shows the certificate that was on the disk when it last looked."""

    def __init__(self, name: str, home: ServerHome, said: Callable[[str, str], None]) -> None:
        self.child, self._said = Child(name, [], {}, home.root), said
        self._home, self.pid, self.stopped = home, None, 0
        self.begin()

    def begin(self) -> None:
        self.pid = {"superlink": 101, "superexec": 102, "nginx": 103}[self.child.name]
        self.shows: Certificate | None = read_certificate(self._home.tls.certificate.read_bytes())

    def again(self) -> None:
        self._said("ended", self.child.name)
        self.pid, self.shows = None, None
        self.stopped += 1


class World:
    def __init__(self, home: ServerHome, *, proxy: bool = True) -> None:
        self.home, self.said = home, list[tuple[str, str]]()
        self.signals = list[tuple[int, int]]()
        self.kept = [Process(name, home, self.hear) for name in ("superlink", "superexec")]
        self.nginx = Process("nginx", home, self.hear) if proxy else None
        self.kept += [self.nginx] if self.nginx else []
        self.clock = NOW
        self.renewal = Renewal(
            home,
            home.spec(),
            self.hear,
            self.kept,  # type: ignore[arg-type]
            self.nginx,  # type: ignore[arg-type]
        )

    def hear(self, what: str, whom: str) -> None:
        self.said.append((what, whom))

    def shown(self, address: str) -> Certificate | None:
        assert address == "0.0.0.0:8443"
        return None if self.nginx is None else self.nginx.shows

    def told(self, number: int, signal_: int) -> None:
        self.signals.append((number, signal_))
        if self.nginx is not None and number == self.nginx.pid:
            self.nginx.begin()

    def look(self, after: timedelta = timedelta()) -> list[str]:
        before = len(self.said)
        self.clock = NOW + after
        self.renewal.look()
        return [" ".join(words) for words in self.said[before:]]


def lend(home: ServerHome, monkeypatch: pytest.MonkeyPatch, *, proxy: bool = True) -> World:
    made = World(home, proxy=proxy)

    class Clock(datetime):
        @classmethod
        def now(cls, _zone: object = None) -> datetime:  # type: ignore[override]
            return made.clock

    monkeypatch.setattr(renewal, "datetime", Clock)
    monkeypatch.setattr(renewal, "shown_at", made.shown)
    monkeypatch.setattr(renewal.os, "kill", made.told)
    return made


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return lend(server_init(tmp_path / "server", "localhost:8443"), monkeypatch)


DAYS = timedelta(days=1)
DUE = 397 * DAYS * 3 / 4 + DAYS  # a quarter of 397 days is left


def test_nothing_is_done_before_its_time(world: World) -> None:
    before = world.home.tls.certificate.read_bytes()
    for day in range(0, 290, 29):
        assert world.look(day * DAYS) == []
    assert world.home.tls.certificate.read_bytes() == before
    assert world.signals == []


def test_the_proxy_is_told_and_nobody_is_started_again(world: World) -> None:
    assert world.look(DUE) == ["renewed certificate", "reloaded nginx"]
    assert world.signals == [(103, signal.SIGHUP)]
    assert world.look(DUE) == []
    assert [it.stopped for it in world.kept] == [0, 0, 0]
    assert world.look(2 * DUE) == ["renewed certificate", "reloaded nginx"]


def test_a_proxy_that_missed_it_is_told_again(world: World) -> None:
    assert world.nginx is not None
    old = world.nginx.shows
    assert world.look(DUE) == ["renewed certificate", "reloaded nginx"]
    world.nginx.shows = old
    assert world.look(DUE) == ["reloaded nginx"]
    world.nginx.shows = None  # it does not answer: its supervisor's matter
    assert world.look(DUE) == []


def test_a_certificate_that_was_rotated_by_hand_is_put_into_use(world: World) -> None:
    assert world.look() == []
    keys_rotate(world.home.root, "tls")
    assert world.look() == ["reloaded nginx"]


def test_another_authority_needs_everything_to_begin_again(world: World) -> None:
    inner = world.home.superlink_tls
    renew_inner(world.home, NOW)
    assert world.look() == []
    keys_rotate(world.home.root, "ca")
    assert not signed_by(inner.certificate.read_bytes(), world.home.ca.certificate.read_bytes())
    assert world.look() == ["ended nginx", "ended superexec", "ended superlink"]
    assert signed_by(inner.certificate.read_bytes(), world.home.ca.certificate.read_bytes())
    for it in world.kept:
        it.begin()
    assert world.look() == []
    assert [it.stopped for it in world.kept] == [1, 1, 1]


def test_a_proxy_of_somebody_else_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = lend(server_init(tmp_path / "other", "localhost:8443"), monkeypatch, proxy=False)
    assert world.look(DUE) == ["renewed certificate"]


def test_the_superlinks_own_certificate_is_for_loopback_and_lasts(world: World) -> None:
    text = world.home.config.read_text().replace("localhost:8443", "coordinator.example.org:8443")
    world.home.config.write_text(text)
    renew_inner(world.home, NOW + DAYS)
    pair, authority = world.home.superlink_tls, read_certificate(world.home.ca.certificate.read_bytes())
    found = read_certificate(pair.certificate.read_bytes())
    assert set(found.hosts) == {"localhost", "127.0.0.1"}  # who has its key cannot pass for the coordinator
    assert found.ends == authority.ends
    assert belongs(pair.key.read_bytes(), pair.certificate.read_bytes())
    assert stat.S_IMODE(pair.key.stat().st_mode) == 0o600


def test_an_address_that_was_changed_in_the_file_waits_for_the_next_start(world: World) -> None:
    text = world.home.config.read_text().replace("localhost:8443", "elsewhere.example.org:8443")
    world.home.config.write_text(text)
    assert world.look() == []
    world.look(DUE)
    assert "localhost" in read_certificate(world.home.tls.certificate.read_bytes()).hosts


def test_what_goes_wrong_is_said_once_and_tried_again(world: World) -> None:
    key = world.home.ca.key.read_bytes()
    world.home.ca.key.unlink()
    (said,) = world.look(DUE)
    assert said.startswith("renew-failed ")
    assert "ca.key" in said
    assert world.look(DUE) == []
    world.home.ca.key.write_bytes(key)
    world.home.ca.key.chmod(0o600)
    assert world.look(DUE) == ["renewed certificate", "reloaded nginx"]


# -- what is looked at ------------------------------------------------------------------------------


@pytest.fixture
def listening(world: World) -> Iterator[Any]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(world.home.tls.certificate, world.home.tls.key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    plain, _ = listener.accept()
                    with suppress(OSError), context.wrap_socket(plain, server_side=True) as secured:
                        secured.recv(1)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_a_certificate_is_read_from_who_shows_it(listening: int, world: World) -> None:
    found = shown_at(f"127.0.0.1:{listening}")
    assert found == read_certificate(world.home.tls.certificate.read_bytes())
    assert shown_at(f"0.0.0.0:{listening}") == found


def test_who_shows_none_or_is_not_there_shows_none() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert shown_at(f"127.0.0.1:{port}", patience=0.2) is None
    assert shown_at(f"127.0.0.1:{port}", patience=0.2) is None
