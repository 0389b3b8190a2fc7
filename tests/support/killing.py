"""Kill a process at each of its durable steps in turn, and let a second one go on.

Run as ``python killing.py TEMPLATE WORK JSON``: JSON says what to do (``{"verb": "erase" or "sweep", …}``). For each
step a copy of TEMPLATE is made, a forked child does the work and kills itself with SIGKILL just before or after that
step, and a second child does it again, undisturbed. What each copy then holds is for the caller to judge.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from fedgen.api.erase import erase
from fedgen.api.retention import sweep
from fedgen.policy.store.database import Database

MOST = 400


def work(place: Path, what: dict[str, Any]) -> None:
    """Do what was asked for, in one copy."""
    run = [place / "run"]
    if what["verb"] == "erase":
        erase(what["subject"], place / "consent.db", run)
    else:
        sweep(place / "consent.db", run, at=datetime.fromisoformat(what["at"]))


def die_at(step: int) -> None:
    """Count every durable step of this process, and die at one of them."""
    left = [step]

    def tick() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(call: Any) -> Any:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            tick()
            result = call(*arguments, **named)
            tick()
            return result

        return wrapped

    for name in ("fsync", "replace", "unlink", "pwrite"):
        setattr(os, name, counted(getattr(os, name)))
    writing = Database.writing

    def watched(self: Database) -> Any:
        tick()
        return writing(self)

    Database.writing = watched  # type: ignore[method-assign]


def child(place: Path, what: dict[str, Any], step: int | None) -> int:
    """Fork, work, and return how the child ended: a negative number is a signal."""
    pid = os.fork()
    if pid == 0:
        try:
            if step is not None:
                die_at(step)
            work(place, what)
        except BaseException as error:  # noqa: BLE001 - a child of a test says what it can and is gone
            sys.stderr.write(f"{step}: {error!r}\n")
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    """Try every step until a child is no longer reached by its end."""
    template, place, what = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    ends = []
    shutil.copytree(template, place / "warm")
    work(place / "warm", what)  # what the accountant works out here, every child inherits
    shutil.rmtree(place / "warm")
    for step in range(1, MOST):
        copy = place / f"{step:03d}"
        shutil.copytree(template, copy)
        first = child(copy, what, step)
        ends.append([first, child(copy, what, None)])
        if first == 0:
            break
    sys.stdout.write(json.dumps(ends))


if __name__ == "__main__":
    main()
