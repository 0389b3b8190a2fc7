"""The reverse proxy's configuration: which routes pass, how much, how often; filled in, never pasted together."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fedgen._resources import kit
from fedgen._validate import positive
from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

# Every route of Flower 1.41's Fleet API. A test holds this list against the SuperLink that is installed.
FLEET_ROUTES: Final = (
    "register-node",
    "activate-node",
    "deactivate-node",
    "unregister-node",
    "send-node-heartbeat",
    "pull-messages",
    "push-messages",
    "get-run",
    "get-fab",
    "push-object",
    "pull-object",
    "confirm-message-received",
)
_HOST: Final = r"(?:[a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])"
_ENDPOINT: Final = re.compile(rf"(?:{_HOST}|\*):[0-9]{{1,5}}")
_NAME: Final = re.compile(_HOST)
_PATH: Final = re.compile(r"/[A-Za-z0-9._/@+=, -]{1,1023}")
_SPARE: Final = 64


@dataclass(frozen=True, slots=True)
class Proxy:
    """What one coordinator's proxy needs to know.

    Attributes:
        listen: Where the world connects, ``host:port``.
        name: The host that certificates are made for.
        certificate: PEM of the certificate, with its chain.
        key: PEM of its key.
        upstream: Where the SuperLink listens, ``host:port`` on loopback.
        upstream_ca: PEM of the authority that signed the SuperLink's certificate.
        folder: A folder, writable and private, for everything that nginx writes.
        max_body: Most bytes of one request's body.
        rate: Most requests a second from one address, over time.
        burst: How many requests may come at once beyond that.
        connections: Most connections at once from one address.
        worker_connections: Most connections of one of the two workers, both ways.
    """

    listen: str
    name: str
    certificate: Path
    key: Path
    upstream: str
    upstream_ca: Path
    folder: Path
    max_body: int = 2**26
    rate: int = 50
    burst: int = 200
    connections: int = 32
    worker_connections: int = 1024


class _Template(string.Template):
    delimiter = "%"  # nginx's own variables begin with $


def nginx_configuration(proxy: Proxy) -> str:
    """Return nginx's configuration for ``proxy``.

    Guarantees:
        - Only ``POST /v1/fleet/<route of FLEET_ROUTES>`` and ``GET`` or ``HEAD`` of ``/health`` are passed on, by the
          path as it was sent; everything else is 404.
        - No value can end the line or the block it stands in.
        - Nothing but TLS 1.2 or newer is spoken, to either side.

    Raises:
        ConfigError: A value is not of its form; with its name.
    """
    _check(proxy)
    values = {
        "listen": proxy.listen,
        "name": proxy.name.strip("[]"),
        "certificate": proxy.certificate,
        "key": proxy.key,
        "upstream": proxy.upstream,
        "upstream_ca": proxy.upstream_ca,
        "folder": proxy.folder,
        "max_body": proxy.max_body,
        "rate": proxy.rate,
        "burst": proxy.burst,
        "connections": proxy.connections,
        "worker_connections": proxy.worker_connections,
        "routes": _routes(),
    }
    template = kit("server", "nginx.conf.template").read_text(encoding="utf-8")
    return _Template(template.replace("%{...}", "The places in braces")).substitute(values)


def _routes() -> str:
    # Regular expressions, because a plain word of a map is compared without case.
    fleet = f'"~^POST /v1/fleet/(?:{"|".join(FLEET_ROUTES)})$" "fleet";'
    health = '"~^(?:GET|HEAD) /health$" "health";'
    return f"        {fleet}\n        {health}"


def _check(proxy: Proxy) -> None:
    for key in ("listen", "upstream"):
        if not _ENDPOINT.fullmatch(getattr(proxy, key)):
            raise ConfigError("is not host:port", key=key)
    if not _NAME.fullmatch(proxy.name):
        raise ConfigError("is not a host name or address", key="name")
    for key in ("certificate", "key", "upstream_ca", "folder"):
        if not _PATH.fullmatch(str(getattr(proxy, key))):
            raise ConfigError(
                "is not a path that nginx can be told",
                key=key,
                hint="absolute; letters, digits and ._/@+=,- only",
            )
    numbers = ("max_body", "rate", "burst", "connections", "worker_connections")
    try:
        positive(**{key: getattr(proxy, key) for key in numbers})
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if proxy.worker_connections < 2 * proxy.connections + _SPARE:
        raise ConfigError("leaves no room for a second address", key="worker_connections")
