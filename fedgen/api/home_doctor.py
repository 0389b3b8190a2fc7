"""``doctor --home``: what would keep a deployed site, its relay or a coordinator from working, before a study needs it.

It reads, connects, and changes nothing. Each check is one line; what fails says how to mend it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from fedgen.api.keys import home_at
from fedgen.api.reaching import check_clock, reach
from fedgen.api.relaying import RELAY, relay_file
from fedgen.api.serving import check_reach, schema_of, served_by, socket_of, users_of
from fedgen.config.server import split_address
from fedgen.enrolment.documents import instant
from fedgen.enrolment.places import check_folder, read_private
from fedgen.enrolment.server_home import ServerHome
from fedgen.errors import ConfigError, DataError, FedgenError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from fedgen.enrolment.site_home import SiteHome

WARN_DAYS: Final = 30
_FREE: Final = 2**30
_KNOCK_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: What.
        ok: Whether it is as it has to be; None where that is for a person to say.
        found: What was found, and how to mend it.
    """

    check: str
    ok: bool | None
    found: str


@dataclass(frozen=True, slots=True)
class Examined:
    """A home that was looked at.

    Attributes:
        role: ``site``, ``relay`` or ``coordinator``.
        findings: What was looked at, in order.
    """

    role: str
    findings: tuple[Finding, ...]

    @property
    def well(self) -> bool:
        """Whether nothing was found that has to be mended."""
        return all(it.ok is not False for it in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"role": self.role, "well": self.well, "checks": [asdict(it) for it in self.findings]}


def examine_home(root: Path) -> Examined:
    """Look at a site's home, a relay's folder or a coordinator's home.

    Guarantees:
        - Nothing is changed, nothing is spent, and no row is read: of the table only the names of its columns.
        - A check that fails keeps no other from being made.

    Raises:
        ConfigError: The folder is none of these, or not the caller's alone.
    """
    check_folder(root)
    if os.path.lexists(root / RELAY):
        return Examined("relay", tuple(_relay(root)))
    home = home_at(root)
    if isinstance(home, ServerHome):
        return Examined("coordinator", tuple(_coordinator(home)))
    return Examined("site", tuple(_site(home)))


def _tried(check: str, look: Callable[[], str]) -> Finding:
    try:
        return Finding(check, ok=True, found=look())
    except FedgenError as error:
        return Finding(check, ok=False, found=str(error))
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        where = "" if error.filename is None else f"{error.filename}: "
        return Finding(check, ok=False, found=f"{where}{reason} (check the path and its permissions)")


# -- a site ------------------------------------------------------------------------------------------


def _site(home: SiteHome) -> Iterable[Finding]:
    yield _tried("file", lambda: f"{home.spec().name}, {home.config}")
    yield _tried("keys", lambda: _site_keys(home))
    yield _tried("invitation", lambda: _invitation(home))
    yield _tried("table", lambda: _table(home))
    yield _tried("socket", lambda: _socket(home))
    process = served_by(home)
    stopped = f"stopped (fedgen site serve {home.root})"
    yield Finding("daemon", None if process is None else True, stopped if process is None else "running")
    accepted = None
    with suppress(FedgenError):  # the check of the invitation has said so
        accepted = home.accepted()
    if accepted is not None:
        yield from _network(accepted.address, home.ca_certificate)
    yield _tried("disk", lambda: _disk(home.root))


def _site_keys(home: SiteHome) -> str:
    home.identity()
    home.ledger_signing_key()
    read_private(home.node_key)
    return "identity, ledger, node"


def _invitation(home: SiteHome) -> str:
    found = home.coordinator()
    days = (instant(found.expires) - datetime.now(UTC)).days
    if days < WARN_DAYS:
        hint = "the coordinator writes the next one: fedgen server invite"
        raise ConfigError(f"ends in {days} days", where=home.invitation, hint=hint)
    return f"from {found.name} at {found.address}, {days} days left"


def _table(home: SiteHome) -> str:
    """Return how many columns there are, after a look at whether all that the schema names are there."""
    from fedgen.data.sources import open_source

    spec = home.spec()
    schema = schema_of(home, spec)
    columns = open_source(home.source_address(spec), base=home.root, may_query=True).columns
    wanted = [*schema.names, *([schema.subject] if schema.subject else [])]
    missing = [name for name in wanted if name not in columns]
    if missing:
        hint = "the schema names it; all sites of a study have the same schema"
        raise DataError(f"the table has no column {missing[0]}", where=home.config, key="source", hint=hint)
    return f"there, with all {len(wanted)} columns of the schema"


def _socket(home: SiteHome) -> str:
    """Return who can get to the socket, as its folders say; the socket itself is made by the daemon."""
    spec = home.spec()
    check_reach(spec, home)
    users, group = users_of(spec, home)
    path = socket_of(spec, home).absolute()
    if not path.parent.is_dir():
        hint = (
            "make it for the daemon's user and the relay's group: install -d -o USER -g GROUP -m 0750 FOLDER"
        )
        raise ConfigError("the folder of the socket is not there", where=path.parent, hint=hint)
    for user in sorted(users - {0, os.geteuid()}):
        shut = next((it for it in reversed(path.parents) if not _may_enter(it, user)), None)
        if shut is not None:
            hint = "let its group enter (mode 0750), and put the relay's user into that group"
            raise ConfigError(f"the user {user} of `relay_users` cannot enter it", where=shut, hint=hint)
    of = "" if group is None else f", group {group}"
    return f"{path}, for {', '.join(map(str, sorted(users)))}{of}"


def _may_enter(folder: Path, user: int) -> bool:
    """Return whether a user may go through a folder, by its mode; access control lists are not looked at."""
    status = folder.stat()
    if status.st_uid == user:
        return bool(status.st_mode & stat.S_IXUSR)
    if status.st_gid in _groups(user):
        return bool(status.st_mode & stat.S_IXGRP)
    return bool(status.st_mode & stat.S_IXOTH)


def _groups(user: int) -> set[int]:
    try:
        known = pwd.getpwuid(user)
    except KeyError:
        return set()  # a number of a container, without a name here
    return set(os.getgrouplist(known.pw_name, known.pw_gid))


# -- a relay -----------------------------------------------------------------------------------------


def _relay(folder: Path) -> Iterable[Finding]:
    yield _tried("file", lambda: f"{relay_file(folder).site}, {folder / RELAY}")
    yield _tried("keys", lambda: f"node ({len(read_private(folder / 'node.key'))} bytes)")
    try:
        said = relay_file(folder)
    except FedgenError:
        return
    yield _tried("socket", lambda: _knocked(said.socket))
    yield from _network(said.address, folder / "ca.crt")


def _knocked(path: str) -> str:
    """Return that somebody listens at a socket that this user gets to."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
        door.settimeout(5)
        try:
            door.connect(path)
        except PermissionError:
            hint = "see `socket`, `relay_users` and `relay_group` in site.yaml, and the folder's mode"
            raise ConfigError(
                "this user does not get to the daemon's socket", where=path, hint=hint
            ) from None
        except (FileNotFoundError, ConnectionRefusedError):
            hint = (
                "start the daemon: fedgen site serve HOME; or export the folder again if `socket` was changed"
            )
            raise ConfigError("no daemon listens there", where=path, hint=hint) from None
        door.settimeout(_KNOCK_S)
        with suppress(TimeoutError):  # it waits for a request: this user may send one
            if not door.recv(1):
                hint = "is it in `relay_users` of site.yaml, and the daemon started since?"
                raise ConfigError("the daemon lets this user not in, or is busy", where=path, hint=hint)
    return f"{path} answers"


# -- a coordinator -----------------------------------------------------------------------------------


def _coordinator(home: ServerHome) -> Iterable[Finding]:
    yield _tried("file", lambda: f"{home.spec().name} at {home.spec().address}, {home.config}")
    yield _tried("keys", lambda: _server_keys(home))
    yield _tried("certificates", lambda: _certificates(home))
    yield _tried("invitations", lambda: _invitations(home))
    yield _tried("nginx", _nginx)
    try:
        spec = home.spec()
    except FedgenError:
        return
    from fedgen.flower.control import Control

    up = Control(home.flower, f"127.0.0.1:{spec.superlink_port}", home.ca.certificate).is_up()
    stopped = f"does not answer (fedgen server up {home.root})"
    yield Finding("superlink", ok=True if up else None, found="answers" if up else stopped)
    yield _tried("port", lambda: _port(home, spec.address, spec.listens_on, up=up))
    yield _tried("disk", lambda: _disk(home.root))


def _server_keys(home: ServerHome) -> str:
    home.identity()
    home.sealing()
    for path in (home.ca.key, home.tls.key, home.superexec_secret):
        read_private(path)
    return "identity, sealing, ca, tls, superexec"


def _certificates(home: ServerHome) -> str:
    from fedgen.enrolment.authority import certificates

    left = {name: (it.ends - datetime.now(UTC)).days for name, it in certificates(home).items()}
    for name, days in left.items():
        if days < WARN_DAYS:
            again = f"fedgen keys rotate {name} --home {home.root}"
            hint = again if name == "ca" else "`fedgen server up` makes it again: is it running?"
            raise ConfigError(f"the {name} certificate ends in {days} days", where=home.keys, hint=hint)
    return ", ".join(f"{name} {days} days left" for name, days in left.items())


def _invitations(home: ServerHome) -> str:
    active = [it for it in home.sites().values() if it.active]
    for it in active:
        days = (instant(it.expires) - datetime.now(UTC)).days
        if days < WARN_DAYS:
            hint = f"fedgen server invite {it.name} --home {home.root}, and send it"
            raise ConfigError(
                f"the invitation of {it.name} ends in {days} days", where=home.sites_folder, hint=hint
            )
    return "1 site is in" if len(active) == 1 else f"{len(active)} sites are in"


def _nginx() -> str:
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        hint = "install nginx (apt-get install nginx-light), or filter routes yourself and use --no-proxy"
        raise ConfigError("is not installed", where="nginx", hint=hint)
    return found


def _port(home: ServerHome, address: str, listens: str, *, up: bool) -> str:
    """Return whether the port that sites call is served, or free until it is."""
    host, port = split_address(listens)
    at = ("127.0.0.1" if host == "0.0.0.0" else host, port)  # noqa: S104 - compared, not listened on
    if up:
        found = reach(address, home.ca.certificate, at=at)
        return f"{listens} answers, {found.days} days left"
    try:
        with socket.create_connection(at, timeout=2):
            pass
    except OSError:
        return f"{listens} is free"
    raise ConfigError(
        "another program listens there", where=listens, hint="end it, or change `listen` and `address`"
    )


# -- both --------------------------------------------------------------------------------------------


def _network(address: str, authority: Path) -> Iterable[Finding]:
    try:
        found = reach(address, authority)
    except FedgenError as error:
        yield Finding("coordinator", ok=False, found=str(error))
        return
    soon = found.days < 1
    yield Finding(
        "coordinator", ok=not soon, found=f"{address} answers, its certificate ends in {found.days} days"
    )
    yield _tried("clock", lambda: check_clock(found.ahead))


def _disk(root: Path) -> str:
    free = shutil.disk_usage(root).free
    if free < _FREE:
        raise ConfigError(f"{free / 2**20:.0f} MiB are free", where=root, hint="make room: 1 GiB or more")
    return f"{free / 2**30:.1f} GiB free"
