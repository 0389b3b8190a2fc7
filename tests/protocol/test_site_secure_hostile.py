"""Coordinators that lie to a site of secure aggregation, against ``Site.handle`` itself: nothing leaves but a code.

The rules of the core have their own attacks (``test_secagg_attacks.py``). Here the frames travel as a coordinator's do,
under its signature, to sites with rows, ledgers and budgets; so each attack is also held against what it cost the site.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support import canaries
from support.federation import Desk, make_site, small_study
from support.secagg_driven import Shelf
from support.secure_sites import Federation, begun, masked, proposed, signature, uncharged, unmasked

from fedgen.crypto.digest import sha256_hex
from fedgen.crypto.keys import SigningKey
from fedgen.errors import Code
from fedgen.messages import Joined, Refusal, Step, Stepped
from fedgen.secagg import protocol, wire
from fedgen.secagg.server import Aggregate
from fedgen.secagg.wire import Kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def fed(tmp_path: Path) -> Federation:
    """Four sites, keys agreed on, with round 1 behind them."""
    made = Federation(tmp_path)
    made.driver = made.rounds()  # type: ignore[attr-defined]
    assert isinstance(made.run(made.driver), Aggregate)  # type: ignore[attr-defined]
    return made


# -- a turn that is not what it says ----------------------------------------------------------------

Attack = tuple[str, "Callable[[Federation, str, str], bytes]", Code]
OTHER = np.full(211, 0.25, "<f4")


def _turn(fed: Federation, name: str, frame: bytes, **changes: Any) -> bytes:
    return fed.desk.turn(name, frame, *fed.now, **changes)


TURNS: tuple[Attack, ...] = (
    (
        "the frame of another site, under a cover for this one",
        lambda fed, me, you: _turn(fed, me, fed.sent[you, Kind.START]),
        Code.WRONG_RECIPIENT,
    ),
    (
        "the whole message of another site",
        lambda fed, _me, you: _turn(fed, you, fed.sent[you, Kind.START]),
        Code.WRONG_RECIPIENT,
    ),
    (
        "a turn for everyone",
        lambda fed, me, _you: _turn(fed, me, fed.sent[me, Kind.START], cover_recipient="*"),
        Code.WRONG_RECIPIENT,
    ),
    (
        "other weights than the turn is about",
        lambda fed, me, _you: _turn(fed, me, fed.sent[me, Kind.START], body=OTHER.tobytes()),
        Code.STALE_ROUND,
    ),
    (
        "other weights under the digest of the right ones",
        lambda fed, me, _you: _turn(
            fed, me, fed.sent[me, Kind.START], body=OTHER.tobytes(), digest=fed.weights
        ),
        Code.MALFORMED,
    ),
    (
        "weights of another model",
        lambda fed, me, _you: _turn(fed, me, fed.sent[me, Kind.START], body=OTHER[:5].tobytes()),
        Code.WRONG_SHAPE,
    ),
    (
        "more parameters than there are bytes",
        lambda fed, me, _you: _turn(fed, me, fed.sent[me, Kind.START], parameters=2**50),
        Code.WRONG_SHAPE,
    ),
    (
        "no frame at all",
        lambda fed, me, _you: _turn(fed, me, b""),
        Code.MALFORMED,
    ),
    (
        "a frame of another kind",
        lambda fed, me, _you: _turn(fed, me, fed.sent[me, Kind.UNMASK]),
        Code.OUT_OF_ORDER,
    ),
    (
        "a frame longer than any",
        lambda fed, me, _you: _turn(fed, me, fed.sent[me, Kind.START] + bytes(10_000)),
        Code.TOO_LARGE,
    ),
    (
        "a frame of another attempt than the message",
        lambda fed, me, _you: _turn(fed, me, fed.start(me, attempt=2)),
        Code.STALE_ROUND,
    ),
    (
        "a message of another attempt than the frame",
        lambda fed, me, _you: fed.desk.turn(me, fed.sent[me, Kind.START], 2, 2),
        Code.STALE_ROUND,
    ),
    (
        "the round before, asked again",
        lambda fed, me, _you: fed.desk.turn(me, fed.start(me, round=1, attempt=2), 1, 2),
        Code.STALE_ROUND,
    ),
    (
        "the turn before, for the round ahead",
        lambda fed, me, _you: _turn(fed, me, fed.start(me, turn=1)),
        Code.REPLAYED,
    ),
    (
        "a turn that nobody dealt for",
        lambda fed, me, _you: _turn(fed, me, fed.start(me, turn=7)),
        Code.OUT_OF_ORDER,
    ),
    (
        "a turn of a setup to come",
        lambda fed, me, _you: _turn(fed, me, fed.start(me, setup=9)),
        Code.OUT_OF_ORDER,
    ),
    (
        "two participants",
        lambda fed, me, _you: _turn(fed, me, fed.start(me, participants=(0, 1), shares=())),
        Code.COHORT_TOO_SMALL,
    ),
    (
        "participants without this site",
        lambda fed, me, _you: _turn(fed, me, fed.start(me, participants=(1, 2, 3), shares=())),
        Code.MALFORMED,
    ),
    (
        "the clear sum that another trust would send",
        lambda fed, _me, _you: fed.desk.train(2),
        Code.OUT_OF_ORDER,
    ),
    (
        "the right turn, under the cover of another step",
        lambda fed, me, _you: fed.desk.signed(
            Step(study_hash=fed.desk.study.study_hash, run=fed.desk.run, round=2, attempt=1),
            fed.sent[me, Kind.START],
            recipient=me,
        ),
        Code.OUT_OF_ORDER,
    ),
)


@pytest.mark.parametrize(("what", "attack", "code"), TURNS, ids=[what for what, _, _ in TURNS])
def test_a_turn_that_is_not_what_it_says_is_refused_uncharged(
    fed: Federation, what: str, attack: Callable[[Federation, str, str], bytes], code: Code
) -> None:
    begun(fed)
    me, you = fed.names[0], fed.names[1]
    reply = fed.holders[me].site.handle(attack(fed, me, you))
    assert canaries.traces(reply) == []
    message, body = fed.desk.opened(reply, fed.keys[me])
    assert isinstance(message, Refusal), what
    assert (message.code, len(body)) == (code, 0)
    assert uncharged(fed, me)


def test_the_control_the_honest_turn_would_have_been_answered(fed: Federation) -> None:
    begun(fed)
    masked(fed, fed.names[0])
    assert fed.charged(fed.names[0]) == [(1, 1), (2, 1)]


def test_a_turn_is_answered_once_however_often_it_is_sent(fed: Federation) -> None:
    begun(fed)
    name = fed.names[0]
    masked(fed, name)
    for _ in range(3):
        assert fed.code(name, fed.letter(name, fed.sent[name, Kind.START])) is Code.STALE_ROUND
    assert fed.charged(name) == [(1, 1), (2, 1)]
    assert fed.settled(name) == 2


def test_where_the_study_has_no_shares_of_noise_there_is_no_turn(tmp_path: Path) -> None:
    desk = Desk(small_study())
    holder = make_site(tmp_path, desk)
    name = holder.site.name
    assert isinstance(holder.ask(desk.join())[0], Joined)
    for request in (desk.turn(name, b"FDGA"), desk.step(name, wire.Invite(setup=1).encode())):
        message, _ = holder.ask(request)
        assert isinstance(message, Refusal)
        assert message.code is Code.OUT_OF_ORDER
    assert holder.entries("reserved") == []


def test_without_masks_there_are_no_other_steps(tmp_path: Path) -> None:
    fed = Federation(tmp_path, secagg={"protocol": "sum"})
    for frame in (wire.Invite(setup=1).encode(), wire.Wanted(setup=1, turn=1, site=0).encode()):
        assert fed.code(fed.names[0], fed.desk.step(fed.names[0], frame)) is Code.OUT_OF_ORDER


# -- weights that differ from site to site ----------------------------------------------------------


def test_sites_that_were_given_different_weights_open_nothing(fed: Federation) -> None:
    """Each turn fits its own weights, so each site answers; but no two agree on what the sum is of."""
    begun(fed)
    odd, *others = fed.names
    masked(fed, *others)
    frame = fed.start(odd, weights=bytes.fromhex(sha256_hex(OTHER.tobytes())))
    message, body = fed.answer(odd, fed.desk.turn(odd, frame, 2, body=OTHER.tobytes()))
    assert isinstance(message, Stepped)
    fed.said[odd, Kind.START] = bytes(body)
    rows = {name: signature(fed, name) for name in fed.names}
    everybody = unmasked(fed, rows, tuple(fed.names))
    some = proposed(fed, odd, *others[:2])
    for name in fed.names:
        assert fed.code(name, fed.desk.step(name, everybody, 2)) is Code.BAD_SIGNATURE
    for name in (odd, *others[:2]):
        assert fed.code(name, fed.desk.step(name, some, 2)) is Code.BAD_SIGNATURE
    assert all(fed.charged(name) == [(1, 1), (2, 1)] for name in fed.names)


# -- keys -------------------------------------------------------------------------------------------


def test_a_key_that_the_coordinator_made_for_a_site_is_refused(tmp_path: Path) -> None:
    fed = Federation(tmp_path)
    mine = SigningKey.generate()

    def swapped(name: str, frame: bytes) -> bytes:
        if wire.kind_of(frame) is not Kind.KEYS:
            return frame
        keys = wire.Keys.decode(frame, fed.terms)
        victim, row = keys.keys[1]
        public = keys.keys[0][1][:-64]  # somebody else's key, under the coordinator's own signature
        forged = public + mine.sign(
            protocol.ADVERTISE, protocol.advertised(fed.terms, keys.setup, victim, public)
        )
        assert forged != row
        return replace(keys, keys=(keys.keys[0], (victim, forged), *keys.keys[2:])).encode()

    fed.swap = swapped
    assert not isinstance(fed.run(fed.rounds()), Aggregate)
    assert {code for _, kind, code in fed.seen if kind is Kind.KEYS} == {Code.BAD_SIGNATURE}
    assert all(fed.charged(name) == [] for name in fed.names)


def test_a_site_with_another_key_for_somebody_understands_nobody_and_pays_nothing(tmp_path: Path) -> None:
    """So a coordinator that enrolled a key of its own in a site's name is found out wherever the true one is known."""
    fed = Federation(tmp_path, join=False)
    odd = fed.names[0]
    stolen = {name: key.public for name, key in fed.keys.items()} | {fed.names[1]: fed.desk.signing.public}
    fed.restart(odd, peers=lambda: stolen)
    fed.join()
    outcome = fed.run(fed.rounds())
    assert isinstance(outcome, Aggregate)
    assert outcome.survivors == tuple(fed.names[1:])
    assert fed.codes(odd) == [Code.BAD_SIGNATURE]
    assert fed.charged(odd) == []


# -- steps out of turn ------------------------------------------------------------------------------


def test_steps_before_their_time_are_refused(tmp_path: Path) -> None:
    fed = Federation(tmp_path)
    name = fed.names[0]
    frames = (
        wire.Keys(setup=1, keys=()),
        wire.Offered(setup=1, site=0, offers=()),
        wire.Wanted(setup=1, turn=1, site=0),
        wire.Propose(setup=1, turn=1, signatures=()),
        wire.Unmask(setup=1, turn=1, survivors=(), signatures=()),
        wire.Start(
            setup=1, turn=1, site=0, round=1, attempt=1,
            weights=bytes.fromhex(fed.weights), participants=(0, 1, 2), shares=(),
        ),
    )  # fmt: skip
    for frame in frames:
        code = fed.code(name, fed.letter(name, frame.encode()))
        assert code in {Code.OUT_OF_ORDER, Code.STALE_ROUND}, frame.KIND
    assert fed.charged(name) == []
    assert fed.code(name, fed.desk.step(name, b"not a frame")) is Code.MALFORMED
    assert fed.code(name, fed.desk.step(name, wire.Clear(setup=0, turn=1, site=0, values=b"").encode())) is (
        Code.OUT_OF_ORDER
    )


def test_a_setup_is_joined_once(fed: Federation) -> None:
    for setup in (0, 1):
        frame = wire.Invite(setup=setup).encode()
        assert fed.code(fed.names[0], fed.desk.step(fed.names[0], frame, 2)) is Code.STALE_ROUND


def test_steps_of_another_run_are_not_for_this_one(fed: Federation) -> None:
    frame = wire.Invite(setup=2).encode()
    other = fed.desk.of(run="77" * 32)
    assert fed.code(fed.names[0], other.step(fed.names[0], frame, 2)) is Code.WRONG_STUDY


def test_a_message_that_says_otherwise_than_its_cover_is_refused(fed: Federation) -> None:
    name, frame = fed.names[0], wire.Invite(setup=2).encode()
    assert fed.code(name, fed.desk.step(name, frame, 2, round=3)) is Code.OUT_OF_ORDER


# -- opening ----------------------------------------------------------------------------------------


def test_a_round_is_opened_once(fed: Federation) -> None:
    name = fed.names[0]
    again = fed.sent[name, Kind.UNMASK]
    assert fed.code(name, fed.desk.step(name, again, 1)) is Code.REPLAYED
    assert fed.code(name, fed.desk.step(name, again, 2)) is Code.STALE_ROUND, "under another round's name"
    fed.restart(name)
    fed.join()
    assert fed.code(name, fed.desk.step(name, again, 1)) is Code.OUT_OF_ORDER, "it waits for the next setup"
    fed.driver = fed.rounds(store=Shelf(setup=1))  # type: ignore[attr-defined]
    outcome = fed.run(fed.driver, 1, 2)  # type: ignore[attr-defined]
    assert not isinstance(outcome, Aggregate), "not in another setup either"
    assert all(fed.charged(each) == [(1, 1)] for each in fed.names)


def test_two_survivor_sets_are_not_both_opened(fed: Federation) -> None:
    begun(fed)
    masked(fed, *fed.names)
    first, second, third, fourth = fed.names
    without_fourth = proposed(fed, first, second, third)
    without_third = proposed(fed, first, second, fourth)
    agreed = {}
    for name in (first, second, third):
        message, body = fed.answer(name, fed.desk.step(name, without_fourth, 2))
        assert isinstance(message, Stepped)
        agreed[name] = wire.Agree.decode(bytes(body), fed.terms).signature
    for name in (first, second):
        assert fed.code(name, fed.desk.step(name, without_third, 2)) is Code.REPLAYED
    message, body = fed.answer(fourth, fed.desk.step(fourth, without_third, 2))
    assert isinstance(message, Stepped), "the fourth signed nothing yet"
    own = wire.Agree.decode(bytes(body), fed.terms).signature
    other = unmasked(
        fed, {first: agreed[first], second: agreed[second], fourth: own}, (first, second, fourth)
    )
    assert fed.code(fourth, fed.desk.step(fourth, other, 2)) is Code.BAD_SIGNATURE
    assert fed.code(first, fed.desk.step(first, other, 2)) is Code.OUT_OF_ORDER
    everybody = unmasked(fed, {name: signature(fed, name) for name in fed.names}, tuple(fed.names))
    assert fed.code(first, fed.desk.step(first, everybody, 2)) is Code.OUT_OF_ORDER, (
        "having signed that some are"
    )
    honest = unmasked(fed, agreed, (first, second, third))
    for name in (first, second, third):
        assert isinstance(fed.answer(name, fed.desk.step(name, honest, 2))[0], Stepped)
    assert fed.code(first, fed.desk.step(first, honest, 2)) is Code.REPLAYED


def test_nothing_is_opened_for_a_site_that_would_be_alone_or_nearly(fed: Federation) -> None:
    begun(fed)
    masked(fed, *fed.names)
    first, second = fed.names[:2]
    assert fed.code(first, fed.desk.step(first, proposed(fed, first, second), 2)) is Code.COHORT_TOO_SMALL
    rows = {name: signature(fed, name) for name in (first, second)}
    assert fed.code(first, fed.desk.step(first, unmasked(fed, rows, (first, second)), 2)) is Code.OUT_OF_ORDER
