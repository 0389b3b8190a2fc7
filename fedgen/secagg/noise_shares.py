"""How much noise each site adds, so that enough is left when sites drop out or collude.

Over-provisioning: with ``n`` sites, ``d`` of whom may drop out and ``c`` of whom may collude, each adds Skellam noise
of variance ``(σ Δ)² / (n - d - c)``. Shares add up exactly, so the least the server ever faces is the noise that is
charged. When fewer drop out there is more than needed: that is the cost, stated by :meth:`NoiseShares.excess`. The
reasons for not taking the excess off again are in docs/adr/0012-secagg.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fedgen._validate import positive
from fedgen.errors import Code, ConfigError, Refused
from fedgen.secagg.skellam import MOST, add_skellam

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fedgen.crypto.stream import KeyStream

SERVER: Final = 0  # nobody colludes with it


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseShares:
    """The noise of one aggregate, in shares.

    Guarantees:
        - Against the server and up to ``colluders`` sites, a sum of at least ``least`` sites carries Skellam noise of
          variance ``(multiplier * sensitivity)²`` or more, from sites that told nobody.
        - A sum of fewer is refused.

    Args:
        sites: Sites in the roster.
        dropouts: Of these, how many may be missing from a sum.
        colluders: Of these, how many may subtract their own noise for the server.
        multiplier: σ, the standard deviation charged over the L2 sensitivity.
        sensitivity: The L2 sensitivity Δ on the grid, from :class:`fedgen.secagg.fixed_point.Grid`.

    Raises:
        ConfigError: Nobody is left whose noise counts, or the variance is beyond the sampler.
        ValueError: A number is not positive, or not finite.

    Source: Skellam as integer noise: Agarwal, Kairouz and Liu, "The Skellam mechanism for differentially private
    federated learning" (2021). Unit, relation and rounding: those of the grid.
    """

    sites: int
    dropouts: int
    colluders: int
    multiplier: float
    sensitivity: float

    def __post_init__(self) -> None:
        """Refuse shares that would not add up to the noise that is charged."""
        positive(multiplier=self.multiplier, sensitivity=self.sensitivity)
        if self.dropouts < 0 or self.colluders < 0 or self.sites - self.dropouts - self.colluders < 1:
            raise ConfigError(
                f"no noise is left of {self.sites} sites if {self.dropouts} drop out and {self.colluders} collude",
                key="secagg.colluders",
                hint="tolerate fewer, or enrol more sites",
            )
        if self.variance * self.sites > MOST:
            raise ConfigError(
                "the noise is beyond the grid",
                key="privacy.noise_multiplier",
                hint="lower it",
            )

    @property
    def needed(self) -> float:
        """The variance that is charged, on the grid."""
        return (self.multiplier * self.sensitivity) ** 2

    @property
    def variance(self) -> float:
        """The variance of one site's share, on the grid."""
        return self.needed / (self.sites - self.dropouts - self.colluders)

    @property
    def least(self) -> int:
        """The fewest shares with which a sum may be opened."""
        return self.sites - self.dropouts

    def hidden(self, survivors: int, colluders: int = SERVER) -> float:
        """Return the variance that is left for an observer who knows ``colluders`` shares out of ``survivors``.

        Raises:
            Refused: Fewer survivors than assumed (code ``cohort-too-small``).
            ValueError: More colluders than survivors, or fewer than none.
        """
        self.check(survivors)
        if not 0 <= colluders <= survivors:
            raise ValueError(f"colluders must be from 0 to {survivors}, not {colluders}")
        return (survivors - colluders) * self.variance

    def effective_multiplier(self, colluders: int = SERVER) -> float:
        """Return σ against the server with so many sites' help, at the fewest survivors; zero when nobody is left.

        With ``colluders = 1`` it is also σ against one curious site that sees the sum.
        """
        left = max(0, self.least - colluders)
        return math.sqrt(left * self.variance) / self.sensitivity

    def excess(self, survivors: int) -> float:
        """Return the variance of the sum over what is charged: what over-provisioning costs; 1 is none."""
        self.check(survivors)
        return survivors * self.variance / self.needed

    def check(self, survivors: int) -> None:
        """Return if a sum of so many sites carries the noise that is charged.

        Raises:
            Refused: It does not (code ``cohort-too-small``): it is never opened.
        """
        if survivors < self.least:
            raise Refused(
                f"{survivors} shares of noise are fewer than the {self.least} the study assumes",
                code=Code.COHORT_TOO_SMALL,
                key="secagg.dropouts",
            )

    def add_share(self, values: NDArray[np.int64], stream: KeyStream) -> None:
        """Add one site's share to its values on the grid, drawn afresh."""
        add_skellam(values, self.variance, stream)
