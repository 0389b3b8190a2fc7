"""Enrolment as one calls it from a verb or a notebook: homes, requests, invitations, peers, rotation, revocation.

A document is read, looked at and, if a person must compare a fingerprint, returned with what to compare; the second
call keeps it. Nothing is asked and nothing is printed here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from fedgen.api.handing import Handed, check_free, hand_out, handed
from fedgen.config.server import split_address
from fedgen.enrolment import server_side, site_side
from fedgen.enrolment.documents import COORDINATOR, Invitation, Request, is_fingerprint, same_fingerprint
from fedgen.enrolment.places import check_folder
from fedgen.enrolment.server_home import ServerHome
from fedgen.enrolment.signed import Signed, decode, read_bounded
from fedgen.enrolment.site_home import SiteHome
from fedgen.errors import ConfigError, Refused, UsageError
from fedgen.runs.atomic import write_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from fedgen.enrolment.records import EnrolledSite
    from fedgen.enrolment.site_side import Word

B = TypeVar("B", bound=Signed)
SITE_ROOM: Final = frozenset(
    {"site.yaml", "keys", "peers", "approvals", "pending", "state", "run", "request.json", "lost+found"}
)
SERVER_ROOM: Final = frozenset({"server.yaml", "keys", "sites", "flower", "lost+found"})


@dataclass(frozen=True, slots=True)
class Believed:
    """What a person has said of a key before a document is kept.

    Attributes:
        fingerprint: The fingerprint as the other side read it out, or None.
        anyway: Whether the key is taken as it is, with nobody having compared it.
    """

    fingerprint: str | None = None
    anyway: bool = False

    def covers(self, word: Word) -> bool:
        """Say whether the document may be kept.

        Raises:
            Refused: The fingerprint is another, whether it was needed or not.
        """
        if self.fingerprint is None:
            return self.anyway
        if not is_fingerprint(self.fingerprint):
            hint = "8 groups of 4 digits, 0 to 9 and a to f, in quotes, as `fedgen keys show` prints them"
            raise Refused("--fingerprint is not a whole fingerprint", hint=hint)
        if not same_fingerprint(self.fingerprint, word.key):
            raise Refused(
                f"the fingerprint is another: the file says {word.shown}",
                hint="somebody may have exchanged the file: ask the other side for it on another way",
            )
        return True


@dataclass(frozen=True, slots=True)
class Wait:
    """A document that a person must look at before it is kept.

    Attributes:
        path: Of the document.
        word: What to compare, and why.
        lines: What it says, title and text.
    """

    path: Path
    word: Word
    lines: tuple[tuple[str, str], ...]


def now() -> datetime:
    """Return the present instant."""
    return datetime.now(UTC)


# -- a site ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Terms:
    """What `site init` writes into the site's file; None is left to be filled in, or off.

    Attributes:
        source: Address of the table.
        source_password: Where its password lies, ``env:NAME`` or ``file:PATH``.
        schema: Path of its schema.
        rows: Declared rows; None counts them.
        persons: Declared persons; None counts them with the rows, where the schema says whose they are.
        epsilon_per_study: See :class:`fedgen.config.site.Ceilings`.
        epsilon_per_year: As before.
        epsilon_life: As before.
        delta: As before.
    """

    source: str | None = field(default=None, repr=False)
    source_password: str | None = None
    schema: Path | None = None
    rows: int | None = None
    persons: int | None = None
    epsilon_per_study: float | None = None
    epsilon_per_year: float | None = None
    epsilon_life: float | None = None
    delta: float | None = None


@dataclass(frozen=True, slots=True)
class SiteMade:
    """What `site init` made.

    Attributes:
        home: The home.
        request: The request to send, as a copy beside it.
        to_do: Keys of the site's file that wait to be filled in.
        fresh: Whether the home was made now; it was there already otherwise.
    """

    home: Path
    request: Handed
    to_do: tuple[str, ...]
    fresh: bool


def site_init(root: Path, name: str, terms: Terms, *, out: Path | None = None) -> SiteMade:
    """Make a site's home and its request; once more finishes what was begun, and overwrites nothing.

    Args:
        root: The folder to make.
        name: The site's name.
        terms: What goes into its file.
        out: Where the copy of the request goes; None is ``<name>.request.json`` in the working folder.

    Raises:
        ConfigError: The folder is another site's or holds other things, the table cannot be read, or the disk is full.
        UsageError: The name cannot be one, or the number of rows is needed.
    """
    from fedgen.api.site_setup import begin_site

    home = SiteHome(root)
    _check_name(name)
    if name == COORDINATOR:
        raise UsageError("--name coordinator is taken: it is what the coordinator signs with")
    _check_room(root, SITE_ROOM, home.config)
    request, data, to_do, fresh = begin_site(home, name, terms, now())
    path = out or Path(f"{name}.request.json")
    hand_out(path, data, Request, lambda it: it.name == name)
    return SiteMade(home=root, request=handed(path, request.identity), to_do=to_do, fresh=fresh)


def look_at_invitation(root: Path, path: Path, believed: Believed) -> Wait | None:
    """Return what a person must compare before an invitation is accepted, or None.

    Raises:
        ConfigError: It is no invitation, or the home is not finished.
        IntegrityError: It was changed.
        Refused: It is not for this site, expired or old; or the fingerprint given is another.
    """
    home = SiteHome(root)
    invitation = decode(read_bounded(path), Invitation, where=path)
    word = site_side.weigh_invitation(home, invitation, now())
    if believed.covers(word) or not word.needed:
        return None
    lines = (
        ("coordinator", f"{invitation.name} at {invitation.address}"),
        ("for", f"{invitation.site}, until {invitation.expires}"),
    )
    return Wait(path=path, word=word, lines=lines)


def site_join(root: Path, path: Path, believed: Believed) -> Invitation:
    """Accept an invitation.

    Raises:
        ConfigError: As :func:`look_at_invitation`; or the disk is full.
        IntegrityError: It was changed.
        Refused: As :func:`look_at_invitation`; or nobody compared the fingerprint, and it was needed.
    """
    home = SiteHome(root)
    data = read_bounded(path)
    word = site_side.weigh_invitation(home, decode(data, Invitation, where=path), now())
    return site_side.accept_invitation(home, data, believed=believed.covers(word), now=now())


def look_at_peer(root: Path, path: Path, believed: Believed) -> Wait | None:
    """Return what a person must compare before another site's key is trusted, or None.

    Raises:
        ConfigError: It is no request, or the home is not finished.
        IntegrityError: It was changed.
        Refused: It is this site's own, or old; or the fingerprint given is another.
    """
    peer = decode(read_bounded(path), Request, where=path)
    word = site_side.weigh_peer(SiteHome(root), peer)
    if believed.covers(word) or not word.needed:
        return None
    return Wait(path=path, word=word, lines=(("site", peer.name),))


def site_peer(root: Path, path: Path, believed: Believed) -> Request:
    """Trust another site's key.

    Raises:
        ConfigError: As :func:`look_at_peer`; or the disk is full.
        IntegrityError: It was changed.
        Refused: As :func:`look_at_peer`; or nobody compared the fingerprint, and it was needed.
    """
    home = SiteHome(root)
    data = read_bounded(path)
    word = site_side.weigh_peer(home, decode(data, Request, where=path))
    return site_side.accept_peer(home, data, believed=believed.covers(word))


# -- a coordinator -----------------------------------------------------------------------------------


def server_init(
    root: Path,
    address: str,
    *,
    name: str = "coordinator",
    state: str | None = None,
    state_password: str | None = None,
) -> ServerHome:
    """Make a coordinator's home; once more finishes what was begun, and overwrites nothing.

    Args:
        root: The folder to make.
        address: ``host:port`` that sites connect to.
        name: What it calls itself in invitations.
        state: Address of the durable state; None is a file in the home.
        state_password: Where its password lies, ``env:NAME`` or ``file:PATH``.

    Raises:
        ConfigError: The folder is another coordinator's or holds other things, or the disk is full.
        UsageError: Address or name cannot be one.
    """
    from fedgen.api.site_setup import begin_server

    _check_name(name)
    try:
        split_address(address)
    except ValueError as error:
        raise UsageError(f"--address {error}", hint="such as coordinator.example.org:8443") from None
    home = ServerHome(root)
    _check_room(root, SERVER_ROOM, home.config)
    begin_server(home, address, name=name, state=state, state_password=state_password, now=now())
    return home


def look_at_request(root: Path, path: Path, believed: Believed) -> Wait | None:
    """Return what a person must compare before a site is enrolled, or None.

    Raises:
        ConfigError: It is no request.
        IntegrityError: It was changed.
        Refused: Its key was revoked, is another site's, or is not vouched for; or the fingerprint given is another.
    """
    home = ServerHome(root)
    home.spec()  # nobody is asked for a home that is none
    request = decode(read_bounded(path), Request, where=path)
    word = server_side.weigh_request(home.sites(), request)
    if believed.covers(word) or not word.needed:
        return None
    persons = "" if request.persons is None else f" of {request.persons:,} persons"
    lines = (("site", request.name), ("declares", f"{request.rows:,} rows{persons}"))
    return Wait(path=path, word=word, lines=lines)


def server_enroll(
    root: Path, path: Path, believed: Believed, *, out: Path | None = None, days: int | None = None
) -> tuple[EnrolledSite, Handed]:
    """Let a site in, or take its newer keys, and write its invitation.

    Args:
        root: The coordinator's home.
        path: The site's request.
        believed: What a person said of its key.
        out: Where the invitation goes; None is ``<name>.invitation.json`` in the working folder.
        days: How long it lasts; None is what the server's file says.

    Raises:
        ConfigError: It is no request, something else lies where the invitation should, or the disk is full.
        IntegrityError: It was changed.
        Refused: As :func:`look_at_request`; or nobody compared the fingerprint, and it was needed.
    """
    home = ServerHome(root)
    data = read_bounded(path)
    request = decode(data, Request, where=path)
    target = out or Path(f"{request.name}.invitation.json")
    check_free(target, Invitation, _of(request.name))
    word = server_side.weigh_request(home.sites(), request)
    record, invitation = server_side.enroll(home, data, believed=believed.covers(word), now=now(), days=days)
    return record, _invited(home, target, invitation)


def server_invite(root: Path, names: list[str], *, days: int | None = None) -> list[Handed]:
    """Write the next invitation of some sites, or of every site that is in; into the working folder.

    Raises:
        ConfigError: A site is unknown, something else lies in the way, or the disk is full.
        Refused: A site was revoked.
    """
    home = ServerHome(root)
    wanted = names or [name for name, site in home.sites().items() if site.active]
    made = []
    for name in wanted:
        target = Path(f"{name}.invitation.json")
        check_free(target, Invitation, _of(name))
        _record, data = server_side.invite(home, name, now=now(), days=days)
        made.append(_invited(home, target, data))
    return made


def server_revoke(root: Path, name: str) -> EnrolledSite:
    """Put a site out, from now on.

    Raises:
        ConfigError: There is no such site, or the disk is full.
    """
    return server_side.revoke(ServerHome(root), name, now=now())


def server_status(root: Path) -> dict[str, Any]:
    """Return where a coordinator's enrolment stands: keys, certificates, sites; reads only.

    Raises:
        ConfigError: The home or its file is missing, open to others or wrong.
        IntegrityError: A key, a certificate or a record is damaged.
    """
    from fedgen.api.enrolment_status import status_of_server

    return status_of_server(ServerHome(root), now())


# -- what lies where ---------------------------------------------------------------------------------


def _of(site: str) -> Callable[[Invitation], bool]:
    return lambda invitation: invitation.site == site


def _invited(home: ServerHome, path: Path, data: bytes) -> Handed:
    write_bytes(path, data)
    return handed(path, home.identity().public.hex())


def _check_name(name: str) -> None:
    """Refuse a name that no roster would take, before anything is made."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", name):
        raise UsageError(
            f"--name {name!r} cannot be a name", hint="lower-case letters, digits and dashes, at most 63"
        )


def _check_room(root: Path, ours: frozenset[str], config: Path) -> None:
    """Refuse a folder that holds other things than a home that was begun.

    Raises:
        ConfigError: It does, or it is open to others.
    """
    if not root.exists() and not root.is_symlink():
        return
    check_folder(root)
    if not config.exists():
        other = sorted(
            it.name for it in root.iterdir() if it.name not in ours and not it.name.startswith(".")
        )
        if other:
            what = f"holds other things already, such as {other[0]}"
            raise ConfigError(what, where=root, hint="name an empty folder, or a new one")
