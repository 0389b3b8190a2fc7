"""The supervisor of one program: as small as it can be, for it runs on edge devices as long as they do.

``python -m fedgen.flower.keeper NAME PROGRAM [ARGUMENT...]``

It loads Python's own library, :mod:`fedgen.flower.children` and a few lines below it, and nothing else of fedgen or
Flower: 13 MB, where the command line that prepared everything takes 59.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fedgen._signals import heard
from fedgen.flower.children import Child, Kept

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MODULE: Final = "fedgen.flower.keeper"
_LOOK_S: Final = 0.2


def keep(child: Child, said: Callable[[str], None]) -> None:
    """Keep a program running until SIGTERM or SIGINT; then end it, and return.

    Guarantees:
        - A program that ends is started again, after pauses that double up to half a minute.
        - If this process is killed, the program is too.

    Args:
        child: The program.
        said: Hears one line for each start and end.
    """
    told = threading.Event()
    kept = Kept(child, lambda what, whom: said(_line(what, whom, kept)))
    with heard(told.set):
        try:
            while not told.is_set():
                kept.look()
                told.wait(_LOOK_S)
        finally:
            kept.stop()
    said(f"{child.name} stopped")


def _line(what: str, whom: str, kept: Kept) -> str:
    return f"{whom} {what}" + (f"; starts again in {kept.pause:g} s" if what == "ended" else "")


def main(words: Sequence[str] | None = None) -> None:
    """Keep a program running, in the environment and the folder that this process was given."""
    name, *program = sys.argv[1:] if words is None else words
    child = Child(name, program, dict(os.environ), Path.cwd())
    keep(child, lambda line: print(f"fedgen: {line}", file=sys.stderr, flush=True))  # noqa: T201 - its whole voice


if __name__ == "__main__":
    main()
