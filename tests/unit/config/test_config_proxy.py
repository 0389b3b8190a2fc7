"""The reverse proxy's configuration: the routes of the SuperLink that is installed, and no value that breaks out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from fedgen.config.proxy import FLEET_ROUTES, Proxy, nginx_configuration
from fedgen.errors import ConfigError

PROXY = Proxy(
    listen="0.0.0.0:8443",
    name="coordinator.example.org",
    certificate=Path("/srv/fedgen/keys/tls.crt"),
    key=Path("/srv/fedgen/keys/tls.key"),
    upstream="127.0.0.1:9092",
    upstream_ca=Path("/srv/fedgen/keys/ca.crt"),
    folder=Path("/srv/fedgen/nginx"),
)


def test_the_routes_are_those_of_the_fleet_api_that_is_installed() -> None:
    from flwr.superlink.routers.fleet.router import router

    import fedgen.flower.environment  # noqa: F401 - quiet before Flower is loaded

    paths = [(route.path, route.methods) for route in router.routes]  # type: ignore[attr-defined]
    assert sorted(path for path, _ in paths) == sorted(f"/v1/fleet/{route}" for route in FLEET_ROUTES)
    assert all(methods == {"POST"} for _, methods in paths)


def test_every_place_is_filled_in() -> None:
    text = nginx_configuration(PROXY)
    assert "%{" not in text
    assert "listen 0.0.0.0:8443 ssl default_server;" in text
    assert 'ssl_certificate_key "/srv/fedgen/keys/tls.key";' in text
    assert "server 127.0.0.1:9092;" in text
    assert text.count("{") == text.count("}")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("listen", "0.0.0.0:8443 ssl; root /"),
        ("listen", "8443"),
        ("upstream", "unix:/run/x"),
        ("upstream", "evil.example:1; }"),
        ("name", 'x"; return 200'),
        ("name", "Coordinator.example.org"),
        ("name", ""),
        ("certificate", "relative.crt"),
        ("certificate", '/srv/"; include /etc/passwd; #'),
        ("key", "/srv/$host.key"),
        ("folder", "/srv/a;b"),
        ("folder", "/srv/a\nb"),
        ("upstream_ca", "/srv/{a}"),
        ("max_body", 0),
        ("rate", -1),
        ("connections", 0),
        ("worker_connections", 64),
    ],
)
def test_no_value_breaks_out_of_its_place(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key):
        nginx_configuration(dataclasses.replace(PROXY, **{key: value}))


def test_an_address_of_version_six_is_taken() -> None:
    proxy = dataclasses.replace(PROXY, listen="[::]:8443", name="[2001:db8::1]", upstream="[::1]:9092")
    text = nginx_configuration(proxy)
    assert 'proxy_ssl_name "2001:db8::1";' in text
