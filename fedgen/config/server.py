"""The server file: what one coordinator is and where it keeps things."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, Field, ValidationError

from fedgen.config.base import Frozen
from fedgen.config.fields import Number, Text
from fedgen.config.observe import ObserveSpec
from fedgen.config.password import Reference
from fedgen.messages import SiteName
from fedgen.schema.yamlsource import Lines, explain, load_yaml

if TYPE_CHECKING:
    from pathlib import Path

_LABEL: Final = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
_MAX_HOST: Final = 253
_MAX_PORT: Final = 65535
_STATES: Final = ("sqlite", "postgresql")


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of ``host:port``; an IPv6 host stands in brackets and is returned without.

    Raises:
        ValueError: It is not lower-case ``host:port``.
    """
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > _MAX_PORT:
        raise ValueError("must be host:port with a port from 1 to 65535")
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    if not (_is_ip(bare, 6) if bracketed else _is_ip(bare, 4) or _is_name(bare)):
        raise ValueError("must be host:port, the host a lower-case name, an IPv4 or a bracketed IPv6 address")
    return bare, int(port)


def _is_ip(text: str, version: int) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.version == version and str(address) == text and "%" not in text


def _is_name(text: str) -> bool:
    labels = text.split(".")
    # All digits at the end would be read as an address by some and as a name by others.
    return len(text) <= _MAX_HOST and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit()


def _address(text: str) -> str:
    split_address(text)
    return text


def _state(text: str) -> str:
    scheme = text.partition("://")[0] if "://" in text else "sqlite"
    if scheme not in _STATES:
        raise ValueError("must be a path, sqlite:///path or postgresql://user@host/database")
    return text


Address = Annotated[str, Field(max_length=_MAX_HOST + 8), AfterValidator(_address)]
Port = Annotated[int, Number, Field(ge=1, le=_MAX_PORT)]
Days = Annotated[int, Number, Field(ge=1, le=3650)]


class ServerSpec(Frozen):
    """One coordinator.

    Attributes:
        name: What it calls itself in invitations.
        address: ``host:port`` that sites connect to; its certificate is made for this host.
        listen: ``host:port`` that the reverse proxy listens on; None for every interface, at the port of ``address``.
        superlink_port: Port of Flower's SuperLink, on loopback only.
        state: Durable state: a path in the home, or a PostgreSQL URL; may hold a password, and is never shown.
        state_password: Where its password lies, ``env:NAME`` or ``file:PATH``; None where the URL or libpq has it.
        runs: Folder of the run folders.
        invitation_days: How long an invitation, and the membership it gives, lasts.
        tls_days: How long a certificate of the server is valid.
        observe: Who may watch it, and how; None is nobody.
    """

    name: SiteName = "coordinator"
    address: Address
    listen: Address | None = None
    superlink_port: Port = 9092
    state: Annotated[Text, Field(repr=False), AfterValidator(_state)] = "state.db"
    state_password: Reference | None = None
    runs: Text = "runs"
    invitation_days: Days = 365
    tls_days: Annotated[int, Number, Field(ge=1, le=825)] = 397
    observe: ObserveSpec | None = None

    @property
    def listens_on(self) -> str:
        """``host:port`` that the reverse proxy listens on."""
        return self.listen or f"0.0.0.0:{split_address(self.address)[1]}"

    def to_json(self) -> dict[str, Any]:
        """Return the server as JSON values; keys that are None are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def parse_server(data: Any, *, where: str | Path | None = None, lines: Lines | None = None) -> ServerSpec:
    """Return the server in a mapping of plain values; inverse of :meth:`ServerSpec.to_json`.

    Raises:
        ConfigError: With file, line, key and a hint; an unknown key gets the nearest known name.
    """
    try:
        return ServerSpec.model_validate(data)
    except ValidationError as error:
        fault = explain(error, lines or Lines(), where, ServerSpec)
    raise fault


def load_server(path: str | Path) -> ServerSpec:
    """Return the server in a YAML or JSON file.

    Raises:
        ConfigError: As :func:`parse_server`; or the file is missing or not valid.
    """
    data, lines = load_yaml(path)
    return parse_server(data, where=path, lines=lines)
