"""Run a command and account for its whole process tree: wall, CPU, and memory at its peak (Linux).

Two readings of the CPU are taken and the larger is reported, for each misses something:

- sampling every process of the tree until it is gone misses what each burns after its last sample;
- ``RUSAGE_CHILDREN`` misses processes that nobody waits for (Ray's raylet lets the kernel reap its workers).

So the figure is a lower bound. Daemons that detach from their parent are still counted: while it measures, this
process adopts orphans of its descendants (``PR_SET_CHILD_SUBREAPER``).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_PR_SET_CHILD_SUBREAPER = 36
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a command and all its descendants used.

    Attributes:
        wall_s: From start to exit of the command itself.
        cpu_s: User and system time of the tree, a lower bound.
        peak_rss_mb: Largest sum of resident sets seen; counts shared pages once for each process.
        peak_pss_mb: Largest sum of proportional sets seen; counts shared pages once.
        processes: How many processes were seen.
        exit_code: Of the command.
        stdout: What the command printed.
        stderr: What the command said beside it.
    """

    wall_s: float
    cpu_s: float
    peak_rss_mb: float
    peak_pss_mb: float
    processes: int
    exit_code: int
    stdout: str
    stderr: str

    def row(self) -> dict[str, float | int]:
        """Return the figures, without the texts."""
        return {
            "wall_s": round(self.wall_s, 2),
            "cpu_s": round(self.cpu_s, 2),
            "peak_rss_mb": round(self.peak_rss_mb, 1),
            "peak_pss_mb": round(self.peak_pss_mb, 1),
            "processes": self.processes,
        }


@dataclass(frozen=True, slots=True)
class _Process:
    """One reading of one process: its start in ticks, its own CPU seconds, its resident bytes."""

    parent: int
    started: int
    cpu: float
    resident: int


@dataclass(slots=True)
class _Tree:
    """The readings of one tree; a process is known by its number and its start, so a reused number is new."""

    root: int
    cpu: dict[tuple[int, int], float] = field(default_factory=dict)
    rss: float = 0.0
    pss: float = 0.0
    rss_at_pss: float = 0.0

    def sample(self) -> None:
        """Read every process of the tree once."""
        tree = _descendants(self.root)
        rss = sum(process.resident for process in tree.values()) / 2**20
        for pid, process in tree.items():
            self.cpu[pid, process.started] = process.cpu
        self.rss = max(self.rss, rss)
        # Proportional sets are slow to read, and of interest only near the peak.
        if rss > 1.02 * self.rss_at_pss:
            self.rss_at_pss = rss
            self.pss = max(self.pss, sum(map(_pss, tree)) / 2**20)


def measure(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | Path | None = None,
    timeout_s: float = 600,
    interval_s: float = 0.2,
    grace_s: float = 5,
) -> Usage:
    """Run ``command`` to its end and return what its tree used.

    Daemons it leaves behind are given a little time to go, then ended; their CPU counts.

    Args:
        command: Program and arguments.
        env: Variables added to this process's own.
        cwd: Where to run it.
        timeout_s: The tree is killed after so many seconds, and the exit code is that of a kill.
        interval_s: Seconds between samples; one costs about a millisecond for a hundred processes.
        grace_s: Seconds that daemons are given after the command's own exit.
    """
    with _adopting_orphans(), tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        before = _children_cpu()
        started = time.perf_counter()
        process = subprocess.Popen(
            list(command),
            stdout=out,
            stderr=err,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **(env or {})},
            cwd=cwd,
        )
        tree = _Tree(os.getpid())
        others = set(_descendants(os.getpid())) - {process.pid}
        wall = _watch(process, tree, started, timeout_s, interval_s)
        _clear(tree, others, interval_s, grace_s)
        reaped = _children_cpu() - before
        out.seek(0)
        err.seek(0)
        return Usage(
            wall_s=wall,
            cpu_s=max(reaped, sum(tree.cpu.values())),
            peak_rss_mb=tree.rss,
            peak_pss_mb=tree.pss,
            processes=len(tree.cpu),
            exit_code=process.returncode,
            stdout=out.read().decode(errors="replace"),
            stderr=err.read().decode(errors="replace"),
        )


def run_json(command: Sequence[str], **options: Any) -> tuple[Usage, dict[str, Any]]:
    """Measure a command whose last line of stdout is a JSON document.

    Raises:
        RuntimeError: It failed, or its last line is not JSON; the end of its stderr is in the message.
    """
    import json

    usage = measure(command, **options)
    lines = usage.stdout.strip().splitlines()
    if usage.exit_code != 0 or not lines:
        raise RuntimeError(f"{' '.join(command)} ended with {usage.exit_code}:\n{usage.stderr[-2000:]}")
    return usage, json.loads(lines[-1])


def _watch(
    process: subprocess.Popen[bytes], tree: _Tree, started: float, timeout_s: float, interval_s: float
) -> float:
    """Sample until the command has ended; return its wall time."""
    while process.poll() is None:
        tree.sample()
        if time.perf_counter() - started > timeout_s:
            process.kill()
        with suppress(subprocess.TimeoutExpired):
            process.wait(interval_s)
    return time.perf_counter() - started


def _clear(tree: _Tree, others: set[int], interval_s: float, grace_s: float) -> None:
    """Wait for what the command left behind, end what stays, and reap it all."""
    deadline = time.perf_counter() + grace_s
    while True:
        tree.sample()
        left = [pid for pid in _descendants(os.getpid()) if pid not in others]
        for pid in left:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            if time.perf_counter() > deadline:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if not left:
            return
        time.sleep(interval_s)


@contextmanager
def _adopting_orphans() -> Iterator[None]:
    """Become the parent of descendants whose own parent ends, for the length of the block."""
    if not sys.platform.startswith("linux"):
        raise RuntimeError("process trees are measured through /proc, which only Linux has")
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _descendants(pid: int) -> dict[int, _Process]:
    """Return all descendants of a process that are there now, zombies too, by number."""
    everyone = (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal())
    read = {number: process for number in everyone if (process := _stat(number)) is not None}
    children: dict[int, list[int]] = {}
    for number, process in read.items():
        children.setdefault(process.parent, []).append(number)
    found: dict[int, _Process] = {}
    pending = list(children.get(pid, ()))
    while pending:
        number = pending.pop()
        if number not in found:
            found[number] = read[number]
            pending += children.get(number, ())
    return found


def _stat(pid: int) -> _Process | None:
    """Read one process; None if it is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()  # the name before it may hold spaces and brackets
    return _Process(
        parent=int(fields[1]),
        started=int(fields[19]),
        cpu=(int(fields[11]) + int(fields[12])) / _TICKS,
        resident=int(fields[21]) * _PAGE,
    )


def _pss(pid: int) -> int:
    """Return a process's proportional set in bytes; zero if it is gone or may not be read."""
    with suppress(OSError):
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
