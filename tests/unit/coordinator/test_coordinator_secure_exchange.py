"""A coordinator under distributed trust: frames for one site each, exact sums, what is recorded, and who comes back."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from support.peers import open_bureau
from support.secure_peers import (
    ALL,
    SecurePeer,
    never,
    oracle,
    plan_for,
    run,
    secure_peers,
    secure_study,
    silent_in,
)

from fedgen.api.bench import new_learner
from fedgen.coordinator.post import Post
from fedgen.coordinator.rounds import Fate
from fedgen.coordinator.secure_exchange import SecureExchange, limits_of
from fedgen.coordinator.transport import Answer
from fedgen.crypto.digest import sha256_hex
from fedgen.errors import Code, ConfigError
from fedgen.events import RoundFinished, SiteRefused
from fedgen.messages import Kind, Step, Turn
from fedgen.secagg import wire
from fedgen.secagg.wire import Kind as Frame

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from support.federation import Desk

    from fedgen.coordinator.coordinator import Coordinator


# -- sums -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["full", "sum"])
@pytest.mark.parametrize("recovery", ["unmask", "restart"])
def test_the_model_is_what_the_sites_vectors_make(tmp_path: Path, protocol: str, recovery: str) -> None:
    desk = secure_study(protocol=protocol, recovery=recovery)
    bureau, ended, _ = run(tmp_path, desk, peers := secure_peers(desk))
    assert (ended.outcome, ended.progress.round) == ("completed", 4)
    assert [record.sites for record in bureau.records] == [ALL] * 4
    assert torch.equal(ended.progress.weights, oracle(desk, bureau.records))
    assert not torch.equal(ended.progress.weights, new_learner(desk.study).all_values())
    assert all(peer.charged == [(number, 1) for number in (1, 2, 3, 4)] for peer in peers)


@pytest.mark.parametrize("protocol", ["full", "sum"])
def test_the_sum_is_divided_by_the_batch_of_the_roster_whoever_survives(
    tmp_path: Path, protocol: str
) -> None:
    desk = secure_study(protocol=protocol, training={"rounds": 3, "optimizer": {"name": "sgd", "lr": 1.0}})
    bureau, ended, _ = run(tmp_path, desk, secure_peers(desk, site_02=silent_in(2)))
    assert [record.sites for record in bureau.records] == [ALL, (*ALL[:1], *ALL[2:]), ALL]
    assert bureau.records[1].missing == {"site-02": "dropped"}
    assert torch.equal(ended.progress.weights, oracle(desk, bureau.records))
    assert plan_for(desk).expected_batch == 0.5 * 40 * 5


@pytest.mark.parametrize("protocol", ["full", "sum"])
def test_changes_of_whole_sites_are_added_over_the_size_of_the_roster(tmp_path: Path, protocol: str) -> None:
    desk = secure_study(protocol=protocol, privacy={"unit": "site"}, training={"rounds": 1, "local_steps": 3})
    bureau, ended, _ = run(tmp_path, desk, secure_peers(desk, site_04=silent_in(1)))
    grid, start = plan_for(desk).point.grid, new_learner(desk.study).all_values()
    from support.secure_peers import vector

    total = sum(
        (vector(desk, name, 1, 1) for name in bureau.records[0].sites), np.zeros(grid.dimension, "<u4")
    )
    change = torch.from_numpy(grid.decode(total).astype(np.float32)).div_(5)
    assert len(bureau.records[0].sites) == 4
    assert torch.equal(ended.progress.weights, start + change)


# -- frames -----------------------------------------------------------------------------------------


def test_every_frame_is_for_one_site_and_the_weights_go_with_the_one_that_begins_a_turn(
    tmp_path: Path,
) -> None:
    desk = secure_study(training={"rounds": 2})
    peers = secure_peers(desk)
    _, _, wires = run(tmp_path, desk, peers)
    assert [group for group, _ in wires.log] == [
        "join", "advertise-1", "offer-1", "deal-1", "round-1", "reveal-1", "round-2", "reveal-2", "settle",
    ]  # fmt: skip
    for peer in peers:
        for asked in peer.asked:
            assert asked.header.recipient == peer.name
            if isinstance(asked.message, Turn):
                assert wire.kind_of(asked.frame) is Frame.START
                assert sha256_hex(asked.weights) == asked.message.digest
                assert asked.header.kind is Kind.TURN
            else:
                assert isinstance(asked.message, Step)
                assert asked.weights == b""
    seen = {asked.weights for peer in peers for asked in peer.asked if isinstance(asked.message, Turn)}
    assert len(seen) == 2, "the same weights for everybody, others in each round"


def test_setup_steps_serve_the_attempt_they_precede(tmp_path: Path) -> None:
    desk = secure_study(training={"rounds": 2})
    _, _, _ = run(tmp_path, desk, peers := secure_peers(desk))
    found = [(wire.kind_of(asked.frame), asked.message.round) for asked in peers[0].asked]
    assert [number for kind, number in found if kind in {Frame.INVITE, Frame.KEYS, Frame.OFFERED}] == [
        1,
        1,
        1,
    ]


def test_frames_are_made_one_at_a_time_and_the_weights_are_held_once() -> None:
    """With weights of 4 MB and 20 sites, all frames together would be 80 MB."""
    desk = secure_study(sites=20, protocol="sum", dropouts=3)
    peers = secure_peers(desk)
    weights = bytes(4 * 2**20)

    class Sink:
        """A transport that sends and hears nothing."""

        def exchange(
            self, frames: Iterable[tuple[int, bytes]], timeout: float, group: str
        ) -> Iterator[Answer]:
            for node, frame in frames:
                sizes.append(len(frame))
                yield Answer(node, None, Code.LATE)

    sizes: list[int] = []
    exchange = _exchange(desk, peers, Sink())
    tracemalloc.start()
    closed = exchange.attempt(1, 1, weights)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert closed.fate is Fate.VOID
    assert len(sizes) == 20
    assert min(sizes) > len(weights)
    assert peak < 6 * len(weights), "a frame, the one before it, and what signing joins"


def _exchange(desk: Desk, peers: list[SecurePeer], transport: Any, **parts: Any) -> SecureExchange:
    from fedgen.coordinator.post import Keys

    post = Post(
        transport,
        Keys(desk.signing, desk.sealing),
        study_hash=desk.study.study_hash,
        run=desk.run,
        roster={peer.name: peer.key.verify_key for peer in peers},
        timeout=1.0,
    )
    post.seat({peer.name: node for node, peer in enumerate(peers)})
    made: dict[str, Any] = {
        "quorum": plan_for(desk).least,
        "confirms": False,
        "absent": {},
        "store": None,
        "listener": lambda _event: None,
    }
    return SecureExchange(post, plan_for(desk), **{**made, **parts})


def test_masked_sums_need_a_store() -> None:
    desk = secure_study()
    with pytest.raises(ValueError, match="need a store"):
        _exchange(desk, secure_peers(desk), None)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("recovery", ["unmask", "restart"])
def test_each_step_has_its_own_limit(*, masked: bool, recovery: str) -> None:
    desk = secure_study(recovery=recovery)
    terms = plan_for(desk).terms(
        desk.study.study_hash, desk.run, {p.name: p.key.public for p in secure_peers(desk)}
    )
    limits = limits_of(terms, masked=masked)
    assert set(limits) == {"advertise", "offer", "deal", "mask", "agree", "reveal"}
    assert (
        limits["mask"] > 4 * terms.dimension > max(size for step, size in limits.items() if step == "agree")
    )
    assert limits["deal"] == (wire.Deal if recovery == "unmask" else wire.Ready).limit(terms)


# -- who is missing, and who comes back -------------------------------------------------------------


def test_who_is_late_is_late_and_who_never_answers_is_dropped(tmp_path: Path) -> None:
    desk = secure_study(dropouts=1)
    late = lambda group, node: (group, node) == ("round-2", 3)  # noqa: E731 - a schedule
    bureau, ended, _ = run(tmp_path, desk, secure_peers(desk, site_01=silent_in(3)), late=late)
    assert ended.outcome == "completed"
    assert [record.missing for record in bureau.records] == [
        {},
        {"site-04": "late"},
        {"site-01": "dropped"},
        {},
    ]
    assert torch.equal(ended.progress.weights, oracle(desk, bureau.records))


def test_a_refusal_is_named_with_its_code_and_told(tmp_path: Path) -> None:
    desk = secure_study()

    def refuses(peer: SecurePeer, kind: Frame, asked: Any, _frame: bytes) -> list[bytes] | None:
        return (
            [peer.refused(asked, Code.CONSENT)] if kind is Frame.START and asked.message.round == 2 else None
        )

    bureau, _, _ = run(tmp_path, desk, secure_peers(desk, site_05=refuses))
    assert bureau.records[1].missing == {"site-05": "consent"}
    assert SiteRefused(round=2, site="site-05", code=Code.CONSENT) in bureau.events
    assert [e.sites for e in bureau.events if isinstance(e, RoundFinished)] == [5, 4, 5, 5]


def test_excluded_counts_of_survivors_are_recorded(tmp_path: Path) -> None:
    desk = secure_study(training={"rounds": 1})

    def counts(peer: SecurePeer, kind: Frame, asked: Any, frame: bytes) -> list[bytes] | None:
        if kind is not Frame.START:
            return None
        return [peer.stepped(asked, frame, excluded={"consent-missing": "<10"})]

    bureau, _, _ = run(tmp_path, desk, secure_peers(desk, site_01=counts, site_02=silent_in(1)))
    assert bureau.records[0].excluded["site-01"] == {"consent-missing": "<10"}
    assert "site-02" not in bureau.records[0].excluded


def test_counts_do_not_belong_in_any_other_step(tmp_path: Path) -> None:
    desk = secure_study(training={"rounds": 1})

    def counts(peer: SecurePeer, kind: Frame, asked: Any, frame: bytes) -> list[bytes] | None:
        if kind is not Frame.UNMASK:
            return None
        return [peer.stepped(asked, frame, excluded={"consent-missing": "<10"})]

    bureau, ended, _ = run(tmp_path, desk, secure_peers(desk, site_01=counts))
    assert SiteRefused(round=1, site="site-01", code=Code.MALFORMED) in bureau.events
    assert torch.equal(ended.progress.weights, oracle(desk, bureau.records))


def test_a_site_that_sat_out_the_setup_comes_back_in_the_round_after(tmp_path: Path) -> None:
    desk = secure_study()
    bureau, ended, wires = run(tmp_path, desk, secure_peers(desk, site_03=never(Frame.KEYS, rounds=(1,))))
    assert [len(record.sites) for record in bureau.records] == [4, 5, 5, 5]
    assert bureau.records[0].missing == {"site-03": "dropped"}
    assert sum(group.startswith("advertise") for group, _ in wires.log) == 3, (
        "two tries in round 1, one in round 2"
    )
    assert torch.equal(ended.progress.weights, oracle(desk, bureau.records))


def test_a_site_that_never_comes_back_is_asked_more_and_more_seldom(tmp_path: Path) -> None:
    desk = secure_study(training={"rounds": 12})
    peers = secure_peers(desk, site_03=lambda _peer, _kind, _asked, _frame: [])
    bureau, _, wires = run(tmp_path, desk, peers)
    setups = [group for group, _ in wires.log if group.startswith("advertise")]
    assert setups == [f"advertise-{number}" for number in (1, 2, 3, 5, 9)]
    assert [record.missing for record in bureau.records] == [{"site-03": "dropped"}] * 12


def test_a_site_that_restarts_is_named_and_comes_back(tmp_path: Path) -> None:
    desk = secure_study()

    def restarts(peer: SecurePeer, kind: Frame, asked: Any, _frame: bytes) -> None:
        if kind is Frame.UNMASK and asked.message.round == 1:
            peer.restart()

    bureau, ended, _ = run(tmp_path, desk, secure_peers(desk, site_03=restarts))
    forgot = {"site-03": "out-of-order"}
    assert [record.missing for record in bureau.records] == [{}, forgot, forgot, {}]
    assert torch.equal(ended.progress.weights, oracle(desk, bureau.records))


def test_sites_that_did_not_join_are_absent_with_their_code(tmp_path: Path) -> None:
    desk = secure_study()
    peers = secure_peers(desk)
    peers[1].joined = lambda **_: peers[1].signed(_no(peers[1], Code.STUDY_REFUSED))  # type: ignore[method-assign]
    bureau, ended, wires = run(tmp_path, desk, peers)
    assert ended.outcome == "completed"
    assert [record.missing for record in bureau.records] == [{"site-02": "study-refused"}] * 4
    assert all(1 not in nodes for group, nodes in wires.log if group != "join")


@pytest.mark.parametrize("protocol", ["full", "sum"])
@pytest.mark.parametrize("recovery", ["unmask", "restart"])
def test_a_site_that_did_not_join_costs_the_others_no_attempt(
    tmp_path: Path, protocol: str, recovery: str
) -> None:
    """So a rehearsal charges what the full protocol would."""
    desk = secure_study(protocol=protocol, recovery=recovery)
    peers = secure_peers(desk)
    peers[1].joined = lambda **_: peers[1].signed(_no(peers[1], Code.STUDY_REFUSED))  # type: ignore[method-assign]
    bureau, ended, _ = run(tmp_path, desk, peers)
    assert ended.outcome == "completed"
    assert [(record.round, record.attempt) for record in bureau.records] == [(n, 1) for n in (1, 2, 3, 4)]
    assert peers[0].charged == [(n, 1) for n in (1, 2, 3, 4)]
    assert torch.equal(ended.progress.weights, oracle(desk, bureau.records))


def _no(peer: SecurePeer, code: Code) -> Any:
    from fedgen.messages import Refusal

    return Refusal(
        site=peer.name,
        study_hash=peer.desk.study.study_hash,
        round=0,
        attempt=0,
        code=code,
        incident="0" * 16,
    )


# -- confirming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ["full", "sum"])
def test_where_the_study_confirms_a_vector_is_added_only_with_its_sites_word(
    tmp_path: Path, protocol: str
) -> None:
    desk = secure_study(protocol=protocol, policy={"purpose": "train_generator", "consent": "consent.csv"})
    assert desk.study.study.policy.confirms
    peers = secure_peers(desk)
    words = {
        "site-01": lambda peer, asked: [peer.refused(asked, Code.CONSENT), peer.confirmed(asked)],
        "site-02": lambda _peer, asked: [] if asked.message.round == 2 else None,
        "site-03": lambda peer, asked: [peer.confirmed(asked)] * 2 if asked.message.round == 3 else None,
        "site-04": lambda _peer, asked: (
            [peers[4].confirmed(asked, site="site-05")] if asked.message.round == 4 else None
        ),
    }
    only = {1: "site-01", 2: "site-02", 3: "site-03", 4: "site-04"}
    for peer in peers[:4]:
        peer.on_confirm = lambda peer, asked: (
            words[peer.name](peer, asked) if only[asked.message.round] == peer.name else None
        )
    bureau, ended, wires = run(tmp_path, desk, peers)
    assert [record.missing for record in bureau.records] == [
        {"site-01": "consent"},
        {"site-02": "dropped"},
        {},
        {"site-04": "dropped"},
    ]
    assert SiteRefused(round=3, site="site-03", code=Code.REPLAYED) in bureau.events
    assert torch.equal(ended.progress.weights, oracle(desk, bureau.records))
    order = [group for group, _ in wires.log if group.endswith("-2") and not group.startswith("deal")]
    assert order == (["round-2", "confirm-2"] + (["agree-2", "reveal-2"] if protocol == "full" else []))


def test_the_word_of_a_site_that_was_reached_nowhere_is_not_asked_for() -> None:
    """A vector under its key may come from another's node; it waits for a word that cannot come."""

    class Silence:
        def exchange(self, frames: Iterable[tuple[int, bytes]], *_: Any) -> Iterator[Answer]:
            asked.extend(node for node, _ in frames)
            return iter(())

    asked: list[int] = []
    desk = secure_study(protocol="sum")
    exchange = _exchange(desk, secure_peers(desk), Silence(), confirms=True)
    assert exchange.attempt(1, 1, bytes(8)).fate is Fate.VOID, "nobody says anything"
    asked.clear()
    exchange._post.seat({"site-01": 0, "site-03": 2})
    assert exchange._confirm(("site-01", "site-02")) == set()
    assert asked == [0]


# -- parts ------------------------------------------------------------------------------------------


def test_without_the_key_of_a_site_there_are_no_sums_and_a_line_says_whose() -> None:
    """All sites sign under all keys: one that was revoked before the coordinator began again is no absent site."""

    class Live(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            if name == "site-02":
                raise KeyError(name)
            return super().__getitem__(name)

        def get(self, name: str, default: Any = None) -> Any:
            return default if name == "site-02" else super().get(name, default)

        def items(self) -> Any:
            return [(name, self[name]) for name in self]

    desk = secure_study(protocol="sum")
    peers = secure_peers(desk)
    exchange = _exchange(desk, peers, None)
    exchange._post.roster = Live(exchange._post.roster)
    with pytest.raises(ConfigError, match="site-02 is not enrolled any more"):
        SecureExchange(
            exchange._post, plan_for(desk), quorum=4, confirms=False, absent={}, store=None, listener=print
        )


def test_a_quorum_is_needed_to_begin(tmp_path: Path) -> None:
    from fedgen.errors import QuorumLost

    desk = secure_study()
    peers = secure_peers(desk)
    for peer in peers[:2]:
        peer.joined = lambda **_: b"no"  # type: ignore[method-assign]
    with pytest.raises(QuorumLost, match="3 of 5 sites joined, 4 are needed"):
        run(tmp_path, desk, peers)
    assert all(peer.charged == [] for peer in peers)


def test_the_coordinator_takes_the_larger_of_quorum_and_least(tmp_path: Path) -> None:
    desk = secure_study(training={"quorum": 1})
    coordinator: Coordinator = open_bureau(tmp_path, desk, secure_peers(desk)).coordinator
    assert coordinator._quorum == 4


def test_bytes_are_counted_both_ways(tmp_path: Path) -> None:
    desk = secure_study(training={"rounds": 1})
    peers = secure_peers(desk)
    bureau, _, _ = run(tmp_path, desk, peers)
    (record,) = bureau.records
    stepped = sum(len(reply) for peer in peers for reply in peer.sent[1:-1])
    assert record.bytes_in == stepped
    assert record.bytes_out > 5 * 4 * plan_for(desk).point.grid.dimension
