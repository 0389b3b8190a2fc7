"""``server up``: the processes of a coordinator's machine, kept running from one place.

The SuperLink (loopback, TLS, node keys), the SuperExec that starts ServerApps (it shows a secret to the SuperLink), and
the reverse proxy, which alone listens to the world.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from fedgen._signals import heard
from fedgen.config.proxy import Proxy, nginx_configuration
from fedgen.enrolment.authority import renew, renew_inner
from fedgen.enrolment.documents import instant
from fedgen.enrolment.places import alone, make_folder
from fedgen.errors import ConfigError, FedgenError
from fedgen.flower.children import Child, Kept
from fedgen.flower.control import HOME_VARIABLE, Control, environment, program
from fedgen.flower.nodes import Nodes
from fedgen.flower.own_user import MODULE
from fedgen.flower.passed import passed_for_state
from fedgen.flower.renewal import Renewal
from fedgen.flower.silence import Silence
from fedgen.runs.atomic import write_text
from fedgen.runs.lock import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from fedgen.enrolment.server_home import ServerHome

_LOOK_S: Final = 0.2
_SITES_S: Final = 2.0
_CERTIFICATE_S: Final = 20.0
_FLOWERS: Final = 2  # the children that are Flower's; a third is the proxy
_LOG_BYTES: Final = 64 * 2**20
_TASKS_S: Final = "0.1"  # how often the SuperExec asks for a ServerApp to start


class ServerUp:
    """The supervisor of one home; :meth:`run` returns when it is told to stop.

    Guarantees:
        - One supervisor a home; a child that ends is started again, after pauses that grow to half a minute; so is a
          SuperLink that runs and answers nobody.
        - Sites that are enrolled may connect, and sites that are revoked may not, within seconds.
        - Nothing but the proxy listens beyond loopback.
        - The server's certificate is made again before it ends, and shown (:mod:`fedgen.flower.renewal`).

    Args:
        home: The coordinator's home.
        said: Hears what happens, in one word, and to whom.
        proxy: Whether the reverse proxy is one of the children; without it somebody else must filter what comes in.
    """

    def __init__(self, home: ServerHome, said: Callable[[str, str], None], *, proxy: bool = True) -> None:
        self._home, self._said = home, said
        self._spec = home.spec()
        self._address = f"127.0.0.1:{self._spec.superlink_port}"
        self._control = Control(home.flower, self._address, home.ca.certificate)
        children = [self._superlink(), self._superexec()] + ([self._proxy()] if proxy else [])
        self._kept = [Kept(child, said) for child in children]
        self._renewal = Renewal(home, self._spec, said, self._kept, self._kept[_FLOWERS] if proxy else None)
        self._stopping = False
        self._nodes_due = self._certificate_due = 0.0
        self._up: int | None = None  # the SuperLink that has answered
        self._silence = Silence()

    def run(self) -> None:
        """Keep everything running until SIGTERM or SIGINT.

        Raises:
            ConfigError: Another supervisor runs here, or a program is missing.
            IntegrityError: The authority is damaged or has expired.
        """
        with heard(self._on_signal):
            try:
                with locked(
                    self._home.flower,
                    held="another `fedgen server up` serves this home",
                    hint="stop it first",
                ):
                    self._renew()
                    while not self._stopping:
                        self._look()
                        time.sleep(_LOOK_S)
            finally:
                for kept in reversed(self._kept):
                    kept.stop()
                self._said("stopped", "server")

    def _renew(self) -> None:
        """Make the server certificate again if it ends soon or the address is another; sites need not hear of it."""
        with alone(self._home.root):
            now = datetime.now(UTC)
            if renew(self._home, now, spec=self._spec):
                self._said("renewed", "certificate")
            renew_inner(self._home, now)

    def _on_signal(self) -> None:
        self._stopping = True

    def _look(self) -> None:
        """Look after every child, then after the certificate and the nodes."""
        running = [kept.look() for kept in self._kept]
        now = time.monotonic()
        if now >= self._certificate_due:
            self._certificate_due = now + _CERTIFICATE_S
            self._renewal.look()
        if not running[0] or now < self._nodes_due:
            return
        self._nodes_due = now + _SITES_S
        roll_log(
            self._home.root / "proxy" / "access.log", self._kept[-1] if len(self._kept) > _FLOWERS else None
        )
        superlink, up = self._kept[0].pid, self._control.is_up()
        if self._silence.too_long(superlink, now, answers=up):
            self._said("silent", self._kept[0].child.name)
            self._kept[0].again()
        if not up:
            self._up = None
        elif self._follow_sites(anew=self._up != superlink):
            self._up = superlink

    def _follow_sites(self, *, anew: bool) -> bool:
        """Register and shut out nodes as the home says; what goes wrong is said and tried again.

        Args:
            anew: Whether the SuperLink was just started: its own list is then looked at, too.
        """
        try:
            nodes, wanted = Nodes(self._home.flower, self._control), self._wanted()
            if not anew and not nodes.differ(wanted):
                return True
            new, out = nodes.follow(wanted)
        except FedgenError as error:
            self._said("nodes-failed", str(error))
            return False
        for name in out:
            self._said("revoked", name)
        for name in new:
            self._said("admitted", name)
        if anew:
            self._said("ready", "superlink")
        return True

    def _wanted(self) -> dict[str, str]:
        now = datetime.now(UTC)
        with alone(self._home.root):  # not while a record is being written
            sites = self._home.sites()
        return {
            name: site.request.node
            for name, site in sites.items()
            if site.active and now < instant(site.expires)
        }

    # -- the children -------------------------------------------------------------------------------

    def _superlink(self) -> Child:
        # Behind a door of ours: its Control API would let any user of this machine in.
        home, words = self._home, [sys.executable, "-P", "-m", MODULE, program("flower-superlink")]
        words += ["--ssl-ca-certfile", str(home.ca.certificate.resolve())]
        words += ["--ssl-certfile", str(home.superlink_tls.certificate.resolve())]
        words += ["--ssl-keyfile", str(home.superlink_tls.key.resolve())]
        words += ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
        words += [
            "--isolation",
            "process",
            "--superexec-auth-secret-file",
            str(home.superexec_secret.resolve()),
        ]
        words += ["--host", "127.0.0.1", "--port", str(self._spec.superlink_port)]
        words += ["--database", str(home.superlink_db.absolute())]
        return self._child("superlink", words)

    def _superexec(self) -> Child:
        home, words = self._home, [program("flower-superexec")]
        words += ["--root-certificates", str(home.ca.certificate.resolve())]
        words += ["--runtime-api-address", self._address]
        words += ["--superexec-auth-secret-file", str(home.superexec_secret.resolve())]
        # The ServerApps that it starts inherit this: they open the home and the state, and nobody else here does.
        return self._child(
            "superexec",
            words,
            {
                HOME_VARIABLE: str(home.root.resolve()),
                **passed_for_state(self._spec.state, self._spec.state_password),
            },
        )

    def _proxy(self) -> Child:
        nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if nginx is None:
            raise ConfigError(
                "nginx is not installed", hint="install it, or filter routes yourself and use --no-proxy"
            )
        home, folder = self._home, self._home.root.resolve() / "proxy"
        make_folder(folder)
        proxy = Proxy(
            listen=self._spec.listens_on,
            name="localhost",  # of the SuperLink's certificate: nginx matches names there, never addresses
            certificate=home.tls.certificate.resolve(),
            key=home.tls.key.resolve(),
            upstream=self._address,
            upstream_ca=home.ca.certificate.resolve(),
            folder=folder,
        )
        write_text(home.nginx, nginx_configuration(proxy))
        words = [nginx, "-p", str(folder), "-c", str(home.nginx.resolve()), "-e", "stderr"]
        return replace(self._child("nginx", words), orphaned=signal.SIGTERM)

    def _child(self, name: str, words: list[str], more: Mapping[str, str] | None = None) -> Child:
        make_folder(self._home.flower)
        env = {**environment(self._home.flower.resolve()), **(more or {})}
        env["FLWR_SUPEREXEC_TASK_POLL_INTERVAL"] = _TASKS_S
        return Child(name=name, words=words, env=env, folder=self._home.flower)


def roll_log(log: Path, proxy: Kept | None, most: int = _LOG_BYTES) -> bool:
    """Put the proxy's log away under another name when it is long, in the place of the one before; say whether it was.

    Guarantees:
        - Whoever asks the proxy all day fills no disk: there are never more than two such files.
    """
    number = None if proxy is None else proxy.pid
    with suppress(OSError):
        if number is not None and log.stat().st_size >= most:
            log.replace(log.with_name(f"{log.name}.1"))
            os.kill(number, signal.SIGUSR1)  # nginx opens its log anew
            return True
    return False
