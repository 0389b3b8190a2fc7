"""What an operator may watch of a coordinator: which processes run, how far its studies are, when its certificate ends.

Rounds are computed by other processes (``fedgen train``, a ServerApp). What may be told of them stands in the run
folders already, one line for each round, so it is read from there.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from fedgen.crypto.certificates import read_certificate
from fedgen.errors import Code, FedgenError
from fedgen.flower.renewal import shown_at
from fedgen.observe import Child, Logs, Meters, Outcome, Probes, Reason, Said, start
from fedgen.runs.folder import open_run
from fedgen.runs.journal import RoundLine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fedgen.enrolment.server_home import ServerHome

_LOOK_S: Final = 5.0
_CERTIFICATE_S: Final = 60.0
_NEWEST: Final = 64  # run folders that are looked at
_PIECE: Final = 2**20  # bytes of a metrics file that are read at once
_DOWN: Final = {
    Child.SUPERLINK: Reason.SUPERLINK_DOWN,
    Child.SUPEREXEC: Reason.SUPEREXEC_DOWN,
    Child.PROXY: Reason.PROXY_DOWN,
}
_SAID: Final = {
    "started": Said.CHILD_STARTED,
    "ended": Said.CHILD_ENDED,
    "reloaded": Said.CHILD_RESTARTED,
    "renewed": Said.ROTATED,
    "admitted": Said.JOINED,
    "revoked": Said.REVOKED,
    "stopped": Said.STOPPED,
}


@contextmanager
def watched(
    home: ServerHome, tell: Callable[[str, str], None], *, proxy: bool
) -> Iterator[Callable[[str, str], None]]:
    """Serve health and metrics for the length of the block; yield who is to hear what happens.

    Args:
        home: The coordinator's home; the section ``observe`` of its file says who may watch.
        tell: Hears everything, too, unless logs are for machines.
        proxy: Whether the reverse proxy is one of the processes.

    Raises:
        ConfigError: The address of ``observe`` is taken.
    """
    spec = home.spec().observe
    if spec is None:
        yield tell
        return
    watch = ServerWatch(home, None if spec.logs == "json" else tell, proxy=proxy)
    stop = threading.Event()
    thread = threading.Thread(target=_follow, args=(watch, stop), daemon=True)
    with ExitStack() as stack:
        stack.enter_context(
            start(spec.address, watch.probes, watch.meters, beyond_loopback=spec.beyond_loopback)
        )
        thread.start()
        stack.callback(thread.join)
        stack.callback(stop.set)
        yield watch.hear


def _follow(watch: ServerWatch, stop: threading.Event) -> None:
    watch.look()
    while not stop.wait(_LOOK_S):
        watch.look()


class ServerWatch:
    """Turns what a supervisor says, and what run folders hold, into readiness, metrics and logs.

    Guarantees:
        - Ready when the SuperLink has answered, every process runs, and the certificate that sites see has not expired.
        - Rounds that were over before the start are not counted again.
        - :meth:`look` raises nothing: a run folder that cannot be read is left out.
    """

    def __init__(self, home: ServerHome, tell: Callable[[str, str], None] | None, *, proxy: bool) -> None:
        known = home.spec()
        spec = known.observe
        self.probes, self._logs = Probes(), Logs("coordinator")
        self.meters = Meters("coordinator", wanted=spec is None or spec.metrics)
        self._home, self._tell = home, tell
        children = set(_DOWN) if proxy else set(_DOWN) - {Child.PROXY}
        self.probes.expect(*children)
        self._proxy = known.listens_on if proxy else None
        self._ends: datetime | None = None
        self._certificate_due = 0.0
        self._read: dict[Path, int] = {}
        self._first = True

    def hear(self, what: str, whom: str) -> None:
        """Take in what the supervisor says, as ``started superlink``."""
        if whom in _DOWN:
            child = Child(whom)
            if what == "ended":
                self.probes.set(child, _DOWN[child])
            elif what == "ready" or (what == "started" and child is not Child.SUPERLINK):
                self.probes.set(child, None)
        if self._tell is not None:
            self._tell(what, whom)
        else:
            self._write_down(what, whom)

    def _write_down(self, what: str, whom: str) -> None:
        """Write what the supervisor says into the log, in words of the closed list."""
        if what == "ready":
            self._logs.say(Said.READY)
        elif what in {"admitted", "revoked"}:
            self._logs.say(_SAID[what], site=whom)
        elif what in _SAID and whom in _DOWN:
            self._logs.say(_SAID[what], child=whom)
        elif what in _SAID:
            self._logs.say(_SAID[what])
        elif what == "renew-failed":
            self._logs.warning(Said.CERTIFICATE_EXPIRING)
        else:  # in words, for a person; none of them goes into a log
            self._logs.warning(Said.FAULT)

    def look(self) -> None:
        """Read what is new in the run folders, and when the certificate ends."""
        try:
            self._certificate()
            runs = sorted(self._home.runs.glob("*/metrics.jsonl"), key=lambda it: it.stat().st_mtime)
        except (OSError, FedgenError):
            return
        for path in runs[-_NEWEST:]:
            try:
                self._run(path)
            except (OSError, FedgenError, ValueError):
                continue
        self._first = False

    def _certificate(self) -> None:
        now, clock = datetime.now(UTC), time.monotonic()
        if self._ends is None or clock >= self._certificate_due:
            self._certificate_due = clock + _CERTIFICATE_S
            shown = None if self._proxy is None else shown_at(self._proxy)
            on_disk = read_certificate(self._home.tls.certificate.read_bytes())
            self._ends = (shown or on_disk).ends  # what sites see, where they can see it
        left = (self._ends - now).total_seconds()
        self.meters.certificate_expires(left)
        self.probes.set("certificate", Reason.CERTIFICATE_EXPIRED if left <= 0 else None)
        enrolled = sum(site.active for site in self._home.sites().values())
        self.meters.sites(enrolled=enrolled)

    def _run(self, path: Path) -> None:
        size, done = path.stat().st_size, self._read.get(path, 0)
        if size < done:
            done = 0  # a resumed run has cut it back
        if self._first:
            done = max(0, size - _PIECE)  # only the end is of interest; a line that is cut is no line
        if size == done:
            return
        with path.open("rb") as file:
            file.seek(done)
            new = file.read(_PIECE)
        whole = new.rfind(b"\n") + 1
        lines = [line for line in map(_round, new[:whole].splitlines()) if line is not None]
        self._read[path] = done + whole
        if not lines:
            return
        if not self._first:
            for line in lines:
                self._count(line)
        _, study = open_run(path.parent)
        self.meters.standing(study.study_hash, lines[-1].round, study.study.training.rounds)
        self.meters.epsilon(study.study_hash, lines[-1].epsilon, None)

    def _count(self, line: RoundLine) -> None:
        self.meters.round(Outcome.FINISHED if line.sites else Outcome.FAILED, line.seconds)
        self.meters.traffic(received=line.bytes_in, sent=line.bytes_out)
        self.meters.sites(answered=len(line.sites), joined=len(line.sites) + len(line.missing))
        for site, code in (*line.missing.items(), *line.rejected.items()):
            if code in set(Code):
                self.meters.refused_by(site, Code(code))


def _round(line: bytes) -> RoundLine | None:
    try:
        value: Any = json.loads(line)
        return RoundLine.model_validate(value)
    except (ValueError, ValidationError):
        return None
