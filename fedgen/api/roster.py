"""Who of a deployed study is enrolled: declared sizes for its roster, and keys that go away when a site is revoked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fedgen.crypto.keys import VerifyKey
from fedgen.enrolment.documents import instant
from fedgen.errors import ConfigError
from fedgen.privacy.units import Unit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fedgen.config.study import Study
    from fedgen.enrolment.records import EnrolledSite
    from fedgen.enrolment.server_home import ServerHome


def is_in(site: EnrolledSite, now: datetime) -> bool:
    """Return whether a site may take part: it was not revoked, and its invitation has not expired."""
    return site.active and now < instant(site.expires)


def enrolled(home: ServerHome, names: Sequence[str]) -> tuple[EnrolledSite, ...]:
    """Return the enrolled sites of these names, in order.

    Raises:
        ConfigError: One is not enrolled, was revoked, or its invitation has expired.
    """
    known, now = home.sites(), datetime.now(UTC)
    for name in names:
        if name not in known:
            raise ConfigError(
                f"{name} is not enrolled",
                key="data.sites.names",
                hint="`fedgen server enroll REQUEST` lets a site in; name the sites of the study as they are enrolled",
            )
        if not is_in(known[name], now):
            why = "was revoked" if not known[name].active else "has an invitation that expired"
            hint = "enroll it again, or leave it out of the study"
            raise ConfigError(f"{name} {why}", key="data.sites.names", hint=hint)
    return tuple(known[name] for name in names)


def declared(study: Study, sites: Sequence[EnrolledSite]) -> tuple[list[int], list[int] | None]:
    """Return the declared rows of each site, and its declared persons where the study protects persons.

    Raises:
        ConfigError: A site declared no persons.
    """
    rows = [site.request.rows for site in sites]
    if study.privacy.unit is not Unit.PERSON:
        return rows, None
    persons = []
    for site in sites:
        if site.request.persons is None:
            hint = "have it send a new request that declares them"
            raise ConfigError(f"{site.name} declared no number of persons", key="privacy.unit", hint=hint)
        persons.append(site.request.persons)
    return rows, persons


class LiveRoster(Mapping[str, VerifyKey]):
    """The verification keys of a study's sites, as the home says now: a site that was revoked has none.

    Guarantees:
        - Its names never change, so that a revoked site is a missing one; its key is gone from the next look on.
        - A site whose invitation ends while a run goes on has no key from that instant on.

    Args:
        home: The coordinator's home.
        names: The roster of the study.
    """

    def __init__(self, home: ServerHome, names: Sequence[str]) -> None:
        self._home, self._names = home, tuple(names)
        self._known: dict[str, tuple[EnrolledSite, VerifyKey]] = {}
        self._stamp: tuple[tuple[str, int, int], ...] | None = None

    def __getitem__(self, name: str) -> VerifyKey:
        self._look()
        site, key = self._known[name]
        if not is_in(site, datetime.now(UTC)):  # a record does not change when an invitation ends
            raise KeyError(name)
        return key

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def _look(self) -> None:
        """Read the records again if one of them changed."""
        # What begins with a dot is being written just now, and may be gone before it is looked at.
        paths = sorted(it for it in self._home.sites_folder.glob("*.json") if not it.name.startswith("."))
        stamp = tuple((path.name, (at := path.stat()).st_mtime_ns, at.st_ino) for path in paths)
        if stamp == self._stamp:
            return
        known = self._home.sites()
        self._known = {
            name: (known[name], VerifyKey(known[name].identity)) for name in self._names if name in known
        }
        self._stamp = stamp
