"""The coordinator's certificates on the disk: made once, renewed in time, mended after a kill."""

from __future__ import annotations

import stat
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from support.enrolling import NOW, make_server

from fedgen.crypto.certificates import belongs, make_authority, signed_by
from fedgen.enrolment import authority
from fedgen.enrolment.authority import certificates, hosts_of, new_authority, renew
from fedgen.errors import ConfigError, IntegrityError

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.enrolment.server_home import ServerHome


@pytest.fixture
def server(tmp_path: Path) -> ServerHome:
    return make_server(tmp_path / "server", "coordinator.example.org:8443")


def sound(server: ServerHome) -> bool:
    key, pem = server.tls.key.read_bytes(), server.tls.certificate.read_bytes()
    return belongs(key, pem) and signed_by(pem, server.ca.certificate.read_bytes())


def test_the_server_is_known_by_its_address_and_on_its_own_machine(server: ServerHome) -> None:
    assert certificates(server)["tls"].hosts == ("coordinator.example.org", "localhost", "127.0.0.1")
    assert hosts_of("127.0.0.1:1") == ("127.0.0.1", "localhost")
    assert hosts_of("[::1]:1")[0] == "::1"
    assert sound(server)


def test_it_is_renewed_when_a_quarter_is_left_and_not_before(server: ServerHome) -> None:
    ends = certificates(server)["tls"].ends
    assert not renew(server, NOW + timedelta(days=397 * 0.7))
    assert renew(server, NOW + timedelta(days=397 * 0.8))
    assert certificates(server)["tls"].ends > ends
    assert sound(server)
    ca = server.ca.certificate.read_bytes()
    assert renew(server, NOW + timedelta(days=3000), again=True)
    assert server.ca.certificate.read_bytes() == ca
    with pytest.raises(IntegrityError, match="expired"):
        renew(server, NOW + timedelta(days=4000))


def test_another_address_gets_another_certificate(server: ServerHome) -> None:
    text = server.config.read_text().replace("coordinator.example.org", "other.example.org")
    server.config.write_text(text)
    assert renew(server, NOW)
    assert certificates(server)["tls"].hosts[0] == "other.example.org"


def test_what_a_kill_left_is_mended(server: ServerHome, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    real, calls = authority.write_private, []

    def killed(path: Path, data: bytes) -> None:
        real(path, data)
        calls.append(path)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(authority, "write_private", killed)
        with pytest.raises(Killed):
            renew(server, NOW, again=True)
    assert calls == [server.tls.key]
    assert not server.tls.certificate.exists()  # no certificate, rather than one of another key
    assert renew(server, NOW)
    assert sound(server)
    assert stat.S_IMODE(server.tls.key.stat().st_mode) == 0o600


def test_a_damaged_or_foreign_pair_is_made_again(server: ServerHome, tmp_path: Path) -> None:
    other = make_server(tmp_path / "other")
    for path, data in (
        (server.tls.certificate, b"rubbish"),
        (server.tls.key, other.tls.key.read_bytes()),
        (server.tls.certificate, other.tls.certificate.read_bytes()),
    ):
        path.write_bytes(data)
        assert renew(server, NOW)
        assert sound(server)


def test_a_damaged_authority_is_named_and_never_replaced_in_silence(server: ServerHome) -> None:
    server.ca.key.write_bytes(make_authority("x", days=9, now=NOW)[0])
    with pytest.raises(IntegrityError, match="do not belong together"):
        renew(server, NOW, again=True)
    server.ca.key.chmod(0o644)
    with pytest.raises(ConfigError, match="open to others"):
        renew(server, NOW, again=True)
    server.ca.key.unlink()
    with pytest.raises(ConfigError, match="no such file"):
        renew(server, NOW, again=True)


def test_a_new_authority_brings_a_certificate_of_its_own(server: ServerHome) -> None:
    before = server.ca.certificate.read_bytes()
    new_authority(server, NOW)
    assert server.ca.certificate.read_bytes() != before
    assert sound(server)
