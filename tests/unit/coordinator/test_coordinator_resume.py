"""A coordinator killed anywhere goes on at the right round, under a new attempt, and counts no site twice.

What is equal afterwards:

* With sites whose answer is a function of what they are asked, the final weights are those of a run that was never
  killed, bit for bit, wherever it was killed.
* With real sites under local trust, too, as long as they remember their last answer: they give it again.
* A site without that memory draws new noise for the repeated round and is charged for it: the number of rounds in
  the model is equal, its weights are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from support.federation import Desk, Holder, make_site, small_study
from support.peers import Bureau, Killed, Wires, honest, open_bureau

from fedgen.api.bench import Bench
from fedgen.coordinator.progress import Progress, ProgressStore
from fedgen.dpsgd.noise import NoiseSource
from fedgen.errors import Code
from fedgen.site.memory import Memory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fedgen.crypto.keys import SigningKey

POINTS = (
    "before asking",
    "after asking",
    "before saving",
    "after saving",
    "while settling",
)


def _study(**sections: Any) -> Desk:
    training = {"rounds": 4, "ema": 0.9, **sections.pop("training", {})}
    return Desk(small_study(sites=3, training=training, **sections))


def _killing(point: str) -> type[ProgressStore]:
    """Return a store that ends the process in round 2, before or after it saved."""

    class Fatal(ProgressStore):
        def save(self, progress: Progress) -> None:
            if progress.round == 2 and point == "before saving":
                raise Killed(point)
            super().save(progress)
            if progress.round == 2 and point == "after saving":
                raise Killed(point)

    return Fatal


def _killed(root: Path, desk: Desk, peers: Sequence[Any], point: str) -> Bureau:
    """Run until the process ends in round 2."""
    wires = Wires(peers)
    wires.stop_before = {"before asking": "round-2", "while settling": "settle"}.get(point)
    wires.stop_after = {"after asking": "round-2"}.get(point)
    bureau = open_bureau(root, desk, peers, store=_killing(point))
    with pytest.raises(Killed):
        bureau.run(wires)
    return bureau


def _whole(root: Path, desk: Desk, peers: Sequence[Any]) -> Progress:
    ended = open_bureau(root, desk, peers).run(Wires(peers))
    assert ended.outcome == "completed"
    return ended.progress


def _equal(left: Progress, right: Progress) -> bool:
    assert left.average is not None
    assert right.average is not None
    assert left.optimizer.keys() == right.optimizer.keys()
    return (
        left.round == right.round
        and torch.equal(left.weights, right.weights)
        and torch.equal(left.average, right.average)
        and all(torch.equal(left.optimizer[name], right.optimizer[name]) for name in left.optimizer)
    )


@pytest.mark.parametrize("optimizer", [{"name": "adam"}, {"name": "sgd", "momentum": 0.9}])
@pytest.mark.parametrize("point", POINTS)
def test_the_final_weights_are_those_of_a_run_that_was_never_killed(
    tmp_path: Path, point: str, optimizer: dict[str, Any]
) -> None:
    desk = _study(training={"optimizer": optimizer})
    straight = _whole(tmp_path / "straight", desk, honest(desk))
    peers = honest(desk)
    _killed(tmp_path / "killed", desk, peers, point)
    second = open_bureau(tmp_path / "killed", desk, peers)
    ended = second.run(Wires(peers))
    assert ended.outcome == "completed"
    assert _equal(ended.progress, straight)


def test_so_it_is_in_update_exchange(tmp_path: Path) -> None:
    desk = _study(training={"local_steps": 2})
    straight = _whole(tmp_path / "straight", desk, honest(desk))
    peers = honest(desk)
    _killed(tmp_path / "killed", desk, peers, "before saving")
    assert _equal(_whole(tmp_path / "killed", desk, peers), straight)


@pytest.mark.parametrize(
    ("point", "asked_again"),
    [
        ("before asking", [(2, 2), (3, 1), (4, 1)]),
        ("after asking", [(2, 2), (3, 1), (4, 1)]),
        ("before saving", [(2, 2), (3, 1), (4, 1)]),
        ("after saving", [(3, 1), (4, 1)]),
        ("while settling", []),
    ],
)
def test_it_goes_on_at_the_right_round_under_a_new_attempt(
    tmp_path: Path, point: str, asked_again: list[tuple[int, int]]
) -> None:
    desk = _study()
    peers = honest(desk)
    _killed(tmp_path, desk, peers, point)
    for peer in peers:
        peer.answered.clear()
    second = open_bureau(tmp_path, desk, peers)
    second.run(Wires(peers))
    assert [(record.round, record.attempt) for record in second.records] == asked_again
    assert all(peer.answered == asked_again for peer in peers)
    for record in second.records:
        assert sorted(record.sites) == ["site-01", "site-02", "site-03"], "each once"
        assert record.missing == {}


def test_an_answer_to_the_attempt_before_the_crash_does_not_count(tmp_path: Path) -> None:
    desk = _study()
    peers = honest(desk)
    _killed(tmp_path, desk, peers, "after asking")
    held = peers[0].sent[-1]
    peers[0].script = lambda _peer, ask: [held] if ask.train.round == 2 else None
    second = open_bureau(tmp_path, desk, peers)
    assert second.run(Wires(peers)).outcome == "completed"
    assert second.records[0].missing == {"site-01": str(Code.STALE_ROUND)}


def test_a_torn_newest_checkpoint_repeats_one_round_only(tmp_path: Path) -> None:
    desk = _study()
    straight = _whole(tmp_path / "straight", desk, honest(desk))
    peers = honest(desk)
    first = _killed(tmp_path / "killed", desk, peers, "after saving")
    first.folder.checkpoint(2).write_bytes(b"torn")
    second = open_bureau(tmp_path / "killed", desk, peers)
    ended = second.run(Wires(peers))
    assert [(record.round, record.attempt) for record in second.records] == [(2, 2), (3, 1), (4, 1)]
    assert _equal(ended.progress, straight)


def test_killed_again_and_again_it_still_arrives(tmp_path: Path) -> None:
    desk = _study()
    straight = _whole(tmp_path / "straight", desk, honest(desk))
    peers = honest(desk)
    for point in ("before asking", "after asking", "before saving", "after asking"):
        _killed(tmp_path / "killed", desk, peers, point)
    second = open_bureau(tmp_path / "killed", desk, peers)
    assert _equal(second.run(Wires(peers)).progress, straight)
    assert second.records[0].attempt == 5


def test_a_lost_quorum_is_asked_again_after_a_restart(tmp_path: Path) -> None:
    desk = _study(training={"quorum": 3})
    straight = _whole(tmp_path / "straight", desk, honest(desk))
    peers = honest(desk)
    peers[1].script = lambda _peer, ask: [] if ask.train.round == 2 else None
    ended = open_bureau(tmp_path / "lost", desk, peers).run(Wires(peers))
    assert (ended.outcome, ended.progress.round) == ("quorum", 1)
    peers[1].script = None
    assert _equal(_whole(tmp_path / "lost", desk, peers), straight)


def test_a_finished_run_asks_nobody_anything(tmp_path: Path) -> None:
    desk = _study()
    peers = honest(desk)
    done = _whole(tmp_path, desk, peers)
    wires = Wires(peers)
    again = open_bureau(tmp_path, desk, peers).run(wires)
    assert again.outcome == "completed"
    assert wires.log == []
    assert torch.equal(again.progress.weights, done.weights)


# -- with real sites --------------------------------------------------------------------------------


@dataclass
class Real:
    """A real site as a peer."""

    name: str
    holder: Holder
    key: SigningKey

    def handle(self, frame: bytes) -> list[bytes]:
        return [self.holder.site.handle(frame)]


def _real(folder: Path, desk: Desk, *, remembers: bool = True) -> list[Real]:
    """Return real sites whose noise can be repeated, each with its ledger."""
    bench = Bench()
    peers = []
    for number, entry in enumerate(desk.study.roster):
        own = folder / entry.name
        memory = Memory(None, own / "answer", durable=False) if remembers else Memory()
        holder = make_site(
            own,
            desk,
            name=entry.name,
            bench=bench.lend,
            memory=memory,
            noise=NoiseSource.insecure(number),
        )
        peers.append(Real(entry.name, holder, holder.identity))
    return peers


@pytest.mark.parametrize("point", POINTS)
def test_real_sites_that_remember_make_the_same_model_and_are_charged_once(
    tmp_path: Path, point: str
) -> None:
    desk = _study()
    straight = _whole(tmp_path / "a", desk, _real(tmp_path / "a-sites", desk))
    peers = _real(tmp_path / "b-sites", desk)
    _killed(tmp_path / "b", desk, peers, point)
    ended = open_bureau(tmp_path / "b", desk, peers).run(Wires(peers))
    assert _equal(ended.progress, straight)
    for peer in peers:
        assert [entry.round for entry in peer.holder.entries("reserved")] == [1, 2, 3, 4]


def test_real_sites_without_memory_are_charged_for_the_round_they_repeat(tmp_path: Path) -> None:
    desk = _study(privacy={"noise_multiplier": None, "epsilon": 3.0})
    peers = _real(tmp_path / "sites", desk, remembers=False)
    _killed(tmp_path / "run", desk, peers, "after asking")
    second = open_bureau(tmp_path / "run", desk, peers)
    ended = second.run(Wires(peers))
    for peer in peers:
        reserved = [(entry.round, entry.attempt) for entry in peer.holder.entries("reserved")]
        assert reserved == [(1, 1), (2, 1), (2, 2), (3, 1)]
    assert ended.outcome == "budget", "the round that was lost is missing at the end, and is never overdrawn"
    assert ended.progress.round == 3
    assert set(second.records[-1].missing.values()) == {"budget"}
