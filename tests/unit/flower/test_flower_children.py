"""Children are started again when they end, with growing pauses, and end with their supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedgen.flower.children import Child, Kept

pytestmark = pytest.mark.process


def child(code: str, folder: Path) -> Child:
    return Child("it", [sys.executable, "-c", code], dict(os.environ), folder)


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} is still there")


def test_it_is_started_again_after_pauses_that_double(tmp_path: Path) -> None:
    now = [0.0]
    said: list[tuple[str, float]] = []
    kept = Kept(
        child("pass", tmp_path), lambda what, _whom: said.append((what, now[0])), clock=lambda: now[0]
    )
    starts = []
    while len(starts) < 4:
        kept.look()
        time.sleep(0.01)
        now[0] += 0.05
        starts = [at for what, at in said if what == "started"]
    kept.stop()
    pauses = [
        later - ended
        for later, ended in zip(starts[1:], [at for what, at in said if what == "ended"], strict=False)
    ]
    assert [round(pause, 1) for pause in pauses] == pytest.approx([0.5, 1.0, 2.0], abs=0.11)


def test_stopping_ends_it_and_what_it_started(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time, pathlib\n"
        "inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "pathlib.Path('inner').write_text(str(inner.pid))\n"
        "time.sleep(600)\n"
    )
    kept = Kept(child(code, tmp_path), lambda *_: None)
    assert kept.look()
    while not (tmp_path / "inner").exists() or not (tmp_path / "inner").read_text():
        time.sleep(0.02)
    outer, inner = kept.pid, int((tmp_path / "inner").read_text())
    assert outer is not None
    kept.stop()
    wait_gone(outer)
    wait_gone(inner)
    assert kept.pid is None
    kept.stop()  # once more changes nothing


def test_one_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    code = (
        "import signal, time, pathlib\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "pathlib.Path('ready').touch()\n"
        "time.sleep(600)\n"
    )
    kept = Kept(child(code, tmp_path), lambda *_: None)
    kept.look()
    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
    pid = kept.pid
    assert pid is not None
    kept.stop(patience=0.2)
    wait_gone(pid)


def test_it_ends_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time, os, pathlib\n"
        "from fedgen.flower.children import Child, Kept\n"
        "kept = Kept(Child('it', [sys.executable, '-c', 'import time; time.sleep(600)'], dict(os.environ),"
        " pathlib.Path('.')), lambda *_: None)\n"
        "kept.look()\n"
        "pathlib.Path('pid').write_text(str(kept.pid))\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) as supervisor:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.02)
        supervisor.send_signal(signal.SIGKILL)
    wait_gone(int((tmp_path / "pid").read_text()))


def test_one_with_workers_of_its_own_is_told_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    """As nginx: it ends its workers when it hears SIGTERM, and would leave them, and its port, behind otherwise."""
    inner = (
        "import pathlib, signal, sys, time\n"
        "def heard(*_):\n"
        "    pathlib.Path('heard').write_text('yes')\n"
        "    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, heard)\n"
        "pathlib.Path('ready').write_text('yes')\n"
        "time.sleep(600)\n"
    )
    code = (
        "import sys, time, os, pathlib, signal\n"
        "from fedgen.flower.children import Child, Kept\n"
        f"words = [sys.executable, '-c', {inner!r}]\n"
        "child = Child('it', words, dict(os.environ), pathlib.Path('.'), orphaned=signal.SIGTERM)\n"
        "kept = Kept(child, lambda *_: None)\n"
        "kept.look()\n"
        "pathlib.Path('pid').write_text(str(kept.pid))\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path) as supervisor:
        while not (tmp_path / "ready").exists():
            time.sleep(0.02)
        supervisor.send_signal(signal.SIGKILL)
    wait_gone(int((tmp_path / "pid").read_text()))
    assert (tmp_path / "heard").exists()
