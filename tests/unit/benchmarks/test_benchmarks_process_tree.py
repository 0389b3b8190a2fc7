"""A command's whole tree is counted: children, detached daemons, and those nobody waits for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

pytestmark = pytest.mark.process

BURN = "import time\nwhile time.process_time() < 0.6: pass\n"
CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}], check=True)"
# A daemon in a session of its own, whose parent ends at once.
DAEMON = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {BURN!r}], start_new_session=True)"
# A child that the kernel reaps: no parent ever learns what it used.
IGNORED = (
    "import signal, subprocess, sys, time; signal.signal(signal.SIGCHLD, signal.SIG_IGN); "
    f"p = subprocess.Popen([sys.executable, '-c', {BURN!r}]); "
    "import os\nwhile os.path.exists(f'/proc/{p.pid}'): time.sleep(0.01)"
)
STAYS = "import subprocess, sys; print(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)"


@pytest.mark.parametrize("code", [BURN, CHILD, DAEMON])
def test_what_every_descendant_burns_is_counted(process_tree: ModuleType, code: str) -> None:
    usage = process_tree.measure([sys.executable, "-c", code])
    assert usage.exit_code == 0
    assert usage.cpu_s >= 0.6


def test_a_child_nobody_waits_for_is_counted_up_to_its_last_sample(process_tree: ModuleType) -> None:
    usage = process_tree.measure([sys.executable, "-c", IGNORED], interval_s=0.02)
    assert usage.exit_code == 0
    assert usage.cpu_s >= 0.3


def test_memory_of_the_tree_is_its_peak(process_tree: ModuleType) -> None:
    code = "x = bytearray(b'x' * 80_000_000); import time; time.sleep(0.5)"
    usage = process_tree.measure([sys.executable, "-c", code], interval_s=0.05)
    assert usage.peak_rss_mb > 76
    assert usage.peak_pss_mb > 76
    assert usage.processes >= 1


def test_a_daemon_that_stays_is_ended_and_this_process_keeps_its_other_children(
    process_tree: ModuleType,
) -> None:
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"]) as own:
        usage = process_tree.measure([sys.executable, "-c", STAYS], interval_s=0.05, grace_s=0.2)
        assert not Path("/proc", usage.stdout.strip()).exists()
        assert own.wait() == 7


def test_a_command_that_takes_too_long_is_killed(process_tree: ModuleType) -> None:
    usage = process_tree.measure(["sleep", "600"], timeout_s=0.1)
    assert usage.exit_code == -9


def test_the_document_is_the_last_line(process_tree: ModuleType) -> None:
    usage, document = process_tree.run_json([sys.executable, "-c", "print('noise'); print('{\"a\": 1}')"])
    assert document == {"a": 1}
    assert set(usage.row()) == {"wall_s", "cpu_s", "peak_rss_mb", "peak_pss_mb", "processes"}


def test_a_command_that_fails_says_why(process_tree: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="the reason"):
        process_tree.run_json([sys.executable, "-c", "import sys; sys.exit('the reason')"])
