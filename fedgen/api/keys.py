"""The keys of a home as one calls them from a verb or a notebook: look at them, replace a lost one, change one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedgen.api import enrolment
from fedgen.api.handing import Handed, check_free, handed
from fedgen.enrolment import server_side, site_side
from fedgen.enrolment.documents import Request
from fedgen.enrolment.server_home import ServerHome
from fedgen.enrolment.site_home import SiteHome
from fedgen.errors import ConfigError, UsageError
from fedgen.runs.atomic import write_bytes


def home_at(root: Path) -> SiteHome | ServerHome:
    """Return the home in a folder, whichever it is.

    Raises:
        ConfigError: It is none.
    """
    site, server = SiteHome(root), ServerHome(root)
    if site.config.is_file() == server.config.is_file():
        raise ConfigError(
            "is no home of a site or a coordinator",
            where=root,
            hint="see: fedgen site init, fedgen server init",
        )
    return site if site.config.is_file() else server


def keys_show(root: Path) -> dict[str, Any]:
    """Return the public side of every key in a home.

    Raises:
        ConfigError: It is no home, or a key is missing or open to others.
        IntegrityError: A key is damaged.
    """
    from fedgen.api.enrolment_status import keys_of

    return keys_of(home_at(root))


def keys_new(root: Path, kind: str, *, out: Path | None = None) -> Handed | None:
    """Make a key in the place of a lost one; return the request to send, or None for a coordinator's.

    Raises:
        ConfigError: The key is there, or it is no home.
        UsageError: There is no such key.
    """
    home = home_at(root)
    if isinstance(home, ServerHome):
        server_side.replace_lost_key(home, _server_key(kind))
        return None
    path = _free(home, out)
    _request, data = site_side.replace_lost_key(home, _site_key(kind), enrolment.now())
    return _sent(home, path, data)


def keys_rotate(root: Path, kind: str, *, out: Path | None = None) -> list[Handed]:
    """Change a key; return the documents to send: a site's request, or the invitations of every site that is in.

    Raises:
        ConfigError: It is no home, a file is missing, or the disk is full.
        IntegrityError: A file was changed.
        UsageError: There is no such key, or it does not change.
    """
    home = home_at(root)
    if isinstance(home, SiteHome):
        path = _free(home, out)
        _request, data = site_side.rotate_site_key(home, _site_key(kind), enrolment.now())
        return [_sent(home, path, data)]
    told = server_side.rotate_server_key(home, _server_key(kind), enrolment.now())
    return enrolment.server_invite(root, []) if told else []


def _site_key(kind: str) -> site_side.SiteKey:
    for known in site_side.SITE_KEYS:
        if kind == known:
            return known
    raise UsageError(f"a site has no {kind} key", hint=", ".join(site_side.SITE_KEYS))


def _server_key(kind: str) -> server_side.ServerKey:
    for known in server_side.SERVER_KEYS:
        if kind == known:
            return known
    raise UsageError(f"a coordinator has no {kind} key", hint=", ".join(server_side.SERVER_KEYS))


def _free(home: SiteHome, out: Path | None) -> Path:
    """Return where the next request goes, before any key is changed."""
    name = site_side.needed_request(home).name
    path = out or Path(f"{name}.request.json")
    check_free(path, Request, lambda it: it.name == name)
    return path


def _sent(home: SiteHome, path: Path, data: bytes) -> Handed:
    write_bytes(path, data)
    return handed(path, home.identity().public.hex())
