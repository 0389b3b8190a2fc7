"""Beyond a hundred sites: a server that knows the graph leaves out whom it likes, to learn the sum of a few.

The graph follows from keys that everybody sees, so nothing about who is missing is chance. Small rings are looked at
whole: every way to place colluders and sites that are gone. The control is the same server against a ring that is below
the bound: it comes away with the exact sum of four sites out of twelve.
"""

from __future__ import annotations

from itertools import combinations, pairwise, product
from types import SimpleNamespace

import numpy as np
import pytest
from support.secagg import World, terms_for, total
from support.secagg_hostile import refused

from fedgen.errors import Code
from fedgen.secagg import wire
from fedgen.secagg.graph import _shuffled, cut, degree
from fedgen.secagg.opening import Turn, unmask
from fedgen.secagg.terms import Recovery

N, GONE = 16, 4
BELOW = (4, 3)  # two places on each side, three holders open: what chance alone would allow


def groups(ring: list[int], k: int, honest: set[int]) -> list[list[int]]:
    """Return the honest sites in groups that share masks: a new one after ``k / 2`` places without any."""
    places = [place for place, site in enumerate(ring) if site in honest]
    if not places:
        return []
    found, n = [[ring[places[0]]]], len(ring)
    for before, place in pairwise(places):
        if place - before > k // 2:
            found.append([])
        found[-1].append(ring[place])
    if len(found) > 1 and places[0] + n - places[-1] <= k // 2:
        found[0] += found.pop()
    return found


def learnt(
    ring: list[int], k: int, threshold: int | None, colluders: set[int], dropped: set[int], absent: set[int]
) -> list[list[int]]:
    """Return the groups, other than all that is left together, whose sum the server can lay open.

    It asks the dropped, who gave their vectors, to open for everybody, and the others to open without them: each opens
    once. Of a survivor's seed all but the absent give shares; of a dropped site's, the dropped, and of its box the
    others. A dropped site whose box opens has no mask left with anybody.
    """
    place, n = {site: i for i, site in enumerate(ring)}, len(ring)

    def opens(owner: int, givers: set[int]) -> bool:
        near = {ring[(place[owner] + step) % n] for step in range(-(k // 2), k // 2 + 1)}
        return threshold is None or len(near & (givers | colluders)) >= threshold

    survivors = set(ring) - colluders - dropped - absent
    boxes = {site for site in dropped if opens(site, survivors)}
    parts = groups(ring, k, (survivors | dropped) - boxes)

    def seed(site: int) -> bool:
        return opens(site, dropped if site in dropped else survivors | dropped)

    return [part for part in parts if len(parts) > 1 and all(map(seed, part))]


@pytest.mark.slow
@pytest.mark.parametrize("threshold", [None, 3, 4, 5])
def test_what_the_bound_counts_is_what_it_takes_to_cut_a_ring(threshold: int | None) -> None:
    """All ways to fill the places next to a survivor's: whenever a part is learnt, the colluders it takes stand there.

    Where both secrets of a site could be opened there is nothing to cut; that is another bound.
    """
    n, k, ring = 9, 4, list(range(9))
    windows = [{(i + step) % n for step in range(k // 2)} for i in range(n)]
    pairs = [one | other for one, other in combinations(windows, 2) if not one & other]
    near = [{(i + step) % n for step in range(-(k // 2), k // 2 + 1)} for i in range(n)]
    cuts = 0
    for kinds in product("hcda" if threshold else "hca", repeat=n - 1):
        placed = {kind: {i for i, each in enumerate(("h", *kinds)) if each == kind} for kind in "hcda"}
        colluders, out = placed["c"], placed["d"] | placed["a"]
        if threshold and any(
            len(near[i] & colluders) >= 2 * threshold - (k + 1) for i in range(n) if i not in colluders
        ):
            continue
        if not learnt(ring, k, threshold, colluders, placed["d"], placed["a"]):
            continue
        cuts += 1
        enough = k - len(out) if threshold is None else max(k - len(out), 2 * (threshold - 1) - k)
        assert max(len(pair & colluders) for pair in pairs) >= enough
    assert cuts > 100 or threshold == 5


@pytest.mark.parametrize("opened", [True, False])
def test_nobody_is_cut_off_in_the_graph_that_the_bound_asks_for(*, opened: bool) -> None:
    """Whichever four of sixteen are left out, the others stay one group; a smaller ring is the control."""
    ring, below = list(range(N)), BELOW[1] if opened else None
    k, threshold = degree(N, 0, GONE, opened=opened)
    assert k < N - 1
    cuts = 0
    for gone in combinations(ring, GONE):
        for few in range(GONE + 1 if opened else 1):
            dropped, absent = set(gone[:few]), set(gone[few:])
            assert not learnt(ring, k, threshold if opened else None, set(), dropped, absent)
            cuts += bool(learnt(ring, BELOW[0], below, set(), dropped, absent))
    assert cut(N, 0, GONE, BELOW[0], below) > 1.0
    assert cuts > 0


@pytest.mark.parametrize(("sites", "gone"), [(500, 50), (1000, 50), (4096, 81)])
@pytest.mark.parametrize("opened", [True, False])
def test_two_gaps_that_the_study_tolerates_open_nothing(sites: int, gone: int, *, opened: bool) -> None:
    """As many in a row, twice, as may be gone: what would split the ring is more than that, or opens nothing."""
    ring, half = list(range(sites)), gone // 2
    k, threshold = degree(sites, 0, gone, opened=opened)
    for start in (half + 1, half + 20, sites // 2):
        left_out = set(range(half)) | {(start + i) % sites for i in range(half)}
        assert not learnt(ring, k, threshold if opened else None, set(), set(), left_out)
        if opened:
            assert not learnt(ring, k, threshold, set(), left_out, set())


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make sixteen sites many, in a ring below the bound."""
    monkeypatch.setattr("fedgen.secagg.terms.FULL", 8)
    monkeypatch.setattr("fedgen.secagg.terms.degree", lambda *_, **__: BELOW)


def left_out(world: World, apart: int) -> tuple[set[int], set[int]]:
    """Return two pairs of neighbours on the ring with ``apart`` sites between them, and these sites."""
    members = world.server._members
    ring = _shuffled(members.sites, members.digest)
    return {*ring[:2], *ring[2 + apart : 4 + apart]}, set(ring[2 : 2 + apart])


@pytest.mark.usefixtures("small")
def test_control_below_the_bound_the_server_learns_the_sum_of_four() -> None:
    world = World(terms_for(N, threshold=9, dropouts=GONE, dimension=8))
    rng, vectors, masked = np.random.default_rng(11), {}, {}
    gone, group = left_out(world, 4)
    for name, start in world.begin().items():
        vectors[name] = world.vector(rng)
        frame = world.answer(name, start, vectors[name])
        masked[world.terms.index(name)] = np.frombuffer(wire.Masked.decode(frame, world.terms).values, "<u4")
        if world.terms.index(name) not in gone:
            world.server.add(name, frame)
    propose = world.server.close()
    alive = [name for name in world.sites if world.terms.index(name) not in gone]
    for name in alive:
        world.server.agreed(name, world.sites[name].agree(propose))
    opening = world.server.unmask()
    for name in alive:
        world.server.revealed(name, world.sites[name].reveal(opening))
    state, members = world.server._state, world.server._members
    part = Turn(
        SimpleNamespace(
            digest=state.transcript.digest,
            turn=state.transcript.turn,
            participants=tuple(sorted(group | gone)),
        ),
        sum((masked[site] for site in group), np.zeros(8, np.uint32)),
        deals=state.deals,
        survivors=tuple(sorted(group)),
        revealed=state.revealed,
        checks=state.checks,
    )
    unmask(members, part)
    assert np.array_equal(part.sum, total(vectors, [world.terms.name(site) for site in group]))


@pytest.mark.usefixtures("small")
def test_control_below_the_bound_a_run_with_restarts_is_cut_by_whom_it_asks() -> None:
    world = World(terms_for(N, threshold=9, dropouts=GONE, dimension=8, recovery=Recovery.RESTART))
    rng, vectors, found = np.random.default_rng(11), {}, np.zeros(8, np.uint32)
    gone, group = left_out(world, 4)
    starts = world.begin([name for name in world.sites if world.terms.index(name) not in gone])
    for name in (world.terms.name(site) for site in group):
        vectors[name] = world.vector(rng)
        frame = world.answer(name, starts[name], vectors[name])
        found += np.frombuffer(wire.Masked.decode(frame, world.terms).values, "<u4")
    assert np.array_equal(found, total(vectors, vectors))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("recovery", [Recovery.UNMASK, Recovery.RESTART])
def test_a_site_refuses_a_turn_without_its_neighbours(recovery: Recovery) -> None:
    """Whatever the bound says: with all of them gone nothing would mask its vector under ``restart``."""
    world = World(terms_for(N, threshold=9, dropouts=GONE, dimension=8, recovery=recovery))
    members = world.server._members
    ring = _shuffled(members.sites, members.digest)
    gone, victim = {*ring[:2], *ring[3:5]}, world.terms.name(ring[2])
    starts = world.begin([name for name in world.sites if world.terms.index(name) not in gone])
    refused(Code.COHORT_TOO_SMALL, world.sites[victim].start, starts[victim])
    other = world.terms.name(ring[9])
    assert world.sites[other].start(starts[other]).round == 1, "the control: it has all of its neighbours"
