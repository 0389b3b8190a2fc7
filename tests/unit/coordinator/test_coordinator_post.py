"""The coordinator's post: signed, addressed, counted, and made when it is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.federation import RUN, Desk, small_study

from fedgen.coordinator.post import Keys, Post
from fedgen.coordinator.transport import Answer, to_all
from fedgen.crypto.envelope import Expectation, open_frame
from fedgen.errors import Code, IntegrityError
from fedgen.messages import Settle, Step, decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

DESK = Desk(small_study())


class Mirror:
    """A transport that hands back half of what it is sent, and remembers when frames were made."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, bytes]] = []

    def nodes(self, expected: int, timeout: float) -> Sequence[int]:
        return range(expected)

    def exchange(self, frames: Iterable[tuple[int, bytes]], timeout: float, group: str) -> Iterator[Answer]:
        for node, frame in frames:
            self.sent.append((node, frame))
            yield Answer(node, frame[: len(frame) // 2])
        yield Answer(99, None, Code.LATE)


def _post(transport: Mirror) -> Post:
    keys = Keys(signing=DESK.signing, sealing=DESK.sealing)
    return Post(transport, keys, study_hash=DESK.study.study_hash, run=RUN, roster={}, timeout=1.0)


def test_what_leaves_is_signed_for_everyone_or_for_one_site() -> None:
    post = _post(Mirror())
    step = Step(study_hash=DESK.study.study_hash, run=RUN, round=3, attempt=2)
    frame = post.signed(step, b"frame", number=3, attempt=2, recipient="site-02")

    def opened(recipient: str) -> bytes:
        expect = Expectation(
            study_hash=DESK.study.study_hash,
            run=RUN,
            recipient=recipient,
            sender="coordinator",
            round=3,
            attempt=2,
        )
        _, inner = open_frame(frame, verify_key=DESK.signing.verify_key, sealing_key=None, expect=expect)
        message, body = decode(inner)
        assert message == step
        return bytes(body)

    assert opened("site-02") == b"frame"
    with pytest.raises(IntegrityError) as error:
        opened("site-01")
    assert error.value.code is Code.WRONG_RECIPIENT
    settle = Settle(study_hash=DESK.study.study_hash, run=RUN, outcome="completed", rounds=3)
    for name in ("site-01", "site-02"):
        expect = Expectation(study_hash=None, run=RUN, recipient=name, sender="coordinator")
        open_frame(
            post.signed(settle, number=3), verify_key=DESK.signing.verify_key, sealing_key=None, expect=expect
        )


def test_bytes_are_counted_as_they_pass() -> None:
    post = _post(wire := Mirror())
    answers = post.exchange(to_all(b"12345678", [1, 2]), "g")
    assert (post.sent, post.received, wire.sent) == (0, 0, []), "nothing is made before it is asked for"
    next(answers)
    assert (post.sent, post.received) == (8, 4)
    assert [answer.node for answer in answers] == [2, 99]
    assert (post.sent, post.received) == (16, 8)


def test_a_node_may_stand_for_several_sites() -> None:
    post = _post(Mirror())
    assert (list(post.at(7)), post.nodes, dict(post.places)) == ([], (), {})
    post.seat({"site-01": 7, "site-02": 8, "site-03": 7})
    assert list(post.at(7)) == ["site-01", "site-03"]
    assert list(post.at(9)) == []
    assert post.nodes == (7, 8)
