"""``fedgen site relay``: keeps Flower's SuperNode running, as a user who may know nothing of the site.

The relay needs four things: where the coordinator is, its CA certificate, Flower's node key, and the daemon's socket.
They can be taken out of a home into a folder of their own, which is given to the relay's user.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import ValidationError

from fedgen.api.serving import socket_of, users_of
from fedgen.config.base import Frozen
from fedgen.config.fields import Text
from fedgen.config.server import Address
from fedgen.enrolment.places import check_folder, make_folder
from fedgen.enrolment.signed import read_bounded
from fedgen.enrolment.site_home import SiteHome
from fedgen.errors import ConfigError
from fedgen.flower.environment import QUIET
from fedgen.flower.keeper import MODULE as KEEPER
from fedgen.flower.passed import passed
from fedgen.flower.supernode import MODULE as SUPERNODE
from fedgen.messages import SiteName
from fedgen.runs.atomic import storage, write_private

if TYPE_CHECKING:
    from collections.abc import Iterator

RELAY: Final = "relay.json"
DEFAULT_PORT: Final = 9094
_PLAIN: Final = re.compile(r"[A-Za-z0-9_./@:+-]+")


class RelayFile(Frozen):
    """``relay.json``: what a relay has to know; none of it is secret.

    Attributes:
        format: Version of this file.
        site: The site's name.
        address: ``host:port`` of the coordinator.
        socket: Of the site's daemon.
    """

    format: Literal[1] = 1
    site: SiteName
    address: Address
    socket: Text


@dataclass(frozen=True, slots=True)
class Relay:
    """A SuperNode that can be started.

    Attributes:
        site: The site's name.
        program: Flower's SuperNode, beside which its other programs lie.
        arguments: Of it, beginning with its name.
        environment: Of it: what it needs, and nothing that other programs left there.
        own_user: Whether it would run as the site's own user, who can read the data.
    """

    site: str
    program: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    own_user: bool


def relay_of(folder: Path, *, port: int = DEFAULT_PORT) -> Relay:
    """Return the SuperNode for a site's home, or for a folder that :func:`export_relay` made.

    Args:
        folder: Either.
        port: Of the SuperNode's own API, on loopback.

    Raises:
        ConfigError: The folder is neither, or a file of it is missing, wrong or open to others.
        Refused: The invitation is not for this site, or expired.
        MissingExtra: Flower's SuperNode is not installed here.
    """
    check_folder(folder)
    folder = folder.resolve()
    exported = (folder / RELAY).exists()
    said, ca, node = _exported(folder) if exported else _of_home(SiteHome(folder))
    for path in (ca, node):
        read_bounded(path, follow=False)
    if not _PLAIN.fullmatch(said.socket):
        raise ConfigError("a socket's path must be plain here", where=folder, key="socket")
    program = _program()
    flower = folder / "flower" if exported else folder / "state" / "flower"
    make_folder(flower)
    arguments = (
        "flower-supernode",
        *("--superlink", said.address),
        *("--root-certificates", str(ca)),
        *("--auth-supernode-private-key", str(node)),
        *("--node-config", f'socket="{said.socket}"'),
        *("--isolation", "subprocess"),
        *("--host", "127.0.0.1"),
        *("--port", str(port)),
    )
    inherited = passed(outward=True)
    programs = os.pathsep.join([str(Path(program).parent), inherited.get("PATH", os.defpath)])
    environment = {**inherited, **QUIET, "PATH": programs, "FLWR_HOME": str(flower)}
    return Relay(said.site, program, arguments, environment, own_user=not exported)


def export_relay(home: SiteHome, folder: Path) -> Path:
    """Write what the relay needs, and nothing else, into a folder for its user.

    Guarantees:
        - The folder is for one user only. Started by root, the home is read as its owner, and the folder belongs to
          the first user of ``relay_users``.

    Raises:
        ConfigError: The folder is open to others, cannot be written or lies in the home, or the site has not joined.
        Refused: The invitation is not for this site, or expired.
    """
    if folder.resolve() == home.root.resolve() or home.root.resolve() in folder.resolve().parents:
        hint = "name a folder outside the home: the relay's user must not get into the home"
        raise ConfigError("lies in the site's home", where=folder, hint=hint)
    with _acting_as(_owner_of(home.root)):
        said, ca, node = _of_home(home)
        users, _ = users_of(home.spec(), home)
        files = {
            "ca.crt": read_bounded(ca, follow=False),
            "node.key": read_bounded(node, follow=False),
            RELAY: (json.dumps(said.model_dump(mode="json"), indent=2) + "\n").encode(),
        }
    relay = min(users) if _is_root() else None
    if relay is not None and not folder.exists():
        with storage(folder):
            _make_for(folder, relay)
    with _acting_as(relay):
        make_folder(folder)
        for name, data in files.items():
            write_private(folder / name, data)
    return folder


def _make_for(folder: Path, user: int) -> None:
    """Make a folder that belongs to another user, who may be able to exchange it for a link meanwhile.

    Raises:
        OSError: What was made is no longer there.
    """
    folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid() or os.listdir(descriptor):  # noqa: PTH208 - of what was opened
            raise FileExistsError(errno.EEXIST, "exchanged", str(folder))
        os.fchown(descriptor, user, -1)
    finally:
        os.close(descriptor)


@contextmanager
def _acting_as(user: int | None) -> Iterator[None]:
    """Let root be another user for the length of the block; whoever is not root stays who it is."""
    if user is None or not _is_root():
        yield
        return
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)


def _owner_of(folder: Path) -> int | None:
    try:
        return folder.lstat().st_uid
    except OSError:
        return None


def run(relay: Relay, *, stdout_is_taken: bool = False) -> None:
    """Become the small supervisor that keeps the SuperNode running; does not return.

    Flower's SuperNode ends when the coordinator does not know it yet, for a minute after it was killed, and when the
    coordinator fails. The process that called this is replaced: what it loaded to prepare the relay is needed no more.

    Args:
        relay: What to keep running.
        stdout_is_taken: Whether a document was printed there: what Flower prints then goes to stderr.
    """
    if stdout_is_taken:
        os.dup2(2, 1)
    python = (sys.executable, "-P", "-m")  # -P: nothing is imported from the folder where this is started
    words = (*python, KEEPER, "supernode", *python, SUPERNODE, *relay.arguments[1:])
    os.execve(sys.executable, words, relay.environment)  # noqa: S606 - no shell, our own program


def _is_root() -> bool:
    return os.geteuid() == 0


def _of_home(home: SiteHome) -> tuple[RelayFile, Path, Path]:
    spec, invitation = home.spec(), home.coordinator()
    said = RelayFile(site=spec.name, address=invitation.address, socket=str(socket_of(spec, home)))
    return said, home.ca_certificate, home.node_key


def _exported(folder: Path) -> tuple[RelayFile, Path, Path]:
    return relay_file(folder), folder / "ca.crt", folder / "node.key"


def relay_file(folder: Path) -> RelayFile:
    """Return what an exported folder says of its relay.

    Raises:
        ConfigError: It is missing, or something else.
    """
    try:
        return RelayFile.model_validate(json.loads(read_bounded(folder / RELAY, follow=False)))
    except (ValidationError, ValueError):
        raise ConfigError(
            "is not what a relay needs",
            where=folder / RELAY,
            hint="run: fedgen site relay DIR --export FOLDER",
        ) from None


def _program() -> str:
    """Return Flower's SuperNode: the one beside this Python, else the first on the path."""
    beside = Path(sys.executable).with_name("flower-supernode")
    found = str(beside) if beside.is_file() else shutil.which("flower-supernode")
    if found is None:
        raise ConfigError("Flower's SuperNode is not installed here", hint="pip install fedgen")
    return found
