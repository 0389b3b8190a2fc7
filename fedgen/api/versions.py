"""Which software made a run; read from metadata, so nothing is imported."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from fedgen import __version__

PACKAGES: Final = (
    "flwr",
    "opacus",
    "torch",
    "dp-accounting",
    "cryptography",
    "numpy",
    "pyarrow",
    "pydantic",
    "sqlalchemy",
    "safetensors",
    "scikit-learn",
    "statsmodels",
    "ray",
)


def versions() -> dict[str, str]:
    """Return package to version for everything that shapes a result; absent extras are left out."""
    found = {"fedgen": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
