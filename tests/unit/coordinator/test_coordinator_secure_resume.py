"""A coordinator of secure aggregation killed anywhere: an exact sum or a lost round, and no update counted twice.

A site's vector depends on the attempt, so the model tells which attempts are in it: it must be exactly what the
standing records say, whatever the instant of the kill and whether the sites went down with the coordinator.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from support.peers import Bureau, Killed, Wires, open_bureau
from support.secure_peers import KillingWires, SecurePeer, oracle, secure_peers, secure_study, standing

from fedgen.coordinator.progress import Progress, ProgressStore
from fedgen.coordinator.secure_store import SetupFile
from fedgen.errors import Code, IntegrityError
from fedgen.events import StudyStarted
from fedgen.secagg.wire import Kind as Frame

if TYPE_CHECKING:
    from pathlib import Path

    from support.federation import Desk

ROUNDS = 4
# Group in which the coordinator's process ends, after so many answers; five sites answer in each.
STEPS = [
    (f"{step}-{number}", answers)
    for number, steps in ((1, ("advertise", "offer", "deal", "round", "reveal")), (2, ("round", "reveal")))
    for step in steps
    for answers in ((0, 2, 5) if step in {"round", "reveal"} else (2,))
]
LOST = {"reveal"}  # from here on the sites were asked to open the round


def _killed(root: Path, desk: Desk, peers: list[SecurePeer], group: str, answers: int) -> Bureau:
    bureau = open_bureau(root, desk, peers)
    with pytest.raises(Killed):
        bureau.run(KillingWires(peers, group, answers))
    return bureau


def _resumed(root: Path, desk: Desk, peers: list[SecurePeer], first: Bureau, *, restarts: bool) -> Bureau:
    """Go on in a new process; return it, all records in it."""
    for peer in peers:
        if restarts:
            peer.restart()
        peer.last_round = max((number for number, _ in peer.charged), default=0)
    second = open_bureau(root, desk, peers)
    ended = second.run(Wires(peers))
    records = [*first.records, *second.records]
    assert (ended.outcome, ended.progress.round) == ("completed", ROUNDS)
    assert torch.equal(ended.progress.weights, oracle(desk, records))
    second.records[:] = records
    return second


def _once(peers: list[SecurePeer], records: list[Any]) -> None:
    """Nothing is asked twice under one attempt, and nothing is summed that was not charged."""
    for peer in peers:
        assert len(set(peer.charged)) == len(peer.charged)
    for record in standing(records):
        for peer in peers:
            if peer.name in record.sites:
                assert (record.round, record.attempt) in peer.charged


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize(("group", "answers"), STEPS)
def test_killed_at_any_step_the_run_goes_on(
    tmp_path: Path, group: str, answers: int, *, restarts: bool
) -> None:
    desk = secure_study(training={"rounds": ROUNDS})
    peers = secure_peers(desk)
    first = _killed(tmp_path, desk, peers, group, answers)
    second = _resumed(tmp_path, desk, peers, first, restarts=restarts)
    step, number = group.split("-")
    record = standing(second.records)[int(number) - 1]
    if step in LOST:
        assert (record.sites, record.attempt) == ((), 1)
        assert record.missing == {}, "it was nobody's fault"
    else:
        assert (len(record.sites), record.attempt) == (5, 2)
    assert [len(r.sites) for r in standing(second.records) if r.round != int(number)] == [5, 5, 5]
    _once(peers, second.records)


@pytest.mark.parametrize(
    ("recovery", "protocol"), [("restart", "full"), ("unmask", "sum"), ("restart", "sum")]
)
@pytest.mark.parametrize("answers", [0, 2, 5])
def test_where_nothing_is_opened_no_round_is_lost(
    tmp_path: Path, recovery: str, protocol: str, answers: int
) -> None:
    desk = secure_study(training={"rounds": ROUNDS}, recovery=recovery, protocol=protocol)
    peers = secure_peers(desk)
    first = _killed(tmp_path, desk, peers, "round-2", answers)
    second = _resumed(tmp_path, desk, peers, first, restarts=True)
    assert [(r.round, r.attempt, len(r.sites)) for r in standing(second.records)] == [
        (1, 1, 5),
        (2, 2, 5),
        (3, 1, 5),
        (4, 1, 5),
    ]
    _once(peers, second.records)


@pytest.mark.parametrize("saved", [False, True])
def test_killed_around_the_saving_of_a_round_it_is_in_the_model_once_or_lost(
    tmp_path: Path, *, saved: bool
) -> None:
    """The record is written before the model: where the model was not saved, a later line says that it is lost."""
    desk = secure_study(training={"rounds": ROUNDS})
    peers = secure_peers(desk)

    class Fatal(ProgressStore):
        def save(self, progress: Progress) -> None:
            if progress.round == 2 and not saved:
                raise Killed
            super().save(progress)
            if progress.round == 2:
                raise Killed

    first = open_bureau(tmp_path, desk, peers, store=Fatal)
    with pytest.raises(Killed):
        first.run(Wires(peers))
    assert [len(record.sites) for record in first.records] == [5, 5]
    second = _resumed(tmp_path, desk, peers, first, restarts=True)
    found = [(r.round, r.attempt, len(r.sites)) for r in second.records]
    assert found == [(1, 1, 5), (2, 1, 5), *([] if saved else [(2, 1, 0)]), (3, 1, 5), (4, 1, 5)]
    (started,) = [event for event in second.events if isinstance(event, StudyStarted)]
    assert started.first_round == 3


def test_killed_between_saying_so_and_opening_the_round_is_lost(tmp_path: Path) -> None:
    desk = secure_study(training={"rounds": ROUNDS})
    peers = secure_peers(desk)
    first = open_bureau(tmp_path, desk, peers)
    wires = Wires(peers)
    wires.stop_before = "reveal-2"
    with pytest.raises(Killed):
        first.run(wires)
    assert json.loads((tmp_path / "secagg.json").read_text())["opened"] == 2
    second = _resumed(tmp_path, desk, peers, first, restarts=False)
    assert [len(record.sites) for record in standing(second.records)] == [5, 0, 5, 5]
    assert all((2, 2) not in peer.charged for peer in peers), "nobody is charged for a round that is over"


def test_killed_before_saying_so_the_round_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = secure_study(training={"rounds": ROUNDS})
    peers = secure_peers(desk)
    first = open_bureau(tmp_path, desk, peers)
    opening = SetupFile.opening

    def fatal(store: SetupFile, number: int) -> None:
        if number == 2:
            raise Killed
        opening(store, number)

    monkeypatch.setattr(SetupFile, "opening", fatal)
    with pytest.raises(Killed):
        first.run(Wires(peers))
    monkeypatch.setattr(SetupFile, "opening", opening)
    second = _resumed(tmp_path, desk, peers, first, restarts=False)
    assert [(r.attempt, len(r.sites)) for r in standing(second.records)] == [(1, 5), (2, 5), (1, 5), (1, 5)]


def test_killed_while_it_passes_a_lost_round_over_it_is_passed_over_again(tmp_path: Path) -> None:
    desk = secure_study(training={"rounds": ROUNDS})
    peers = secure_peers(desk)
    first = _killed(tmp_path, desk, peers, "reveal-2", 1)

    class Fatal(ProgressStore):
        def save(self, progress: Progress) -> None:
            raise Killed

    between = open_bureau(tmp_path, desk, peers, store=Fatal)
    with pytest.raises(Killed):
        between.run(Wires(peers))
    assert [(record.round, record.sites) for record in between.records] == [(2, ())]
    second = _resumed(tmp_path, desk, peers, first, restarts=True)
    assert [len(record.sites) for record in standing(second.records)] == [5, 0, 5, 5]


def test_killed_again_and_again_it_still_arrives(tmp_path: Path) -> None:
    desk = secure_study(training={"rounds": ROUNDS})
    peers = secure_peers(desk)
    records: list[Any] = []
    for group, answers in (("offer-1", 2), ("round-1", 3), ("round-1", 5), ("reveal-1", 3), ("round-2", 4)):
        records += _killed(tmp_path, desk, peers, group, answers).records
        for peer in peers:
            peer.restart()
    second = open_bureau(tmp_path, desk, peers)
    ended = second.run(Wires(peers))
    records += second.records
    assert torch.equal(ended.progress.weights, oracle(desk, records))
    assert [(r.round, r.attempt, len(r.sites)) for r in standing(records)] == [
        (1, 4, 0),
        (2, 2, 5),
        (3, 1, 5),
        (4, 1, 5),
    ]
    _once(peers, records)


def test_a_last_round_that_was_lost_ends_the_run_without_asking_anybody(tmp_path: Path) -> None:
    desk = secure_study(training={"rounds": 2})
    peers = secure_peers(desk)
    first = _killed(tmp_path, desk, peers, "reveal-2", 2)
    second, wires = open_bureau(tmp_path, desk, peers), Wires(peers)
    ended = second.run(wires)
    assert (ended.outcome, ended.progress.round, wires.log) == ("completed", 2, [])
    assert torch.equal(ended.progress.weights, oracle(desk, [*first.records, *second.records]))
    assert [len(record.sites) for record in standing([*first.records, *second.records])] == [5, 0]


def test_a_lost_quorum_is_asked_again_after_a_restart(tmp_path: Path) -> None:
    desk = secure_study(training={"rounds": ROUNDS})
    gone = {"site-01", "site-02"}
    twist = lambda peer, kind, asked, _frame: (  # noqa: E731 - a script
        [] if peer.name in gone and kind is Frame.START and asked.message.round == 2 else None
    )
    peers = secure_peers(desk, site_01=twist, site_02=twist)
    first = open_bureau(tmp_path, desk, peers)
    assert first.run(Wires(peers)).outcome == "quorum"
    gone.clear()
    second = _resumed(tmp_path, desk, peers, first, restarts=True)
    assert [(r.attempt, len(r.sites)) for r in standing(second.records)] == [(1, 5), (4, 5), (1, 5), (1, 5)]


@pytest.mark.parametrize(("step", "outcome"), [("round-3", "completed"), ("reveal-3", "quorum")])
def test_without_its_file_the_sites_still_know_what_they_joined_and_opened(
    tmp_path: Path, step: str, outcome: str
) -> None:
    desk = secure_study(training={"rounds": ROUNDS})
    peers = secure_peers(desk)
    first = _killed(tmp_path, desk, peers, step, 5)
    (tmp_path / "secagg.json").unlink()
    charged = [list(peer.charged) for peer in peers]
    second = open_bureau(tmp_path, desk, peers)
    ended = second.run(Wires(peers))
    assert ended.outcome == outcome
    assert torch.equal(ended.progress.weights, oracle(desk, [*first.records, *second.records]))
    assert set(second.records[0].missing.values()) == {str(Code.STALE_ROUND)}, (
        "a setup that was joined before"
    )
    if outcome == "quorum":
        assert [list(peer.charged) for peer in peers] == charged, "a round that was opened is begun by nobody"
    _once(peers, [*first.records, *second.records])


def test_a_damaged_file_stops_the_run(tmp_path: Path) -> None:
    desk = secure_study(training={"rounds": ROUNDS})
    peers = secure_peers(desk)
    _killed(tmp_path, desk, peers, "round-3", 0)
    (tmp_path / "secagg.json").write_text("{}")
    with pytest.raises(IntegrityError, match="cannot be read back"):
        open_bureau(tmp_path, desk, peers)
