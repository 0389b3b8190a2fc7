"""The loss on held-out rows after a round: a simulation's own yardstick, outside every privacy claim."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from fedgen.training.learner import as_rows

if TYPE_CHECKING:
    from fedgen.api.prepare import Prepared
    from fedgen.training.learner import Learner

_AT_MOST: Final = 1024
_POINTS: Final = 20
_SEED: Final = 0


class HeldOut:
    """Evaluates the coordinator's learner on rows no site trains on.

    Guarantees:
        - Rows of a site are never touched.
        - The same latent noise is used each time, so that two rounds compare.

    Args:
        prepared: Study and rows.
        learner: The coordinator's learner; its weights at the time of the call are judged.
    """

    def __init__(self, prepared: Prepared, learner: Learner) -> None:
        self._learner = learner
        self._rows = as_rows(prepared.table.codes[prepared.holdout[:_AT_MOST]])
        self._rounds = prepared.study.training.rounds
        every = prepared.study.simulation.evaluate_every
        self._every = every if every is not None else max(1, self._rounds // _POINTS)
        # A critic's loss says nothing about the data; only a likelihood is worth a curve.
        self._useful = not prepared.study.model.is_gan and len(self._rows) > 0

    def loss(self, number: int) -> float | None:
        """Return the mean negative bound in nats after round ``number``, or None when it is not due."""
        if not self._useful or self._every == 0:
            return None
        if number % self._every and number not in {1, self._rounds}:
            return None
        generator = torch.Generator().manual_seed(_SEED)
        with torch.no_grad():
            return float(self._learner.model.private_loss(self._rows, generator).mean())
