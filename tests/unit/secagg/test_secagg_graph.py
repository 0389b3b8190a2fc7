"""The graph of masks and the bound behind it."""

from __future__ import annotations

import hashlib

import pytest

from fedgen.secagg.graph import FAILURE_BITS, SECURITY_BITS, _tail, cut, degree, neighbours

DIGEST = hashlib.sha256(b"keys").digest()


def test_the_full_graph_joins_everybody() -> None:
    graph = neighbours((0, 2, 5), 2, DIGEST)
    assert graph == {0: (2, 5), 2: (0, 5), 5: (0, 2)}


@pytest.mark.parametrize(("n", "k"), [(150, 40), (101, 2), (1000, 200)])
def test_a_ring_graph_is_regular_symmetric_and_connected(n: int, k: int) -> None:
    graph = neighbours(tuple(range(n)), k, DIGEST)
    assert all(len(set(peers)) == k and u not in peers for u, peers in graph.items())
    assert all(u in graph[v] for u, peers in graph.items() for v in peers)
    seen, edge = {0}, [0]
    while edge:
        edge = [v for u in edge for v in graph[u] if v not in seen and not seen.add(v)]
    assert len(seen) == n


def test_the_graph_follows_from_the_digest_alone() -> None:
    members = tuple(range(120))
    assert neighbours(members, 20, DIGEST) == neighbours(members, 20, DIGEST)
    assert neighbours(members, 20, DIGEST) != neighbours(members, 20, hashlib.sha256(b"others").digest())


@pytest.mark.parametrize("k", [0, 3, 120, 121])
def test_degrees_no_ring_has_are_refused(k: int) -> None:
    with pytest.raises(ValueError, match="even degree"):
        neighbours(tuple(range(120)), k, DIGEST)


def test_the_tail_is_the_hypergeometric_one() -> None:
    from scipy.stats import hypergeom

    for population, marked, drawn, least in ((50, 7, 20, 5), (999, 100, 120, 40), (10, 3, 4, 1)):
        assert _tail(population, marked, drawn, least) == pytest.approx(
            float(hypergeom.sf(least - 1, population, marked, drawn)), rel=1e-6
        )
    assert _tail(10, 3, 4, 0) == 1.0
    assert _tail(10, 3, 4, 4) == 0.0


def test_a_ring_is_cut_only_where_colluders_fill_what_nobody_can_leave_out() -> None:
    from scipy.stats import hypergeom

    assert cut(1000, 0, 50, 52, None) == 0.0, "two gaps of 26 places, and 50 can be left out"
    assert cut(1000, 0, 52, 52, None) == 1e6, "the control"
    assert cut(1000, 0, 52, 52, 28) == 0.0, "the gaps are there, but next to them one holder too few is left"
    assert cut(1000, 0, 52, 52, 27) == 1e6
    for threshold, enough in ((None, 10), (28, 10), (40, 26)):
        chance = float(hypergeom.sf(enough - 1, 1000, 30, 52))
        assert cut(1000, 30, 42, 52, threshold) == pytest.approx(1e6 * chance, rel=1e-6)


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize(
    ("sites", "colluders", "dropouts"),
    [(200, 1, 5), (500, 5, 25), (500, 0, 50), (1000, 10, 50), (1000, 50, 50), (4096, 10, 409)],
)
def test_the_degree_keeps_its_bound_and_is_the_least_that_does(
    sites: int, colluders: int, dropouts: int, *, opened: bool
) -> None:
    def kept(k: int, threshold: int) -> bool:
        both = sites * _tail(sites - 1, colluders, k, 2 * threshold - (k + 1))
        apart = cut(sites, colluders, dropouts, k, threshold if opened else None)
        secure = max(both, apart) <= 2.0**-SECURITY_BITS
        return secure and sites * _tail(sites - 1, dropouts, k, k + 1 - threshold) <= 2.0**-FAILURE_BITS

    k, threshold = degree(sites, colluders, dropouts, opened=opened)
    assert k < sites - 1
    assert kept(k, threshold)
    assert not any(kept(k - 2, fewer) for fewer in range(k // 2, k))
    assert not kept(k, threshold - 1) or 2 * (threshold - 1) <= k + 1


def test_a_sum_that_opens_by_itself_needs_a_denser_ring() -> None:
    for case in ((500, 5, 25), (1000, 0, 50), (1000, 50, 50)):
        assert degree(*case, opened=False)[0] > degree(*case)[0]


def test_more_colluders_need_more_neighbours_until_none_are_enough() -> None:
    found = [degree(1000, colluders, 50)[0] for colluders in (0, 10, 50, 100)]
    assert found == sorted(found)
    assert degree(120, 40, 39) == (119, 81)  # the full graph
    with pytest.raises(ValueError, match="no graph"):
        degree(1000, 500, 400)
