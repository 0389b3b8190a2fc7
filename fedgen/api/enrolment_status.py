"""Where enrolment stands, for a person and for a script: keys, certificates, invitations, sites."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from fedgen.enrolment.authority import certificates
from fedgen.enrolment.documents import instant, shown
from fedgen.enrolment.server_home import ServerHome
from fedgen.enrolment.server_side import server_key_names
from fedgen.enrolment.site_side import key_names, needed_request

if TYPE_CHECKING:
    from datetime import datetime

    from fedgen.enrolment.records import EnrolledSite
    from fedgen.enrolment.site_home import SiteHome

WARN_DAYS: Final = 30


def status_of_server(home: ServerHome, now: datetime) -> dict[str, Any]:
    """Return where a coordinator's enrolment stands.

    Raises:
        ConfigError: The home or its file is missing, open to others or wrong.
        IntegrityError: A key, a certificate or a record is damaged.
    """
    spec = home.spec()
    sites = [_site(site, now) for site in home.sites().values()]
    papers: list[dict[str, Any]] = [
        {
            "certificate": name,
            "hosts": list(it.hosts),
            "expires": it.ends.isoformat(),
            "days": (it.ends - now).days,
        }
        for name, it in certificates(home).items()
    ]
    warnings = [
        f"the {it['certificate']} certificate ends in {it['days']} days"
        for it in papers
        if it["days"] < WARN_DAYS
    ]
    warnings += [
        f"the invitation of {it['site']} ends in {it['days']} days"
        for it in sites
        if it["revoked"] is None and it["days"] < WARN_DAYS
    ]
    return {
        "name": spec.name,
        "home": str(home.root),
        "address": spec.address,
        "fingerprint": shown(home.identity().public.hex()),
        "certificates": papers,
        "sites": sites,
        "warnings": warnings,
    }


def _site(site: EnrolledSite, now: datetime) -> dict[str, Any]:
    return {
        "site": site.name,
        "fingerprint": shown(site.request.identity),
        "rows": site.request.rows,
        "persons": site.request.persons,
        "enrolled": site.enrolled,
        "expires": site.expires,
        "days": (instant(site.expires) - now).days,
        "revoked": site.revoked,
    }


def peers_of(home: SiteHome) -> list[dict[str, str]]:
    """Return the other sites whose keys a site trusts, with their fingerprints.

    Raises:
        ConfigError: A file is no request, or the folder is open to others.
        IntegrityError: One was changed.
    """
    return [{"site": name, "fingerprint": shown(it.identity)} for name, it in home.peer_requests().items()]


def keys_of(home: SiteHome | ServerHome) -> dict[str, Any]:
    """Return the public side of every key in a home.

    Raises:
        ConfigError: A key is missing or open to others.
        IntegrityError: A key is damaged.
    """
    if isinstance(home, ServerHome):
        role, name, names, peers = "coordinator", home.spec().name, server_key_names(home), []
    else:
        role, name, names, peers = "site", needed_request(home).name, key_names(home), peers_of(home)
    return {
        "role": role,
        "name": name,
        "fingerprint": shown(home.identity().public.hex()),
        "keys": names,
        "peers": peers,
    }
