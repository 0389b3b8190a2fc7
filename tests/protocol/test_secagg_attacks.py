"""A hostile server against the shipped sites of secure aggregation.

The server here forges whatever it likes out of all it has seen. What must hold: it is refused with a code, and no
participant's seed and backup key can both be put together, whatever was opened.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.secagg import WEIGHTS, Opened, Recovery, World, identities, terms_for
from support.secagg_hostile import (
    RNG,
    frame_propose,
    frame_unmask,
    inputs,
    masked_turn,
    name_of,
    refused,
    unmask_all,
)

from fedgen.crypto.keys import SIGNATURE_BYTES, SigningKey
from fedgen.errors import Code
from fedgen.secagg import protocol, wire
from fedgen.secagg.server import ServerEnd
from fedgen.secagg.site import SiteEnd

# ---- the server swaps keys -----------------------------------------------------------------------------------------


def setup_until_keys(n: int = 4):
    terms = terms_for(n)
    sites = {name: SiteEnd(terms, name, key) for name, key in identities(n).items()}
    server = ServerEnd(terms)
    for name, site in sites.items():
        server.admit(name, site.advertise())
    return terms, sites, server, wire.Keys.decode(server.keys(), terms)


def test_a_key_the_server_made_is_refused() -> None:
    terms, sites, _, keys = setup_until_keys()
    from fedgen.crypto.agreement import AgreementKey
    from fedgen.crypto.stream import KeyStream

    mine = AgreementKey.generate(KeyStream.from_os()).public
    server_key = SigningKey.generate()
    statement = protocol.advertised(terms, 1, 1, mine)
    forged = {
        "kept signature": mine + keys.keys[1][1][-SIGNATURE_BYTES:],
        "own signature": mine + server_key.sign(protocol.ADVERTISE, statement),
        "no signature": mine + bytes(SIGNATURE_BYTES),
        "another site's key": keys.keys[2][1],
    }
    for row in forged.values():
        rows = tuple((site, row if site == 1 else old) for site, old in keys.keys)
        refused(Code.BAD_SIGNATURE, sites["site-000"].offer, replace(keys, keys=rows).encode())
    sites["site-000"].offer(keys.encode())  # nothing was left behind by the refusals


def test_a_key_of_another_setup_run_or_study_is_refused() -> None:
    terms, sites, _, keys = setup_until_keys()
    others = [
        (terms, 2),
        (replace(terms, run="44" * 32), 1),
        (replace(terms, study="44" * 32), 1),
        (replace(terms, threshold=4), 1),
    ]
    for other, setup in others:
        end = SiteEnd(other, "site-001", identities(4)["site-001"], setup=setup)
        stale = wire.Advertise.decode(end.advertise(), terms)
        rows = tuple((s, stale.public + stale.signature if s == 1 else row) for s, row in keys.keys)
        refused(Code.BAD_SIGNATURE, sites["site-000"].offer, replace(keys, keys=rows).encode())


def test_a_site_whose_own_key_was_replaced_notices() -> None:
    terms, sites, _, keys = setup_until_keys()
    again = wire.Advertise.decode(
        SiteEnd(terms, "site-000", identities(4)["site-000"]).advertise(), terms
    )  # an earlier life of this site, recorded by the server
    rows = tuple((s, again.public + again.signature if s == 0 else row) for s, row in keys.keys)
    refused(Code.BAD_SIGNATURE, sites["site-000"].offer, replace(keys, keys=rows).encode())


def test_swapped_offers_are_refused() -> None:
    terms, sites, server, keys = setup_until_keys()
    for name, site in sites.items():
        server.relay(name, site.offer(keys.encode()))
    offered = wire.Offered.decode(server.offered("site-003"), terms)
    (zero, row0), (one, row1), *rest = offered.offers
    swapped = replace(offered, offers=((zero, row1), (one, row0), *rest))
    altered = replace(offered, offers=((zero, bytes([row0[0] ^ 1]) + row0[1:]), (one, row1), *rest))
    for bad in (swapped, altered):
        refused(Code.BAD_SIGNATURE, sites["site-003"].accept, bad.encode())
    refused(Code.MALFORMED, sites["site-003"].accept, replace(offered, offers=offered.offers[1:]).encode())
    refused(Code.WRONG_RECIPIENT, sites["site-002"].accept, offered.encode())
    sites["site-003"].accept(offered.encode())


def test_sites_that_were_given_different_members_never_share_a_mask() -> None:
    """A server that shows two groups two lists gets sums that do not add up to anything."""
    terms = terms_for(5, threshold=4, dropouts=1)
    sites = {name: SiteEnd(terms, name, key) for name, key in identities(5).items()}
    server = ServerEnd(terms)
    for name, site in sites.items():
        server.admit(name, site.advertise())
    keys = wire.Keys.decode(server.keys(), terms)
    fewer = replace(keys, keys=keys.keys[:-1])
    offers_all = wire.Offers.decode(sites["site-000"].offer(keys.encode()), terms)
    sites["site-001"].offer(fewer.encode())
    rows = tuple(row for row in offers_all.offers if row[0] == 1)
    rows = tuple((0, body) for _, body in rows)
    refused(Code.BAD_SIGNATURE, sites["site-001"].accept, wire.Offered(setup=1, site=1, offers=rows).encode())


# ---- the server claims dropouts, splits the survivors, shrinks the roster ---------------------------------------


def test_everybody_alive_and_dead_at_once_opens_one_kind_of_share_only() -> None:
    """What recovers every update elsewhere: one question that lists all as survivors, then one that lists none."""
    world = World(terms_for(5, dropouts=1))
    masked_turn(world)
    opened = Opened()
    everyone = tuple(range(5))
    question = unmask_all(world)
    for site in world.sites.values():
        opened.take(site.reveal(question), everyone, world.terms)
    for survivors in ((), (0, 1, 2, 3), everyone):
        for site in world.sites.values():
            refused(Code.REPLAYED, site.reveal, frame_unmask(world, survivors, inputs(world)))
            refused(Code.OUT_OF_ORDER, site.agree, frame_propose(world, (0, 1, 2, 3)))
    assert opened.backups == {}
    assert opened.exposed(world.terms.threshold) == []


def test_a_false_dropout_is_left_out_of_the_sum_and_stays_hidden() -> None:
    world = World(terms_for(6, dropouts=1))
    vectors = masked_turn(world)
    victim, survivors = 2, (0, 1, 3, 4, 5)
    state, opened = world.server._state, Opened()
    state.survivors = survivors
    question = frame_propose(world, survivors)
    agreed = {}
    for index in survivors:
        frame = wire.Agree.decode(world.sites[name_of(world, index)].agree(question), world.terms)
        agreed[index] = frame.signature
    # The victim neither signs nor reveals for a set it is not in, though it is asked with everybody's signatures.
    refused(Code.MALFORMED, world.sites["site-002"].agree, question)
    final = frame_unmask(world, survivors, agreed)
    refused(Code.OUT_OF_ORDER, world.sites["site-002"].reveal, final)
    for index in survivors:
        opened.take(world.sites[name_of(world, index)].reveal(final), survivors, world.terms)
    assert len(opened.backups[victim]) == 5
    assert victim not in opened.seeds
    # The server now tries for the victim's seed with the set in which all survive: those who agreed refuse, and the
    # victim's own share is one, below any threshold.
    everyone = frame_unmask(world, range(6), inputs(world))
    for index in survivors:
        refused(Code.REPLAYED, world.sites[name_of(world, index)].reveal, everyone)
    opened.take(world.sites["site-002"].reveal(everyone), range(6), world.terms)
    assert opened.seeds[victim] == {victim}
    assert opened.exposed(world.terms.threshold, colluders=()) == []
    assert len(vectors) == 6


def test_more_dropouts_than_the_study_tolerates_are_refused() -> None:
    world = World(terms_for(6, dropouts=1))
    masked_turn(world)
    for survivors in ((0, 1, 2, 3), (0, 1, 2), (0, 1), (0,)):
        site = world.sites["site-000"]
        refused(Code.COHORT_TOO_SMALL, site.agree, frame_propose(world, survivors))
        refused(Code.OUT_OF_ORDER, site.reveal, frame_unmask(world, survivors, inputs(world)))


def test_a_site_that_gave_no_input_is_not_proposed_as_a_survivor() -> None:
    world = World(terms_for(6, dropouts=2))
    masked_turn(world, drop={"site-005"})
    signed = inputs(world)
    forged = signed | {5: signed[4]}
    rows = tuple((site, forged[site]) for site in (0, 1, 2, 3, 5))
    question = wire.Propose(setup=1, turn=1, signatures=rows).encode()
    refused(Code.BAD_SIGNATURE, world.sites["site-000"].agree, question)
    refused(Code.BAD_SIGNATURE, world.sites["site-000"].reveal, frame_unmask(world, range(6), forged))
    refused(Code.BAD_SIGNATURE, world.sites["site-000"].reveal, frame_unmask(world, range(6), signed))


def test_a_split_survivor_set_opens_at_most_one_side() -> None:
    """Two sets, each shown to half of the sites, each with all the signatures the server could get for it."""
    world = World(terms_for(6, threshold=5, dropouts=1, colluders=1))
    masked_turn(world)
    sides = {(0, 1, 2, 3, 4): (0, 1, 2), (0, 2, 3, 4, 5): (3, 4, 5)}
    for survivors, shown in sides.items():
        agreed = {}
        for index in shown:
            frame = world.sites[name_of(world, index)].agree(frame_propose(world, survivors))
            agreed[index] = wire.Agree.decode(frame, world.terms).signature
        for index in shown:
            final = frame_unmask(world, survivors, agreed)
            refused(Code.BAD_SIGNATURE, world.sites[name_of(world, index)].reveal, final)
    # Having signed a part, they do not open for all either, though every input signature is there.
    for site in world.sites.values():
        refused(Code.OUT_OF_ORDER, site.reveal, unmask_all(world))


def test_signatures_for_one_set_do_not_count_for_another() -> None:
    world = World(terms_for(6, dropouts=1))
    masked_turn(world)
    first, second = (0, 1, 2, 3, 4), (0, 1, 2, 3, 5)
    agreed = {}
    for index in (0, 1, 2, 3):
        frame = world.sites[name_of(world, index)].agree(frame_propose(world, first))
        agreed[index] = wire.Agree.decode(frame, world.terms).signature
    refused(Code.REPLAYED, world.sites["site-000"].agree, frame_propose(world, second))
    world.sites["site-005"].agree(frame_propose(world, second))
    refused(Code.BAD_SIGNATURE, world.sites["site-005"].reveal, frame_unmask(world, second, agreed))
    refused(Code.OUT_OF_ORDER, world.sites["site-000"].reveal, frame_unmask(world, second, agreed))
    few = dict(list(agreed.items())[:3])
    refused(Code.BAD_SIGNATURE, world.sites["site-000"].reveal, frame_unmask(world, first, few))
    outsider = few | {5: SigningKey.generate().sign(protocol.SURVIVORS, b"")}
    refused(Code.BAD_SIGNATURE, world.sites["site-000"].reveal, frame_unmask(world, first, outsider))
    world.sites["site-000"].reveal(frame_unmask(world, first, agreed))


def test_the_roster_is_not_shrunk_to_two() -> None:
    _, sites, _, keys = setup_until_keys()
    refused(Code.COHORT_TOO_SMALL, sites["site-000"].offer, replace(keys, keys=keys.keys[:2]).encode())
    world = World(terms_for(4))
    start = wire.Start.decode(world.begin()["site-000"], world.terms)
    shares = tuple(row for row in start.shares if row[0] == 1)
    two = replace(start, participants=(0, 1), shares=shares)
    refused(Code.COHORT_TOO_SMALL, world.sites["site-000"].start, two.encode())
    stranger = replace(start, participants=(1, 2, 3), shares=start.shares)
    refused(Code.MALFORMED, world.sites["site-000"].start, stranger.encode())
    world.sites["site-000"].start(start.encode())


# ---- the server replays, asks twice, shows different weights, withholds ---------------------------------------------


def test_a_round_is_not_played_twice() -> None:
    world = World(terms_for(4))
    starts = world.begin()
    for name, start in starts.items():
        world.server.add(name, world.answer(name, start, world.vector(RNG)))
    site = world.sites["site-000"]
    old_question = unmask_all(world)
    refused(Code.REPLAYED, site.start, starts["site-000"])
    for each in world.sites.values():
        each.reveal(old_question)
    world.server._give_up()
    for round_number, attempt in ((1, 1), (1, 2), (1, 99)):  # a round that was revealed, under a fresh turn
        world.deal()
        again = world.server.begin(round_number, attempt, WEIGHTS)["site-000"]
        refused(Code.STALE_ROUND, site.start, again)
        world.server._turn -= 1
        world.deal()
    world.round = 1
    starts = world.begin()
    site.start(starts["site-000"])
    refused(Code.STALE_ROUND, site.reveal, old_question)
    refused(
        Code.OUT_OF_ORDER,
        site.reveal,
        replace(wire.Unmask.decode(old_question, world.terms), turn=2).encode(),
    )


def test_nothing_is_said_twice() -> None:
    world = World(terms_for(6, dropouts=1))
    masked_turn(world, drop={"site-005"})
    site = world.sites["site-000"]
    refused(Code.OUT_OF_ORDER, site.mask, world.vector(RNG))
    question = world.server.close()
    frame = site.agree(question)
    refused(Code.REPLAYED, site.agree, question)
    world.server.agreed("site-000", frame)
    for index in range(1, 5):
        world.server.agreed(name_of(world, index), world.sites[name_of(world, index)].agree(question))
    final = world.server.unmask()
    site.reveal(final)
    refused(Code.REPLAYED, site.reveal, final)
    refused(Code.REPLAYED, site.offer, world.keys)
    refused(Code.REPLAYED, site.accept, world.server.offered("site-000"))
    assert site.deal(2) == site.deal(2)  # the very same bytes, not other shares
    refused(Code.OUT_OF_ORDER, site.deal, 1)


def test_different_weights_for_different_sites_are_detected() -> None:
    world = World(terms_for(4))
    starts, signed = world.begin(), {}
    for index, (name, start) in enumerate(starts.items()):
        shown = wire.Start.decode(start, world.terms)
        shown = shown if index < 2 else replace(shown, weights=b"\x44" * 32)
        frame = world.answer(name, shown.encode(), world.vector(RNG))
        signed[index] = wire.Masked.decode(frame, world.terms).signature
        if index < 2:
            world.server.add(name, frame)
        else:  # an honest server's own check
            refused(Code.WRONG_STUDY, world.server.add, name, frame)
    for site in world.sites.values():
        refused(Code.BAD_SIGNATURE, site.reveal, frame_unmask(world, range(4), signed))


@pytest.mark.parametrize("field", ["weights", "round", "attempt", "participants"])
def test_masks_of_sites_that_were_told_different_things_do_not_cancel(field: str) -> None:
    """Even where nobody signs or opens anything: with one message a turn, the lie leaves the server with noise."""
    world = World(terms_for(5, threshold=4, dropouts=1, recovery=Recovery.RESTART, dimension=4096))
    total_ = np.zeros(4096, np.uint32)
    for index, (name, start) in enumerate(world.begin(sorted(world.sites)).items()):
        shown = wire.Start.decode(start, world.terms)
        if index == 0:
            other = {"weights": b"\x44" * 32, "round": 7, "attempt": 7, "participants": (0, 1, 2, 3)}[field]
            shown = replace(shown, **{field: other})
        frame = world.answer(name, shown.encode(), np.zeros(4096, np.uint32))
        total_ += np.frombuffer(wire.Masked.decode(frame, world.terms).values, np.uint32)
    # All gave zeros; of 4,096 true zeros a uniform sum has 1e-6 expected.
    assert np.count_nonzero(total_) > 4090


def test_a_server_that_withholds_learns_nothing_and_stops_nothing() -> None:
    world = World(terms_for(4))
    masked_turn(world)  # and no question follows
    aggregate, expected = world.turn(RNG)
    assert np.array_equal(aggregate.values, expected)
    assert aggregate.round == 2


def test_altered_or_misdirected_shares_are_left_out_and_the_sum_is_exact() -> None:
    world = World(terms_for(6, threshold=4))
    starts = world.begin()
    expected = np.zeros(32, np.uint32)
    for index, (name, start) in enumerate(starts.items()):
        shown = wire.Start.decode(start, world.terms)
        if index == 0:  # from site 1 another bit, from site 2 what it sealed for site 3
            other = dict(wire.Start.decode(starts["site-003"], world.terms).shares)[2]
            rows = dict(shown.shares)
            rows[1] = bytes([rows[1][0] ^ 1]) + rows[1][1:]
            rows[2] = other
            shown = replace(shown, shares=tuple(sorted(rows.items())))
        values = world.vector(RNG)
        expected += values
        world.server.add(name, world.answer(name, shown.encode(), values))
    assert world.server.close() is None
    question = world.server.unmask()
    for name, site in world.sites.items():
        frame = site.reveal(question)
        if name == "site-000":
            owners = {owner for owner, _ in wire.Reveal.decode(frame, world.terms).shares}
            assert owners == {0, 3, 4, 5}
        world.server.revealed(name, frame)
    assert np.array_equal(world.server.finish().values, expected)
