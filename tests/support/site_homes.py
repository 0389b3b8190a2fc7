"""A deployed site on disk, as `site init` and `site join` leave it, and its daemon in a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from support.federation import _SCHEMA, small_rows

from fedgen.crypto.keys import SigningKey, fingerprint
from fedgen.enrolment.documents import Invitation, Request, moment
from fedgen.enrolment.places import make_folder
from fedgen.enrolment.signed import encode
from fedgen.enrolment.site_home import SiteHome
from fedgen.runs.atomic import write_private
from fedgen.site import frames

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.federation import Desk

    from fedgen.enrolment.documents import SignedRotation

ROOT = Path(__file__).resolve().parents[2]
PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
PATIENCE_S = 40.0
_SERVE = """
import faulthandler, signal, sys
from pathlib import Path
from fedgen.api.site_daemon import serve
faulthandler.register(signal.SIGUSR2)
serve(Path(sys.argv[1]), ready=lambda path: print("READY", path, flush=True))
"""


@contextmanager
def short_folder() -> Iterator[Path]:
    """Lend a folder with a short path: a Unix socket's has at most 107 bytes."""
    root = Path(tempfile.mkdtemp(prefix="fs-", dir="/tmp"))
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def write_table(folder: Path, *, rows: int = 40, seed: int = 1) -> None:
    """Write the rows of the small federation as CSV, and their schema."""
    table = small_rows(rows, seed=seed)
    assert table.subjects is not None
    lines = ["person,visits,ward,sick"]
    for who, (visits, ward, sick) in zip(table.subjects.tolist(), table.codes.tolist(), strict=True):
        lines.append(f"{who.decode()},{visits},{'abc'[ward]},{'true' if sick else 'false'}")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    (folder / "schema.yaml").write_text(yaml.safe_dump(_SCHEMA, sort_keys=False))


def invite(
    home: SiteHome,
    desk: Desk,
    *,
    name: str = "site-01",
    days: int = 30,
    rotations: tuple[SignedRotation, ...] = (),
) -> None:
    """Put the desk's invitation in place."""
    now = datetime.now(UTC)
    body = Invitation(
        coordinator=desk.signing.public.hex(),
        sealing=desk.sealing.public.hex(),
        name="desk",
        address="coordinator.example.org:8443",
        ca=PEM,
        site=name,
        site_key=fingerprint("signing", home.identity().public),
        number=1,
        issued=moment(now - timedelta(days=60)),
        expires=moment(now + timedelta(days=days)),
        rotations=rotations,
    )
    write_private(home.invitation, encode(body, desk.signing))
    write_private(home.ca_certificate, PEM.encode())


def know_peer(home: SiteHome, name: str, identity: SigningKey | None = None) -> SigningKey:
    """Let a site know another one's key; return that key."""
    key = identity or SigningKey.generate()
    request = Request(
        name=name,
        identity=key.public.hex(),
        ledger=SigningKey.generate().public.hex(),
        node=f"ecdsa-sha2-nistp384 {'A' * 182}==",
        rows=40,
        number=1,
        issued=moment(datetime.now(UTC)),
    )
    write_private(home.peers_folder / f"{name}.json", encode(request, key))
    return key


def make_home(root: Path, desk: Desk, *, name: str = "site-01", **keys: Any) -> SiteHome:
    """Return a home with keys, rows, an invitation of this desk, and a site's file with ``keys`` changed."""
    home = SiteHome(root)
    for folder in (home.root, home.keys, home.state, home.approvals, home.pending, home.peers_folder):
        make_folder(folder)
    SigningKey.generate().save(home.identity_key)
    SigningKey.generate().save(home.ledger_key)
    write_private(home.node_key, b"a node key\n")
    write_table(home.root)
    write_file(home, name=name, **keys)
    invite(home, desk, name=name)
    return home


def write_file(home: SiteHome, **keys: Any) -> None:
    """Write the site's file; None takes a key away."""
    said: dict[str, Any] = {
        "name": "site-01",
        "source": "csv://rows.csv",
        "schema": "schema.yaml",
        "min_cohort": 5,
        "ceilings": {"epsilon_per_study": 50.0, "epsilon_life": 100.0, "delta": 1e-5},
        "keys": "keys",
        "ledger": "ledger.db",
    }
    said = {key: value for key, value in {**said, **keys}.items() if value is not None}
    write_private(home.config, yaml.safe_dump(said, sort_keys=False).encode())


class Running:
    """A daemon in a process of its own."""

    def __init__(self, home: SiteHome) -> None:
        self.home = home
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SERVE, str(home.root)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("READY "), self.process.communicate()
        self.socket = line.removeprefix("READY ").strip()

    def ask(self, request: bytes) -> bytes:
        """Return the daemon's answer."""
        return frames.ask(self.socket, request, timeout=PATIENCE_S)

    def cpu(self) -> float:
        """Return the CPU seconds of the process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def resident(self) -> int:
        """Return the bytes of memory the process has now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait, and return how the process ended."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGUSR2)  # where is it?
            time.sleep(1.0)
            self.process.kill()
            raise AssertionError(self.process.communicate()[1][-8000:]) from None
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        return code


@contextmanager
def running(home: SiteHome) -> Iterator[Running]:
    """Serve a home for the length of the block."""
    daemon = Running(home)
    try:
        yield daemon
    finally:
        if daemon.process.poll() is None:
            daemon.end(signal.SIGKILL)
        else:
            daemon.end()


def wait_until(said: Any, *, seconds: float = PATIENCE_S) -> None:
    """Wait until ``said()`` holds."""
    until = time.monotonic() + seconds
    while not said():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.01)
