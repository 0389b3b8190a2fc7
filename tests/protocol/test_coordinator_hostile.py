"""Hostile and broken sites against a real coordinator: each is named with its code, and the others go on.

Four sites, of which the quorum needs two. One of them does wrong in round 2; the run must come to its end, the
wrongdoer must stand in the record of that round with the right code, and the model must be exactly what the
others' updates make.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from support.federation import Desk, small_study
from support.peers import Ask, Bureau, Peer, Wires, honest, open_bureau

from fedgen.api.bench import new_learner
from fedgen.crypto.keys import SealingKey, SigningKey
from fedgen.errors import Code
from fedgen.events import SiteRefused, StudyFinished
from fedgen.messages import Joined
from fedgen.training.optimizer import LearnerOptimizer

if TYPE_CHECKING:
    from pathlib import Path

OTHER = "99" * 32
STRANGER = SigningKey.generate()
Script = Callable[[Peer, Ask], "list[bytes] | None"]


def _desk(**training: Any) -> Desk:
    return Desk(small_study(sites=4, training={"rounds": 3, "quorum": 2, **training}))


def _in_round(number: int, script: Script) -> Script:
    return lambda peer, ask: script(peer, ask) if ask.train.round == number else None


def _run(root: Path, desk: Desk, peers: list[Peer], **wires: Any) -> tuple[Bureau, Any]:
    bureau = open_bureau(root, desk, peers)
    return bureau, bureau.run(Wires(peers, **wires))


def _oracle(desk: Desk, sites: dict[int, list[str]]) -> np.ndarray:
    """Return the weights that the honest updates of these sites make, summed without any transport."""
    learner = new_learner(desk.study)
    optimizer = LearnerOptimizer.of(learner, desk.study.study.training.optimizer)
    for number, names in sorted(sites.items()):
        weights = learner.private.vector.detach().numpy().copy()
        total = np.zeros(len(weights), dtype=np.float64)
        for name in names:
            phase = float(sum(name.encode()) + 7 * number)
            total += np.sin(weights * 3 + np.arange(len(weights)) + phase).astype("<f4")
        mean = torch.from_numpy((total).astype(np.float32)) / (0.5 * 40 * len(names))
        optimizer.step_(mean, torch.Generator())
    return learner.all_values().numpy()


ALL = ["site-01", "site-02", "site-03", "site-04"]
OTHERS = [name for name in ALL if name != "site-03"]


def _spoil(value: float) -> Script:
    def script(peer: Peer, ask: Ask) -> list[bytes]:
        values = peer.values(ask)
        values[5] = value
        return [peer.trained(ask, values)]

    return script


def _of_previous_round(peer: Peer, ask: Ask) -> list[bytes]:
    return [reply for reply in peer.sent if len(reply) > 1000][-1:]


def _in_clear(peer: Peer, ask: Ask) -> list[bytes]:
    """Return an update that was never sealed, under the site's own good signature."""
    from fedgen.crypto.digest import sha256_hex
    from fedgen.crypto.envelope import Header
    from fedgen.messages import Kind, encode

    body = peer.values(ask).tobytes()
    frame = encode(peer._update(ask, len(body) // 4, {}), body)
    header = Header(
        kind=Kind.TRAINED,
        study_hash=peer.desk.study.study_hash,
        run=peer.desk.run,
        round=ask.train.round,
        attempt=ask.train.attempt,
        sender=peer.name,
        recipient="coordinator",
    )
    head = header.with_body(body_bytes=len(frame)).encode()
    digests = b"".join(bytes.fromhex(sha256_hex(part)) for part in (head, b"", frame))
    return [head + frame + peer.key.sign("envelope/signature", digests)]


# What site-03 does in round 2; the code of its name in the record; whether its signature could be verified.
WRONGS: dict[str, tuple[Script, Code, bool]] = {
    "nothing": (lambda _p, _a: [], Code.DROPPED, True),
    "no bytes": (lambda _p, _a: [b""], Code.DROPPED, False),
    "garbage": (lambda _p, _a: [b"garbage" * 100], Code.DROPPED, False),
    "an answer cut short": (lambda p, a: [p.trained(a)[:-1]], Code.DROPPED, False),
    "an answer cut to its head": (lambda p, a: [p.trained(a)[:60]], Code.DROPPED, False),
    "an answer and more": (lambda p, a: [p.trained(a) + b"\0"], Code.DROPPED, False),
    "a changed byte": (
        lambda p, a: [p.trained(a)[:-100] + b"\xff" + p.trained(a)[-99:]],
        Code.DROPPED,
        False,
    ),
    "an update in clear": (_in_clear, Code.DROPPED, False),
    "the signature of nobody": (lambda p, a: [p.trained(a, key=STRANGER)], Code.DROPPED, False),
    "the name of nobody": (
        lambda p, a: [p.trained(a, site="site-99", cover_sender="site-99")],
        Code.DROPPED,
        False,
    ),
    "another study": (
        lambda p, a: [p.trained(a, study_hash=OTHER, cover_study_hash=OTHER)],
        Code.WRONG_STUDY,
        True,
    ),
    "another run": (lambda p, a: [p.trained(a, run=OTHER, cover_run=OTHER)], Code.WRONG_STUDY, True),
    "another recipient": (lambda p, a: [p.trained(a, cover_recipient="site-01")], Code.WRONG_RECIPIENT, True),
    "an earlier round": (lambda p, a: [p.trained(a, round=1)], Code.STALE_ROUND, True),
    "a later round": (lambda p, a: [p.trained(a, round=3)], Code.OUT_OF_ORDER, True),
    "a later attempt": (lambda p, a: [p.trained(a, attempt=2)], Code.OUT_OF_ORDER, True),
    "the last round again": (_of_previous_round, Code.STALE_ROUND, True),
    "a seal for somebody else": (
        lambda p, a: [p.trained(a, seal_to=SealingKey.generate().public)],
        Code.WRONG_RECIPIENT,
        True,
    ),
    "a name inside that is not outside": (
        lambda p, a: [p.trained(a, site="site-04")],
        Code.OUT_OF_ORDER,
        True,
    ),
    "another round inside than outside": (
        lambda p, a: [p.trained(a, cover_round=2, round=3)],
        Code.OUT_OF_ORDER,
        True,
    ),
    "other weights": (lambda p, a: [p.trained(a, weights=OTHER)], Code.STALE_ROUND, True),
    "other steps": (lambda p, a: [p.trained(a, steps=2)], Code.WRONG_SHAPE, True),
    "too short": (lambda p, a: [p.trained(a, p.values(a)[:-1])], Code.WRONG_SHAPE, True),
    "too long": (lambda p, a: [p.trained(a, np.append(p.values(a), 0))], Code.TOO_LARGE, True),
    "far too long": (lambda p, a: [p.trained(a, np.zeros(2**20))], Code.DROPPED, False),
    "a length that is not its own": (
        lambda p, a: [p.trained(a, p.values(a)[:-1], parameters=len(a.body))],
        Code.WRONG_SHAPE,
        True,
    ),
    "not whole numbers": (lambda p, a: [p.trained(a, p.values(a).tobytes()[:-1])], Code.WRONG_SHAPE, True),
    "NaN": (_spoil(np.nan), Code.NOT_FINITE, True),
    "infinity": (_spoil(-np.inf), Code.NOT_FINITE, True),
    "as large as a float can be": (_spoil(3.4e38), Code.NOT_FINITE, True),
    "larger than any gradient sum": (_spoil(1000.0), Code.NOT_FINITE, True),
    "a yes without values": (
        lambda p, _a: [
            p.signed(Joined(study_hash=p.desk.study.study_hash, site=p.name, accepts=True, last_round=0))
        ],
        Code.OUT_OF_ORDER,
        True,
    ),
    "no": (lambda p, a: [p.refusal(a, Code.CONSENT)], Code.CONSENT, True),
    "no, of another round": (lambda p, a: [p.refusal(a, Code.CONSENT, round=1)], Code.STALE_ROUND, True),
    "no, twice": (
        lambda p, a: [p.refusal(a, Code.COHORT_TOO_SMALL), p.refusal(a, Code.FAULT)],
        Code.COHORT_TOO_SMALL,
        True,
    ),
    "something old, then no": (
        lambda p, a: [*_of_previous_round(p, a), p.refusal(a, Code.BUDGET)],
        Code.BUDGET,
        True,
    ),
    "no, then something old": (
        lambda p, a: [p.refusal(a, Code.BUDGET), *_of_previous_round(p, a)],
        Code.BUDGET,
        True,
    ),
    "NaN, then a second try": (lambda p, a: [*_spoil(np.nan)(p, a), p.trained(a)], Code.NOT_FINITE, True),
}


@pytest.mark.parametrize("wrong", list(WRONGS))
def test_a_wrong_answer_is_named_and_the_others_go_on(tmp_path: Path, wrong: str) -> None:
    script, code, signed = WRONGS[wrong]
    desk = _desk()
    peers = honest(desk, site_03=_in_round(2, script))
    bureau, outcome = _run(tmp_path, desk, peers)
    assert (outcome.outcome, outcome.progress.round) == ("completed", 3)
    assert [record.sites for record in bureau.records] == [tuple(ALL), tuple(OTHERS), tuple(ALL)]
    assert [record.missing for record in bureau.records] == [{}, {"site-03": str(code)}, {}]
    named = [event for event in bureau.events if isinstance(event, SiteRefused)]
    assert all(event.round == 2 and event.site == ("site-03" if signed else "?") for event in named)
    expected = _oracle(desk, {1: ALL, 2: OTHERS, 3: ALL})
    np.testing.assert_allclose(outcome.progress.weights.numpy(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("script", "codes"),
    [
        (lambda p, a: [p.trained(a), p.trained(a)], [Code.REPLAYED]),
        (lambda p, a: [r := p.trained(a), r], [Code.REPLAYED]),
        (lambda p, a: [p.trained(a), p.trained(a, np.ones(len(a.body)))], [Code.REPLAYED]),
        (lambda p, a: [p.refusal(a, Code.FAULT), p.trained(a)], [Code.FAULT]),
        (lambda p, a: [p.trained(a), p.refusal(a, Code.FAULT)], [Code.FAULT]),
        (lambda p, a: [*_of_previous_round(p, a), p.trained(a)], [Code.STALE_ROUND]),
        (lambda p, a: [b"garbage", p.trained(a)], [Code.MALFORMED]),
    ],
)
def test_a_good_answer_counts_once_whatever_comes_with_it(
    tmp_path: Path, script: Script, codes: list[Code]
) -> None:
    desk = _desk()
    peers = honest(desk, site_03=_in_round(2, script))
    bureau, outcome = _run(tmp_path, desk, peers)
    assert outcome.outcome == "completed"
    assert all(record.missing == {} for record in bureau.records)
    assert [event.code for event in bureau.events if isinstance(event, SiteRefused)] == codes
    expected = _oracle(desk, dict.fromkeys((1, 2, 3), ALL))
    np.testing.assert_allclose(outcome.progress.weights.numpy(), expected, rtol=1e-6, atol=1e-7)


def test_one_site_cannot_speak_for_another(tmp_path: Path) -> None:
    desk = _desk()
    peers = honest(desk)
    victim = peers[0]

    def forge(peer: Peer, ask: Ask) -> list[bytes]:
        forged = peer.trained(ask, site=victim.name, cover_sender=victim.name)
        return [forged, peer.trained(ask)]

    peers[2].script = _in_round(2, forge)
    bureau, outcome = _run(tmp_path, desk, peers)
    assert outcome.outcome == "completed"
    assert all(record.missing == {} for record in bureau.records)
    expected = _oracle(desk, dict.fromkeys((1, 2, 3), ALL))
    np.testing.assert_allclose(outcome.progress.weights.numpy(), expected, rtol=1e-6, atol=1e-7)


def test_one_site_can_hand_in_anothers_sealed_answer_and_gains_nothing(tmp_path: Path) -> None:
    desk = _desk()
    peers = honest(desk)
    peers[2].script = _in_round(2, lambda _peer, _ask: [peers[1].sent[-1]])
    bureau, outcome = _run(tmp_path, desk, peers)
    assert outcome.outcome == "completed"
    assert bureau.records[1].missing == {"site-03": "dropped"}
    expected = _oracle(desk, {1: ALL, 2: OTHERS, 3: ALL})
    np.testing.assert_allclose(outcome.progress.weights.numpy(), expected, rtol=1e-6, atol=1e-7)


def test_late_answers_are_not_looked_at(tmp_path: Path) -> None:
    desk = _desk()
    peers = honest(desk)
    bureau, outcome = _run(tmp_path, desk, peers, late=lambda group, node: (group, node) == ("round-2", 2))
    assert outcome.outcome == "completed"
    assert bureau.records[1].missing == {"site-03": "late"}


def test_an_answer_that_comes_a_round_late_is_stale(tmp_path: Path) -> None:
    desk = _desk()
    held: list[bytes] = []

    def slow(peer: Peer, ask: Ask) -> list[bytes]:
        if ask.train.round == 1:
            held.append(peer.trained(ask))
            return []
        return [*held, peer.trained(ask)]

    bureau, outcome = _run(tmp_path, desk, honest(desk, site_03=slow))
    assert outcome.outcome == "completed"
    assert [record.missing for record in bureau.records] == [{"site-03": "dropped"}, {}, {}]


# -- the quorum -------------------------------------------------------------------------------------


def _says(code: Code) -> Script:
    return _in_round(2, lambda peer, ask: [peer.refusal(ask, code)])


@pytest.mark.parametrize(
    ("codes", "outcome"),
    [
        ((Code.CONSENT, Code.CONSENT, Code.CONSENT), "quorum"),
        ((Code.BUDGET, Code.BUDGET, Code.BUDGET), "budget"),
        ((Code.BUDGET, Code.CONSENT, Code.CONSENT), "budget"),
        ((Code.CONSENT, Code.CONSENT, Code.FAULT), "quorum"),
    ],
)
def test_with_too_few_sites_the_last_good_model_is_kept(
    tmp_path: Path, codes: tuple[Code, ...], outcome: str
) -> None:
    desk = _desk()
    scripts = {f"site_0{number}": _says(code) for number, code in enumerate(codes, start=2)}
    bureau, ended = _run(tmp_path, desk, honest(desk, **scripts))
    assert (ended.outcome, ended.progress.round) == (outcome, 1)
    np.testing.assert_allclose(ended.progress.weights.numpy(), _oracle(desk, {1: ALL}), rtol=1e-6, atol=1e-7)
    kept = bureau.store.latest()
    assert kept is not None
    assert kept.round == 1
    assert torch.equal(kept.weights, ended.progress.weights)
    assert [record.round for record in bureau.records] == [1, 2]
    assert len(bureau.records[1].missing) == 3
    assert bureau.events[-1] == StudyFinished(outcome=outcome, rounds=1)


def test_budgets_that_are_not_to_blame_are_not_blamed(tmp_path: Path) -> None:
    desk = Desk(small_study(sites=4, training={"rounds": 3, "quorum": 3}))
    scripts = {"site_02": _says(Code.BUDGET), "site_03": _says(Code.FAULT), "site_04": _says(Code.FAULT)}
    _, ended = _run(tmp_path, desk, honest(desk, **scripts))
    assert ended.outcome == "quorum", "with the budget of one site more there were still too few"


def test_a_quorum_of_one_goes_on_with_one(tmp_path: Path) -> None:
    desk = Desk(small_study(sites=4, training={"rounds": 2, "quorum": 1}))
    scripts = {f"site_0{n}": lambda p, a: [p.refusal(a, Code.FAULT)] for n in (1, 2, 4)}
    _, ended = _run(tmp_path, desk, honest(desk, **scripts))
    assert ended.outcome == "completed"
    expected = _oracle(desk, {1: ["site-03"], 2: ["site-03"]})
    np.testing.assert_allclose(ended.progress.weights.numpy(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("trust", ["local", "central"])
def test_finite_but_enormous_updates_of_many_sites_do_not_end_the_run(tmp_path: Path, trust: str) -> None:
    desk = Desk(small_study(sites=4, training={"rounds": 2, "quorum": 2}, privacy={"trust": trust}))
    huge = lambda p, a: [p.trained(a, np.full(len(a.body), 3.4e38))]  # noqa: E731 - a script
    bureau, ended = _run(tmp_path, desk, honest(desk, site_02=huge, site_04=huge))
    assert ended.outcome == "completed"
    assert bureau.records[0].missing == {"site-02": "not-finite", "site-04": "not-finite"}
    assert float(ended.progress.weights.abs().max()) < 10


def test_enormous_changes_in_update_exchange_do_not_end_the_run(tmp_path: Path) -> None:
    desk = Desk(small_study(sites=4, training={"rounds": 4, "quorum": 2, "local_steps": 2}))
    huge = lambda p, a: [p.trained(a, np.full(len(a.body), 3.4e38))]  # noqa: E731 - a script
    bureau, ended = _run(tmp_path, desk, honest(desk, site_02=huge))
    assert ended.outcome == "completed"
    assert bureau.records[0].missing == {"site-02": "not-finite"}
