"""A deployment as an engineer makes it by hand: nothing but fedgen's own commands, each a process of its own.

A coordinator with its reverse proxy and a few sites, each with a daemon and a relay, in a short temporary folder on
loopback. Between each relay and the proxy lies a :class:`~support.cable.Cable` that can be cut, slowed and listened to.
Whatever a process starts inherits a folder for temporary files that nobody else has, so that at the end everything is
found and ended, however it was killed in between.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from support.cable import Cable
from support.deployed import free_port, until
from support.studies import SCHEMA, people, write_rows, write_study

from fedgen.api.prepare import prepare
from fedgen.enrolment.server_home import ServerHome
from fedgen.enrolment.site_home import SiteHome
from fedgen.flower.keeper import MODULE as KEEPER
from fedgen.flower.supernode import MODULE as SUPERNODE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("hospital-a", "hospital-b", "hospital-c")
ROWS = 120
DISK_MIB = 96
PATIENCE_S = 240.0
_FAST = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1"}


def person_of(short: str) -> str:
    """Return a name that chance does not write: five letters turn up in megabytes of masks now and then."""
    return f"medical-record-number-{short}"


class ByHand:
    """One coordinator and its sites.

    Args:
        root: A short folder: a Unix socket's path has at most 107 bytes.
        names: Of the sites.
        disk: Whether the coordinator's home is a small disk of its own, where this user may mount one.
    """

    host = "127.0.0.1"  # that sites connect to

    def __init__(self, root: Path, names: Sequence[str] = NAMES, *, disk: bool = False) -> None:
        self.root, self.names = root, tuple(names)
        self.inside, self.outside = free_port(), free_port()
        self.home = ServerHome(root / "server")
        self.cables: dict[str, Cable] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        (root / "tmp").mkdir()
        self.small = disk and _small_disk(self.home.root)
        self.env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(root / "tmp"),  # also the mark by which everything that was started is found again
            **_FAST,
        }

    def site(self, name: str) -> SiteHome:
        return SiteHome(self.root / name)

    # -- commands -----------------------------------------------------------------------------------

    def fedgen(self, *words: object, code: int | None = 0) -> str:
        """Run one command to its end; return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "fedgen", *map(str, words)],
            env=self.env,
            cwd=self.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert code is None or done.returncode == code, (
            f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout + ("" if code == 0 else done.stderr)

    def json(self, *words: object) -> Any:
        return json.loads(self.fedgen(*words, "--json"))

    def start(self, name: str, *words: object) -> subprocess.Popen[bytes]:
        """Start a command that stays; what it says goes into a file."""
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                [*self.within(name), sys.executable, "-m", "fedgen", *map(str, words)],
                env=self.env,
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.processes[name] = process
        return process

    def within(self, _name: str) -> list[str]:
        """Return what a command that stays is started by, such as another network's entrance; here it is nothing."""
        return []

    def log(self, name: str) -> Path:
        return self.root / f"{name}.log"

    def said(self, name: str) -> str:
        path = self.log(name)
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """End a command, and nothing that it started."""
        process = self.processes.pop(name)
        process.send_signal(number)
        return process.wait(60)

    # -- from nothing to a deployment ---------------------------------------------------------------

    def enrol(self) -> None:
        """Make every home, and have each side compare the other's fingerprint."""
        self.fedgen("server", "init", "server", "--address", f"{self.host}:{self.outside}")
        text = self.home.config.read_text(encoding="utf-8")
        text = re.sub(r"(?m)^#listen:.*$", f"listen: {self.host}:{self.outside}", text)
        text = re.sub(r"(?m)^superlink_port:.*$", f"superlink_port: {self.inside}", text)
        self.home.config.write_text(text, encoding="utf-8")
        server = self.json("keys", "show", "server")["fingerprint"]
        rows = self._cut()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(self._init, self.names, rows))
        for name in self.names:
            word = self.json("keys", "show", name)["fingerprint"]
            self.fedgen("server", "enroll", f"{name}.request.json", "--home", "server", "--fingerprint", word)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda name: self._join(name, server), self.names))

    def _cut(self) -> list[list[tuple[str, ...]]]:
        """Return the rows of each site, as a simulation of a study over all of them cuts them."""
        rows = people(ROWS * len(self.names))
        parts = prepare(self.study("cut-up")).parts
        return [[rows[int(number)] for number in part] for part in parts]

    def _init(self, name: str, rows: list[tuple[str, ...]]) -> None:
        folder = self.root / f"{name}-data"
        folder.mkdir()
        write_rows(folder / "rows.csv", [(person_of(row[0]), *row[1:]) for row in rows])
        (folder / "schema.yaml").write_text(yaml.safe_dump(SCHEMA, sort_keys=False), encoding="utf-8")
        ceilings = ("--epsilon-per-study", 10, "--epsilon-life", 100, "--delta", 1e-5)
        source = ("--source", f"{name}-data/rows.csv", "--schema", f"{name}-data/schema.yaml")
        self.fedgen("site", "init", name, "--name", name, *source, *ceilings)

    def _join(self, name: str, fingerprint: str) -> None:
        self.fedgen("site", "join", f"{name}.invitation.json", "--home", name, "--fingerprint", fingerprint)
        others = [f"{other}.request.json" for other in self.names if other != name]
        if others:
            self.fedgen("site", "peer", *others, "--home", name, "--yes")
        self.fedgen("site", "relay", name, "--export", f"{name}-relay")
        self.plug_in(name)

    def plug_in(self, name: str) -> None:
        """Have a relay call one end of a cable: in its folder stands where it calls."""
        self.cables[name] = Cable(self.outside)
        path = self.root / f"{name}-relay" / "relay.json"
        said = json.loads(path.read_text(encoding="utf-8"))
        said["address"] = f"127.0.0.1:{self.cables[name].port}"
        path.write_text(json.dumps(said), encoding="utf-8")

    def up(self) -> None:
        """Run everything, and wait until every site is connected."""
        self.server_up()
        for name in self.names:
            self.site_up(name)
        for name in self.names:
            until(lambda name=name: "listening on" in self.said(name), f"the daemon of {name}", PATIENCE_S)
        until(lambda: self.said("server").count("admitted") >= len(self.names), "the nodes", PATIENCE_S)
        for name in self.names:
            self.relay_up(name)

    def server_up(self) -> None:
        self.start("server", "server", "up", "server")

    def site_up(self, name: str) -> None:
        self.start(name, "site", "serve", name)

    def superexec_of(self, name: str) -> int:
        """Return the process that starts the app for each message at a site."""
        found = [
            number
            for word in self.running(f"{name}-relay")
            for number in self.running(f"--parent-pid {word}")
        ]
        assert len(found) == 1, found
        return found[0]

    @contextmanager
    def half_replies(self, name: str) -> Iterator[None]:
        """Have a site's SuperNode send a part of each reply only; the block begins with the first such reply."""
        kept = self.running(f"-m {SUPERNODE} --superlink 127.0.0.1:{self.cables[name].port}")
        (number,) = {*kept} - {*self.running(f"-m {KEEPER}")}
        told = Path(f"/proc/{number}")
        words = (told / "cmdline").read_bytes().decode().rstrip("\0").split("\0")
        env = dict(it.split("=", 1) for it in (told / "environ").read_bytes().decode().split("\0") if it)
        self.kill(f"relay-{name}", signal.SIGTERM)
        script = str(ROOT / "tests" / "support" / "half_replies.py")
        with self.log(f"half-{name}").open("ab") as log:
            hostile = subprocess.Popen(
                [sys.executable, script, *words[words.index(SUPERNODE) + 1 :]],
                env=env,
                stdout=log,
                stderr=log,
            )
        try:
            until(lambda: "kept back" in self.said(f"half-{name}"), "half a reply", PATIENCE_S)
            yield
            assert hostile.poll() is None, self.said(f"half-{name}")
        finally:
            hostile.terminate()
            hostile.wait(60)
            self.relay_up(name)

    def relay_up(self, name: str) -> None:
        self.start(f"relay-{name}", "site", "relay", f"{name}-relay", "--port", free_port())

    # -- a study ------------------------------------------------------------------------------------

    def study(self, name: str, **sections: Any) -> Path:
        """Write a study over all sites; the rows beside it are those of a simulation of it."""
        training = {"rounds": 3, "timeout_s": 60.0, **sections.pop("training", {})}
        data = {"sites": {"names": list(self.names)}, "holdout": 0.0, **sections.pop("data", {})}
        rows = people(ROWS * len(self.names))
        return write_study(
            self.root / f"study-{name}", rows=rows, study=name, data=data, training=training, **sections
        )

    def train(self, study: Path, *words: object) -> subprocess.Popen[bytes]:
        """Begin or go on with a study in the background; its log begins anew."""
        self.log("train").unlink(missing_ok=True)
        return self.start("train", "train", study, "--server", "server", "--wait", 200, *words)

    def trained(self, patience: float = PATIENCE_S) -> int:
        """Wait until `train` has ended; return its exit code."""
        process = self.processes["train"]
        until(lambda: process.poll() is not None, "the study to end", patience)
        del self.processes["train"]
        return int(process.returncode)

    def hash_of(self, study: Path) -> str:
        """Return a study's hash as the sites file it: it needs no more than the study and the declared sizes."""
        from fedgen.api.training import prepare_deployed

        return prepare_deployed(study, (), self.home).resolved.study_hash

    def approve(self, study: Path, names: Sequence[str] | None = None) -> str:
        """Have the owners say yes, each once the study waits there; return its hash."""
        digest = self.hash_of(study)
        for name in names or self.names:
            waits = self.site(name).pending / f"{digest}.json"
            until(waits.exists, f"the study at {name}", PATIENCE_S)
            self.fedgen("site", "approve", digest[:12], "--home", name, "--yes")
        return digest

    def agree(self, study: Path, names: Sequence[str] | None = None) -> None:
        """Show a study to every site and have some owners say yes, before its first round."""
        deadline = time.monotonic() + PATIENCE_S
        words: tuple[object, ...] = ("--wait", 0)
        while True:  # a relay may be starting its node again just now
            self.train(study, *words)
            assert self.trained() != 0
            if f"not-approved x{len(self.names)}" in self.said("train"):
                break
            assert time.monotonic() < deadline, self.said("train")
            words = ("--wait", 0, "--resume")
        assert self.lines(study) == []
        self.approve(study, names)

    def folder(self, study: Path) -> Path:
        name, digest = yaml.safe_load(study.read_text(encoding="utf-8"))["study"], self.hash_of(study)
        return self.home.runs / f"{name}-{digest[:8]}"

    def lines(self, study: Path) -> list[dict[str, Any]]:
        """Return the lines of the rounds so far."""
        path = self.folder(study) / "metrics.jsonl"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]

    def record(self, study: Path) -> Any:
        return json.loads((self.folder(study) / "run.json").read_text(encoding="utf-8"))

    def wait_for_round(self, study: Path, number: int) -> None:
        train = self.processes.get("train")
        until(
            lambda: len(self.lines(study)) >= number or (train is not None and train.poll() is not None),
            f"round {number}",
            PATIENCE_S,
        )
        assert len(self.lines(study)) >= number, self.said("train")

    # -- the coordinator's disk ---------------------------------------------------------------------

    @contextmanager
    def full_disk(self) -> Iterator[None]:
        """Let no byte more be written at the coordinator, for the length of the block.

        Its home lies on a small disk of its own where this user may mount one, and is then filled to the last byte;
        elsewhere no process of it may let a file grow.
        """
        if self.small:
            filler = self.home.root / "filler"
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(4096))
            try:
                yield
            finally:
                filler.unlink()
            return
        words = ("flower-superlink", "flower-superexec --root-certificates", "flwr-serverapp", "fedgen train")
        found = {
            number for word in words for number in self.running(word)
        }  # the sites' SuperExecs have no certificate
        for number in found:
            hard = resource.prlimit(number, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(number, resource.RLIMIT_FSIZE, (4096, hard))
        try:
            yield
        finally:
            for number in self.running():
                with suppress(
                    ProcessLookupError, PermissionError
                ):  # a worker of nginx is another user, never limited
                    hard = resource.prlimit(number, resource.RLIMIT_FSIZE)[1]
                    resource.prlimit(number, resource.RLIMIT_FSIZE, (hard, hard))

    # -- who runs -----------------------------------------------------------------------------------

    def running(self, word: str = "") -> list[int]:
        """Return what this deployment started, wherever it is now, and whose command line has a word."""
        mark = f"TMPDIR={self.root / 'tmp'}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                here = mark in (path / "environ").read_bytes().split(b"\0")
                here = here or str(self.root) in words or self._holds_a_file(path)
                state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if here and state != "Z" and word in words and int(path.name) != os.getpid():
                found.append(int(path.name))
        return found

    def _holds_a_file(self, process: Path) -> bool:
        """Say whether a process has a file of this deployment open: a worker of nginx shows no environment."""
        with suppress(OSError):
            for link in (process / "fd").iterdir():
                with suppress(OSError):
                    if str(link.readlink()).startswith(f"{self.root}/"):
                        return True
        return False

    def coordinating(self, run: str) -> int:
        """Return the process that coordinates a run now, as it says itself in the state."""
        with closing(sqlite3.connect(f"file:{self.home.root / 'state.db'}?mode=ro", uri=True)) as raw:
            found = raw.execute("SELECT holder_note FROM coordinator_runs WHERE run = ?", (run,)).fetchone()
        return int(str(found[0]).rpartition(" ")[2])

    def close(self) -> None:
        """End everything, the way it is meant to be ended first, and see that nothing is left."""
        for name in [*self.processes]:
            with suppress(ProcessLookupError):
                self.processes[name].terminate()
        deadline = time.monotonic() + 30
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
        while left := self.running():
            for number in left:
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
            time.sleep(0.2)
        for process in self.processes.values():
            process.wait(10)
        for cable in self.cables.values():
            cable.close()
        if self.small:
            subprocess.run(["umount", "--lazy", str(self.home.root)], check=True)


def _small_disk(folder: Path) -> bool:
    """Make a folder that is a disk of its own, if this user may; say whether it is one."""
    folder.mkdir(mode=0o700)
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=0700", "fedgen-test", str(folder)]
    return (
        os.geteuid() == 0
        and shutil.which("mount") is not None
        and subprocess.run(words, capture_output=True, check=False).returncode == 0
    )


@contextmanager
def by_hand(names: Sequence[str] = NAMES) -> Iterator[ByHand]:
    """Lend a deployment that is enrolled and runs."""
    root = Path(tempfile.mkdtemp(prefix="fd-", dir="/tmp"))
    made = ByHand(root, names, disk=True)
    try:
        made.enrol()
        made.up()
        yield made
    finally:
        made.close()
        shutil.rmtree(root, ignore_errors=True)
