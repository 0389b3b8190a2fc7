"""The bound on a whole site: however far its weights moved, they move the sum by at most C.

Source: McMahan et al., "Learning differentially private recurrent language models" (2018), flat clipping of a
participant's update.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import torch

from fedgen._validate import positive
from fedgen.errors import Code, IntegrityError

if TYPE_CHECKING:
    from torch import Tensor

_ROOM: Final = 1.0 - 2.0**-22  # four times what rounding each value to float32 can add to the norm


def bounded_(change: Tensor, clip: float) -> Tensor:
    """Shorten ``change`` in place to a norm of at most ``clip``, and return it.

    Guarantees:
        - The exact norm of the float32 values that are returned is at most ``clip``.
        - The direction is kept; what is shorter than ``clip`` by more than 2^-22 of it is not touched.

    Args:
        change: Float32, one-dimensional: private and public parameters together.
        clip: The bound C, positive.

    Raises:
        IntegrityError: ``not-finite``: a value is a NaN or an infinity; ``change`` was not touched.
        ValueError: ``clip`` is not positive.
    """
    positive(clip=clip)
    norm = float(torch.linalg.vector_norm(change, dtype=torch.float64))  # squares of float32 fit into float64
    if not math.isfinite(norm):
        raise IntegrityError("the site's update is not finite", code=Code.NOT_FINITE)
    most = clip * _ROOM
    if norm > most:
        change.copy_(change.double().mul_(most / norm))
    return change
