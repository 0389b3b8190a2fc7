"""Floats to integers on a grid: clip, scale, round at random, with the sensitivity that is accounted and room to spare.

Noise comes after rounding, so the sensitivity is that of the rounded vector, which is larger than the clip. Two cases:

- *whole*: the vector is one unit's whole contribution (``unit: site``). It is rounded again until its norm is within
  the bound of Kairouz, Liu and Steinke; the bound is the sensitivity.
- *part*: the vector is a sum to which one unit contributes at most the clip (records, persons). Nobody can look at
  that part alone, so nothing is conditioned on: with the same random thresholds, two neighbouring vectors round to
  points at most ``scale * clip + sqrt(d)`` apart, whatever the thresholds. Projection onto the bound parts nothing.

No rotation: in a ring of 32 bits every coordinate has room for its worst case, so there is nothing to flatten.

Source: Kairouz, Liu and Steinke, "The distributed discrete Gaussian mechanism for federated learning with secure
aggregation" (2021), section 4.1, for conditional rounding and its norm bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from fedgen._validate import positive
from fedgen.errors import Code, ConfigError, IntegrityError
from fedgen.privacy.events import PoissonSkellam
from fedgen.privacy.integers import after_rounding
from fedgen.secagg.noise_shares import NoiseShares

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from fedgen.crypto.stream import KeyStream

    Ring = NDArray[np.unsignedinteger[Any]]

BETA: Final = math.exp(-0.5)  # a rounding is repeated with a chance below this
WRAP_BITS: Final = 64  # chance below 2^-64 that any item of a sum wraps
COARSEST_BITS: Final = 16  # the clip is at least 2^16 steps of the grid
FINEST_BITS: Final = 26  # squared norms stay exact in float64
INFLATION: Final = 1.0 / 512.0  # what rounding may add to the sensitivity where there is room
TIGHT: Final = 1.0 / 64.0  # what it may add rather than that every message doubles
_SLACK: Final = 1.0 - 2.0**-30  # so that float rounding never puts a clipped norm above the clip
_BLOCK: Final = 2**15
_WORD: Final = 2.0**-32


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """How one study's vectors become integers.

    Guarantees:
        - :meth:`encode` changes by at most :attr:`l2` in L2 norm, and :attr:`l1` in L1 norm, when one unit is added
          to or taken from the rows, for the same random thresholds.
        - No coordinate of an encoded vector is larger than :attr:`reach`.

    Args:
        dimension: Items of a vector.
        clip: The most one unit contributes, L2.
        bound: The most a whole vector may have, L2; equal to ``clip`` if a vector is one unit's.
        bits: The clip is ``2^bits`` steps of the grid.
        whole: Whether a vector is one unit's whole contribution.

    Raises:
        ValueError: A number is not positive or finite, or ``bound`` is less than ``clip``.
    """

    dimension: int
    clip: float
    bound: float
    bits: int
    whole: bool

    def __post_init__(self) -> None:
        """Check the numbers."""
        positive(dimension=self.dimension, clip=self.clip, bound=self.bound)
        if self.bound < self.clip or (self.whole and self.bound != self.clip):
            raise ValueError("bound must be at least the clip, and equal to it for whole contributions")
        if not 0 <= self.bits <= FINEST_BITS:
            raise ValueError(f"bits must be from 0 to {FINEST_BITS}, not {self.bits}")

    @property
    def scale(self) -> float:
        """Steps of the grid for one unit of the vector."""
        return float(2**self.bits) / self.clip

    @property
    def l2(self) -> float:
        """The L2 sensitivity in steps of the grid."""
        clipped, root = float(2**self.bits), math.sqrt(self.dimension)
        if not self.whole:
            return after_rounding(clipped, self.dimension)[0]
        likely = (
            clipped**2 + self.dimension / 4.0 + math.sqrt(2.0 * math.log(1.0 / BETA)) * (clipped + root / 2.0)
        )
        return math.sqrt(min((clipped + root) ** 2, likely))

    @property
    def l1(self) -> float:
        """The L1 sensitivity in steps of the grid: an integer vector's is at most its squared L2 norm."""
        return self.l2 * min(math.sqrt(self.dimension), self.l2)

    @property
    def inflation(self) -> float:
        """What rounding adds to the sensitivity, over the clip."""
        return self.l2 / 2.0**self.bits - 1.0

    @property
    def reach(self) -> int:
        """The largest coordinate an encoded vector can have, without noise."""
        steps = self.bound * self.scale
        return math.floor(min(self.l2, steps + 1.0) if self.whole else steps + 1.0)

    def encode(self, update: NDArray[np.float32], stream: KeyStream) -> NDArray[np.int64]:
        """Clip, scale and round a vector; the noise is still missing.

        Guarantees:
            - Without clipping, each item's expectation is the item times :attr:`scale`, within 2^-32 of a step, if the
              rounding was not repeated.

        Args:
            update: Shape ``(dimension,)``, float32.
            stream: The source of the random thresholds; the operating system's for what leaves a site.

        Raises:
            IntegrityError: The vector has another shape (``wrong-shape``) or is not finite (``not-finite``).
        """
        if update.shape != (self.dimension,):
            raise IntegrityError("the update has another length than the study", code=Code.WRONG_SHAPE)
        norm = math.sqrt(sum(float(np.vdot(part, part)) for part in _blocks(update)))
        if not math.isfinite(norm):
            raise IntegrityError("the update is not finite", code=Code.NOT_FINITE)
        shrink = min(1.0, self.bound / norm) * _SLACK if norm else 1.0
        out = np.empty(self.dimension, np.int64)
        while True:
            squared = self._round(update, shrink * self.scale, out, stream)
            if not self.whole or squared <= self.l2**2:
                return out

    def decode(self, values: Ring) -> NDArray[np.float64]:
        """Return a sum in the ring as floats in the units of the update."""
        signed: NDArray[np.float64] = values.view(f"<i{values.itemsize}").astype(np.float64)
        signed /= self.scale
        return signed

    def _round(
        self, update: NDArray[np.float32], factor: float, out: NDArray[np.int64], stream: KeyStream
    ) -> float:
        """Write one rounding of ``factor * update`` and return its squared norm."""
        squared = 0.0
        words = np.empty(min(_BLOCK, len(update)), np.uint32)
        for start in range(0, len(update), _BLOCK):
            exact = update[start : start + _BLOCK].astype(np.float64)
            exact *= factor
            drawn = words[: len(exact)]
            stream.fill(drawn.data)
            exact += drawn * _WORD  # the floor of x + U is x rounded up with the chance of its fraction
            np.floor(exact, out=exact)
            squared += float(np.dot(exact, exact))
            out[start : start + len(exact)] = exact
        return squared


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPoint:
    """A grid, the noise on it and the ring they fit in: what a study resolves to.

    Attributes:
        grid: Floats to integers.
        noise: Each site's share.
        ring: 32 or 64 bits.
    """

    grid: Grid
    noise: NoiseShares
    ring: int

    @property
    def tail(self) -> int:
        """The noise of all sites together that no item of a sum exceeds, but with a chance below 2^-64.

        Source: Bernstein's inequality; a Skellam variable's cumulant ``v (cosh t - 1)`` is at most
        ``v t² / (2 (1 - t / 3))``.
        """
        surprise = math.log(2.0 * self.grid.dimension) + WRAP_BITS * math.log(2.0)
        variance = self.noise.variance * self.noise.sites
        return math.ceil(surprise / 3.0 + math.sqrt((surprise / 3.0) ** 2 + 2.0 * variance * surprise))

    @property
    def headroom_bits(self) -> float:
        """How many bits of the ring stay free in the worst case; negative if the sum may wrap."""
        worst = self.noise.sites * self.grid.reach + self.tail
        return self.ring - 1 - math.log2(worst)

    def event(self, q: float, *, colluders: int | None = None) -> PoissonSkellam:
        """Return what one aggregate costs against the server with so many sites' help, or against so many sites alone.

        The variance is what is left at the fewest survivors, so it holds for every sum that is ever opened.

        Args:
            q: Sampling rate of a unit; 1 where every unit contributes.
            colluders: As many as the study assumes, unless said: 0 for the server alone, 1 for one curious site.

        Raises:
            ValueError: No noise is left, or ``q`` is out of range.
        """
        known = self.noise.colluders if colluders is None else colluders
        left = self.noise.hidden(self.noise.least, known)
        return PoissonSkellam(q, left, self.grid.l2, self.grid.l1)

    def share(self, update: NDArray[np.float32], stream: KeyStream) -> Ring:
        """Return what a site gives to the sum: its update on the grid with its share of the noise, in the ring.

        Raises:
            IntegrityError: The vector has another shape or is not finite.
        """
        values = self.grid.encode(update, stream)
        self.noise.add_share(values, stream)
        return values.astype(f"<u{self.ring // 8}")


def plan(
    *,
    dimension: int,
    clip: float,
    multiplier: float,
    sites: int,
    dropouts: int = 0,
    colluders: int = 0,
    bound: float | None = None,
    ring: int | None = None,
) -> FixedPoint:
    """Return the coarsest grid whose rounding costs next to nothing, and a ring in which no sum wraps.

    Guarantees:
        - The sum of all sites' worst cases and of all noise stays inside the ring; the noise but for a chance of
          2^-64 a turn, the updates always.
        - Rounding adds at most one part in 512 to the sensitivity, or one in 64 where that keeps the ring at 32 bits,
          and the noise is sized for it.

    Args:
        dimension: Items of a vector.
        clip: The most one unit contributes, L2.
        multiplier: σ, over the sensitivity.
        sites: Sites in the roster.
        dropouts: Sites that may be missing from a sum.
        colluders: Sites assumed to help the server.
        bound: The most a site's vector may have, L2, if it is a sum over units; without it the vector is one unit's.
        ring: 32 or 64 bits; the smallest that is enough, unless said. 64 doubles every message.

    Raises:
        ConfigError: No ring, or not the one asked for, has room.
        ValueError: A number is out of range.
    """
    tried: FixedPoint | None = None
    for width, most in ((32, INFLATION), (32, TIGHT), (64, INFLATION)):
        if ring not in {None, width}:
            continue
        grid = _coarsest(dimension, clip, bound, most)
        noise = NoiseShares(
            sites=sites, dropouts=dropouts, colluders=colluders, multiplier=multiplier, sensitivity=grid.l2
        )
        tried = FixedPoint(grid=grid, noise=noise, ring=width)
        if tried.headroom_bits > 0.0:
            return tried
    if tried is None:
        raise ConfigError(f"a ring has 32 or 64 bits, not {ring}", key="secagg.ring")
    raise ConfigError(
        f"a sum of {sites} sites does not fit a ring of {tried.ring} bits: {-tried.headroom_bits:.1f} bits are missing",
        key="secagg.ring",
        hint="use ring: 64, a lower bound on a site's vector, or less noise",
    )


def _coarsest(dimension: int, clip: float, bound: float | None, most: float) -> Grid:
    """Return the coarsest grid on which rounding adds at most ``most`` to the sensitivity, or the finest there is."""
    for bits in range(COARSEST_BITS, FINEST_BITS + 1):
        grid = Grid(
            dimension=dimension,
            clip=clip,
            bound=clip if bound is None else bound,
            bits=bits,
            whole=bound is None,
        )
        if grid.inflation <= most:
            break
    return grid


def _blocks(update: NDArray[np.float32]) -> Iterator[NDArray[np.float64]]:
    """Yield the vector in float64, a cacheful at a time."""
    for start in range(0, len(update), _BLOCK):
        yield update[start : start + _BLOCK].astype(np.float64)
