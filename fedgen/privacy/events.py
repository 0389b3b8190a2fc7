"""What was done to the rows, as frozen values that a ledger can keep for decades.

The set is closed: an event type is never removed, its fields never change meaning, and a new field must be
optional with the old meaning as its default. Standard deviations and scales are in units of the sensitivity,
so sigma is the noise multiplier and clip does not occur. Integer noise is the exception: its grid is real, so
variance and sensitivity are in grid units.

``from_json(to_json(event)) == event`` for every event.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fedgen import _validate

if TYPE_CHECKING:
    from dp_accounting import DpEvent

SIGMA_MIN: Final = 0.01  # below it one step alone costs ε in the thousands, and exp(1/sigma²) overflows
SIGMA_MAX: Final = 1e6
MAX_PARTS: Final = 1024
MAX_DEPTH: Final = 4
MAX_COUNT: Final = 2**53  # counts stay exact in every JSON reader
VARIANCE_MAX: Final = 2.0**124  # of a sum of integers that fit in 62 bits


def _scale(**values: float) -> None:
    """Raise unless every value is a noise scale an accountant can work with."""
    _validate.positive(**values)
    for name, value in values.items():
        if not SIGMA_MIN <= value <= SIGMA_MAX:
            raise ValueError(f"{name} must lie between {SIGMA_MIN:g} and {SIGMA_MAX:g}, not {value}")


def _count(count: object) -> int:
    """Return ``count`` if it is a whole number of times, else raise."""
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MAX_COUNT:
        raise ValueError(f"an event's count must be a whole number from 1 to 2**53, not {count}")
    return count


@dataclass(frozen=True, slots=True)
class PoissonGaussian:
    """One step: each unit is drawn with probability ``q``, clipped, summed, and N(0, sigma²C²) is added.

    Args:
        q: Sampling rate in (0, 1]; 1 takes every unit.
        sigma: Noise standard deviation in clip norms, in [0.01, 1e6].

    Raises:
        ValueError: An argument is out of range or not finite.
    """

    q: float
    sigma: float

    def __post_init__(self) -> None:
        """Check and normalise to float, so equal events have equal bytes."""
        _validate.probability(q=self.q)
        _scale(sigma=self.sigma)
        object.__setattr__(self, "q", float(self.q))
        object.__setattr__(self, "sigma", float(self.sigma))


@dataclass(frozen=True, slots=True)
class Gaussian:
    """One query of L2 sensitivity 1 with N(0, sigma²) added.

    Args:
        sigma: Noise standard deviation over sensitivity, in [0.01, 1e6].

    Raises:
        ValueError: ``sigma`` is out of range or not finite.
    """

    sigma: float

    def __post_init__(self) -> None:
        """Check and normalise to float."""
        _scale(sigma=self.sigma)
        object.__setattr__(self, "sigma", float(self.sigma))


@dataclass(frozen=True, slots=True)
class Laplace:
    """One query of L1 sensitivity 1 with Laplace noise of the given scale added.

    Args:
        scale: Laplace scale over sensitivity, in [0.01, 1e6].

    Raises:
        ValueError: ``scale`` is out of range or not finite.
    """

    scale: float

    def __post_init__(self) -> None:
        """Check and normalise to float."""
        _scale(scale=self.scale)
        object.__setattr__(self, "scale", float(self.scale))


@dataclass(frozen=True, slots=True)
class PoissonSkellam:
    """One step on the integers: each unit is drawn with probability ``q``, summed, and Skellam noise is added.

    The noise is a vector of independent differences of two Poisson numbers of rate ``variance / 2``. Shares of
    it add up to it exactly, so the event of a sum of shares is the event of one draw of the summed variance.
    These four numbers are all that the bound depends on; the number of coordinates enters through ``l1`` only.

    Args:
        q: Sampling rate in (0, 1]; 1 takes every unit.
        variance: Variance of each coordinate of the noise that the observer cannot subtract, in grid units
            squared; the square root over ``l2`` lies in [0.01, 1e6].
        l2: Most that one unit moves the integer vector in L2, after rounding, in grid units; at least 1.
        l1: The same in L1; at least ``l2``. See :func:`fedgen.privacy.integers.after_rounding`.

    Raises:
        ValueError: An argument is out of range or not finite.

    Source: Agarwal, Kairouz, Liu (2021), "The Skellam mechanism for differentially private federated learning".
    """

    q: float
    variance: float
    l2: float
    l1: float

    def __post_init__(self) -> None:
        """Check and normalise to float, so equal events have equal bytes."""
        _validate.probability(q=self.q)
        _validate.positive(variance=self.variance, l2=self.l2, l1=self.l1)
        if self.variance > VARIANCE_MAX:
            raise ValueError(f"variance must be at most 2^124, not {self.variance}")
        if not 1.0 <= self.l2 <= self.l1:
            raise ValueError(f"l2 must be at least 1 and l1 at least l2, not {self.l2} and {self.l1}")
        for name in ("q", "variance", "l2", "l1"):
            object.__setattr__(self, name, float(getattr(self, name)))
        _scale(**{"the noise over l2": self.sigma})

    @property
    def sigma(self) -> float:
        """Noise standard deviation over L2 sensitivity: what a noise multiplier is to a Gaussian."""
        return math.sqrt(self.variance) / self.l2


@dataclass(frozen=True, slots=True)
class Composed:
    """Several events on the same rows, each so many times, in any order (adaptively).

    Args:
        parts: Pairs of event and count; at most 1024, nested at most 4 deep.

    Raises:
        ValueError: A count is not a positive whole number, or there are too many parts.
    """

    parts: tuple[tuple[Event, int], ...]

    def __post_init__(self) -> None:
        """Check counts and sizes."""
        if not 1 <= len(self.parts) <= MAX_PARTS:
            raise ValueError(f"a composed event has 1 to {MAX_PARTS} parts, not {len(self.parts)}")
        for _, count in self.parts:
            _count(count)
        if _depth(self) > MAX_DEPTH:
            raise ValueError(f"events nest at most {MAX_DEPTH} deep")


Event: TypeAlias = PoissonGaussian | Gaussian | Laplace | PoissonSkellam | Composed
Simple: TypeAlias = PoissonGaussian | Gaussian | Laplace | PoissonSkellam
Counts: TypeAlias = tuple[tuple[Event, int], ...]
Merged: TypeAlias = tuple[tuple[Simple, int], ...]

_KINDS: Final[dict[str, tuple[type[Simple], tuple[str, ...]]]] = {
    "poisson-gaussian": (PoissonGaussian, ("q", "sigma")),
    "gaussian": (Gaussian, ("sigma",)),
    "laplace": (Laplace, ("scale",)),
    "poisson-skellam": (PoissonSkellam, ("q", "variance", "l2", "l1")),
}
_NAMES: Final = {kind: name for name, (kind, _) in _KINDS.items()}


def _depth(event: Event) -> int:
    """Return how deep compositions nest in ``event``."""
    if not isinstance(event, Composed):
        return 0
    return 1 + max(_depth(part) for part, _ in event.parts)


def merge(counts: Iterable[tuple[Event, int]]) -> Merged:
    """Return the same work with equal events added up, in one canonical order.

    Guarantees:
        - Compositions are flattened; a rate of 1 is the plain Gaussian it equals.
        - The order of ``counts`` does not matter: equal work gives an equal, hashable value.
        - No event is lost: counts add exactly.

    Raises:
        ValueError: A count is not a positive whole number.
    """
    total: dict[Simple, int] = {}
    for event, count in _flat(counts):
        total[event] = total.get(event, 0) + count
    return tuple(sorted(total.items(), key=_order))


def _flat(counts: Iterable[tuple[Event, int]], times: int = 1) -> Iterable[tuple[Simple, int]]:
    """Yield simple events with their counts."""
    for event, count in counts:
        if isinstance(event, Composed):
            yield from _flat(event.parts, times * _count(count))
        elif isinstance(event, PoissonGaussian) and event.q == 1.0:
            yield Gaussian(event.sigma), times * _count(count)
        else:
            yield event, times * _count(count)


def _order(item: tuple[Simple, int]) -> tuple[str, tuple[float, ...]]:
    """Return the sort key of a merged event: its kind, then its numbers."""
    event, _ = item
    name = _NAMES[type(event)]
    return name, tuple(float(getattr(event, field)) for field in _KINDS[name][1])


def to_json(event: Event) -> dict[str, Any]:
    """Return ``event`` as JSON values; inverse of :func:`from_json`."""
    if isinstance(event, Composed):
        return {"kind": "composed", "parts": [[to_json(part), count] for part, count in event.parts]}
    name = _NAMES[type(event)]
    return {"kind": name, **{field: getattr(event, field) for field in _KINDS[name][1]}}


def from_json(value: object) -> Event:
    """Return the event that ``value`` describes; inverse of :func:`to_json`.

    Guarantees:
        - Only the closed set of events can come out; an unknown kind or key is refused.

    Raises:
        ValueError: ``value`` is not exactly one event of this version.
    """
    return _parse(value, MAX_DEPTH)


def _parse(value: object, depth: int) -> Event:
    """Return the event in ``value``, nested at most ``depth`` deep."""
    if not isinstance(value, Mapping):
        raise ValueError("an event must be a JSON object")  # noqa: TRY004 -- one error for whatever is malformed
    kind = value.get("kind")
    if kind == "composed":
        return _parse_composed(value, depth)
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError("an event of a kind this version does not know")
    make, fields = _KINDS[kind]
    if set(value) != {"kind", *fields} or not all(_is_number(value[field]) for field in fields):
        raise ValueError(f"a {kind} event has exactly the numbers {', '.join(fields)}")
    return make(**{field: value[field] for field in fields})


def _parse_composed(value: Mapping[Any, Any], depth: int) -> Composed:
    """Return the composition in ``value``."""
    parts = value.get("parts")
    if set(value) != {"kind", "parts"} or not isinstance(parts, list) or depth < 1:
        raise ValueError(f"a composed event has exactly a list of parts, nested at most {MAX_DEPTH} deep")
    if len(parts) > MAX_PARTS or not all(isinstance(part, list) and len(part) == 2 for part in parts):  # noqa: PLR2004 -- a pair
        raise ValueError(
            f"a part of a composed event is a pair of event and count; at most {MAX_PARTS} parts"
        )
    return Composed(tuple((_parse(part, depth - 1), _count(count)) for part, count in parts))


def _is_number(value: object) -> bool:
    """Return whether ``value`` is a finite JSON number."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_COUNT


def to_dp_event(event: Event) -> DpEvent:
    """Return ``event`` as a dp_accounting event, for a second opinion by any of its accountants.

    Edge cases:
        - Skellam noise becomes zero-concentrated privacy, which is proved for it at whole orders only: give an
          accountant no others. Where it is subsampled, the accountants of dp_accounting have no bound, and say so.
    """
    import dp_accounting as dpa

    if isinstance(event, Composed):
        parts = [dpa.SelfComposedDpEvent(to_dp_event(part), count) for part, count in event.parts]
        return dpa.ComposedDpEvent(parts)
    if isinstance(event, Laplace):
        return dpa.LaplaceDpEvent(event.scale)
    if isinstance(event, PoissonSkellam):
        noised = _concentrated(event)
        return noised if event.q == 1.0 else dpa.PoissonSampledDpEvent(event.q, noised)
    gaussian = dpa.GaussianDpEvent(event.sigma)
    if isinstance(event, Gaussian) or event.q == 1.0:
        return gaussian
    return dpa.PoissonSampledDpEvent(event.q, gaussian)


def _concentrated(event: PoissonSkellam) -> DpEvent:
    """Return the lower of the two lines ``xi + rho · order`` that bound Skellam noise, at order 10."""
    import dp_accounting as dpa

    square, l1, variance = event.l2**2, min(event.l1, event.l2**2), event.variance
    small = (0.5 * square / variance, 1.5 * l1 / variance)
    large = (small[0] + 0.5 * square / variance**2, max(0.0, (1.5 * l1 - 0.25 * square) / variance**2))
    rho, xi = min(small, large, key=lambda line: line[1] + 10 * line[0])
    return dpa.ZCDpEvent(rho=rho, xi=xi)
