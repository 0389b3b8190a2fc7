"""One round as a pure state machine: its rules in their order, and what is remembered of each site."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support.federation import Desk, small_study
from support.peers import Ask as Asked
from support.peers import Peer, honest

from fedgen.coordinator.aggregate import StreamingSum
from fedgen.coordinator.rollcall import RollCall
from fedgen.coordinator.rounds import Ask, Fate, Round, Verdict, signer_of
from fedgen.crypto.digest import sha256_hex
from fedgen.crypto.keys import SigningKey
from fedgen.errors import Code, IntegrityError
from fedgen.messages import Train

DESK = Desk(small_study(sites=3))
PEERS = honest(DESK)
ROSTER = {peer.name: peer.key.verify_key for peer in PEERS}
WEIGHTS = np.arange(6, dtype="<f4") / 7


def _question(number: int = 2, attempt: int = 1) -> tuple[Ask, Asked]:
    """Return what the coordinator remembers of a question, and what a peer sees of it."""
    digest = sha256_hex(WEIGHTS.tobytes())
    ask = Ask(DESK.study.study_hash, DESK.run, number, attempt, 6, 1, digest)
    train = Train(
        study_hash=ask.study_hash, run=ask.run, round=number, attempt=attempt, parameters=6, digest=digest
    )
    return ask, Asked(train, WEIGHTS)


ASK, SEEN = _question()


def _round(ask: Ask = ASK, **parts: Any) -> Round:
    return Round(ask, ROSTER, dict.fromkeys(ROSTER, 1.0), DESK.sealing, **parts)


def test_the_sum_is_the_exact_sum_of_what_was_accepted() -> None:
    fold = _round()
    for peer in PEERS[:2]:
        assert fold.accept(peer.trained(SEEN, excluded={"consent-missing": "<10"})) == Verdict(
            site=peer.name, code=None, excluded={"consent-missing": "<10"}
        )
    closed = fold.close()
    exact = sum(peer.values(SEEN).astype(np.float64) for peer in PEERS[:2])
    np.testing.assert_array_equal(closed.aggregate.total, exact)
    assert closed.aggregate.sites == ("site-01", "site-02")
    assert closed.missing == {"site-03": Code.DROPPED}
    assert closed.excluded == {
        "site-01": {"consent-missing": "<10"},
        "site-02": {"consent-missing": "<10"},
    }
    assert closed.present == 2


def test_sites_are_weighed_as_the_study_says() -> None:
    fold = Round(ASK, ROSTER, {"site-01": 10.0, "site-02": 30.0, "site-03": 5.0}, DESK.sealing)
    for peer in PEERS[:2]:
        fold.accept(peer.trained(SEEN))
    one, two = (peer.values(SEEN).astype(np.float64) for peer in PEERS[:2])
    aggregate = fold.close().aggregate
    np.testing.assert_allclose(aggregate.total, 10 * one + 30 * two)
    np.testing.assert_allclose(aggregate.mean(), (10 * one + 30 * two) / 40, rtol=1e-6)


def test_a_round_nobody_answered_is_empty_and_everybody_is_named() -> None:
    closed = _round(absent={"site-02": Code.BUDGET}).close()
    assert closed.present == 0
    assert closed.missing == {"site-01": Code.DROPPED, "site-02": Code.BUDGET, "site-03": Code.DROPPED}


@pytest.mark.parametrize(("limit", "code"), [(0.999, Code.NOT_FINITE), (1.0, None), (None, None)])
def test_a_value_beyond_the_sites_limit_is_refused(limit: float | None, code: Code | None) -> None:
    fold = _round(limits={} if limit is None else {"site-01": limit})
    values = np.array([0, 0, -1, 0, 0, 0.5])
    assert fold.accept(PEERS[0].trained(SEEN, values)).code is code
    assert fold.accept(PEERS[1].trained(SEEN, values * 1e6)).code is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_without_any_limit_what_is_not_finite_is_refused(value: float) -> None:
    fold = StreamingSum(2)
    with pytest.raises(IntegrityError) as error:
        fold.add("a", np.array([0, value], dtype="<f4").tobytes(), 1.0)
    assert error.value.code is Code.NOT_FINITE
    fold.add("a", np.array([0, 3.4e38], dtype="<f4").tobytes(), 1.0)
    assert fold.finish().total[1] == pytest.approx(3.4e38)


def test_what_a_site_said_to_this_question_counts_before_what_else_it_signed() -> None:
    peer = PEERS[0]
    _, before = _question(1)
    stale, no = peer.trained(before), peer.refusal(SEEN, Code.BUDGET)
    for replies in ([stale, no], [no, stale], [stale, stale, no, no]):
        fold = _round(absent={"site-01": Code.CONSENT})
        for reply in replies:
            fold.accept(reply)
        assert fold.close().missing["site-01"] is Code.BUDGET
    fold = _round(absent={"site-01": Code.CONSENT})
    fold.accept(stale)
    assert fold.close().missing["site-01"] is Code.STALE_ROUND


def test_a_reply_that_arrives_twice_is_a_replay_of_its_signer() -> None:
    fold = _round()
    reply = PEERS[0].trained(SEEN)
    fold.accept(reply)
    assert fold.accept(reply) == Verdict(site="site-01", code=Code.REPLAYED)
    assert fold.close().present == 1


def test_who_signed_a_refused_reply_is_known_only_by_signature() -> None:
    peer = PEERS[0]
    _, other = _question(9)
    good = peer.trained(other)
    assert signer_of(good, ROSTER, ASK) == "site-01"
    assert signer_of(peer.refusal(other, Code.FAULT), ROSTER, ASK) == "site-01"
    assert signer_of(peer.trained(other, key=SigningKey.generate()), ROSTER, ASK) is None
    assert signer_of(peer.trained(other, site="x", cover_sender="x"), ROSTER, ASK) is None
    assert signer_of(good[:-1] + bytes([good[-1] ^ 1]), ROSTER, ASK) is None
    for junk in (b"", b"junk", good[:50]):
        assert signer_of(junk, ROSTER, ASK) is None


def test_bytes_that_mean_nothing_never_raise() -> None:
    rng = np.random.default_rng(5)
    good = PEERS[0].trained(SEEN)
    fold = _round()
    for _ in range(300):
        broken = bytearray(good)
        for place in rng.integers(0, len(good), rng.integers(1, 4)):
            broken[place] = rng.integers(256)
        if bytes(broken) != good:
            assert fold.accept(bytes(broken[: rng.integers(1, len(good) + 1)])).code is not None
    assert fold.close().present == 0
    assert fold.accept(good).code is None, "and nothing that was forged took the honest one's place"


# -- the roll ---------------------------------------------------------------------------------------


def test_why_there_is_no_answer_is_said_unless_the_site_says_something_itself() -> None:
    fold = _round()
    for peer in PEERS:
        fold.silent(peer.name, Code.LATE)
    fold.accept(PEERS[0].refusal(SEEN, Code.CONSENT))
    fold.accept(PEERS[1].trained(SEEN))
    closed = fold.close()
    assert closed.missing == {"site-01": Code.CONSENT, "site-03": Code.LATE}
    assert (closed.answered, closed.fate) == (1, Fate.SUMMED)


def test_who_is_silent_when_a_word_is_wanted_is_dropped_with_the_transports_reason() -> None:
    fold = _round(confirms=True)
    for peer in PEERS[:2]:
        fold.accept(peer.trained(SEEN))
    fold.silent("site-01", Code.LATE)
    assert fold.drop_held() == {"site-01": Code.LATE, "site-02": Code.DROPPED}
    assert fold.close().present == 0


def test_the_longest_answer_is_what_the_question_says() -> None:
    assert (ASK.longest, replace(ASK, most=7).longest) == (24, 7)
    peer = PEERS[0]
    verdict = _round(replace(ASK, most=10)).accept(peer.trained(SEEN))
    assert verdict.code is Code.TOO_LARGE


def _roll(done: int = 0) -> RollCall:
    return RollCall(DESK.study.study_hash, DESK.run, ROSTER, DESK.sealing, done=done)


def _at(peer: Peer, last_round: int) -> bytes:
    return peer.joined(last_round=last_round)


def test_a_roll_names_nodes_sites_and_the_absent() -> None:
    roll = _roll()
    roll.accept(7, PEERS[1].joined())
    roll.accept(9, PEERS[0].refusal(SEEN, Code.CONSENT, round=0, attempt=0))
    present = roll.close()
    assert (present.nodes, present.sites) == ((7,), ("site-02",))
    assert present.absent == {"site-01": Code.CONSENT, "site-03": Code.DROPPED}
    assert present.ahead == {}


@pytest.mark.parametrize(("last", "joins"), [(0, True), (4, True), (5, True), (6, False), (10**6, False)])
def test_a_site_may_know_one_round_that_was_never_finished(last: int, joins: bool) -> None:  # noqa: FBT001 - a row
    roll = _roll(done=4)
    roll.accept(1, _at(PEERS[0], last))
    present = roll.close()
    assert (present.sites == ("site-01",)) is joins
    assert present.ahead == ({} if joins else {"site-01": last})


def test_a_site_that_came_to_its_senses_is_not_ahead() -> None:
    roll = _roll()
    roll.accept(1, _at(PEERS[0], 9))
    roll.accept(1, _at(PEERS[0], 0))
    assert roll.close().ahead == {}


def test_a_node_is_named_once_however_many_sites_are_behind_it() -> None:
    roll = _roll()
    for peer in PEERS:
        roll.accept(3, peer.joined())
    present = roll.close()
    assert present.nodes == (3,)
    assert present.places == {"site-01": 3, "site-02": 3, "site-03": 3}
