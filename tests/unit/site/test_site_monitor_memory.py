"""A site asked the same round again says the very same, once charged; another process of it takes up where it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.federation import Desk, Holder, consent_log, flipped, make_site, small_study

from fedgen.crypto.keys import SigningKey
from fedgen.messages import Joined, Refusal, Trained
from fedgen.site.memory import Memory

if TYPE_CHECKING:
    from pathlib import Path


def _site(folder: Path, desk: Desk, identity: SigningKey, **parts: Any) -> Holder:
    memory = Memory(folder / "invitation", folder / "answer", durable=False)
    return make_site(folder, desk, identity=identity, memory=memory, **parts)


@pytest.fixture
def identity() -> SigningKey:
    return SigningKey.generate()


def test_the_same_round_asked_again_gets_the_same_values_and_no_second_charge(
    tmp_path: Path, identity: SigningKey
) -> None:
    desk = Desk(small_study())
    site = _site(tmp_path, desk, identity)
    site.ask(desk.join())
    first, values = site.ask(desk.train(1, 1))
    again, same = site.ask(desk.train(1, 2))
    assert isinstance(first, Trained)
    assert isinstance(again, Trained)
    assert (first.attempt, again.attempt) == (1, 2)
    np.testing.assert_array_equal(values, same)
    assert len(site.entries("reserved")) == 1


def test_a_clear_sum_is_never_kept_and_every_attempt_is_charged(tmp_path: Path, identity: SigningKey) -> None:
    """The coordinator noises a clear sum afresh for each attempt: two attempts are two releases."""
    desk = Desk(small_study(privacy={"trust": "central"}))
    site = _site(tmp_path, desk, identity)
    site.ask(desk.join())
    for attempt in (1, 2):
        answer, _values = site.ask(desk.train(1, attempt))
        assert isinstance(answer, Trained)
    assert len(site.entries("reserved")) == 2
    assert not (tmp_path / "answer").exists()


def test_an_attempt_answered_from_memory_is_a_replay_the_second_time(
    tmp_path: Path, identity: SigningKey
) -> None:
    desk = Desk(small_study())
    site = _site(tmp_path, desk, identity)
    site.ask(desk.join())
    for attempt in (1, 2):
        site.ask(desk.train(1, attempt))
    for attempt in (1, 2):
        refusal, _values = site.ask(desk.train(1, attempt))
        assert isinstance(refusal, Refusal)
        assert refusal.code == "replayed"


def test_who_cannot_sign_makes_a_new_process_plan_nothing(
    tmp_path: Path, identity: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan of a study takes seconds, and anybody at the relay can write a header."""
    import fedgen.site.admit as module

    desk = Desk(small_study())
    _site(tmp_path, desk, identity).ask(desk.join())
    planned: list[int] = []
    real = module.plan_of

    def counted(study: Any) -> Any:
        planned.append(1)
        return real(study)

    monkeypatch.setattr(module, "plan_of", counted)
    site = _site(tmp_path, desk, identity)
    for forged in (
        desk.of(signing=SigningKey.generate()).train(1),
        flipped(desk.train(1)),
        desk.train(1)[:-100],
    ):
        refusal, _values = site.ask(forged)
        assert isinstance(refusal, Refusal)
    assert not planned
    answer, _values = site.ask(desk.train(1))
    assert isinstance(answer, Trained)
    assert planned


def test_without_a_memory_the_round_is_computed_and_charged_again(tmp_path: Path) -> None:
    desk = Desk(small_study())
    site = make_site(tmp_path, desk)
    site.ask(desk.join())
    _first, values = site.ask(desk.train(1, 1))
    _again, other = site.ask(desk.train(1, 2))
    assert not np.array_equal(values, other)
    assert len(site.entries("reserved")) == 2


def test_another_process_of_the_site_answers_the_next_round(tmp_path: Path, identity: SigningKey) -> None:
    desk = Desk(small_study())
    joined, _body = _site(tmp_path, desk, identity).ask(desk.join())
    assert isinstance(joined, Joined)
    trained, _values = _site(tmp_path, desk, identity).ask(desk.train())
    assert isinstance(trained, Trained)


def test_an_invitation_is_held_against_the_rules_of_now(tmp_path: Path, identity: SigningKey) -> None:
    desk = Desk(small_study())
    _site(tmp_path, desk, identity).ask(desk.join())
    refusal, _values = _site(tmp_path, desk, identity, rules={"purposes": frozenset({"something-else"})}).ask(
        desk.train()
    )
    assert isinstance(refusal, Refusal)
    assert refusal.code == "study-refused"


def test_an_invitation_that_was_altered_on_the_disk_admits_nobody(
    tmp_path: Path, identity: SigningKey
) -> None:
    desk = Desk(small_study())
    _site(tmp_path, desk, identity).ask(desk.join())
    data = bytearray((tmp_path / "invitation").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "invitation").write_bytes(data)
    refusal, _values = _site(tmp_path, desk, identity).ask(desk.train())
    assert isinstance(refusal, Refusal)


def test_an_invitation_of_another_coordinator_admits_nobody(tmp_path: Path, identity: SigningKey) -> None:
    study = small_study()
    stranger, desk = Desk(study), Desk(study)
    _site(tmp_path, stranger, identity).ask(stranger.join())
    refusal, _values = _site(tmp_path, desk, identity).ask(desk.train())
    assert isinstance(refusal, Refusal)


def test_a_refused_invitation_is_not_kept(tmp_path: Path, identity: SigningKey) -> None:
    desk = Desk(small_study())
    site = _site(tmp_path, desk, identity, rules={"purposes": frozenset({"something-else"})})
    refusal, _values = site.ask(desk.join())
    assert isinstance(refusal, Refusal)
    assert not (tmp_path / "invitation").exists()


def test_who_withdrew_in_between_is_in_no_second_answer(tmp_path: Path, identity: SigningKey) -> None:
    desk = Desk(small_study())
    log = [
        consent_log(tmp_path / "all.csv", granted=40),
        consent_log(tmp_path / "less.csv", granted=40, withdrawn=8),
    ]
    site = _site(tmp_path, desk, identity, consent=lambda: log[0])
    site.ask(desk.join())
    _first, values = site.ask(desk.train(1, 1))
    log.pop(0)
    again, other = site.ask(desk.train(1, 2))
    assert isinstance(again, Trained)
    assert again.excluded == {"consent-withdrawn": "<10"}
    assert not np.array_equal(values, other)
    assert len(site.entries("reserved")) == 2  # other rows: a new release, charged anew
