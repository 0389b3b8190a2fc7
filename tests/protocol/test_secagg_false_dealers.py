"""Sites that deal falsely: who can be named is named, in the result too, and is in no later setup; nobody else ever is.

What a dealer signed convicts it: a commitment, and a secret that is another. So does the word of more sites than may
lie: nobody else's shares are missing where only its shares are. Of two that do not hold the same secret one lies, and
no signature says which.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from support.peers import Wires, open_bureau
from support.secagg import World, identities, terms_for
from support.secagg_hostile import RNG
from support.secure_peers import Asked, SecurePeer, oracle, secure_peers, secure_study

from fedgen.errors import Code, QuorumLost
from fedgen.secagg import protocol, wire
from fedgen.secagg.wire import Kind as Frame

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fedgen.coordinator.coordinator import Outcome

LIAR = "site-03"


def signed(members: protocol.Members, false: wire.Deal, key: Any) -> bytes:
    return replace(false, signature=key.sign(protocol.DEAL, protocol.dealt(members, false))).encode()


def no_shares(deal: wire.Deal) -> wire.Deal:
    """Seal what nobody can open, for everybody."""
    return replace(deal, shares=tuple((peer, bytes(wire.SHARES)) for peer, _ in deal.shares))


def other_seed(deal: wire.Deal) -> wire.Deal:
    """Commit to another seed than is shared out."""
    return replace(deal, seed=bytes(32))


def believed(world: World, count: int) -> None:
    """Have site-000 hold another secret than so many others do."""
    for peer in range(1, count + 1):
        world.sites["site-000"]._pairs[peer] = bytes(32)


# ---- the server by itself -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("falsify", [no_shares, other_seed])
def test_what_a_dealer_signed_convicts_it(falsify: Callable[[wire.Deal], wire.Deal]) -> None:
    world = World(terms_for(10, dropouts=2))
    members, turn = world.server._members, world.server.missing()[0]
    deal = wire.Deal.decode(world.sites["site-004"].deal(turn), world.terms)
    world.server.collect("site-004", signed(members, falsify(deal), identities(10)["site-004"]))
    with pytest.raises(protocol.FalseDealing) as error:
        world.turn(RNG)
    assert (error.value.liars, error.value.suspects) == (("site-004",), ())
    assert error.value.code is Code.BAD_SEAL


@pytest.mark.parametrize("liars", [4, 5])
def test_holders_that_open_nothing_convict_nobody(liars: int) -> None:
    """Four of ten lose the turn; that they have no share of anybody says nothing about any of their dealers."""
    world = World(terms_for(10))
    starts = world.begin()
    for name, start in starts.items():
        world.server.add(name, world.answer(name, start, world.vector(RNG)))
    assert world.server.close() is None
    question = world.server.unmask()
    for index, name in enumerate(world.sites):
        message = wire.Reveal.decode(world.sites[name].reveal(question), world.terms)
        shares = tuple((owner, bytes(32)) for owner, _ in message.shares) if index < liars else message.shares
        world.server.revealed(name, replace(message, shares=shares).encode())
    with pytest.raises(QuorumLost, match="shares of a secret"):
        world.server.finish()


def test_as_many_holders_as_may_lie_convict_nobody() -> None:
    """Three of ten have no share of site-004's, and that is as many as the protocol withstands: the sum is exact."""
    world = World(terms_for(10))
    starts, expected = world.begin(), np.zeros(32, np.uint32)
    for name, start in starts.items():
        expected += (vector := world.vector(RNG))
        world.server.add(name, world.answer(name, start, vector))
    assert world.server.close() is None
    question = world.server.unmask()
    for index, name in enumerate(world.sites):
        message = wire.Reveal.decode(world.sites[name].reveal(question), world.terms)
        shares = tuple(row for row in message.shares if index >= 3 or row[0] != 4)
        world.server.revealed(name, replace(message, shares=shares).encode())
    assert np.array_equal(world.server.finish().values, expected)


@pytest.mark.parametrize(("others", "convicted"), [(1, False), (3, False), (4, True), (9, True)])
def test_who_disagrees_with_more_than_may_lie_is_the_one_that_lies(others: int, *, convicted: bool) -> None:
    world = World(terms_for(10))
    assert world.terms.believed == 3
    believed(world, others)
    with pytest.raises(protocol.FalseDealing) as error:
        world.begin()
    assert error.value.liars == (("site-000",) if convicted else ())
    suspects = tuple(f"site-{number:03d}" for number in range(others + 1))
    assert error.value.suspects == (() if convicted else suspects)


def test_a_pair_beside_a_convicted_site_stays_under_suspicion() -> None:
    world = World(terms_for(10))
    believed(world, 4)
    world.sites["site-008"]._pairs[9] = bytes(32)
    with pytest.raises(protocol.FalseDealing, match="site-008 and site-009") as error:
        world.begin()
    assert (error.value.liars, error.value.suspects) == (("site-000",), ("site-008", "site-009"))


# ---- behind the coordinator -----------------------------------------------------------------------------------------


def run(
    root: Path, twist: Callable[[SecurePeer, Frame, Asked, bytes], Any], rounds: int = 4
) -> tuple[Any, Outcome, Any]:
    desk = secure_study(sites=7, dropouts=2, training={"rounds": rounds})
    bureau = open_bureau(root, desk, peers := secure_peers(desk, site_03=twist))
    ended = bureau.run(Wires(peers))
    assert torch.equal(ended.progress.weights, oracle(desk, bureau.records))
    return bureau, ended, peers


@pytest.mark.parametrize("falsify", [no_shares, other_seed])
def test_a_site_that_never_deals_truly_costs_one_round_and_is_out(
    tmp_path: Path, falsify: Callable[[wire.Deal], wire.Deal]
) -> None:
    def twist(peer: SecurePeer, at: Frame, asked: Asked, frame: bytes) -> list[bytes] | None:
        if at is not Frame.OFFERED:
            return None
        end = peer.part._end  # type: ignore[union-attr]
        deal = falsify(wire.Deal.decode(frame, end.terms))
        return [peer.stepped(asked, signed(end._members, deal, peer.key))]

    bureau, ended, peers = run(tmp_path, twist)
    assert (ended.outcome, ended.progress.round) == ("completed", 4)
    assert [(record.attempt, len(record.sites)) for record in bureau.records] == [
        (1, 0),
        (1, 6),
        (1, 6),
        (1, 6),
    ]
    assert all(record.missing == {LIAR: "bad-seal"} for record in bureau.records)
    assert peers[2].charged == [(1, 1)]
    assert bureau.records[1].sites == bureau.records[3].sites


def test_a_site_that_disagrees_with_many_is_out_before_anybody_is_charged(tmp_path: Path) -> None:
    def twist(peer: SecurePeer, at: Frame, _asked: Asked, _frame: bytes) -> None:
        if at is Frame.KEYS:
            peer.part._end._pairs |= dict.fromkeys((3, 4, 5, 6), bytes(32))  # type: ignore[union-attr]

    bureau, ended, peers = run(tmp_path, twist, rounds=2)
    assert (ended.outcome, ended.progress.round) == ("completed", 2)
    assert [(record.round, record.attempt, len(record.sites)) for record in bureau.records] == [
        (1, 1, 0), (1, 2, 6), (2, 1, 6)
    ]  # fmt: skip
    assert all(record.missing == {LIAR: "bad-seal"} for record in bureau.records)
    assert peers[2].charged == []
    assert peers[0].charged == [(1, 2), (2, 1)]
