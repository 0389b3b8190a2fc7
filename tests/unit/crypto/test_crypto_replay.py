"""One acceptance per sender, round, attempt and kind."""

from __future__ import annotations

import pytest

from fedgen.crypto.header import Header
from fedgen.crypto.replay import ReplayGuard
from fedgen.errors import Code, IntegrityError
from fedgen.messages import Kind


def header(
    round: int = 1,  # noqa: A002 - the field's own name
    attempt: int = 1,
    *,
    sender: str = "site-1",
    kind: Kind = Kind.TRAINED,
    study: str = "11",
    run: str = "22",
) -> Header:
    return Header(
        kind=kind,
        study_hash=study * 32,
        run=run * 32,
        round=round,
        attempt=attempt,
        sender=sender,
        recipient="coordinator",
    )


def refused(guard: ReplayGuard, cover: Header) -> Code:
    with pytest.raises(IntegrityError) as error:
        guard.accept(cover)
    return error.value.code


def test_a_message_is_accepted_once() -> None:
    guard = ReplayGuard()
    guard.accept(header())
    assert refused(guard, header()) is Code.REPLAYED
    assert refused(guard, header()) is Code.REPLAYED


def test_rounds_and_attempts_only_move_forward() -> None:
    guard = ReplayGuard()
    for place in ((1, 1), (1, 2), (3, 1), (3, 7), (4, 1)):
        guard.accept(header(*place))
    for place in ((1, 1), (2, 1), (3, 7), (3, 9)):
        assert refused(guard, header(*place)) is Code.STALE_ROUND
    assert refused(guard, header(4, 1)) is Code.REPLAYED


def test_senders_kinds_runs_and_studies_do_not_disturb_each_other() -> None:
    guard = ReplayGuard()
    others = (
        header(),
        header(sender="site-2"),
        header(kind=Kind.REFUSAL),
        header(run="33"),
        header(study="44"),
    )
    for cover in others:
        guard.accept(cover)
    for cover in others:
        assert refused(guard, cover) is Code.REPLAYED


def test_a_refused_message_changes_nothing() -> None:
    guard = ReplayGuard()
    guard.accept(header(5, 1))
    assert refused(guard, header(4, 9)) is Code.STALE_ROUND
    guard.accept(header(5, 2))


def test_the_floor_refuses_old_rounds_from_the_start() -> None:
    guard = ReplayGuard(floor=7)
    assert refused(guard, header(6, 99)) is Code.STALE_ROUND
    guard.accept(header(7, 1))
    guard.accept(header(0, 1, kind=Kind.JOIN))


def test_memory_grows_with_senders_not_with_messages() -> None:
    guard = ReplayGuard()
    for round_ in range(1, 1000):
        guard.accept(header(round_))
    assert len(guard._last) == 1
