"""The order of the ring favours nobody: the bound on colluders' places counts every order alike.

alpha is 1e-6 for each test, fixed digests. With 12,000 orders of 24 sites a place that is taken half as often
again by one site, or a distance between two, is seen with a probability above 0.99; the test computes it. The control
is a shuffle that swaps each place with any other, which looks fair and is not.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from fedgen.secagg.graph import _shuffled

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.statistical

ALPHA, ORDERS, N = 1e-6, 12_000, 24
SITES = tuple(range(N))


def digest(number: int) -> bytes:
    return hashlib.sha256(b"keys %d" % number).digest()


def unfair(members: tuple[int, ...], seed: bytes) -> list[int]:
    draw, ring = np.random.default_rng(int.from_bytes(seed)), list(members)
    for i, j in enumerate(draw.integers(0, N, N)):
        ring[i], ring[j] = ring[j], ring[i]
    return ring


def places(shuffle: Callable[[tuple[int, ...], bytes], list[int]]) -> np.ndarray:
    """Return where each site stands, a row for each order."""
    return np.stack([np.argsort(shuffle(SITES, digest(number))) for number in range(ORDERS)])


def worst_p(found: np.ndarray) -> float:
    """Return the least p of every site's places and of the distances between neighbours by name, times their number."""
    columns = [(found[:, site], N) for site in SITES]
    columns += [((found[:, site] - found[:, site - 1]) % N - 1, N - 1) for site in SITES]
    each = [stats.chisquare(np.bincount(column, minlength=cells)).pvalue for column, cells in columns]
    return float(min(each)) * len(each)


@pytest.mark.slow
def test_every_site_stands_anywhere_and_at_any_distance_from_another() -> None:
    assert worst_p(places(_shuffled)) > ALPHA


@pytest.mark.slow
def test_control_an_unfair_shuffle_is_seen() -> None:
    assert worst_p(places(unfair)) < ALPHA


def test_the_power_is_what_is_stated() -> None:
    threshold = stats.chi2.isf(ALPHA / (2 * N), N - 1)
    assert stats.ncx2.sf(threshold, N - 1, 0.5**2 * ORDERS / N) > 0.99
