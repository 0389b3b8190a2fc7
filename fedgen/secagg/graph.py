"""Who shares a mask with whom: everybody with everybody up to 100 sites, a regular graph beyond.

The graph is a ring in an order nobody chose, each site joined to the ``k / 2`` next on both sides. The order comes from
the digest of all advertised keys, so both ends compute it and neither picks it. Somebody who controls some of the
keys could try many of them until the order suits him: the bound leaves room for 2^40 trials.

The graph is public once keys are, and the server says who is missing. So chance decides where colluders stand and
never who is gone: the server leaves out whom it likes, up to what the study tolerates.

Source: Bell, Bonawitz, Gascón, Lepoint and Raykova, "Secure single-server aggregation with (poly)logarithmic
overhead" (2020): the construction. Its tails are for sites that are missing by chance; those here are not.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.crypto.derive import hkdf
from fedgen.crypto.stream import KeyStream

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_SITES: Final = 4096
FULL: Final = 100  # sites up to which everybody masks with everybody
SECURITY_BITS: Final = 80  # 40 bits of security after 2^40 trials of keys
FAILURE_BITS: Final = 20  # chance that a turn fails although no more dropped than the study tolerates


@lru_cache(maxsize=256)
def degree(sites: int, colluders: int, dropouts: int, *, opened: bool = True) -> tuple[int, int]:
    """Return how many neighbours each site needs, and how many of its holders must agree to open its secret.

    Guarantees:
        - With at most ``colluders`` colluding, and whichever ``dropouts`` sites the server leaves out once it knows the
          graph, both of these have a chance below 2^-80: some honest site's two secrets can both be opened; the honest
          sites that stay fall into two groups, of which the server learns one's sum by itself.
        - With ``dropouts`` gone by chance, too few holders are left for some secret with a chance below 2^-20.

    Edge cases:
        - Where no smaller graph is enough, the full one is returned; nothing cuts it.

    Args:
        sites: Members, at least 2.
        colluders: Sites that tell the server all they know.
        dropouts: Sites that may be gone.
        opened: Whether a site's own mask hides its vector until enough holders open it; False for
            ``recovery: restart``, where a sum opens by itself when all of its vectors are there.

    Returns:
        ``(k, threshold)``; a secret has ``k + 1`` holders, its owner included.

    Raises:
        ValueError: Not even the full graph is enough.

    Source: union bounds over sites, or pairs of them, of exact hypergeometric tails.
    """
    full = (sites + colluders) // 2 + 1
    if full > sites - dropouts:  # a part of the graph never stands more than the whole
        raise ValueError(f"no graph of {sites} sites stands {colluders} colluders and {dropouts} dropouts")
    for k in range(2, sites - 1, 2):
        threshold = _least_threshold(sites, colluders, dropouts, k, opened=opened)
        if threshold is None:
            continue
        if sites * _tail(sites - 1, dropouts, k, k + 1 - threshold) <= 2.0**-FAILURE_BITS:
            return k, threshold
    return sites - 1, full


def _least_threshold(sites: int, colluders: int, dropouts: int, k: int, *, opened: bool) -> int | None:
    """Return the fewest of ``k + 1`` holders that keep both promises of :func:`degree`; None if not even all do."""

    def kept(threshold: int) -> bool:
        both = sites * _tail(sites - 1, colluders, k, 2 * threshold - (k + 1))
        return (
            max(both, cut(sites, colluders, dropouts, k, threshold if opened else None))
            <= 2.0**-SECURITY_BITS
        )

    low, high = (k + 1) // 2 + 1, k + 1
    if not kept(high):
        return None
    while low < high:  # by halves: both chances fall as the threshold grows
        middle = (low + high) // 2
        if kept(middle):
            high = middle
        else:
            low = middle + 1
    return low


def cut(sites: int, colluders: int, dropouts: int, k: int, threshold: int | None) -> float:
    """Return a bound on the chance that a server can cut the ring, leaving out whom it likes.

    Two honest sites with fewer than ``k / 2`` others between them that are gone or collude share a mask. So a group
    whose masks cancel by themselves has, next to its first and to its last site, ``k / 2`` places in a row of
    colluders and of sites that are gone: ``k`` places, of which at most ``dropouts`` are filled by leaving somebody
    out. Of these places, those that gave no vector open nobody's own mask, and of those that did and are left out the
    turn secrets must be opened, by others than they. Either way none of the places in a row but the colluders' helps
    with what must be opened there, of which ``k / 2 + 1`` holders are left: so at least ``threshold - 1 - k / 2``
    places of each row hold colluders. Where these stand is chance; there are fewer than ``sites²`` pairs of rows.

    Args:
        sites: Members.
        colluders: Members that collude.
        dropouts: Members that the server may leave out.
        k: Neighbours of each.
        threshold: Holders that open a secret; None where a site's vector has no mask of its own.
    """
    enough = k - dropouts if threshold is None else max(k - dropouts, 2 * (threshold - 1) - k)
    return float(sites) ** 2 * _tail(sites, colluders, k, enough)


def neighbours(members: tuple[int, ...], k: int, digest: bytes) -> dict[int, tuple[int, ...]]:
    """Return each member's neighbours, in increasing order.

    Guarantees:
        - Symmetric, without loops, and the same on every machine for the same digest.

    Args:
        members: Sites by their place in the roster, increasing.
        k: Even, or one less than the members for the full graph.
        digest: 32 public bytes that nobody chose.

    Raises:
        ValueError: ``k`` is odd and not the full graph's, or too large.
    """
    n = len(members)
    if k == n - 1:
        return {u: tuple(v for v in members if v != u) for u in members}
    if k % 2 or not 0 < k < n:
        raise ValueError(f"a ring graph of {n} has an even degree below {n}, not {k}")
    ring = _shuffled(members, digest)
    steps = [step for step in range(-k // 2, k // 2 + 1) if step]
    return {u: tuple(sorted(ring[(i + step) % n] for step in steps)) for i, u in enumerate(ring)}


def _shuffled(members: tuple[int, ...], digest: bytes) -> list[int]:
    """Return the members in an order drawn from the digest: Fisher and Yates, without bias."""
    stream = KeyStream(hkdf(digest, purpose="secagg/graph"))
    ring = list(members)
    for i in range(len(ring) - 1, 0, -1):
        limit = 2**32 - 2**32 % (i + 1)
        while (drawn := int.from_bytes(stream.bytes(4), "little")) >= limit:
            pass
        j = drawn % (i + 1)
        ring[i], ring[j] = ring[j], ring[i]
    return ring


def _tail(population: int, marked: int, drawn: int, least: int) -> float:
    """Return the chance that at least ``least`` of ``drawn`` out of ``population`` are among the marked."""
    if least <= max(0, drawn - (population - marked)):
        return 1.0
    if least > min(marked, drawn):
        return 0.0
    i = np.arange(least, min(marked, drawn) + 1)
    logs = (
        _choices(marked, i)
        + _choices(population - marked, drawn - i)
        - _choices(population, np.array([drawn]))
    )
    return float(np.exp(logs).sum())


def _choices(n: int, k: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the logarithms of the binomial coefficients."""
    table = _log_factorials()
    found: NDArray[np.float64] = table[n] - table[k] - table[n - k]
    return found


@lru_cache(maxsize=1)
def _log_factorials() -> NDArray[np.float64]:
    """Return the logarithms of 0! to 4096!, each within 1e-11."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, MAX_SITES + 1)))])
