"""Laws of secure aggregation over whatever hypothesis thinks of."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.secagg import Recovery, World, terms_for

from fedgen.crypto.stream import KeyStream
from fedgen.errors import IntegrityError, QuorumLost, Refused
from fedgen.secagg import shamir, wire
from fedgen.secagg.fixed_point import Grid, plan
from fedgen.secagg.plain import PlainSum

TERMS = terms_for(5, dropouts=1)
KINDS = list(wire.Message.__subclasses__())
elements = st.integers(0, shamir.PRIME - 1)


@given(st.data(), elements, st.integers(1, 12))
@settings(deadline=None, max_examples=60)
def test_any_threshold_of_any_shares_gives_the_secret(data, secret: int, n: int) -> None:
    threshold = data.draw(st.integers(1, n))
    points = data.draw(st.lists(st.integers(1, 2**20), min_size=n, max_size=n, unique=True))
    shares = shamir.split(secret, threshold, points, KeyStream.insecure(secret % 2**64))
    places = data.draw(st.permutations(range(n)))[: data.draw(st.integers(threshold, n))]
    lagrange = shamir.weights([points[place] for place in places])
    assert shamir.combine(lagrange, [shares[place] for place in places]) == secret


@given(st.sampled_from(KINDS), st.binary(max_size=400))
@settings(deadline=None, max_examples=300)
def test_hostile_bytes_are_refused_or_have_one_form(kind: type[wire.Message], tail: bytes) -> None:
    for frame in (tail, wire.MAGIC + bytes([kind.KIND]) + bytes(8) + b"\xff\xff" + tail):
        try:
            message = kind.decode(frame, TERMS)
        except IntegrityError:
            continue
        assert message.encode() == frame


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.binary(min_size=64, max_size=64)),
        max_size=5,
        unique_by=lambda r: r[0],
    )
)
def test_every_list_in_order_is_read_as_it_was_written(rows: list[tuple[int, bytes]]) -> None:
    message = wire.Propose(setup=1, turn=2, signatures=tuple(sorted(rows)))
    assert wire.Propose.decode(message.encode(), TERMS) == message


@given(
    st.integers(3, 7),
    st.integers(0, 2),
    st.sampled_from([32, 64]),
    st.sampled_from(list(Recovery)),
    st.integers(0, 2**32 - 1),
    st.sets(st.integers(0, 6), max_size=3),
)
@settings(deadline=None, max_examples=40)
def test_sum_only_gives_the_same_bits_for_any_roster_and_dropouts(
    n: int, dropouts: int, ring: int, recovery: Recovery, seed: int, gone: set[int]
) -> None:
    """Both modes, each site with its own stream, encoding and noise included: the same aggregate or the same end."""
    assume(dropouts <= n - max(3, -(-2 * n // 3)))
    terms = terms_for(n, dropouts=dropouts, ring=ring, recovery=recovery, dimension=50)
    point = plan(dimension=50, clip=1.0, multiplier=0.7, sites=n, dropouts=dropouts, ring=ring)
    updates = np.random.default_rng(seed).normal(size=(n, 50)).astype(np.float32)
    world, plain = World(terms), PlainSum(terms)
    plain.begin(1, 1)
    present = [name for index, name in enumerate(world.sites) if index not in gone]
    for name, start in world.begin().items():
        if name in present:
            streams = [KeyStream.insecure(seed, label=name) for _ in range(2)]
            masked, clear = (point.share(updates[terms.index(name)], stream) for stream in streams)
            world.server.add(name, world.answer(name, start, masked))
            plain.add(name, clear)
    ends = []
    for finish in (lambda: finish_masked(world, present), plain.finish):
        try:
            ends.append(finish())
        except QuorumLost:
            ends.append(None)
    full, simple = ends
    assert (full is None) == (simple is None)
    if full is not None and simple is not None:
        assert full.values.tobytes() == simple.values.tobytes()
        assert full.values.dtype == simple.values.dtype
        assert (full.survivors, full.round, full.attempt) == (simple.survivors, simple.round, simple.attempt)


def finish_masked(world: World, present: list[str]):
    if (propose := world.server.close()) is not None:
        for name in present:
            world.server.agreed(name, world.sites[name].agree(propose))
    if (unmask := world.server.unmask()) is not None:
        for name in present:
            world.server.revealed(name, world.sites[name].reveal(unmask))
    return world.server.finish()


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(1e-3, 1e3), st.sampled_from([32, 64]))
@settings(deadline=None, max_examples=60)
def test_a_sum_in_the_ring_decodes_to_the_sum_of_floats(seed: int, d: int, clip: float, ring: int) -> None:
    rng = np.random.default_rng(seed)
    grid = Grid(dimension=d, clip=clip, bound=clip, bits=20, whole=True)
    updates = rng.normal(size=(5, d))
    updates *= 0.9 * clip / np.linalg.norm(updates, axis=1, keepdims=True)
    encoded = sum(grid.encode(update.astype(np.float32), KeyStream.insecure(seed)) for update in updates)
    decoded = grid.decode(np.asarray(encoded).astype(f"<u{ring // 8}"))
    assert np.allclose(decoded, updates.sum(axis=0), atol=6 / grid.scale + 1e-6 * clip)


@given(st.integers(1, 9), st.integers(0, 9))
@settings(deadline=None)
def test_plain_sums_keep_the_rules_about_who_may_be_missing(asked: int, given_: int) -> None:
    terms = terms_for(9, dropouts=2)
    plain, names = PlainSum(terms), [name for name, _ in terms.sites]
    try:
        plain.begin(1, 1, names[:asked])
    except Refused:
        assert asked < terms.least
        return
    for name in names[: min(asked, given_)]:
        plain.add(name, np.ones(32, np.uint32))
    try:
        assert plain.finish().values[0] == min(asked, given_) >= terms.least
    except QuorumLost:
        assert min(asked, given_) < terms.least
