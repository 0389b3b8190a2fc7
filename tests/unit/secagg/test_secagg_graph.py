"""The graph of masks and the bound behind it."""

from __future__ import annotations

import hashlib

import pytest

from fedgen.secagg.graph import SECURITY_BITS, _runs, _tail, degree, neighbours

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


def test_runs_bound_the_chance_of_a_gap_in_the_ring() -> None:
    assert _runs(10, 2, 3) == 0.0
    assert _runs(10, 3, 2) == pytest.approx(10 * 3 / 10 * 2 / 9)


@pytest.mark.parametrize(
    ("sites", "colluders", "dropouts"), [(200, 1, 5), (500, 5, 25), (1000, 10, 50), (1000, 50, 50)]
)
def test_the_degree_keeps_its_bound_and_is_the_least_that_does(
    sites: int, colluders: int, dropouts: int
) -> None:
    k, threshold = degree(sites, colluders, dropouts)
    assert k < sites - 1
    assert 2 * threshold > k + 1
    assert sites * _tail(sites - 1, colluders, k, 2 * threshold - (k + 1)) <= 2.0**-SECURITY_BITS
    assert _runs(sites, colluders + dropouts, k // 2) <= 2.0**-SECURITY_BITS
    smaller = k - 2
    fails_runs = _runs(sites, colluders + dropouts, smaller // 2) > 2.0**-SECURITY_BITS
    fails_shares = all(
        sites * _tail(sites - 1, colluders, smaller, 2 * t - (smaller + 1)) > 2.0**-SECURITY_BITS
        or sites * _tail(sites - 1, dropouts, smaller, smaller + 1 - t) > 2.0**-20
        for t in range(smaller // 2 + 1, smaller + 2)
    )
    assert fails_runs or fails_shares


def test_more_colluders_need_more_neighbours_until_none_are_enough() -> None:
    found = [degree(1000, colluders, 50)[0] for colluders in (0, 10, 50, 100)]
    assert found == sorted(found)
    assert degree(120, 35, 35) == (119, 78)  # the full graph
    with pytest.raises(ValueError, match="no graph"):
        degree(1000, 500, 400)
