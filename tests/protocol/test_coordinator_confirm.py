"""Confirm before summing: an update is summed only if its site vouched for it right before, for this very attempt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.federation import Desk, small_study
from support.peers import Peer, Wires, honest, open_bureau

import fedgen.coordinator.clear_exchange as module
from fedgen.crypto.keys import SigningKey
from fedgen.errors import Code
from fedgen.events import SiteRefused
from fedgen.messages import Settled

if TYPE_CHECKING:
    from pathlib import Path

POLICY = {"consent": "consent.csv"}


def _desk() -> Desk:
    return Desk(small_study(sites=4, training={"rounds": 3, "quorum": 2}, policy=POLICY))


def _run(root: Path, desk: Desk, peers: list[Peer], **wires: Any) -> tuple[Any, Any, Wires]:
    bureau, carried = open_bureau(root, desk, peers), Wires(peers, **wires)
    return bureau, bureau.run(carried), carried


def test_each_site_is_asked_once_more_and_the_model_is_the_same(tmp_path: Path) -> None:
    desk = _desk()
    bureau, outcome, wires = _run(tmp_path / "a", desk, honest(desk))
    assert [group for group, _ in wires.log] == [
        "join", "round-1", "confirm-1", "round-2", "confirm-2", "round-3", "confirm-3", "settle",
    ]  # fmt: skip
    assert all(record.sites == ("site-01", "site-02", "site-03", "site-04") for record in bureau.records)
    plain = Desk(small_study(sites=4, training={"rounds": 3, "quorum": 2}))
    _, other, quiet = _run(tmp_path / "b", plain, honest(plain))
    assert not any(group.startswith("confirm") for group, _ in quiet.log)
    np.testing.assert_array_equal(outcome.progress.weights.numpy(), other.progress.weights.numpy())


def _refuses(peer: Peer, ask: Any) -> list[bytes]:
    return [peer.refusal(ask, Code.CONSENT)]


def _silent(_peer: Peer, _ask: Any) -> list[bytes]:
    return []


def _settled(peer: Peer, _ask: Any) -> list[bytes]:
    return [peer.signed(Settled(study_hash=peer.desk.study.study_hash, site=peer.name))]


def _of_another_round(peer: Peer, ask: Any) -> list[bytes]:
    return [peer.confirmed(ask, round=ask.message.round + 1)]


def _of_another_attempt(peer: Peer, ask: Any) -> list[bytes]:
    return [peer.confirmed(ask, attempt=2)]


def _of_another_site(peer: Peer, ask: Any) -> list[bytes]:
    return [peer.confirmed(ask, site="site-02")]


def _forged(peer: Peer, ask: Any) -> list[bytes]:
    mine, peer.key = peer.key, SigningKey.generate()
    reply = peer.confirmed(ask)
    peer.key = mine
    return [reply]


def _garbage(_peer: Peer, _ask: Any) -> list[bytes]:
    return [b"\0" * 40]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (_refuses, Code.CONSENT),
        (_silent, Code.DROPPED),
        (_settled, Code.DROPPED),
        (_of_another_round, Code.DROPPED),
        (_of_another_attempt, Code.DROPPED),
        (_of_another_site, Code.DROPPED),
        (_forged, Code.DROPPED),
        (_garbage, Code.DROPPED),
    ],
)
def test_anything_but_a_word_for_this_attempt_drops_the_update(
    tmp_path: Path, script: Any, code: Code
) -> None:
    desk = _desk()
    peers = honest(desk)
    peers[0].on_confirm = script
    bureau, outcome, _ = _run(tmp_path / "a", desk, peers)
    assert outcome.outcome == "completed"
    for record in bureau.records:
        assert record.sites == ("site-02", "site-03", "site-04")
        assert record.missing == {"site-01": str(code)}
        assert "site-01" not in record.excluded
    others = honest(desk)
    others[0].script = lambda peer, ask: [peer.refusal(ask, Code.CONSENT)]
    _, without, _ = _run(tmp_path / "b", desk, others)
    np.testing.assert_array_equal(outcome.progress.weights.numpy(), without.progress.weights.numpy())
    assert any(isinstance(e, SiteRefused) and e.site == "site-01" for e in bureau.events)


def test_a_word_said_twice_counts_once_and_a_late_no_changes_nothing(tmp_path: Path) -> None:
    desk = _desk()
    peers = honest(desk)
    peers[0].on_confirm = lambda peer, ask: [
        peer.confirmed(ask),
        peer.confirmed(ask),
        peer.refusal(ask, Code.CONSENT),
    ]
    bureau, _, _ = _run(tmp_path / "a", desk, peers)
    assert all(len(record.sites) == 4 for record in bureau.records)


def test_a_second_update_after_a_no_is_not_summed(tmp_path: Path) -> None:
    desk = _desk()
    peers = honest(desk)
    kept: list[bytes] = []

    def train(peer: Peer, ask: Any) -> list[bytes]:
        kept[:] = [peer.trained(ask)]
        return list(kept)

    peers[0].script = train
    peers[0].on_confirm = lambda peer, ask: [peer.refusal(ask, Code.CONSENT), *kept, peer.confirmed(ask)]
    bureau, _, _ = _run(tmp_path / "a", desk, peers)
    assert all("site-01" not in record.sites for record in bureau.records)


def test_a_word_nobody_asked_for_sums_nothing(tmp_path: Path) -> None:
    desk = _desk()
    peers = honest(desk)
    peers[0].script = _silent
    peers[1].on_confirm = lambda peer, ask: [peers[0].confirmed(ask), peer.confirmed(ask)]
    bureau, _, _ = _run(tmp_path / "a", desk, peers)
    assert all(record.missing == {"site-01": "dropped"} for record in bureau.records)


def test_too_few_words_lose_the_quorum_and_keep_the_last_model(tmp_path: Path) -> None:
    desk = _desk()
    peers = honest(desk)
    for peer in peers[:3]:
        peer.on_confirm = lambda peer, ask: _refuses(peer, ask) if ask.message.round == 2 else None
    _, outcome, _ = _run(tmp_path / "a", desk, peers)
    assert (outcome.outcome, outcome.progress.round) == ("quorum", 1)


def test_held_updates_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_HELD", 0)
    desk = _desk()
    bureau, _, wires = _run(tmp_path / "a", desk, honest(desk))
    asked = [nodes for group, nodes in wires.log if group == "confirm-1"]
    assert asked == [[0], [1], [2], [3]]
    assert all(len(record.sites) == 4 for record in bureau.records)
