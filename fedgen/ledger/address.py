"""Where a ledger lies: a file, or a schema of a PostgreSQL database named by a URL.

A URL may hold a password. It is taken apart here, once; what is shown of it is host, database and ledger.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from fedgen.errors import ConfigError, MissingExtra

SCHEME: Final = "postgresql:"
PREFIX: Final = "fedgen_"  # of the database schema that holds a ledger
_HINT: Final = "write postgresql://user@host/database?ledger=NAME; percent-encode other characters"
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_DATABASE: Final = re.compile(r"/[^/@?#\s]+")
_LEDGER: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_SLUG_MAX: Final = 31


@dataclass(frozen=True, slots=True)
class Server:
    """A PostgreSQL database, and a ledger in it.

    Guarantees:
        - Neither ``str`` nor ``repr`` holds a user, a password or an option of the URL.

    Attributes:
        conninfo: The URL as the driver takes it.
        shown: Scheme, host and database.
        ledger: Name of the ledger, or None where the URL names none.
    """

    conninfo: str = field(repr=False)
    shown: str
    ledger: str | None = None

    @classmethod
    def parse(cls, url: str) -> Self:
        """Return the server that ``url`` names.

        Raises:
            ConfigError: It is no such URL; the message does not quote it.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            raise ConfigError("not the address of a ledger", hint=_HINT) from None
        user, _, hosts = parts.netloc.rpartition("@")
        pairs = [pair for pair in parts.query.split("&") if pair]
        names = [unquote(pair.partition("=")[2]) for pair in pairs if pair.partition("=")[0] == "ledger"]
        sound = (
            not parts.fragment
            and not any(character.isspace() or not character.isprintable() for character in url)
            and (user or "@" not in url)
            and all(_HOST.fullmatch(host) for host in hosts.split(","))
            and _DATABASE.fullmatch(parts.path)
            and len(names) <= 1
            and all(_LEDGER.fullmatch(name) for name in names)
        )
        if not sound:
            raise ConfigError("not the address of a ledger", hint=_HINT)
        query = "&".join(pair for pair in pairs if pair.partition("=")[0] != "ledger")
        conninfo = f"postgresql://{parts.netloc}{parts.path}" + (f"?{query}" if query else "")
        return cls(conninfo, f"postgresql://{hosts}{parts.path}", names[0] if names else None)

    def named(self, ledger: str) -> Server:
        """Return the same database with ``ledger`` in it."""
        return replace(self, ledger=ledger)

    @property
    def schema(self) -> str:
        """The database schema that holds the ledger; needs its name."""
        if self.ledger is None:
            raise ValueError("the address names no ledger")
        return PREFIX + self.ledger

    def __str__(self) -> str:
        """Return the address as it may be shown."""
        return self.shown if self.ledger is None else f"{self.shown}?ledger={self.ledger}"


Place = Path | Server


def place_of(address: str | os.PathLike[str] | Server) -> Place:
    """Return the file or the server that ``address`` names.

    Edge cases:
        - A URL that went through a ``Path`` and lost a slash is a URL all the same.

    Raises:
        ConfigError: A URL that is none; the message does not quote it.
    """
    if isinstance(address, Server):
        return address
    text = os.fspath(address)
    if not text.startswith(SCHEME):
        return Path(text)
    if not text.startswith(SCHEME + "//"):
        rest = text.removeprefix(SCHEME + "/")
        text = f"{SCHEME}//{rest if '/' in rest.partition('?')[0] else '/' + rest}"
    return Server.parse(text)


def ledgers_on(server: Server) -> tuple[Server, ...]:
    """Return the ledger that an address names, or every ledger of the database if it names none.

    Raises:
        LedgerUnreachable: The server does not answer.
        MissingExtra: PostgreSQL's driver is not installed.
    """
    if server.ledger is not None:
        return (server,)
    try:
        from fedgen.ledger import _postgres
    except ImportError:
        raise MissingExtra("sql", needed_for="a postgresql:// ledger") from None
    return _postgres.ledgers_on(server)


def shown(address: str | os.PathLike[str] | Server) -> str:
    """Return what may be shown of an address: a path as it is, a URL without user, password and options."""
    try:
        return str(place_of(address))
    except ConfigError:
        return "postgresql://..."


def default_name(origin: str) -> str:
    """Return the name of a ledger in a database, where the URL gives none: readable, and one for each origin."""
    slug = re.sub(r"[^a-z0-9]+", "_", origin.lower()).strip("_")[:_SLUG_MAX]
    start = slug if slug[:1].isalpha() else f"l_{slug}"[:_SLUG_MAX]
    return f"{start}_{sha256(origin.encode()).hexdigest()[:8]}"
