"""Switches off what Flower and Ray would send home; must run before either is imported."""

from __future__ import annotations

import os
from typing import Final

QUIET: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def quiet() -> None:
    """Set every switch that is not set already."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


quiet()
