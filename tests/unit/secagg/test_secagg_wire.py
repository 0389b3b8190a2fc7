"""Messages: bounded before they are parsed, one form each."""

from __future__ import annotations

import numpy as np
import pytest
from support.secagg import World, terms_for

from fedgen.errors import Code, IntegrityError
from fedgen.secagg import wire

TERMS = terms_for(5, dropouts=1)
ROWS = ((0, bytes(64)), (3, b"\1" * 64))


def examples() -> list[wire.Message]:
    world = World(TERMS)
    deal = wire.Deal.decode(world.sites["site-000"].deal(1), TERMS)
    start = wire.Start.decode(world.begin()["site-001"], TERMS)
    site = world.sites["site-001"]
    site.start(start.encode())
    masked = wire.Masked.decode(site.mask(np.zeros(32, np.uint32)), TERMS)
    return [
        wire.Advertise.decode(site.advertise(), TERMS),
        wire.Keys.decode(world.keys, TERMS),
        wire.Offered.decode(world.server.offered("site-002"), TERMS),
        wire.Offers(setup=1, site=2, offers=((3, bytes(1088 + 64)),)),
        deal,
        start,
        masked,
        wire.Propose(setup=1, turn=1, signatures=ROWS),
        wire.Agree(setup=1, turn=1, site=2, signature=bytes(64)),
        wire.Unmask(setup=1, turn=1, survivors=(0, 1, 3), signatures=ROWS),
        wire.Reveal(setup=1, turn=1, site=2, shares=((1, bytes(32)),)),
        wire.Invite(setup=1),
        wire.Wanted(setup=1, turn=1, site=2),
        wire.Ready(setup=1, site=2),
        wire.Clear(setup=0, turn=1, site=2, values=bytes(4 * 32)),
    ]


EXAMPLES = examples()


def code(call, *arguments) -> Code:
    with pytest.raises(IntegrityError) as error:
        call(*arguments)
    return error.value.code


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_decode_is_the_inverse_of_encode(message: wire.Message) -> None:
    frame = message.encode()
    assert type(message).decode(frame, TERMS).encode() == frame
    assert len(frame) <= type(message).limit(TERMS)


def test_there_is_an_example_of_every_kind() -> None:
    assert [example.KIND for example in sorted(EXAMPLES, key=lambda m: m.KIND)] == list(wire.Kind)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_cut_lengthened_and_oversized_frames_are_refused(message: wire.Message) -> None:
    frame, kind = message.encode(), type(message)
    for size in {*range(min(len(frame), 80)), len(frame) - 1}:
        assert code(kind.decode, frame[:size], TERMS) is Code.MALFORMED
    assert code(kind.decode, frame + bytes(kind.limit(TERMS)), TERMS) is Code.TOO_LARGE
    if len(frame) < kind.limit(TERMS):
        assert code(kind.decode, frame + b"\0", TERMS) is Code.MALFORMED


def test_another_kind_magic_or_version_is_refused() -> None:
    frame = EXAMPLES[8].encode()
    assert code(wire.Propose.decode, frame, TERMS) is Code.OUT_OF_ORDER
    assert code(wire.Agree.decode, b"FDGA\x02" + frame[5:], TERMS) is Code.MALFORMED
    assert code(wire.Agree.decode, b"FDGN\x01" + frame[5:], TERMS) is Code.MALFORMED


def test_lists_out_of_order_repeated_or_beyond_the_roster_are_refused() -> None:
    for rows in (
        ROWS[::-1],
        (ROWS[0], ROWS[0]),
        ((5, bytes(64)),),
        tuple((i, bytes(64)) for i in range(5)) + ROWS,
    ):
        frame = wire.Propose(setup=1, turn=1, signatures=rows).encode()
        assert code(wire.Propose.decode, frame, TERMS) in {Code.MALFORMED, Code.TOO_LARGE}
    frame = wire.Agree(setup=1, turn=1, site=5, signature=bytes(64)).encode()
    assert code(wire.Agree.decode, frame, TERMS) is Code.MALFORMED


def test_fields_of_another_length_are_not_written() -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        wire.Agree(setup=1, turn=1, site=1, signature=bytes(63)).encode()
    with pytest.raises(ValueError, match="64 bytes"):
        wire.Propose(setup=1, turn=1, signatures=((0, b""),)).encode()


def test_a_masked_vector_is_hardly_longer_than_the_floats() -> None:
    big = terms_for(100, dimension=653_000)
    assert wire.Masked.limit(big) <= 1.05 * 4 * 653_000
