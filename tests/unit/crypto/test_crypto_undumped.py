"""What a process keeps in memory is not written down when it dies, and no neighbour of its user reads it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
_NOBODY = """
import ctypes, os, sys
from fedgen.crypto.undumped import keep_memory
libc = ctypes.CDLL(None)
if os.geteuid() == 0:  # who reads everything all the same
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    libc.prctl(4, 1, 0, 0, 0)  # as in a program that its user started: another user's number took it away
"""
_HOLDER = """
if sys.argv[1] == "kept":
    assert keep_memory()
print(libc.prctl(3, 0, 0, 0, 0), os.getpid(), flush=True)  # PR_GET_DUMPABLE
sys.stdin.read()
"""
_NEIGHBOUR = """
try:
    open(f"/proc/{sys.argv[1]}/mem", "rb").close()
except PermissionError:
    print("refused")
else:
    print("read")
"""


def _run(code: str, argument: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _NOBODY + code, argument],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(("how", "dumpable", "said"), [("kept", "0", "refused"), ("left", "1", "read")])
def test_a_neighbour_of_the_same_user_reads_no_memory(how: str, dumpable: str, said: str) -> None:
    with _run(_HOLDER, how) as holder:
        assert holder.stdout is not None
        found, pid = holder.stdout.readline().split()
        heard = _run(_NEIGHBOUR, pid).communicate()[0].strip()
        holder.communicate("")
    assert found == dumpable
    if heard != said:  # a kernel that lets nobody read a neighbour's memory (Yama) refuses both
        assert how == "left"
        assert Path("/proc/sys/kernel/yama/ptrace_scope").read_text().strip() != "0"


def test_who_holds_keys_for_long_asks_for_it_before_it_reads_one() -> None:
    for module, function, before in (
        ("fedgen/api/site_daemon.py", "serve", "composed"),
        ("fedgen/api/coordinating.py", "coordinate", "_carry_out"),
    ):
        tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
        (found,) = [it for it in ast.walk(tree) if isinstance(it, ast.FunctionDef) and it.name == function]
        calls = {
            it.func.id: it.lineno
            for it in ast.walk(found)
            if isinstance(it, ast.Call) and isinstance(it.func, ast.Name)
        }
        assert calls["keep_memory"] < calls[before], module
