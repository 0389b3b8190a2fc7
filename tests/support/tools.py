"""Programs and packages that some tests need, and that are not installed with fedgen itself.

nginx, docker-compose and systemd-analyze come from the distribution; the others from the extra ``kit``.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable


def program(name: str) -> str | None:
    """Return the path of a program; also where only root looks, and beside this Python."""
    places = [os.environ.get("PATH", ""), "/usr/sbin", "/sbin", str(Path(sys.executable).parent)]
    return shutil.which(name, path=os.pathsep.join(places))


def _program(name: str) -> Callable[[], bool]:
    return lambda: program(name) is not None


def _package(name: str) -> Callable[[], bool]:
    return lambda: importlib.util.find_spec(name) is not None


TOOLS: Final = {
    "nginx": _program("nginx"),
    "docker-compose": _program("docker-compose"),
    "systemd-analyze": _program("systemd-analyze"),
    "hadolint": _program("hadolint"),
    "helm": _package("helm_python"),
    "kubernetes-validate": _package("kubernetes_validate"),
}


def is_here(name: str) -> bool:
    """Return whether a tool of :data:`TOOLS` is here; any other name is a slip of the test."""
    return TOOLS[name]()


def missing() -> list[str]:
    """Return what is not here."""
    return [name for name in TOOLS if not is_here(name)]
