"""A deployment on loopback: SuperLink, SuperExec and SuperNodes as real processes, real sites behind Unix sockets.

The sites are those of a simulation of the same study: their doors answer in this process, so that a test can look at
them. What a site's daemon does beside that has tests of its own.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from fedgen.api.prepare import prepare
from fedgen.api.sites import SimulatedSites
from fedgen.crypto.keys import SigningKey
from fedgen.crypto.node_keys import make_node_key, node_public
from fedgen.enrolment.documents import Request, moment
from fedgen.enrolment.server_home import ServerHome
from fedgen.enrolment.server_side import enroll
from fedgen.enrolment.signed import encode
from fedgen.flower.control import environment, program
from fedgen.runs.folder import RunFolder
from fedgen.site import frames

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATIENCE_S = 300.0


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(true: Callable[[], Any], what: str, patience: float = PATIENCE_S) -> Any:
    """Wait until something is so."""
    deadline = time.monotonic() + patience
    while not (value := true()):
        assert time.monotonic() < deadline, f"waited {patience:.0f} s for {what}"
        time.sleep(0.1)
    return value


def let_in(
    home: ServerHome, name: str, rows: int, *, persons: int | None = None, days: int | None = None
) -> SigningKey:
    """Enroll a site that is nothing but its keys; return its identity key."""
    key = SigningKey.generate()
    request = Request(
        name=name,
        identity=key.public.hex(),
        ledger=SigningKey.generate().public.hex(),
        node=node_public(make_node_key()),
        rows=rows,
        persons=persons,
        number=1,
        issued=moment(datetime.now(UTC)),
    )
    enroll(home, encode(request, key), believed=True, now=datetime.now(UTC), days=days)
    return key


class Door(threading.Thread):
    """Answers on a Unix socket with the ``handle`` of a site, one request at a time."""

    def __init__(self, path: Path, handle: Callable[[bytes], bytes]) -> None:
        super().__init__(daemon=True)
        self.path, self.handle = path, handle
        self.asked: list[int] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(8)
        self.start()

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, suppress(frames.Broken):
                end = time.monotonic() + PATIENCE_S
                size = frames.receive_head(connection, until=end)
                request = frames.receive_body(connection, size, until=end)
                self.asked.append(size)
                frames.send(connection, self.handle(request), until=end)

    def close(self) -> None:
        self._listener.close()


@dataclass
class Deployment:
    """A coordinator's home with everything that runs around it."""

    root: Path
    study: Path
    env: dict[str, str] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    doors: dict[str, Door] = field(default_factory=dict)
    sites: SimulatedSites | None = None
    proxied: bool = False

    @classmethod
    def make(cls, root: Path, study: Path, *, state: str | None = None) -> Deployment:
        """Make a coordinator's home, and enroll the sites of a study as its simulation cuts them.

        Args:
            root: Of everything.
            study: The study.
            state: Address of the coordinator's state; None is a file in its home.
        """
        from fedgen.api.enrolment import server_init

        home = server_init(root / "server", f"127.0.0.1:{free_port()}", state=state)
        text = home.config.read_text(encoding="utf-8")
        lines = [
            f"superlink_port: {free_port()}" if it.lstrip("# ").startswith("superlink_port:") else it
            for it in text.splitlines()
        ]
        home.config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        made = cls(root, study)
        made._enroll()
        return made

    @property
    def home(self) -> ServerHome:
        return ServerHome(self.root / "server")

    def log(self, name: str) -> Path:
        return self.root / f"{name}.log"

    def _enroll(self) -> None:
        prepared = prepare(self.study)
        folder = RunFolder(self.root / "sites")
        folder.root.mkdir()
        self.sites = SimulatedSites(prepared, folder, self.home.identity().public)
        keys = self.sites.roster_keys()
        for number, entry in enumerate(prepared.resolved.roster):
            identity = SigningKey.load(next(folder.root.rglob(f"{entry.name}/*.key")))
            assert identity.public == keys[entry.name]
            place = self.root / entry.name
            place.mkdir()
            node = make_node_key()
            descriptor = os.open(place / "node.key", os.O_CREAT | os.O_WRONLY, 0o600)
            os.write(descriptor, node)
            os.close(descriptor)
            request = Request(
                name=entry.name,
                identity=identity.public.hex(),
                ledger=SigningKey.generate().public.hex(),
                node=node_public(node),
                rows=entry.rows,
                persons=entry.persons,
                number=1,
                issued=moment(datetime.now(UTC)),
            )
            enroll(self.home, encode(request, identity), believed=True, now=datetime.now(UTC))
            self.doors[entry.name] = Door(place / "site.sock", self.sites.door(number))

    # -- processes ----------------------------------------------------------------------------------

    def start(self, name: str, words: list[str], **more: str) -> subprocess.Popen[bytes]:
        """Start a process that writes into a log of its own."""
        env = {**environment(self.root / f"flower-{name}"), "OMP_NUM_THREADS": "1", **self.env, **more}
        (self.root / f"flower-{name}").mkdir(exist_ok=True)
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                words, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.processes[name] = process
        return process

    def server_up(self, *words: str) -> subprocess.Popen[bytes]:
        """Run `fedgen server up` and wait until the SuperLink answers and every site is admitted."""
        words = words or (() if self.proxied else ("--no-proxy",))
        process = self.start(
            "server", [sys.executable, "-m", "fedgen", "server", "up", str(self.home.root), *words]
        )
        until(self.is_up, "the SuperLink")
        until(lambda: self._admitted() == len(self.doors), "the nodes to be admitted")
        return process

    def is_up(self) -> bool:
        from fedgen.api.training import control_of

        return control_of(self.home).is_up()

    def _admitted(self) -> int:
        from fedgen.flower.nodes import read_nodes

        return sum(it.node is not None for it in read_nodes(self.home.flower).values())

    def node_up(self, name: str) -> subprocess.Popen[bytes]:
        """Run the SuperNode of a site."""
        place = self.root / name
        words = [program("flower-supernode"), "--root-certificates", str(self.home.ca.certificate)]
        spec = self.home.spec()
        words += ["--superlink", spec.address if self.proxied else f"127.0.0.1:{spec.superlink_port}"]
        words += ["--auth-supernode-private-key", str(place / "node.key")]
        words += ["--host", "127.0.0.1", "--port", str(free_port())]
        words += ["--node-config", f'socket="{place / "site.sock"}"']
        return self.start(f"node-{name}", words, FLWR_SUPEREXEC_TASK_POLL_INTERVAL="0.1")

    def nodes_up(self) -> None:
        for name in self.doors:
            self.node_up(name)

    def train(self, *words: str) -> subprocess.Popen[bytes]:
        """Run `fedgen train` in the background."""
        all_words = [
            sys.executable,
            "-m",
            "fedgen",
            "train",
            str(self.study),
            "--server",
            str(self.home.root),
            *words,
        ]
        return self.start("train", all_words)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """End a process and what it started."""
        process = self.processes.pop(name)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        process.wait(60)

    def close(self) -> None:
        """End everything that runs."""
        for name in [*self.processes]:
            process = self.processes[name]
            if name in {"server", "train"} and process.poll() is None:
                process.terminate()  # it ends its own children
                with suppress(subprocess.TimeoutExpired):
                    process.wait(40)
            self.kill(name)
        for door in self.doors.values():
            door.close()
        if self.sites is not None:
            self.sites.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
