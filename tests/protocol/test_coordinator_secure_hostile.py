"""Hostile and broken sites against a real coordinator under distributed trust.

Whatever one site sends, at whichever step: the run comes to its end, every round is the exact sum of the sites that its
record names, the wrongdoer is named with the right code where its signature says who it is, and nobody else is.

Seven sites, of which two may be missing. site-03 does wrong; site-06 is silent when vectors are asked for in round 2,
so that every step there is takes place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from support.peers import Bureau, Wires, open_bureau
from support.secure_peers import Asked, SecurePeer, oracle, plan_for, secure_peers, secure_study

from fedgen.crypto.digest import sha256_hex
from fedgen.crypto.header import Header
from fedgen.crypto.keys import SealingKey, SigningKey
from fedgen.errors import Code
from fedgen.events import SiteRefused
from fedgen.messages import Kind, Settled, Stepped, encode
from fedgen.secagg import protocol, shamir, wire
from fedgen.secagg.wire import Kind as Frame

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.coordinator.coordinator import Outcome

OTHER = "99" * 32
STRANGER = SigningKey.generate()
WRONG, SILENT = "site-03", "site-06"
ALL = tuple(f"site-0{number}" for number in range(1, 8))
Twist = Callable[[SecurePeer, Asked, bytes], "list[bytes] | None"]


def in_clear(peer: SecurePeer, asked: Asked, frame: bytes) -> list[bytes]:
    """Return an answer that was never sealed, under the site's own good signature."""
    numbers = {name: getattr(asked.message, name) for name in ("round", "attempt")}
    ours = {"study_hash": peer.desk.study.study_hash, "run": peer.desk.run, **numbers}
    inner = encode(Stepped(**ours, site=peer.name, excluded={}), frame)
    cover = Header(kind=Kind.STEPPED, **ours, sender=peer.name, recipient="coordinator")
    head = cover.with_body(body_bytes=len(inner)).encode()
    digests = b"".join(bytes.fromhex(sha256_hex(part)) for part in (head, b"", inner))
    return [head + inner + peer.key.sign("envelope/signature", digests)]


def of_somebody_else(peer: SecurePeer, asked: Asked, frame: bytes) -> list[bytes]:
    """Return the honest frame with another site's place in it, or junk where the frame names nobody."""
    terms = peer.part.terms  # type: ignore[union-attr]
    place = terms.index("site-01").to_bytes(2, "big")
    return [peer.stepped(asked, frame[:14] + place + frame[16:])]


# What site-03 answers to a step; the code it is named with, or None where the name cannot be known.
WRONGS: dict[str, tuple[Twist, Code | None]] = {
    "nothing": (lambda _p, _a, _f: [], None),
    "no bytes": (lambda _p, _a, _f: [b""], None),
    "garbage": (lambda _p, _a, _f: [b"garbage" * 100], None),
    "an answer cut short": (lambda p, a, f: [p.stepped(a, f)[:-1]], None),
    "a changed byte": (lambda p, a, f: [p.stepped(a, f)[:-70] + b"\xff\xfe" + p.stepped(a, f)[-68:]], None),
    "an answer in clear": (in_clear, None),
    "the signature of nobody": (lambda p, a, f: [p.stepped(a, f, key=STRANGER)], None),
    "the name of another": (lambda p, a, f: [p.stepped(a, f, site="site-01", cover_sender="site-01")], None),
    "another study": (
        lambda p, a, f: [p.stepped(a, f, study_hash=OTHER, cover_study_hash=OTHER)],
        Code.WRONG_STUDY,
    ),
    "another run": (lambda p, a, f: [p.stepped(a, f, run=OTHER, cover_run=OTHER)], Code.WRONG_STUDY),
    "another recipient": (lambda p, a, f: [p.stepped(a, f, cover_recipient="site-01")], Code.WRONG_RECIPIENT),
    "a later round": (lambda p, a, f: [p.stepped(a, f, round=3)], Code.OUT_OF_ORDER),
    "an earlier round": (lambda p, a, f: [p.stepped(a, f, round=a.message.round - 1)], Code.STALE_ROUND),  # type: ignore[attr-defined]
    "a later attempt": (lambda p, a, f: [p.stepped(a, f, attempt=9)], Code.OUT_OF_ORDER),
    "a seal for somebody else": (
        lambda p, a, f: [p.stepped(a, f, seal_to=SealingKey.generate().public)],
        Code.WRONG_RECIPIENT,
    ),
    "a name inside that is not outside": (
        lambda p, a, f: [p.stepped(a, f, site="site-01")],
        Code.OUT_OF_ORDER,
    ),
    "no frame": (lambda p, a, _f: [p.stepped(a, b"")], Code.MALFORMED),
    "junk in a good envelope": (lambda p, a, _f: [p.stepped(a, b"junk" * 10)], Code.MALFORMED),
    "a frame cut short": (lambda p, a, f: [p.stepped(a, f[:-1])], Code.MALFORMED),
    "a frame and more": (lambda p, a, f: [p.stepped(a, f + b"\0")], None),
    "a frame of another kind": (
        lambda p, a, _f: [p.stepped(a, wire.Ready(setup=1, site=2).encode())],
        Code.OUT_OF_ORDER,
    ),
    "a frame of another setup": (
        lambda p, a, f: [p.stepped(a, f[:6] + (77).to_bytes(4, "big") + f[10:])],
        Code.OUT_OF_ORDER,
    ),
    "a frame of somebody else": (of_somebody_else, Code.UNKNOWN_SENDER),
    "a frame far too long": (lambda p, a, _f: [p.stepped(a, bytes(2**21))], None),
    "no": (lambda p, a, _f: [p.refused(a, Code.CONSENT)], Code.CONSENT),
    "something else it may say": (
        lambda p, _a, _f: [p.signed(Settled(study_hash=p.desk.study.study_hash, site=p.name))],
        Code.OUT_OF_ORDER,
    ),
}
# What the envelope refuses, it refuses at every step alike: at one step each of them is tried, at the others the rest.
COVERS = {
    "an answer cut short",
    "a changed byte",
    "the name of another",
    "another study",
    "another run",
    "another recipient",
    "a later round",
    "an earlier round",
    "a later attempt",
    "a name inside that is not outside",
    "no bytes",
    "something else it may say",
}
STEPS = {
    Frame.INVITE: 1,
    Frame.KEYS: 1,
    Frame.OFFERED: 1,
    Frame.START: 2,
    Frame.PROPOSE: 2,
    Frame.UNMASK: 2,
}


def _twisted(kind: Frame, number: int, twist: Twist) -> Any:
    def twisted(peer: SecurePeer, at: Frame, asked: Asked, frame: bytes) -> list[bytes] | None:
        return twist(peer, asked, frame) if (at, asked.message.round) == (kind, number) else None  # type: ignore[attr-defined]

    return twisted


def _run(
    root: Path, *, protocol: str = "full", silent: bool = True, **twists: Any
) -> tuple[Bureau, Outcome, Any]:
    desk = secure_study(sites=7, dropouts=2, protocol=protocol, training={"rounds": 3})
    if silent:
        twists["site_06"] = _twisted(Frame.START, 2, lambda _p, _a, _f: [])
    bureau = open_bureau(root, desk, peers := secure_peers(desk, **twists))
    ended = bureau.run(Wires(peers))
    assert torch.equal(ended.progress.weights, oracle(desk, bureau.records)), (
        "the exact sums of the survivors"
    )
    return bureau, ended, peers


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [(kind, wrong) for kind in STEPS for wrong in WRONGS if kind is Frame.START or wrong not in COVERS],
)
def test_a_wrong_answer_at_any_step_is_named_and_the_others_go_on(
    tmp_path: Path, wrong: str, kind: Frame
) -> None:
    twist, code = WRONGS[wrong]
    number = STEPS[kind]
    bureau, ended, _ = _run(tmp_path, site_03=_twisted(kind, number, twist))
    assert (ended.outcome, ended.progress.round) == ("completed", 3)
    assert [record.attempt for record in bureau.records] == [1, 1, 1]
    left_out = kind in {Frame.INVITE, Frame.KEYS, Frame.OFFERED, Frame.START}
    for record in bureau.records:
        gone = {SILENT} if record.round == 2 else set()
        gone |= {WRONG} if left_out and record.round == number else set()
        assert set(record.missing) == gone, record
        assert set(record.sites) == set(ALL) - gone
    named = {(e.round, e.site, e.code) for e in bureau.events if isinstance(e, SiteRefused)}
    assert {site for _, site, _ in named} <= {WRONG, "?"}, "nobody else is named"
    assert {each for each, _, _ in named} <= {number}
    if code is not None:
        assert (number, WRONG, code) in named
        if left_out:
            assert bureau.records[number - 1].missing[WRONG] == str(code)


@pytest.mark.parametrize("protocol", ["full", "sum"])
def test_of_two_vectors_the_first_counts_and_the_second_is_named(tmp_path: Path, protocol: str) -> None:
    def two(peer: SecurePeer, asked: Asked, frame: bytes) -> list[bytes]:
        other = bytearray(frame)
        other[-5] ^= 1
        return [peer.stepped(asked, frame), peer.stepped(asked, bytes(other)), peer.stepped(asked, frame)]

    bureau, ended, _ = _run(tmp_path, protocol=protocol, site_03=_twisted(Frame.START, 2, two))
    assert ended.outcome == "completed"
    assert bureau.records[1].missing == {SILENT: "dropped"}
    named = [e for e in bureau.events if isinstance(e, SiteRefused)]
    assert named == [SiteRefused(round=2, site=WRONG, code=Code.REPLAYED)] * 2


@pytest.mark.parametrize("kind", list(STEPS))
def test_answers_that_come_twice_count_once(tmp_path: Path, kind: Frame) -> None:
    twice = lambda peer, asked, frame: [peer.stepped(asked, frame)] * 2  # noqa: E731 - a script
    names = {name.replace("-", "_"): _twisted(kind, STEPS[kind], twice) for name in ALL if name != SILENT}
    bureau, ended, peers = _run(tmp_path, **names)
    assert ended.outcome == "completed"
    assert [len(record.sites) for record in bureau.records] == [7, 6, 7]
    assert all(peer.charged == [(1, 1), (2, 1), (3, 1)] for peer in peers)


@pytest.mark.parametrize(
    ("protocol", "size", "code"),
    [
        ("full", -1, Code.WRONG_SHAPE),
        ("full", 1, Code.WRONG_SHAPE),
        ("full", 1000, Code.TOO_LARGE),
        ("sum", -1, Code.WRONG_SHAPE),
        ("sum", 1, Code.TOO_LARGE),
    ],
)
def test_a_vector_of_another_length_is_refused(tmp_path: Path, protocol: str, size: int, code: Code) -> None:
    def other(peer: SecurePeer, asked: Asked, frame: bytes) -> list[bytes]:
        terms = peer.part.terms  # type: ignore[union-attr]
        kind = wire.Masked if protocol == "full" else wire.Clear
        message = kind.decode(frame, terms)
        values = bytes(message.values)
        longer = (values + bytes(4000))[: len(values) + 4 * size]
        fields = {name: getattr(message, name) for name, _ in kind.LAYOUT} | {"values": longer}
        head = {"setup": message.setup, "turn": message.turn, "site": message.site}
        return [peer.stepped(asked, kind(**head, **fields).encode())]

    bureau, _, _ = _run(tmp_path, protocol=protocol, site_03=_twisted(Frame.START, 2, other))
    assert bureau.records[1].missing == {SILENT: "dropped", WRONG: str(code)}


@pytest.mark.parametrize(("protocol", "kind"), [("full", wire.Masked), ("sum", wire.Clear)])
@pytest.mark.parametrize("kept", [0, 1, -1, -3])
def test_a_vector_that_ends_in_the_middle_of_a_number_is_refused(
    tmp_path: Path, kept: int, protocol: str, kind: type[wire.Masked | wire.Clear]
) -> None:
    def cut(peer: SecurePeer, asked: Asked, frame: bytes) -> list[bytes]:
        message = kind.decode(frame, peer.part.terms)  # type: ignore[union-attr]
        return [peer.stepped(asked, replace(message, values=bytes(message.values)[:kept]).encode())]

    bureau, ended, _ = _run(tmp_path, protocol=protocol, site_03=_twisted(Frame.START, 2, cut))
    assert ended.outcome == "completed"
    assert bureau.records[1].missing == {SILENT: "dropped", WRONG: str(Code.WRONG_SHAPE)}


@pytest.mark.parametrize("place", [0, 2, 6])
@pytest.mark.parametrize("what", ["zeros", "a point of small order", "no ML-KEM key"])
def test_a_key_that_is_none_keeps_out_its_own_site_and_nobody_else(
    tmp_path: Path, what: str, place: int
) -> None:
    """Every other site would refuse such keys: the server must not pass them on, or one site could end the run."""

    def bad(peer: SecurePeer, kind: Frame, asked: Asked, frame: bytes) -> list[bytes] | None:
        if kind is not Frame.INVITE:
            return None
        terms = peer.part.terms  # type: ignore[union-attr]
        message = wire.Advertise.decode(frame, terms)
        public = {
            "zeros": bytes(len(message.public)),
            "a point of small order": message.public[:-32] + bytes(32),
            "no ML-KEM key": b"\xff" * (len(message.public) - 32) + message.public[-32:],
        }[what]
        statement = protocol.advertised(terms, message.setup, message.site, public)
        signature = peer.key.sign(protocol.ADVERTISE, statement)
        return [peer.stepped(asked, replace(message, public=public, signature=signature).encode())]

    wrong = ALL[place]
    bureau, ended, _ = _run(tmp_path, silent=False, **{wrong.replace("-", "_"): bad})
    assert (ended.outcome, ended.progress.round) == ("completed", 3)
    assert [record.missing for record in bureau.records] == [{wrong: "malformed"}] * 3
    assert {e.site for e in bureau.events if isinstance(e, SiteRefused)} == {wrong}


def test_garbage_shares_are_left_out_and_the_sum_is_exact(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)

    def garbage(peer: SecurePeer, asked: Asked, frame: bytes) -> list[bytes]:
        message = wire.Reveal.decode(frame, peer.part.terms)  # type: ignore[union-attr]
        shares = tuple((owner, bytes([*rng.bytes(shamir.BYTES - 1), 0])) for owner, _ in message.shares)
        changed = wire.Reveal(setup=message.setup, turn=message.turn, site=message.site, shares=shares)
        return [peer.stepped(asked, changed.encode())]

    bureau, ended, _ = _run(tmp_path, site_03=_twisted(Frame.UNMASK, 2, garbage))
    assert ended.outcome == "completed"
    assert [len(record.sites) for record in bureau.records] == [7, 6, 7]


def test_garbage_shares_of_too_many_lose_the_round_and_never_make_a_wrong_sum(tmp_path: Path) -> None:
    def garbage(peer: SecurePeer, asked: Asked, frame: bytes) -> list[bytes]:
        message = wire.Reveal.decode(frame, peer.part.terms)  # type: ignore[union-attr]
        shares = tuple((owner, bytes(shamir.BYTES)) for owner, _ in message.shares)
        changed = wire.Reveal(setup=message.setup, turn=message.turn, site=message.site, shares=shares)
        return [peer.stepped(asked, changed.encode())]

    twist = _twisted(Frame.UNMASK, 2, garbage)
    bureau, ended, _ = _run(tmp_path, site_03=twist, site_04=twist)
    assert (ended.outcome, ended.progress.round) == ("completed", 3)
    assert [len(record.sites) for record in bureau.records] == [7, 0, 7]
    assert [record.attempt for record in bureau.records] == [1, 1, 1], "a round is opened once"


def _false_secret(peer: SecurePeer, _asked: Asked, _frame: bytes) -> None:
    """Hold another secret with site-07 than site-07 does: what it offered stands, what it deals by does not."""
    end = peer.part._end  # type: ignore[union-attr]
    end._pairs[6] = bytes(32)


def test_a_site_that_deals_falsely_once_costs_an_attempt_that_nobody_is_charged_for(tmp_path: Path) -> None:
    lies = iter([True])

    def once(peer: SecurePeer, asked: Asked, frame: bytes) -> None:
        if next(lies, False):
            _false_secret(peer, asked, frame)

    # its deal is made when the agreement is completed, so the secret is changed before that
    bureau, ended, peers = _run(tmp_path, silent=False, site_03=_twisted(Frame.KEYS, 1, once))
    assert ended.outcome == "completed"
    assert [(record.round, record.attempt, len(record.sites)) for record in bureau.records] == [
        (1, 1, 0),
        (1, 2, 7),
        (2, 1, 7),
        (3, 1, 7),
    ]
    assert all(peer.charged == [(1, 2), (2, 1), (3, 1)] for peer in peers)


def test_a_site_that_goes_on_dealing_falsely_ends_the_run_and_nobody_is_charged(tmp_path: Path) -> None:
    bureau, ended, peers = _run(tmp_path, silent=False, site_03=_twisted(Frame.KEYS, 1, _false_secret))
    assert (ended.outcome, ended.progress.round) == ("quorum", 0)
    both = {"site-03": "bad-seal", "site-07": "bad-seal"}
    assert [(record.attempt, record.sites, record.missing) for record in bureau.records] == [
        (attempt, (), both) for attempt in (1, 2, 3)
    ], "of two that do not hold the same secret nobody can say which one lies"
    assert all(peer.charged == [] for peer in peers)


def test_a_node_that_answers_for_another_cannot(tmp_path: Path) -> None:
    """site-03's node sends what site-01 sent, byte for byte: site-01 counts once, and site-03 is missing."""
    box: list[SecurePeer] = []
    relay = _twisted(Frame.START, 2, lambda _p, _a, _f: [box[0].sent[-1]])
    desk = secure_study(sites=7, dropouts=2, training={"rounds": 3})
    peers = secure_peers(desk, site_03=relay)
    box.append(peers[0])
    bureau = open_bureau(tmp_path, desk, peers)
    ended = bureau.run(Wires(peers))
    assert torch.equal(ended.progress.weights, oracle(desk, bureau.records))
    assert bureau.records[1].missing == {WRONG: "dropped"}
    assert "site-01" in bureau.records[1].sites


# -- schedules --------------------------------------------------------------------------------------


def _chaos(seed: int, evil: float) -> Any:
    """A twist that does something wrong now and then, at any step of any round."""
    rng = np.random.default_rng(seed)
    ways: list[Twist] = [
        lambda _p, _a, _f: [],
        lambda p, a, _f: [p.stepped(a, b"junk")],
        lambda p, a, f: [p.stepped(a, f)] * 2,
        lambda p, a, f: [p.stepped(a, f[:-1] + bytes([f[-1] ^ 1]))],
        lambda p, a, _f: [p.refused(a, Code.FAULT)],
        lambda p, a, f: [p.stepped(a, f, key=STRANGER), p.stepped(a, f)],
        lambda p, _a, _f: p.restart(),
        lambda p, a, f: [p.stepped(a, f[:6] + (int(rng.integers(1, 9))).to_bytes(4, "big") + f[10:])],
    ]

    def twist(peer: SecurePeer, _kind: Frame, asked: Asked, frame: bytes) -> list[bytes] | None:
        if rng.random() >= evil:
            return None
        return ways[int(rng.integers(len(ways)))](peer, asked, frame)

    return twist


@pytest.mark.parametrize("protocol", ["full", "sum"])
@pytest.mark.parametrize("seed", range(18))
def test_whatever_many_sites_do_every_round_is_an_exact_sum_or_none(
    tmp_path: Path, seed: int, protocol: str
) -> None:
    """A flipped bit in a masked vector is that site's own choice of a vector, so it is drawn for the frame's end only
    where the end is no vector: of the full protocol's answers only a vector's ends in one."""
    desk = secure_study(
        sites=7,
        dropouts=2,
        protocol=protocol,
        training={"rounds": 4},
        recovery=("unmask", "restart")[seed % 2],
    )
    evil = (0.05, 0.15, 0.4)[seed % 3]

    def guarded(inner: Any) -> Any:
        def twist(peer: SecurePeer, kind: Frame, asked: Asked, frame: bytes) -> list[bytes] | None:
            replies = inner(peer, kind, asked, frame)
            return None if kind is Frame.START and _vector_changed(peer, replies, frame) else replies

        return twist

    twists = {name.replace("-", "_"): guarded(_chaos(100 * seed + i, evil)) for i, name in enumerate(ALL)}
    bureau = open_bureau(tmp_path, desk, peers := secure_peers(desk, **twists))
    ended = bureau.run(Wires(peers))
    assert torch.equal(ended.progress.weights, oracle(desk, bureau.records))
    assert ended.outcome in {"completed", "quorum"}
    least = plan_for(desk).least
    assert all(len(record.sites) >= least or not record.sites for record in bureau.records)
    attempts = [(record.round, record.attempt) for record in bureau.records]
    assert len(set(attempts)) == len(attempts)
    for peer in peers:
        assert len(set(peer.charged)) == len(peer.charged), "no attempt is charged twice"
        mine = {(record.round, record.attempt) for record in bureau.records if peer.name in record.sites}
        assert mine <= set(peer.charged), "nothing is summed that was not charged"


def _vector_changed(peer: SecurePeer, replies: list[bytes] | None, frame: bytes) -> bool:
    from fedgen.crypto.envelope import Expectation, open_frame
    from fedgen.messages import decode

    if not replies:
        return False
    any_ = Expectation(study_hash=None, run=None, recipient="coordinator")
    for reply in replies:
        try:
            _, inner = open_frame(
                reply, verify_key=peer.key.verify_key, sealing_key=peer.desk.sealing, expect=any_
            )
        except Exception:  # noqa: BLE001, S112 - a stranger's signature
            continue
        _, body = decode(inner)
        if bytes(body[:-1]) == frame[:-1] and bytes(body) != frame:
            return True
    return False
