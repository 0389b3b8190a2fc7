"""Programs and packages that some tests need, and that are not installed with fedgen itself.

nginx, docker-compose, systemd-analyze, ip, tc and nft come from the distribution; the others from the extra ``kit``.

What is installed may still not be allowed: a container often may make no network. That is a *right*, found out by
trying. A test can need one as it needs a tool; no installation mends its absence, so that ``--require-tools`` does not
ask for it, and it is said all the same.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from support import namespaces

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
    "ip": _program("ip"),
    "tc": _program("tc"),
    "nft": _program("nft"),
    "hadolint": _program("hadolint"),
    "helm": _package("helm_python"),
    "kubernetes-validate": _package("kubernetes_validate"),
}


RIGHTS: Final = {
    "network namespaces": namespaces.why_not,
    "slow network links": namespaces.why_not_slow,
}


def is_here(name: str) -> bool:
    """Return whether a tool or a right is here; any name but theirs is a slip of the test."""
    return RIGHTS[name]() is None if name in RIGHTS else TOOLS[name]()


def missing() -> list[str]:
    """Return which tools are not here."""
    return [name for name in TOOLS if not is_here(name)]


def not_allowed() -> dict[str, str]:
    """Return which rights this user does not have, and the first word that said so."""
    return {name: why for name, try_it in RIGHTS.items() if (why := try_it()) is not None}
