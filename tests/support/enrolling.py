"""Homes of sites and coordinators that know each other, at a fixed instant."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from fedgen.api.enrolment import Terms
from fedgen.api.site_setup import begin_server, begin_site
from fedgen.enrolment import server_side, site_side
from fedgen.enrolment.server_home import ServerHome
from fedgen.enrolment.site_home import SiteHome

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
TERMS = Terms(source="builtin:randhie", rows=1200, epsilon_per_study=1.0, epsilon_life=3.0, delta=1e-6)


def make_site(root: Path, name: str = "hospital-a", terms: Terms = TERMS) -> SiteHome:
    """Return a site's home, made at :data:`NOW`."""
    home = SiteHome(root)
    begin_site(home, name, terms, NOW)
    return home


def make_server(root: Path, address: str = "127.0.0.1:8443", now: datetime = NOW) -> ServerHome:
    """Return a coordinator's home, made at :data:`NOW`."""
    home = ServerHome(root)
    begin_server(home, address, name="coordinator", state=None, now=now)
    return home


def enroll(server: ServerHome, site: SiteHome, now: datetime = NOW, **more: Any) -> bytes:
    """Let a site in, the fingerprint compared; return its invitation."""
    return server_side.enroll(server, site.request.read_bytes(), believed=True, now=now, **more)[1]


def join(server: ServerHome, site: SiteHome, now: datetime = NOW) -> None:
    """Let a site in, and let it accept the invitation."""
    site_side.accept_invitation(site, enroll(server, site, now), believed=True, now=now)


def altered(document: bytes, key: str, value: Any) -> bytes:
    """Return a signed document with one value of its body changed and the old signature."""
    outer = json.loads(document)
    outer["body"][key] = value
    return json.dumps(outer).encode()
