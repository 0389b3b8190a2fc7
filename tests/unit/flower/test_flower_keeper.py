"""The keeper of the relay's SuperNode: starts it again, ends with it, and loads next to nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedgen.flower.children import Child
from fedgen.flower.keeper import MODULE, keep

pytestmark = pytest.mark.process
ROOT = Path(__file__).resolve().parents[3]
COUNTED = "import pathlib, os; pathlib.Path('starts').open('a').write(f'{os.getpid()}\\n')"


def started(folder: Path, code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", MODULE, "it", sys.executable, "-c", code],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


def starts(folder: Path, number: int) -> list[int]:
    """Wait until the program was started so often; return the process of each start."""
    deadline = time.monotonic() + 30
    path = folder / "starts"
    while not path.exists() or path.read_text().count("\n") < number:
        assert time.monotonic() < deadline, "it was not started again"
        time.sleep(0.02)
    return [int(line) for line in path.read_text().split()]


def gone(pid: int) -> bool:
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True


def test_a_program_that_ends_is_started_again_and_every_end_is_said(tmp_path: Path) -> None:
    with started(tmp_path, f"{COUNTED}; raise SystemExit(1)") as keeper:
        starts(tmp_path, 3)
        keeper.terminate()
        assert keeper.wait(30) == 0
        assert keeper.stderr is not None
        lines = keeper.stderr.read().splitlines()
    assert lines[:4] == [
        "fedgen: it started",
        "fedgen: it ended; starts again in 0.5 s",
        "fedgen: it started",
        "fedgen: it ended; starts again in 1 s",
    ]
    assert lines[-1] == "fedgen: it stopped"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_ends_its_program_and_itself(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path, f"{COUNTED}; import time; time.sleep(600)") as keeper:
        (program,) = starts(tmp_path, 1)
        keeper.send_signal(number)
        assert keeper.wait(30) == 0
    assert gone(program)


def test_killed_it_takes_its_program_with_it(tmp_path: Path) -> None:
    with started(tmp_path, f"{COUNTED}; import time; time.sleep(600)") as keeper:
        (program,) = starts(tmp_path, 1)
        keeper.kill()
    deadline = time.monotonic() + 20
    while not gone(program):
        assert time.monotonic() < deadline, "the program outlived its keeper"
        time.sleep(0.02)


def test_it_loads_nothing_but_the_standard_library_and_itself() -> None:
    code = (
        f"import sys; before = {{*sys.modules}}; import {MODULE}\n"
        "new = {name.partition('.')[0] for name in {*sys.modules} - before}\n"
        "print(*sorted(new - {*sys.stdlib_module_names}))\n"
        f"print(*sorted(name for name in sys.modules if name.startswith('fedgen')))\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.splitlines()
    assert said == [
        "fedgen",
        "fedgen fedgen._signals fedgen.flower fedgen.flower.children fedgen.flower.keeper",
    ]


def test_the_signals_of_the_one_who_keeps_are_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    said: list[str] = []

    def hear(line: str) -> None:
        said.append(line)
        if line == "it started":
            os.kill(os.getpid(), signal.SIGTERM)

    keep(
        Child("it", [sys.executable, "-c", "import time; time.sleep(600)"], dict(os.environ), tmp_path), hear
    )
    assert said == ["it started", "it stopped"]
    assert signal.getsignal(signal.SIGTERM) == before
