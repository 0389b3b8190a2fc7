"""A process that holds keys and rows leaves no memory image: not when it dies, and not for its neighbours."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

_SET_DUMPABLE: Final = 4  # PR_SET_DUMPABLE of prctl(2)


def keep_memory() -> bool:
    """Have the kernel write no core file of this process, and let no other process of its user read its memory.

    Guarantees:
        - Programs that are started from here are as they always were: the kernel sets it anew for each.

    Edge cases:
        - Root reads everything all the same, and so does a hypervisor; what is swapped out is on the disk.
        - Elsewhere than on Linux nothing is done.

    Returns:
        Whether the kernel took it.

    Source: prctl(2), PR_SET_DUMPABLE.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        return bool(ctypes.CDLL(None, use_errno=True).prctl(_SET_DUMPABLE, 0, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False
