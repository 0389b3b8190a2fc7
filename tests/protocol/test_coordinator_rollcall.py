"""The roll before round 1: every site is asked, and one that answers wrongly is absent with its code, no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from support.federation import Desk, small_study
from support.peers import Ask, Peer, Wires, honest, open_bureau

from fedgen.errors import Code, IntegrityError, QuorumLost
from fedgen.events import SiteRefused
from fedgen.messages import Joined

if TYPE_CHECKING:
    from pathlib import Path

OTHER = "99" * 32
Script = Callable[[Peer, Ask], "list[bytes] | None"]


def _desk() -> Desk:
    """Return a desk for four sites, of which two are enough."""
    return Desk(small_study(sites=4, training={"rounds": 3, "quorum": 2}))


def test_every_site_is_asked_to_join_before_round_one(tmp_path: Path) -> None:
    desk = _desk()
    peers = honest(desk)
    wires = Wires(peers)
    open_bureau(tmp_path, desk, peers).run(wires)
    assert wires.waited_for == [4]
    assert wires.log[0] == ("join", [0, 1, 2, 3])
    assert [group for group, _ in wires.log] == ["join", "round-1", "round-2", "round-3", "settle"]
    assert all(nodes == [0, 1, 2, 3] for _, nodes in wires.log)


JOINS: dict[str, tuple[Script, Code]] = {
    "nothing": (lambda _p, _a: [], Code.DROPPED),
    "garbage": (lambda _p, _a: [b"garbage"], Code.DROPPED),
    "no": (lambda p, a: [p.refusal(a, Code.STUDY_REFUSED)], Code.STUDY_REFUSED),
    "no budget": (lambda p, a: [p.refusal(a, Code.BUDGET)], Code.BUDGET),
    "a yes that is a no": (lambda p, _a: [p.joined(accepts=False)], Code.STUDY_REFUSED),
    "another study": (
        lambda p, _a: [
            p.signed(Joined(study_hash=OTHER, site=p.name, accepts=True, last_round=0), study_hash=OTHER)
        ],
        Code.WRONG_STUDY,
    ),
    "another run": (
        lambda p, _a: [
            p.signed(
                Joined(study_hash=p.desk.study.study_hash, site=p.name, accepts=True, last_round=0), run=OTHER
            )
        ],
        Code.WRONG_STUDY,
    ),
    "the name of another": (
        lambda p, _a: [
            p.signed(Joined(study_hash=p.desk.study.study_hash, site="site-01", accepts=True, last_round=0))
        ],
        Code.OUT_OF_ORDER,
    ),
    "a past that cannot be": (lambda p, _a: [p.joined(last_round=10**9)], Code.STALE_ROUND),
}


@pytest.mark.parametrize("wrong", list(JOINS))
def test_a_site_that_does_not_join_is_named_and_the_others_start(tmp_path: Path, wrong: str) -> None:
    script, code = JOINS[wrong]
    desk = _desk()
    peers = honest(desk)
    peers[2].on_join = script
    wires = Wires(peers)
    bureau = open_bureau(tmp_path, desk, peers)
    ended = bureau.run(wires)
    assert ended.outcome == "completed"
    absent = [event for event in bureau.events if isinstance(event, SiteRefused)]
    assert absent == [SiteRefused(round=0, site="site-03", code=code)]
    assert wires.log[1] == ("round-1", [0, 1, 3])
    assert [record.missing for record in bureau.records] == [{"site-03": str(code)}] * 3


@pytest.mark.parametrize(
    "script",
    [
        lambda p, a: [p.joined(), p.refusal(a, Code.FAULT)],
        lambda p, a: [p.refusal(a, Code.FAULT), p.joined()],
        lambda p, _a: [p.joined(), p.joined()],
        lambda p, _a: [b"garbage", p.joined()],
        lambda p, _a: [p.joined(), p.joined(last_round=99)],
    ],
)
def test_a_site_that_joined_has_joined_whatever_comes_with_it(tmp_path: Path, script: Script) -> None:
    desk = _desk()
    peers = honest(desk)
    peers[2].on_join = script
    wires = Wires(peers)
    bureau = open_bureau(tmp_path, desk, peers)
    assert bureau.run(wires).outcome == "completed"
    assert [event for event in bureau.events if isinstance(event, SiteRefused)] == []
    assert wires.log[1] == ("round-1", [0, 1, 2, 3])


def test_a_node_that_joins_in_anothers_name_does_not_take_its_place(tmp_path: Path) -> None:
    desk = _desk()
    peers = honest(desk)
    peers[2].on_join = lambda p, _a: [peers[0].joined(), p.joined()]
    wires = Wires(peers)
    assert open_bureau(tmp_path, desk, peers).run(wires).outcome == "completed"
    assert wires.log[1] == ("round-1", [0, 1, 2, 3])


def test_a_node_with_two_sites_behind_it_is_asked_once(tmp_path: Path) -> None:
    desk = _desk()
    peers = honest(desk)
    peers[0].on_join = lambda p, _a: [p.joined(), peers[1].joined()]
    peers[1].on_join = lambda _p, _a: []
    wires = Wires(peers)
    open_bureau(tmp_path, desk, peers).run(wires)
    assert wires.log[1] == ("round-1", [0, 2, 3])


def test_with_too_few_sites_the_study_does_not_start(tmp_path: Path) -> None:
    desk = _desk()
    peers = honest(desk)
    for peer, code in zip(peers[1:], (Code.CONSENT, Code.BUDGET, Code.BUDGET), strict=True):
        peer.on_join = lambda p, a, code=code: [p.refusal(a, code)]
    bureau = open_bureau(tmp_path, desk, peers)
    with pytest.raises(QuorumLost, match=r"1 of 4 sites joined, 2 are needed \(budget, consent\)"):
        bureau.run(Wires(peers))
    assert bureau.records == []
    assert bureau.store.latest() is None


def test_a_folder_that_most_sites_know_better_was_rolled_back(tmp_path: Path) -> None:
    desk = _desk()
    peers = honest(desk)
    for peer in peers[1:]:
        peer.last_round = 2
    with pytest.raises(IntegrityError, match="rolled back") as error:
        open_bureau(tmp_path, desk, peers).run(Wires(peers))
    assert error.value.code is Code.STALE_ROUND


def test_a_round_that_was_asked_and_never_finished_is_no_rollback(tmp_path: Path) -> None:
    desk = _desk()
    peers = honest(desk)
    for peer in peers:
        peer.last_round = 1
    assert open_bureau(tmp_path, desk, peers).run(Wires(peers)).outcome == "completed"
