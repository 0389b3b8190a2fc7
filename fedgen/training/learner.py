"""A model with its clipping engine, seen as two flat vectors: what touches rows, and what never does.

A site asks a learner for a clipped (and, under local trust, noised) gradient sum; a coordinator asks it to
take an optimizer step with what came out of the aggregate. Both use this one class, so that a step means
the same thing on either end.

Source: Abadi et al. (2016), Algorithm 1; the public terms of a GAN are post-processing (Dwork and Roth 2014,
Proposition 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fedgen._validate import non_negative, positive, probability
from fedgen.dpsgd.engine import make_engine
from fedgen.dpsgd.flat import FlatParameters
from fedgen.dpsgd.sampler import poisson_indices

if TYPE_CHECKING:
    from fedgen.dpsgd.noise import NoiseSource
    from fedgen.models.base import GenerativeModel


@dataclass(frozen=True, slots=True)
class Step:
    """What one Poisson-sampled step saw; these counts stay at the site."""

    rows: int
    dropped: int


def as_rows(codes: np.ndarray) -> Tensor:
    """Return codes as a tensor of a type torch can index with; uint8 stays as small as it is."""
    if codes.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(codes))
    return torch.from_numpy(codes.astype(np.int32))


class Learner:
    """A model, its engine and its flat parameters; one thread at a time.

    Guarantees:
        - :meth:`add_noised_sum_` adds ``Σ clip(∇loss_i) + N(0, noise_std²)`` and nothing else that depends
          on a row.
        - Public terms are computed with a fake batch of fixed size, so they do not depend on how many rows
          a step drew.

    Args:
        model: The generative model; its parameters become views of two flat vectors.
        clip: Bound on each row's gradient norm, L2.
        engine: ``fused`` or ``opacus``.
        fake_batch: Rows of the fixed-size fake batch of a GAN.
    """

    def __init__(self, model: GenerativeModel, *, clip: float, engine: str, fake_batch: int) -> None:
        positive(clip=clip)
        self.model = model
        self.clip = clip
        self.fake_batch = fake_batch
        self.private = FlatParameters(model.private)
        self.public = None if model.public is None else FlatParameters(model.public)
        self._engine = make_engine(engine, self.private, model.private, clip)

    @property
    def parameters(self) -> int:
        """Length of the private vector: what a round in gradient exchange carries."""
        return int(self.private.vector.numel())

    @property
    def all_parameters(self) -> int:
        """Length of the private and the public vector together: what a round in update exchange carries."""
        return self.parameters + (0 if self.public is None else int(self.public.vector.numel()))

    def add_noised_sum_(
        self,
        out: Tensor,
        codes: np.ndarray,
        *,
        rate: float,
        noise_std: float,
        noise: NoiseSource,
        generator: torch.Generator,
    ) -> Step:
        """Add one Poisson sample's clipped gradient sum, and its noise, to ``out``.

        Edge cases:
            ================  ==============================
            empty sample      noise only; the step still counts
            noise_std = 0     the clear sum (central trust)
            non-finite row    contributes zero, is counted
            ================  ==============================

        Args:
            out: Float32, shape ``(parameters,)``; added to in place.
            codes: Permitted rows, integer codes of shape ``(n, width)``.
            rate: Sampling probability of each row, in (0, 1].
            noise_std: Standard deviation of each coordinate of the noise, at least zero.
            noise: The site's own source; also decides which rows are drawn.
            generator: Randomness without a privacy role (reparametrisation).
        """
        probability(rate=rate)
        non_negative(noise_std=noise_std)
        drawn = poisson_indices(len(codes), rate, noise)
        if noise_std > 0:
            noise.add_normal_(out, noise_std)
        if len(drawn) == 0:
            return Step(rows=0, dropped=0)
        clipped = self._engine.clipped_sum_(
            out, lambda batch: self.model.private_loss(batch, generator), as_rows(codes[drawn])
        )
        return Step(rows=clipped.rows, dropped=clipped.dropped)

    def public_gradient(self, generator: torch.Generator) -> Tensor | None:
        """Return the data-independent part of the private gradient (a critic on fakes), or None."""
        loss = self.model.public_loss_of_private(self.fake_batch, generator)
        if loss is None:
            return None
        flat = torch.zeros_like(self.private.vector)
        self.private.add_gradient_(flat, loss)
        return flat

    def generator_gradient(self, generator: torch.Generator) -> Tensor | None:
        """Return the gradient of the public parameters (a generator against the critic), or None."""
        if self.public is None or self.model.public is None:
            return None
        loss = self.model.public_loss(self.fake_batch, generator)
        if loss is None:
            return None
        flat = torch.zeros_like(self.public.vector)
        self.public.add_gradient_(flat, loss)
        return flat

    def load_private_(self, values: Tensor) -> None:
        """Copy ``values``, shape ``(parameters,)``, into the private parameters."""
        self.private.load_(values)

    def load_all_(self, values: Tensor) -> None:
        """Copy ``values``, shape ``(all_parameters,)``: private first, then public.

        Raises:
            ValueError: Another shape, or a value that is not finite; nothing was changed.
        """
        if values.shape != (self.all_parameters,):
            raise ValueError(f"values must have shape ({self.all_parameters},), not {tuple(values.shape)}")
        if not bool(torch.isfinite(values).all()):
            raise ValueError("values must be finite")
        split = self.parameters
        self.private.load_(values[:split])
        if self.public is not None:
            self.public.load_(values[split:])

    def all_values(self) -> Tensor:
        """Return a copy of all parameters, private first, then public; shape ``(all_parameters,)``."""
        if self.public is None:
            return self.private.vector.detach().clone()
        return torch.cat((self.private.vector.detach(), self.public.vector.detach()))
