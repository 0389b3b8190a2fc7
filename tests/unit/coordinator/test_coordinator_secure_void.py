"""Rounds without a sum under distributed trust: asked again while nothing was opened, else passed over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from support.peers import Wires, open_bureau
from support.secure_peers import never, oracle, plan_for, run, secure_peers, secure_study, silent_in

from fedgen.errors import Code
from fedgen.secagg.wire import Kind as Frame

if TYPE_CHECKING:
    from pathlib import Path


def only_first(kind: Frame, number: int) -> Any:
    """A twist: no answer to a step in the first attempt at a round."""
    return lambda _peer, at, asked, _frame: (
        [] if at is kind and (asked.message.round, asked.message.attempt) == (number, 1) else None
    )


@pytest.mark.parametrize("protocol", ["full", "sum"])
def test_a_void_attempt_is_recorded_and_asked_again_and_every_attempt_is_charged(
    tmp_path: Path, protocol: str
) -> None:
    desk = secure_study(protocol=protocol)
    twist = only_first(Frame.START, 2)
    peers = secure_peers(desk, site_01=twist, site_02=twist)
    bureau, ended, _ = run(tmp_path, desk, peers)
    found = [(record.round, record.attempt, len(record.sites)) for record in bureau.records]
    assert found == [(1, 1, 5), (2, 1, 0), (2, 2, 5), (3, 1, 5), (4, 1, 5)]
    assert bureau.records[1].missing == {"site-01": "dropped", "site-02": "dropped"}, (
        "nobody else is to blame"
    )
    assert torch.equal(ended.progress.weights, oracle(desk, bureau.records))
    assert peers[4].charged == [(1, 1), (2, 1), (2, 2), (3, 1), (4, 1)]


@pytest.mark.parametrize("protocol", ["full", "sum"])
def test_after_three_attempts_the_quorum_is_lost(tmp_path: Path, protocol: str) -> None:
    desk = secure_study(protocol=protocol)
    peers = secure_peers(desk, site_01=silent_in(2), site_02=silent_in(2))
    bureau, ended, _ = run(tmp_path, desk, peers)
    assert (ended.outcome, ended.progress.round) == ("quorum", 1)
    assert [(record.round, record.attempt) for record in bureau.records] == [(1, 1), (2, 1), (2, 2), (2, 3)]
    assert peers[4].charged == [(1, 1), (2, 1), (2, 2), (2, 3)]
    assert torch.equal(ended.progress.weights, oracle(desk, bureau.records))


@pytest.mark.parametrize(("codes", "outcome"), [
    ((Code.BUDGET, Code.BUDGET), "budget"),
    ((Code.BUDGET, Code.CONSENT), "budget"),
    ((Code.CONSENT, Code.CONSENT), "quorum"),
])  # fmt: skip
def test_sites_that_say_no_are_not_asked_three_times_at_the_others_expense(
    tmp_path: Path, codes: tuple[Code, Code], outcome: str
) -> None:
    desk = secure_study()

    def refuses(code: Code) -> Any:
        return lambda peer, kind, asked, _frame: (
            [peer.refused(asked, code)] if kind is Frame.START and asked.message.round == 2 else None
        )

    peers = secure_peers(desk, site_01=refuses(codes[0]), site_02=refuses(codes[1]))
    bureau, ended, _ = run(tmp_path, desk, peers)
    assert (ended.outcome, ended.progress.round) == (outcome, 1)
    assert peers[4].charged == [(1, 1), (2, 1)]
    assert bureau.records[-1].missing == {"site-01": str(codes[0]), "site-02": str(codes[1])}


def test_a_round_whose_sum_is_lost_after_it_was_opened_is_passed_over_and_the_weights_stay(
    tmp_path: Path,
) -> None:
    desk = secure_study(dropouts=1)
    twist = never(Frame.UNMASK, rounds=(2,))
    peers = secure_peers(desk, site_01=twist, site_02=twist)
    seen: list[Any] = []
    bureau = open_bureau(tmp_path, desk, peers)
    save = bureau.store.save
    bureau.store.save = lambda progress: (seen.append(progress), save(progress))[1]  # type: ignore[method-assign]
    ended = bureau.run(Wires(peers))
    assert (ended.outcome, ended.progress.round) == ("completed", 4)
    lost = bureau.records[1]
    assert (lost.round, lost.attempt, lost.sites) == (2, 1, ())
    assert lost.missing == {"site-01": "dropped", "site-02": "dropped"}
    assert [progress.round for progress in seen] == [1, 2, 3, 4]
    assert torch.equal(seen[0].weights, seen[1].weights)
    assert torch.equal(ended.progress.weights, oracle(desk, bureau.records))
    assert all(peer.charged == [(number, 1) for number in (1, 2, 3, 4)] for peer in peers)


def test_rounds_that_are_lost_in_a_row_end_the_run(tmp_path: Path) -> None:
    desk = secure_study(training={"rounds": 9})
    twist = never(Frame.UNMASK, rounds=tuple(range(2, 10)))
    peers = secure_peers(desk, site_01=twist, site_02=twist)
    bureau, ended, _ = run(tmp_path, desk, peers)
    assert (ended.outcome, ended.progress.round) == ("quorum", 4)
    assert [len(record.sites) for record in bureau.records] == [5, 0, 0, 0]
    assert torch.equal(ended.progress.weights, oracle(desk, bureau.records))


@pytest.mark.parametrize("protocol", ["full", "sum"])
def test_a_quorum_above_what_the_noise_needs_counts(tmp_path: Path, protocol: str) -> None:
    desk = secure_study(protocol=protocol, dropouts=1, training={"quorum": 5})
    assert plan_for(desk).least == 4
    twist = only_first(Frame.START, 1)
    bureau, ended, wires = run(tmp_path, desk, secure_peers(desk, site_01=twist))
    found = [(record.attempt, len(record.sites)) for record in bureau.records]
    assert found == [(1, 0), (2, 5), (1, 5), (1, 5), (1, 5)]
    assert sum(group == "reveal-1" for group, _ in wires.log) == (protocol == "full"), (
        "nothing of the first was opened"
    )
    assert ended.outcome == "completed"
