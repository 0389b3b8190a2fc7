"""Processes that are kept running: started in order, started again when they end, stopped together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0
_SETTLED_S: Final = 60.0  # who ran so long starts again at once
_STOP_S: Final = 15.0
# Run in the child before its program: have the kernel signal it when the one that started it ends (prctl 1), look
# whether that was meanwhile, and become the program. A function between fork and exec could deadlock with threads.
_TIED: Final = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, int(sys.argv[2]))\n"
    "if os.getppid() == int(sys.argv[1]): os.execv(sys.argv[3], sys.argv[3:])\n"
)


@dataclass(frozen=True, slots=True)
class Child:
    """How a process is started.

    Attributes:
        name: What it is called in what is said of it.
        words: Program, by its path, and arguments.
        env: Its environment, whole.
        folder: Its working folder.
        orphaned: The signal it gets when the one that started it is killed. What has processes of its own must hear of
            it, to end them: nginx's workers would hold its port for ever.
    """

    name: str
    words: Sequence[str]
    env: Mapping[str, str]
    folder: Path
    orphaned: signal.Signals = signal.SIGKILL


class Kept:
    """One process that is started again when it ends, at first at once, then after pauses that double.

    Guarantees:
        - Whatever it started itself is ended with it: it leads a process group of its own.
        - If this process is killed, the child is too, or is told to end.

    Args:
        child: How it is started.
        said: Hears of ``started`` and ``ended``, with the child's name.
        clock: Seconds, never set back.
    """

    def __init__(
        self, child: Child, said: Callable[[str, str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.child, self._said, self._clock = child, said, clock
        self._process: subprocess.Popen[bytes] | None = None
        self._pause = _FIRST_PAUSE_S
        self._started = self._due = self._ended_at = clock()

    @property
    def pid(self) -> int | None:
        """Number of the running process, or None."""
        return None if self._process is None else self._process.pid

    @property
    def pause(self) -> float:
        """Seconds between the last end and the next start."""
        return max(0.0, self._due - self._ended_at)

    def look(self) -> bool:
        """Start the process if it is not running and its pause is over; return whether it runs."""
        if self._process is not None:
            if self._process.poll() is None:
                return True
            self._ended()
        if self._clock() < self._due:
            return False
        self._process = subprocess.Popen(  # noqa: S603 -- our own words
            [
                sys.executable,
                "-I",
                "-S",
                "-c",
                _TIED,
                str(os.getpid()),
                str(int(self.child.orphaned)),
                *self.child.words,
            ],
            env=dict(self.child.env),
            cwd=self.child.folder,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            umask=0o077,
        )
        self._started = self._clock()
        self._said("started", self.child.name)
        return True

    def again(self) -> None:
        """End the process and whatever it started; the next look starts it again."""
        if self._process is not None:
            self._said("ended", self.child.name)
            self.stop()

    def stop(self, patience: float = _STOP_S) -> None:
        """End the process and whatever it started: asked first, killed when it does not listen."""
        process, self._process = self._process, None
        if process is None:
            return
        _signal(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        _signal(process.pid, signal.SIGKILL)  # the rest of its group
        process.wait()

    def _ended(self) -> None:
        """Note that the process ended, and when it may start again."""
        if self._process is not None:
            _signal(self._process.pid, signal.SIGKILL)  # what it left behind would hold its port
            self._process = None
        self._ended_at = self._clock()
        if self._ended_at - self._started > _SETTLED_S:
            self._pause = _FIRST_PAUSE_S
        self._due = self._ended_at + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_S)
        self._said("ended", self.child.name)


def _signal(group: int, number: signal.Signals) -> None:
    """Send a signal to every process of a group; one that is gone is gone."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
