"""A command line in a process of its own, stopped in the middle of a run."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 120.0


def start(*arguments: object) -> subprocess.Popen[str]:
    """Start ``fedgen`` in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "fedgen", *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_rounds(process: subprocess.Popen[str], metrics: Path, rounds: int) -> None:
    """Wait until ``rounds`` rounds are on the disk and the run still goes on."""
    deadline = time.monotonic() + PATIENCE_S
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= rounds):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the run did not reach its rounds"
        time.sleep(0.005)
