"""Are synthetic rows nearer to the people trained on than to people held out?

With as many training as held-out people to choose from, a generator that memorised nothing has no side to
prefer. Rows of one person resemble each other, so people are compared, not rows, wherever they are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from fedgen.audit.neighbours import Nearest

MAX_REFERENCE: Final = 50_000
_Z99: Final = 2.5758293035489004


@dataclass(frozen=True, slots=True)
class Nearer:
    """How many synthetic rows lie nearer to a training row than to a held-out row.

    Attributes:
        value: The share, with as many training as held-out people to choose from.
        chance_low: Lower end of the band in which 99 of 100 generators fall that memorise nothing.
        chance_high: Its upper end.
        of: Synthetic rows looked at.
        people: Whether rows of one person were kept together. If it was not known whose rows they are, each row
            counted as a person, and the band is too narrow for data with several rows a person.
    """

    value: float
    chance_low: float
    chance_high: float
    of: int
    people: bool


@dataclass(frozen=True, slots=True)
class People:
    """Whose each row is.

    Attributes:
        training: Shape ``(n,)``, any values that can be compared; equal values are one person.
        holdout: Shape ``(k,)``.
    """

    training: np.ndarray
    holdout: np.ndarray


def nearer(
    queries: np.ndarray,
    real: np.ndarray,
    holdout: np.ndarray,
    nearest: Nearest,
    rng: np.random.Generator,
    *,
    people: People | None = None,
) -> Nearer:
    """Return the share of queries whose nearest row is a training row, with the band chance alone gives.

    Guarantees:
        - As many training as held-out people are offered, in random order, so that ties are fair.
        - The band is exact in its variance for a random choice of who was trained on: the share is a sum of
          weights (how many queries each person is nearest to) over a random half of the people.

    Edge cases:
        ======================  ==================================
        one person on a side    the band is wide: 0 to 1 or nearly
        ======================  ==================================

    Args:
        queries: Synthetic codes, shape ``(m, width)``, m >= 1.
        real: Training codes, shape ``(n, width)``, n >= 1.
        holdout: Held-out codes, shape ``(k, width)``, k >= 1.
        nearest: The search.
        rng: Chooses people and the order; no privacy rests on it.
        people: Whose each row is; None if unknown.

    Raises:
        ValueError: ``people`` does not name one person for each row.

    Source: Cochran (1977), "Sampling Techniques", section 2.3 (a sum over a simple random sample).
    """
    sides = (real, holdout)
    whose = (np.arange(len(real)), np.arange(len(holdout)))
    if people is not None:
        whose = (_numbered(people.training), _numbered(people.holdout))
        if [len(ids) for ids in whose] != [len(side) for side in sides]:
            raise ValueError("people must name one person for each training and each held-out row")
    count = _how_many(whose)
    chosen = [rng.permutation(int(ids.max()) + 1)[:count] for ids in whose]
    kept = [np.isin(ids, ids_kept) for ids, ids_kept in zip(whose, chosen, strict=True)]
    rows = np.concatenate([side[k] for side, k in zip(sides, kept, strict=True)])
    person = np.concatenate(
        [np.searchsorted(np.sort(c), ids[k]) for ids, c, k in zip(whose, chosen, kept, strict=True)]
    )
    person[int(kept[0].sum()) :] += count
    order = rng.permutation(len(rows))
    _, found = nearest(queries, rows[order])
    weights = np.bincount(person[order[found]], minlength=2 * count) / len(queries)
    spread = float(((weights - weights.mean()) ** 2).sum())
    band = _Z99 * float(np.sqrt(2 * count / (4 * (2 * count - 1)) * spread))
    value = float(weights[:count].sum())
    return Nearer(value, max(0.0, 0.5 - band), min(1.0, 0.5 + band), len(queries), people is not None)


def _numbered(people: np.ndarray) -> np.ndarray:
    """Return people as numbers from zero, equal for equal people."""
    return np.unique(people, return_inverse=True)[1]


def _how_many(whose: tuple[np.ndarray, np.ndarray]) -> int:
    """Return how many people of each side are compared, so that their rows fit ``MAX_REFERENCE``."""
    count = min(int(ids.max()) + 1 for ids in whose)
    rows = max(count * len(ids) / (int(ids.max()) + 1) for ids in whose)
    return max(1, int(count * min(1.0, MAX_REFERENCE / rows)))
