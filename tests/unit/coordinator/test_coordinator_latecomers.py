"""Sites that come late are invited again, join where they may, and never unseat anybody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support.federation import Desk, small_study
from support.peers import Peer, Wires, honest, open_bureau

from fedgen.coordinator.latecomers import Latecomers
from fedgen.coordinator.post import Keys, Post
from fedgen.errors import Code
from fedgen.messages import Join, Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from support.peers import Ask

    from fedgen.coordinator.transport import Answer


class Present(Wires):
    """A transport where only some nodes are connected."""

    def __init__(self, peers: Sequence[Peer], present: set[int]) -> None:
        super().__init__(peers)
        self.present = present

    def nodes(self, expected: int, timeout: float) -> Sequence[int]:
        super().nodes(expected, timeout)
        return sorted(self.present)


class Hall:
    """A run whose first site is in, and the others absent."""

    def __init__(self, *, sites: int = 3, again_s: float | None = 30.0, **scripts: Any) -> None:
        self.desk = Desk(small_study(sites=sites))
        self.peers = honest(self.desk)
        for name, script in scripts.items():
            next(it for it in self.peers if it.name == name.replace("_", "-")).on_join = script
        self.wires = Present(self.peers, {0})
        self.now = 0.0
        study = self.desk.study
        self.post = Post(
            self.wires,
            Keys(signing=self.desk.signing, sealing=self.desk.sealing),
            study_hash=study.study_hash,
            run=self.desk.run,
            roster={peer.name: peer.key.verify_key for peer in self.peers},
            timeout=5.0,
        )
        self.post.seat({"site-01": 0})
        self.absent = {peer.name: Code.DROPPED for peer in self.peers[1:]}
        join = Join(
            study_hash=study.study_hash,
            study=study.canonical(),
            run=self.desk.run,
            coordinator=self.desk.signing.public.hex(),
            sealing_key=self.desk.sealing.public.hex(),
        )
        self.late = Latecomers(self.post, join, self.absent, again_s=again_s, clock=lambda: self.now)

    @property
    def invited(self) -> list[list[int]]:
        return [asked for group, asked in self.wires.log if group == "join-late"]


def refuses(code: Code) -> Any:
    def answer(peer: Peer, _ask: Ask) -> list[bytes]:
        return [
            peer.signed(
                Refusal(
                    study_hash=peer.desk.study.study_hash,
                    site=peer.name,
                    code=code,
                    round=0,
                    attempt=0,
                    incident="ab" * 8,
                )
            )
        ]

    return answer


def test_who_comes_late_is_in_and_the_others_keep_their_places() -> None:
    hall = Hall()
    hall.now = 30.0
    assert hall.late.invite(2) == ()
    assert hall.invited == []  # nobody is there but the one who is in
    hall.wires.present = {0, 2}
    hall.now = 60.0
    assert hall.late.invite(2) == ("site-03",)
    assert hall.invited == [[2]]
    assert hall.post.places == {"site-01": 0, "site-03": 2}
    assert hall.absent == {"site-02": Code.DROPPED}
    hall.wires.present = {0, 1, 2}
    hall.now = 90.0
    assert hall.late.invite(3) == ("site-02",)
    assert hall.absent == {}
    hall.now = 10_000.0
    assert hall.late.invite(4) == ()
    assert hall.invited == [[2], [1]]


def test_pauses_double_while_nobody_comes_and_are_short_again_after() -> None:
    hall = Hall(site_02=refuses(Code.NOT_APPROVED))
    hall.wires.present = {0, 1}
    asked_at = []
    for second in range(0, 1000, 5):
        hall.now = float(second)
        before = len(hall.invited)
        hall.late.invite(1)
        if len(hall.invited) > before:
            asked_at.append(second)
    assert asked_at == [30, 90, 210, 450, 930]
    assert hall.absent == {"site-02": Code.NOT_APPROVED, "site-03": Code.DROPPED}
    hall.peers[1].on_join = None
    hall.now = 2000.0
    assert hall.late.invite(1) == ("site-02",)
    hall.wires.present = {0, 1, 2}
    hall.now = 2030.0
    assert hall.late.invite(1) == ("site-03",)


def test_a_site_whose_ledger_is_ahead_stays_out() -> None:
    hall = Hall()
    hall.peers[1].last_round = 9
    hall.wires.present = {0, 1}
    hall.now = 30.0
    assert hall.late.invite(2) == ()
    assert hall.absent["site-02"] is Code.STALE_ROUND
    assert hall.post.places == {"site-01": 0}
    hall.peers[1].last_round = 3  # a round that was asked and never finished is known
    hall.now = 1000.0
    assert hall.late.invite(2) == ("site-02",)


def test_a_stranger_and_one_who_speaks_for_another_change_nothing() -> None:
    def as_first(peer: Peer, _ask: Ask) -> list[bytes]:
        return [hall.peers[0].joined()]  # a copy of what another site signed

    hall = Hall(site_02=as_first)
    hall.wires.present = {0, 1}
    hall.now = 30.0
    assert hall.late.invite(1) == ()
    assert hall.post.places == {"site-01": 0}
    assert set(hall.absent) == {"site-02", "site-03"}


def test_a_simulation_asks_once() -> None:
    hall = Hall(again_s=None)
    hall.wires.present = {0, 1, 2}
    hall.now = 10_000.0
    assert hall.late.invite(1) == ()
    assert hall.invited == []


class Opening(Present):
    """A transport where another node connects once a group was carried."""

    def __init__(self, peers: Sequence[Peer], present: set[int], *, after: str, comes: int) -> None:
        super().__init__(peers, present)
        self.after, self.comes = after, comes

    def exchange(self, frames: Iterable[tuple[int, bytes]], timeout: float, group: str) -> Iterator[Answer]:
        yield from super().exchange(frames, timeout, group)
        if group == self.after:
            self.present.add(self.comes)


def test_in_a_run_who_comes_late_is_summed_from_the_next_round_on(tmp_path: Path) -> None:
    desk = Desk(small_study(sites=3, training={"rounds": 4}))
    peers = honest(desk)
    bureau = open_bureau(tmp_path, desk, peers)
    bureau.coordinator._again_s = 0.0
    outcome = bureau.run(Opening(peers, {0, 1}, after="round-2", comes=2))
    assert outcome.outcome == "completed"
    assert [len(record.sites) for record in bureau.records] == [2, 2, 3, 3]
    assert [dict(record.missing) for record in bureau.records] == [
        {"site-03": "dropped"}, {"site-03": "dropped"}, {}, {},
    ]  # fmt: skip
    assert peers[2].answered == [(3, 1), (4, 1)]


def test_in_a_run_a_site_that_is_ahead_never_trains(tmp_path: Path) -> None:
    desk = Desk(small_study(sites=3, training={"rounds": 4}))
    peers = honest(desk)
    peers[2].last_round = 50
    bureau = open_bureau(tmp_path, desk, peers)
    bureau.coordinator._again_s = 0.0
    bureau.run(Opening(peers, {0, 1}, after="round-1", comes=2))
    assert [len(record.sites) for record in bureau.records] == [2, 2, 2, 2]
    assert [record.missing["site-03"] for record in bureau.records] == [
        "dropped", "stale-round", "stale-round", "stale-round",
    ]  # fmt: skip
    assert peers[2].answered == []
