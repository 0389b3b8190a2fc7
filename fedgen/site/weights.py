"""The weights of a request, before anything is done with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from fedgen.crypto.digest import sha256_hex
from fedgen.errors import Code, IntegrityError

if TYPE_CHECKING:
    from fedgen.messages import Train, Turn


def read_weights(asked: Train | Turn, body: memoryview) -> torch.Tensor:
    """Return the weights of a request, checked against its digest and length.

    Raises:
        IntegrityError: ``wrong-shape``, ``malformed`` or ``not-finite``.
    """
    if len(body) != 4 * asked.parameters:
        raise IntegrityError("weights of another length", code=Code.WRONG_SHAPE)
    if sha256_hex(body) != asked.digest:
        raise IntegrityError("weights that do not match their digest", code=Code.MALFORMED)
    values = np.frombuffer(body, dtype="<f4")
    if not np.isfinite(values).all():
        raise IntegrityError("weights that are not finite", code=Code.NOT_FINITE)
    return torch.from_numpy(values.astype(np.float32))
