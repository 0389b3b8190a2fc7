"""Both ends on honest turns: every ring, recovery, dropout and restart, and the rules about order."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from support.secagg import WEIGHTS, Recovery, World, identities, terms_for

from fedgen.crypto.keys import SigningKey
from fedgen.crypto.stream import KeyStream
from fedgen.errors import Code, IntegrityError, QuorumLost
from fedgen.secagg import masks
from fedgen.secagg.site import SiteEnd

RNG = np.random.default_rng(8)


@pytest.mark.parametrize("n", [3, 4, 9])
@pytest.mark.parametrize("ring", [32, 64])
@pytest.mark.parametrize("recovery", list(Recovery))
def test_the_sum_is_exact_turn_after_turn(n: int, ring: int, recovery: Recovery) -> None:
    world = World(terms_for(n, ring=ring, recovery=recovery, dimension=70))
    for turn in (1, 2, 3):
        aggregate, expected = world.turn(RNG)
        assert np.array_equal(aggregate.values, expected)
        assert aggregate.survivors == tuple(world.sites)
        assert (aggregate.round, aggregate.attempt) == (turn, 1)


def test_sites_may_drop_at_every_step_and_come_back() -> None:
    world = World(terms_for(10, dropouts=3))
    drops = [
        {"drop": {"site-001", "site-009"}},
        {"drop": {"site-000"}, "drop_agree": {"site-004", "site-005"}},
        {"drop_reveal": {"site-001", "site-002", "site-003"}},
        {"drop": {"site-003"}, "drop_agree": {"site-007"}, "drop_reveal": {"site-008"}},
        {},
    ]
    for each in drops:
        aggregate, expected = world.turn(RNG, **each)
        assert np.array_equal(aggregate.values, expected)
        assert set(aggregate.survivors) == set(world.sites) - each.get("drop", set())


def test_one_drop_too_many_at_a_step_is_a_clean_end_and_the_next_turn_is_exact() -> None:
    world = World(terms_for(10, dropouts=3))
    names = sorted(world.sites)
    for each in (
        {"drop": names[:4]},
        {"drop": names[:1], "drop_agree": names[1:4]},
        {"drop_reveal": names[:4]},
        {"drop": names[:3], "drop_reveal": names[3:4]},
    ):
        with pytest.raises(QuorumLost):
            world.turn(RNG, **each)
        aggregate, expected = world.turn(RNG)
        assert np.array_equal(aggregate.values, expected)


def test_a_member_that_never_came_is_no_member_of_the_setup() -> None:
    world = World(terms_for(6, dropouts=2), absent={"site-003"})
    aggregate, expected = world.turn(RNG, drop={"site-005"})
    assert np.array_equal(aggregate.values, expected)
    assert aggregate.survivors == ("site-000", "site-001", "site-002", "site-004")


def regular_turn(world: World) -> None:
    dropped = {"site-007", "site-010"}
    aggregate, expected = world.turn(RNG, drop=dropped, drop_reveal={"site-008"})
    assert np.array_equal(aggregate.values, expected)
    assert len(aggregate.survivors) == len(world.sites) - 2


def test_a_regular_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedgen.secagg.terms.FULL", 8)
    monkeypatch.setattr("fedgen.secagg.terms.degree", lambda *_, **__: (8, 6))
    world = World(terms_for(16, threshold=9, dropouts=4, dimension=8))
    assert {len(peers) for peers in world.server._members.graph.values()} == {8}
    regular_turn(world)


@pytest.mark.slow
def test_the_graph_that_the_bound_asks_for_beyond_a_hundred_sites() -> None:
    world = World(terms_for(102, threshold=53, dropouts=4, dimension=8))
    assert {len(peers) for peers in world.server._members.graph.values()} == {world.terms.graph(102)[0]}
    assert len(world.server._members.graph[0]) < 101
    regular_turn(world)


def test_a_turn_may_be_another_attempt_of_a_round_that_was_not_revealed() -> None:
    world = World(terms_for(4))
    world.begin()
    world.deal()
    starts = world.server.begin(1, 2, WEIGHTS)
    question = world.sites["site-000"].start(starts["site-000"])
    assert (question.round, question.attempt, question.weights) == (1, 2, WEIGHTS)
    assert question.participants == tuple(world.sites)


def test_no_two_vectors_of_zeros_look_alike() -> None:
    world = World(terms_for(4))
    seen = set()
    for _ in range(3):
        for name, start in world.begin().items():
            frame = world.answer(name, start, np.zeros(32, np.uint32))
            seen.add(bytes(memoryview(frame)[-128:]))
    assert len(seen) == 12


def test_a_vector_of_another_shape_or_type_is_not_masked_and_the_turn_is_not_spent() -> None:
    world = World(terms_for(4))
    site = world.sites["site-000"]
    site.start(world.begin()["site-000"])
    for bad in (np.zeros(31, np.uint32), np.zeros(32, np.uint64), np.zeros((32, 1), np.uint32)):
        with pytest.raises(ValueError, match="32 items"):
            site.mask(bad)
    site.mask(np.zeros(32, np.uint32))


def test_steps_out_of_order_are_refused() -> None:
    terms = terms_for(4)
    site = SiteEnd(terms, "site-000", identities(4)["site-000"])
    for call in (lambda: site.deal(1), lambda: site.start(b""), lambda: site.mask(np.zeros(32, np.uint32))):
        with pytest.raises(IntegrityError) as error:
            call()
        assert error.value.code is Code.OUT_OF_ORDER


def test_another_identity_than_the_rosters_is_a_mistake_of_the_wiring() -> None:
    with pytest.raises(ValueError, match="identity"):
        SiteEnd(terms_for(4), "site-000", SigningKey.generate())
    with pytest.raises(IntegrityError):
        SiteEnd(terms_for(4), "nobody", SigningKey.generate())


def test_adding_and_subtracting_streams_are_inverse() -> None:
    stream = KeyStream.insecure(4)
    keys = [stream.bytes(32) for _ in range(5)]
    for dtype in (np.uint32, np.uint64):
        values = RNG.integers(0, 2**32, 100_001).astype(dtype)
        kept = values.copy()
        masks.add_streams(values, keys[:3], keys[3:])
        assert not np.array_equal(values, kept)
        masks.add_streams(values, keys[3:], keys[:3])
        assert np.array_equal(values, kept)


def test_a_mask_is_the_plain_key_stream() -> None:
    key = bytes(range(32))
    values = np.zeros(70_000, np.uint32)
    masks.add_streams(values, [key], [])
    assert values.tobytes() == KeyStream(key).bytes(280_000)


def test_the_room_loads_without_torch() -> None:
    code = (
        "import sys, fedgen.secagg.server, fedgen.secagg.site, fedgen.secagg.plain, fedgen.secagg.fixed_point\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'opacus', 'flwr', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_the_server_keeps_of_the_vectors_is_one_sum() -> None:
    """A deal for the next turn that is a view into a message would keep each site's whole vector alive."""
    sites, dimension = 8, 50_000
    world = World(terms_for(sites, dimension=dimension))
    starts = world.begin()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for name, start in starts.items():
        world.server.add(name, world.answer(name, start, np.zeros(dimension, world.terms.dtype)))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert after - before < 2 * dimension * world.terms.dtype.itemsize
