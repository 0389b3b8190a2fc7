"""The server file: addresses that mean one thing, bounds, and words for what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fedgen.config.server import ServerSpec, load_server, parse_server, split_address
from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

LEAST: dict[str, Any] = {"address": "coordinator.example.org:8443"}


def test_the_defaults() -> None:
    spec = parse_server(LEAST)
    assert spec.listens_on == "0.0.0.0:8443"
    assert spec.name == "coordinator"
    assert parse_server({**LEAST, "listen": "10.0.0.1:443"}).listens_on == "10.0.0.1:443"


def test_parsing_is_the_inverse_of_writing() -> None:
    spec = parse_server({**LEAST, "state": "postgresql://u:p@h/d", "runs": "/srv/runs", "tls_days": 90})
    assert parse_server(spec.to_json()) == spec


def test_a_password_is_not_shown() -> None:
    assert "hunter2" not in repr(parse_server({**LEAST, "state": "postgresql://u:hunter2@h/d"}))


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("a:1", "a"),
        ("coordinator.example.org:65535", "coordinator.example.org"),
        ("10.1.2.3:443", "10.1.2.3"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("xn--bcher-kva.example:443", "xn--bcher-kva.example"),
    ],
)
def test_addresses(address: str, host: str) -> None:
    assert split_address(address)[0] == host


@pytest.mark.parametrize(
    "address",
    [
        "", "a", "a:", ":1", "a:0", "a:65536", "a:01", "a:1 ", " a:1", "A:1", "a..b:1", "-a:1", "a-:1", "a_b:1",
        "http://a:1", "a/b:1", "user@a:1", "1.2.3:1", "1.2.3.4.5:1", "256.1.1.1:1", "01.2.3.4:1", "::1:1", "[::1]",
        "[1.2.3.4]:1", "[::1%eth0]:1", "[2001:DB8::1]:1", "a:1\nb:2", "a:1;", "a" * 254 + ":1", "ä:1", "a:१",
    ],
)  # fmt: skip
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        split_address(address)
    with pytest.raises(ConfigError, match="address"):
        parse_server({"address": address})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("superlink_port", 0), ("superlink_port", True), ("invitation_days", 0), ("tls_days", 826),
        ("tls_days", 0), ("name", "Coordinator"), ("state", ""), ("runs", "a\nb"), ("listen", "*:1"),
    ],
)  # fmt: skip
def test_bounds(key: str, value: object) -> None:
    with pytest.raises(ConfigError) as error:
        parse_server({**LEAST, key: value})
    assert error.value.key == key


def test_an_unknown_key_gets_the_nearest_known_one(tmp_path: Path) -> None:
    path = tmp_path / "server.yaml"
    path.write_text("address: a:1\nadress: b:1\n")
    with pytest.raises(ConfigError) as error:
        load_server(path)
    assert error.value.line == 2
    assert "address" in str(error.value.hint)


def test_it_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        ServerSpec(**LEAST).name = "other"  # type: ignore[misc]
