"""A model with its clipping engine, seen as two flat vectors: what touches rows, and what never does.

A site asks a learner for a clipped (and, under local trust, noised) gradient sum; a coordinator asks it to
take an optimizer step with what came out of the aggregate. Both use this one class, so that a step means
the same thing on either end. What it did with rows it counts itself (:mod:`fedgen.training.tally`).

Source: Abadi et al. (2016), Algorithm 1; the public terms of a GAN are post-processing (Dwork and Roth 2014,
Proposition 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor

from fedgen._validate import non_negative, positive, probability
from fedgen.dpsgd.engine import make_engine
from fedgen.dpsgd.flat import FlatParameters
from fedgen.dpsgd.persons import bounded_rows
from fedgen.dpsgd.sampler import poisson_indices
from fedgen.privacy.units import Unit
from fedgen.training.change import bounded_
from fedgen.training.tally import Tally

if TYPE_CHECKING:
    from fedgen.dpsgd.noise import NoiseSource
    from fedgen.dpsgd.persons import PersonIndex
    from fedgen.models.base import GenerativeModel
    from fedgen.privacy.plan import Evidence

_ROW_UNBOUNDED: Final = 1e12  # the widest bound an engine keeps: no finite gradient worth a step reaches it


@dataclass(frozen=True, slots=True, eq=False)
class Persons:
    """Whose the rows are, where persons are protected.

    Attributes:
        index: Which rows are whose.
        rows_each: The most rows of one person in a step; public, from the study.
    """

    index: PersonIndex
    rows_each: int


@dataclass(frozen=True, slots=True)
class Step:
    """What one Poisson-sampled step saw; these counts stay at the site.

    Attributes:
        rows: Rows in the sample.
        dropped: How many of them had no finite gradient and counted as zero.
    """

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
          on a row; a record, or all rows of a person together, move the sum by at most ``clip``.
        - :meth:`noised_change` returns a vector that a whole site moves by at most ``clip``, noise aside.
        - Public terms are computed with a fake batch of fixed size, so they do not depend on how many rows
          a step drew.
        - :meth:`evidence` says what was done since weights were last loaded.

    Args:
        model: The generative model; its parameters become views of two flat vectors.
        clip: Bound C on what one unit adds to a sum, L2.
        engine: ``fused`` or ``opacus``.
        fake_batch: Rows of the fixed-size fake batch of a GAN.
        unit: What is bounded as a whole. With ``site`` rows are not bounded one by one.
    """

    def __init__(
        self,
        model: GenerativeModel,
        *,
        clip: float,
        engine: str,
        fake_batch: int,
        unit: Unit = Unit.RECORD,
    ) -> None:
        positive(clip=clip)
        self.model = model
        self.clip = clip
        self.fake_batch = fake_batch
        self.unit = unit
        self.private = FlatParameters(model.private)
        self.public = None if model.public is None else FlatParameters(model.public)
        row_bound = _ROW_UNBOUNDED if unit is Unit.SITE else clip
        self._engine = make_engine(engine, self.private, model.private, row_bound)
        self._tally = Tally(unit)

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
        persons: Persons | None = None,
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
            rate: Sampling probability of each row, or of each person, in (0, 1].
            noise_std: Standard deviation of each coordinate of the noise, at least zero.
            noise: The site's own source; also decides which rows are drawn.
            generator: Randomness without a privacy role (reparametrisation).
            persons: Whose each of ``codes`` is, where the unit is the person, and only there.

        Raises:
            ValueError: ``persons`` does not fit the unit or the rows, or the unit is ``site``.
        """
        probability(rate=rate)
        non_negative(noise_std=noise_std)
        if self.unit is Unit.SITE or (persons is not None) is not (self.unit is Unit.PERSON):
            raise ValueError(f"a sum over rows that does not bound one {self.unit.value}")
        if persons is None:
            rows, bounds = poisson_indices(len(codes), rate, noise), None
        else:
            rows, bounds = self._of_persons(persons, len(codes), rate, noise)
        if noise_std > 0:
            noise.add_normal_(out, noise_std)
        step = self._add_rows_(out, codes[rows], bounds, generator)
        self._tally.add(rate=rate, clip=self._engine.clip, noise_std=noise_std, private=noise.private)
        return step

    def add_clear_sum_(
        self, out: Tensor, codes: np.ndarray, *, rate: float, noise: NoiseSource, generator: torch.Generator
    ) -> Step:
        """Add one Poisson sample's plain gradient sum to ``out``; only where the whole site is the unit.

        No row is bounded and no noise is added: what leaves is the site's whole change, which
        :meth:`noised_change` bounds. Rows without a finite gradient contribute zero and are counted.

        Args:
            out: See :meth:`add_noised_sum_`.
            codes: See :meth:`add_noised_sum_`.
            rate: Sampling probability of each row, in (0, 1]; it has no privacy role here.
            noise: Decides which rows are drawn.
            generator: See :meth:`add_noised_sum_`.

        Raises:
            ValueError: The unit is not ``site``.
        """
        probability(rate=rate)
        if self.unit is not Unit.SITE:
            raise ValueError(f"a clear sum does not bound one {self.unit.value}")
        return self._add_rows_(out, codes[poisson_indices(len(codes), rate, noise)], None, generator)

    def noised_change(self, start: Tensor, *, noise_std: float, noise: NoiseSource) -> Tensor:
        """Return how far all parameters moved from ``start``, shortened to at most ``clip``, plus noise.

        Guarantees:
            - Without the noise its exact L2 norm is at most ``clip``, private and public parameters together.

        Args:
            start: The weights the site began from, shape ``(all_parameters,)``.
            noise_std: Standard deviation of each coordinate of the noise; zero for none (central trust).
            noise: The site's own source.

        Raises:
            IntegrityError: ``not-finite``: the change is not, and nothing can be made of it.
            ValueError: The unit is not ``site``.
        """
        non_negative(noise_std=noise_std)
        if self.unit is not Unit.SITE:
            raise ValueError(f"the change of a site does not bound one {self.unit.value}")
        change = bounded_(self.all_values().sub_(start), self.clip)
        if noise_std > 0:
            noise.add_normal_(change, noise_std)
        self._tally.add(rate=1.0, clip=self.clip, noise_std=noise_std, private=noise.private)
        return change

    def evidence(self) -> Evidence:
        """Return what this learner did with rows since weights were last loaded, by its own count."""
        return self._tally.evidence()

    def _of_persons(
        self, persons: Persons, rows: int, rate: float, noise: NoiseSource
    ) -> tuple[np.ndarray, Tensor]:
        """Return the rows of a Poisson sample of persons, and the bound of each row."""
        if persons.index.rows != rows:
            raise ValueError(f"{rows} rows, and an index of {persons.index.rows}")
        drawn = poisson_indices(persons.index.persons, rate, noise)
        used = bounded_rows(persons.index, drawn, k=persons.rows_each, clip=self._engine.clip, stream=noise)
        return used.rows, torch.from_numpy(used.bounds)

    def _add_rows_(
        self, out: Tensor, codes: np.ndarray, bounds: Tensor | None, generator: torch.Generator
    ) -> Step:
        """Add the clipped gradients of these rows to ``out``."""
        if len(codes) == 0:
            return Step(rows=0, dropped=0)
        clipped = self._engine.clipped_sum_(
            out, lambda batch: self.model.private_loss(batch, generator), as_rows(codes), bounds=bounds
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
        """Copy ``values``, shape ``(parameters,)``, into the private parameters; counting begins anew."""
        self.private.load_(values)
        self._tally.reset()

    def load_all_(self, values: Tensor) -> None:
        """Copy ``values``, shape ``(all_parameters,)``: private first, then public; counting begins anew.

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
        self._tally.reset()

    def all_values(self) -> Tensor:
        """Return a copy of all parameters, private first, then public; shape ``(all_parameters,)``."""
        if self.public is None:
            return self.private.vector.detach().clone()
        return torch.cat((self.private.vector.detach(), self.public.vector.detach()))
