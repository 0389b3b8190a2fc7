"""The reference monitor: join, train, settle; and each way of asking wrongly has one code and costs nothing."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.federation import Desk, make_site, small_rows, small_study

from fedgen.api.bench import Bench
from fedgen.crypto.digest import sha256_hex
from fedgen.crypto.envelope import peek
from fedgen.crypto.keys import SigningKey
from fedgen.errors import Code
from fedgen.messages import Joined, Kind, Refusal, Settled, Train, Trained

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.federation import Holder

OTHER = "99" * 32


def _joined(folder: Path, desk: Desk, **parts: Any) -> Holder:
    holder = make_site(folder, desk, **parts)
    assert isinstance(holder.ask(desk.join())[0], Joined)
    return holder


def _code(holder: Holder, request: bytes) -> Code:
    message, body = holder.ask(request)
    assert isinstance(message, Refusal), message
    assert len(body) == 0
    return message.code


# -- the honest way ---------------------------------------------------------------------------------


def test_a_study_is_joined_trained_and_settled(tmp_path: Path) -> None:
    desk = Desk(small_study())
    holder = make_site(tmp_path, desk)
    joined, _ = holder.ask(desk.join())
    assert joined == Joined(study_hash=desk.study.study_hash, site="site-01", accepts=True, last_round=0)
    trained, update = holder.ask(desk.train(1))
    assert isinstance(trained, Trained)
    assert (trained.site, trained.round, trained.attempt, trained.steps) == ("site-01", 1, 1, 1)
    assert trained.parameters == len(update) == len(desk.weights())
    assert trained.weights == sha256_hex(desk.weights().tobytes())
    assert trained.excluded == {}
    assert np.isfinite(update).all()
    settled, _ = holder.ask(desk.settle(rounds=1))
    assert settled == Settled(study_hash=desk.study.study_hash, site="site-01")
    assert [entry.kind for entry in holder.entries()] == [
        "opened",
        "admitted",
        "reserved",
        "settled",
        "closed",
    ]
    assert not holder.incidents.exists()


def test_what_was_settled_is_the_digest_of_what_left(tmp_path: Path) -> None:
    holder = _joined(tmp_path, Desk(small_study()))
    reply = holder.site.handle(holder.desk.train(1))
    assert holder.entries("settled")[0].digest == sha256_hex(reply)


def test_an_update_leaves_sealed_and_everything_else_signed_in_clear(tmp_path: Path) -> None:
    desk = Desk(small_study())
    holder = make_site(tmp_path, desk)
    for request, sealed in ((desk.join(), False), (desk.train(1), True), (desk.train(1), False)):
        header = peek(holder.site.handle(request))
        assert header.sealed is sealed
        assert (header.sender, header.recipient) == ("site-01", "coordinator")


def test_a_gan_in_gradient_exchange_is_asked_for_its_critic_only(tmp_path: Path) -> None:
    desk = Desk(small_study(model={"name": "tabular-gan", "generator": [4]}))
    holder = _joined(tmp_path, desk)
    trained, update = holder.ask(desk.train(1))
    assert isinstance(trained, Trained)
    assert len(update) == len(desk.weights())


def test_in_update_exchange_the_change_of_all_weights_leaves(tmp_path: Path) -> None:
    desk = Desk(small_study(training={"local_steps": 3}, model={"name": "tabular-gan", "generator": [4]}))
    holder = _joined(tmp_path, desk)
    trained, update = holder.ask(desk.train(1))
    assert isinstance(trained, Trained)
    assert trained.steps == 3
    assert trained.parameters == len(update) == len(desk.weights())
    assert np.abs(update).max() < 0.1, "three Adam steps at 0.001 move no weight far"
    assert holder.entries("reserved")[0].count == 3


def test_under_central_trust_the_clear_sum_leaves_and_no_row_moves_it_by_more_than_the_clip(
    tmp_path: Path,
) -> None:
    everyone = {"privacy": {"trust": "central"}, "training": {"sample_rate": 1.0}}
    desk = Desk(small_study(**everyone, policy={"min_cohort": 1}))
    rows = small_rows(1)
    holder = _joined(tmp_path, desk, table=lambda: rows, rules={"min_cohort": 1})
    _, update = holder.ask(desk.train(1))
    assert 0 < np.linalg.norm(update) <= 1.0 + 1e-6


def test_under_local_trust_the_same_question_never_gets_the_same_answer(tmp_path: Path) -> None:
    desk = Desk(small_study(training={"sample_rate": 1.0}))
    holder = _joined(tmp_path, desk)
    first, second = holder.ask(desk.train(1))[1], holder.ask(desk.train(2))[1]
    assert np.std(first - second) > 0.5


# -- who asks, and for what -------------------------------------------------------------------------


def test_before_a_study_is_joined_nothing_is_answered(tmp_path: Path) -> None:
    desk = Desk(small_study())
    holder = make_site(tmp_path, desk)
    assert _code(holder, desk.train(1)) is Code.NOT_ADMITTED
    assert _code(holder, desk.settle()) is Code.NOT_ADMITTED


def test_after_it_is_settled_nothing_is_answered_until_it_is_joined_again(tmp_path: Path) -> None:
    desk = Desk(small_study())
    holder = _joined(tmp_path, desk)
    holder.ask(desk.train(1))
    holder.ask(desk.settle("quorum", rounds=1))
    assert _code(holder, desk.train(2)) is Code.NOT_ADMITTED
    assert _code(holder, desk.settle("quorum", rounds=1)) is Code.NOT_ADMITTED
    assert len(holder.entries("closed")) == 1
    again, _ = holder.ask(desk.join())
    assert isinstance(again, Joined)
    assert again.last_round == 1
    assert isinstance(holder.ask(desk.train(2))[0], Trained)


def test_an_unknown_coordinator_is_refused(tmp_path: Path) -> None:
    desk = Desk(small_study())
    holder = _joined(tmp_path, desk)
    stranger = desk.of(signing=SigningKey.generate())
    assert _code(holder, stranger.join()) is Code.BAD_SIGNATURE
    assert _code(holder, stranger.train(1)) is Code.BAD_SIGNATURE
    assert holder.entries("reserved") == []


def test_a_study_that_names_another_coordinator_is_refused(tmp_path: Path) -> None:
    desk = Desk(small_study())
    holder = make_site(tmp_path, desk)
    assert _code(holder, desk.join(coordinator=OTHER)) is Code.UNKNOWN_SENDER


@pytest.mark.parametrize(
    ("cover", "code"),
    [
        ({"sender": "site-02"}, Code.UNKNOWN_SENDER),
        ({"recipient": "site-02"}, Code.WRONG_RECIPIENT),
        ({"study_hash": OTHER}, Code.WRONG_STUDY),
        ({"run": OTHER}, Code.WRONG_STUDY),
        ({"round": 2}, Code.OUT_OF_ORDER),
        ({"attempt": 2}, Code.OUT_OF_ORDER),
    ],
)
def test_a_cover_that_says_something_else_is_refused(
    tmp_path: Path, cover: dict[str, Any], code: Code
) -> None:
    desk = Desk(small_study())
    holder = _joined(tmp_path, desk)
    body = desk.weights().tobytes()
    message = Train(
        study_hash=desk.study.study_hash,
        run=desk.run,
        round=1,
        attempt=1,
        parameters=len(body) // 4,
        digest=sha256_hex(body),
    )
    assert _code(holder, desk.signed(message, body, **cover)) is code
    assert holder.entries("reserved") == []


def test_only_requests_are_answered(tmp_path: Path) -> None:
    desk = Desk(small_study())
    holder = _joined(tmp_path, desk)
    reply = Joined(study_hash=desk.study.study_hash, site="site-01", accepts=True, last_round=0)
    assert _code(holder, desk.signed(reply, sender="coordinator")) is Code.OUT_OF_ORDER


def test_garbage_is_answered_with_a_code(tmp_path: Path) -> None:
    desk = Desk(small_study())
    holder = _joined(tmp_path, desk)
    good = desk.train(1)
    noise = np.random.default_rng(3)
    bad = [b"", b"\0", b"FDGE\x01", good[:-1], good + b"\0", good[: len(good) // 2], noise.bytes(5000)]
    for place in noise.integers(0, len(good), 40):
        flipped = bytearray(good)
        flipped[place] ^= 1 << int(noise.integers(8))
        bad.append(bytes(flipped))
    for request in bad:
        assert _code(holder, request) in {
            Code.MALFORMED,
            Code.BAD_SIGNATURE,
            Code.TOO_LARGE,
            Code.UNKNOWN_SENDER,
        }
    assert isinstance(holder.ask(good)[0], Trained)


def test_a_refusal_says_which_question_it_answers(tmp_path: Path) -> None:
    desk = Desk(small_study())
    holder = make_site(tmp_path, desk)
    message, _ = holder.ask(desk.train(2, 3))
    assert isinstance(message, Refusal)
    assert (message.study_hash, message.round, message.attempt) == (desk.study.study_hash, 2, 3)
    assert peek(holder.site.handle(desk.train(2, 3))).run == desk.run
    assert message.kind is Kind.REFUSAL


# -- weights ----------------------------------------------------------------------------------------


def _spoiled(value: float) -> np.ndarray:
    weights = Desk(small_study()).weights()
    weights[3] = value
    return weights


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    holder = _joined(tmp_path, Desk(small_study()))
    assert _code(holder, holder.desk.train(1, body=_spoiled(value).tobytes())) is Code.NOT_FINITE
    assert holder.entries("reserved") == []


def test_weights_that_do_not_match_their_digest_are_refused(tmp_path: Path) -> None:
    holder = _joined(tmp_path, Desk(small_study()))
    assert _code(holder, holder.desk.train(1, digest=OTHER)) is Code.MALFORMED
    assert holder.entries("reserved") == []


@pytest.mark.parametrize("extra", [-1, 1])
def test_weights_of_another_length_than_they_say_are_refused(tmp_path: Path, extra: int) -> None:
    holder = _joined(tmp_path, Desk(small_study()))
    length = len(holder.desk.weights()) + extra
    assert _code(holder, holder.desk.train(1, parameters=length)) is Code.WRONG_SHAPE
    assert holder.entries("reserved") == []


@pytest.mark.parametrize("body", [b"\0" * 4, b"\0" * 4000, b"\0" * 7])
def test_weights_of_another_model_are_refused_before_anything_is_spent(tmp_path: Path, body: bytes) -> None:
    holder = _joined(tmp_path, Desk(small_study()))
    assert _code(holder, holder.desk.train(1, body=body)) is Code.WRONG_SHAPE
    assert holder.entries("reserved") == []


# -- order ------------------------------------------------------------------------------------------


def test_a_replayed_round_is_refused_and_not_charged(tmp_path: Path) -> None:
    holder = _joined(tmp_path, Desk(small_study()))
    request = holder.desk.train(1)
    assert isinstance(holder.ask(request)[0], Trained)
    assert _code(holder, request) is Code.REPLAYED
    assert isinstance(holder.ask(holder.desk.train(2))[0], Trained)
    assert _code(holder, request) is Code.STALE_ROUND
    assert len(holder.entries("reserved")) == 2


def test_the_budget_ends_a_study_with_a_code_and_an_entry(tmp_path: Path) -> None:
    holder = _joined(tmp_path, Desk(small_study(training={"rounds": 1})))
    assert isinstance(holder.ask(holder.desk.train(1))[0], Trained)
    assert _code(holder, holder.desk.train(2)) is Code.BUDGET
    assert holder.entries()[-1].code == "budget"


def test_a_second_invitation_to_the_same_run_tells_the_last_round(tmp_path: Path) -> None:
    holder = _joined(tmp_path, Desk(small_study()))
    holder.ask(holder.desk.train(1))
    again, _ = holder.ask(holder.desk.join())
    assert isinstance(again, Joined)
    assert again.last_round == 1
    assert isinstance(holder.ask(holder.desk.train(2))[0], Trained)


def test_an_invitation_to_another_study_replaces_the_first(tmp_path: Path) -> None:
    desk = Desk(small_study())
    holder = _joined(tmp_path, desk)
    other = desk.of(study=small_study(training={"rounds": 9}), run=OTHER)
    assert isinstance(holder.ask(other.join())[0], Joined)
    assert _code(holder, desk.train(1)) is Code.WRONG_STUDY
    assert isinstance(holder.ask(other.train(1))[0], Trained)


def test_a_refused_invitation_leaves_the_first_standing(tmp_path: Path) -> None:
    desk = Desk(small_study())
    holder = _joined(tmp_path, desk)
    other = desk.of(study=small_study(policy={"purpose": "marketing"}), run=OTHER)
    holder.site._rules = type(holder.site._rules)(
        name="site-01",
        min_cohort=1,
        consent_required=False,
        simulated=True,
        purposes=frozenset({"train_generator"}),
    )
    assert _code(holder, other.join()) is Code.STUDY_REFUSED
    assert isinstance(holder.ask(desk.train(1))[0], Trained)


def test_requests_on_two_threads_are_answered_one_after_the_other(tmp_path: Path) -> None:
    inside, overlaps = [], []
    bench = Bench()

    @contextmanager
    def slow(admission: Any) -> Iterator[Any]:
        overlaps.extend(inside)
        inside.append(threading.get_ident())
        time.sleep(0.02)
        with bench.lend(admission) as learner:
            yield learner
        inside.pop()

    desk = Desk(small_study())
    holder = _joined(tmp_path, desk, bench=slow)
    answers: list[bytes] = []
    threads = [
        threading.Thread(target=lambda number=number: answers.append(holder.site.handle(desk.train(number))))
        for number in (1, 2, 3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 3
    assert overlaps == []
