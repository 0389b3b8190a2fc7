"""``doctor``: what to paste into a bug report. It names no path of a person and no secret."""

from __future__ import annotations

import os
import platform
import shutil
import time
from pathlib import Path
from typing import Any

from fedgen.api.versions import versions


def doctor(folder: Path | None = None) -> dict[str, Any]:
    """Return versions, devices, entropy, clock and disk as JSON values."""
    import torch

    place = folder or Path.cwd()
    disk = shutil.disk_usage(place)
    return {
        "versions": versions(),
        "machine": {
            "system": platform.system(),
            "release": platform.release(),
            "architecture": platform.machine(),
            "cores": os.cpu_count(),
        },
        "torch": {"threads": torch.get_num_threads(), "cuda": torch.cuda.is_available()},
        "checks": {
            "entropy": _entropy(),
            "hybrid_encryption": _hybrid(),
            "clock_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "clock_plausible": time.time() > 1_760_000_000,  # noqa: PLR2004 - October 2025, before this release
            "disk_free_gib": round(disk.free / 2**30, 1),
            "folder_writable": os.access(place, os.W_OK),
        },
    }


def _entropy() -> bool:
    """Return whether the operating system hands out randomness without blocking."""
    return len(set(os.urandom(64))) > 1


def _hybrid() -> bool:
    """Return whether the hybrid post-quantum key encapsulation is there: seal and open one message."""
    from fedgen.crypto.keys import SealingKey, seal

    key = SealingKey.generate()
    return key.unseal(seal(key.public, b"x", info=b"doctor"), info=b"doctor") == b"x"
