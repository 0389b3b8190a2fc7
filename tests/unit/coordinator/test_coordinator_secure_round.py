"""The coordinator's driver: an exact sum or a void round, one reveal a round, and what survives a restart."""

from __future__ import annotations

import numpy as np
import pytest
from support.secagg import Recovery, terms_for
from support.secagg_driven import Fleet, Shelf

from fedgen.coordinator.secure_round import Void, confirmed
from fedgen.coordinator.secure_store import SetupFile, first_open_round
from fedgen.errors import Code, IntegrityError
from fedgen.secagg.server import Aggregate

TERMS = terms_for(5, dropouts=1)
RESTART = terms_for(5, dropouts=1, recovery=Recovery.RESTART)
NAMES = [name for name, _ in TERMS.sites]


def vector(name: str, number: int) -> np.ndarray:
    return np.random.default_rng([*name.encode(), number]).integers(0, 2**32, 32, np.uint32)


def total(names, number: int) -> np.ndarray:
    return sum((vector(name, number) for name in names), np.zeros(32, np.uint32))


def exact(outcome, number: int, names=NAMES) -> None:
    assert isinstance(outcome, Aggregate), outcome
    assert outcome.survivors == tuple(names)
    assert (outcome.values == total(names, number)).all()


def test_a_steady_round_is_two_questions_a_site_and_keys_are_agreed_on_once() -> None:
    fleet, shelf = Fleet(TERMS, vector), Shelf()
    rounds = fleet.rounds(shelf)
    for number in (1, 2, 3):
        exact(fleet.run(rounds, number), number)
    assert fleet.steps == {"advertise": 1, "offer": 1, "deal": 1, "mask": 3, "reveal": 3}
    assert shelf == Shelf(setup=1, round=3)
    assert fleet.charged == [(name, number, 1) for number in (1, 2, 3) for name in NAMES]


def test_with_restarts_a_steady_round_is_one_question() -> None:
    fleet, shelf = Fleet(RESTART, vector), Shelf()
    rounds = fleet.rounds(shelf)
    exact(fleet.run(rounds, 1), 1)
    exact(fleet.run(rounds, 2), 2)
    assert fleet.steps["mask"] == 2
    assert fleet.steps["reveal"] == 0
    assert shelf.opened() == 0


@pytest.mark.parametrize("step", ["mask", "reveal"])
def test_a_site_may_fall_silent_at_any_step_of_a_turn_and_come_back(step: str) -> None:
    gone = {"site-002"}
    fleet = Fleet(TERMS, vector, silent=lambda name, at: at == step and name in gone)
    rounds = fleet.rounds()
    alive = [name for name in NAMES if name != "site-002"]
    exact(fleet.run(rounds, 1), 1, alive if step == "mask" else NAMES)
    gone.clear()
    exact(fleet.run(rounds, 2), 2)


def test_who_does_not_agree_on_the_survivors_is_not_asked_to_open_them() -> None:
    terms = terms_for(7, dropouts=2)
    gone = {("site-000", "mask"), ("site-001", "agree")}
    fleet = Fleet(terms, vector, silent=lambda name, at: (name, at) in gone)
    asked: list[str] = []
    honest = fleet.ask

    def ask(frames, step):
        if step == "reveal":
            asked.extend(frames)
        return honest(frames, step)

    fleet.ask = ask  # type: ignore[method-assign]
    names = [name for name, _ in terms.sites]
    exact(fleet.run(fleet.rounds(), 1), 1, names[1:])
    assert fleet.steps["agree"] == 1
    assert asked == names[2:]


def test_a_void_round_is_asked_again_while_nothing_was_opened_and_every_attempt_is_charged() -> None:
    gone = {"site-001", "site-002"}
    fleet = Fleet(TERMS, vector, silent=lambda name, at: at == "mask" and name in gone)
    rounds = fleet.rounds()
    outcome = fleet.run(rounds, 1)
    assert isinstance(outcome, Void)
    assert outcome.again
    gone.clear()
    exact(fleet.run(rounds, 1, attempt=2), 1)
    assert ("site-000", 1, 1) in fleet.charged
    assert ("site-000", 1, 2) in fleet.charged


def test_a_sum_lost_after_reveals_began_is_lost_and_its_round_never_asked_again() -> None:
    gone = set(NAMES[:2])
    fleet, shelf = Fleet(TERMS, vector, silent=lambda name, at: at == "reveal" and name in gone), Shelf()
    rounds = fleet.rounds(shelf)
    outcome = fleet.run(rounds, 1)
    assert isinstance(outcome, Void)
    assert not outcome.again, "three of five revealed, four are needed, and none will reveal twice"
    before = len(fleet.charged)
    again = fleet.run(rounds, 1, attempt=2)
    assert isinstance(again, Void)
    assert len(fleet.charged) == before, "nobody was asked, nobody was charged"
    assert first_open_round(0, shelf) == 2
    gone.clear()
    exact(fleet.run(rounds, 2), 2)


def test_a_restarted_coordinator_begins_a_new_setup_and_passes_over_what_was_opened() -> None:
    fleet, shelf = Fleet(TERMS, vector), Shelf()
    exact(fleet.run(fleet.rounds(shelf), 1), 1)
    late = fleet.rounds(shelf)  # the sum of round 1 was never saved
    assert first_open_round(0, shelf) == 2
    exact(fleet.run(late, 2), 2)
    assert shelf.setup == 2


def test_a_site_that_restarts_sits_out_until_the_next_setup() -> None:
    fleet, shelf = Fleet(TERMS, vector), Shelf()
    rounds = fleet.rounds(shelf)
    exact(fleet.run(rounds, 1), 1)
    fleet.restart("site-003")
    others = [name for name in NAMES if name != "site-003"]
    exact(fleet.run(rounds, 2), 2, others)
    assert ("site-003", Code.OUT_OF_ORDER) in fleet.noted
    exact(fleet.run(rounds, 3), 3, others)
    rounds.rejoin()
    exact(fleet.run(rounds, 4), 4)
    assert shelf.setup == 2


def test_too_many_restarts_make_a_new_setup_by_itself() -> None:
    fleet, shelf = Fleet(TERMS, vector), Shelf()
    rounds = fleet.rounds(shelf)
    exact(fleet.run(rounds, 1), 1)
    for name in NAMES[:2]:
        fleet.restart(name)
    assert isinstance(fleet.run(rounds, 2), Void)
    exact(fleet.run(rounds, 2, attempt=2), 2)
    assert shelf.setup == 2


@pytest.mark.parametrize("step", ["advertise", "offer", "deal"])
def test_a_site_that_falls_silent_during_setup_is_left_out(step: str) -> None:
    fleet, shelf = Fleet(TERMS, vector, silent=lambda name, at: at == step and name == "site-004"), Shelf()
    exact(fleet.run(fleet.rounds(shelf), 1), 1, NAMES[:4])
    assert shelf.setup == (2 if step == "offer" else 1), "others wait in vain for the offers of one that left"


def test_a_setup_of_too_few_is_a_void_round() -> None:
    fleet = Fleet(TERMS, vector, silent=lambda name, _at: name in NAMES[:2])
    outcome = fleet.run(fleet.rounds(), 1)
    assert isinstance(outcome, Void)
    assert outcome.again
    assert fleet.charged == []


def test_a_missing_site_voids_an_attempt_under_restart_and_the_next_goes_without_it() -> None:
    fleet = Fleet(RESTART, vector, silent=lambda name, at: at == "mask" and name == "site-000")
    rounds = fleet.rounds()
    assert isinstance(fleet.run(rounds, 1), Void)
    exact(fleet.run(rounds, 1, attempt=2), 1, NAMES[1:])


@pytest.mark.parametrize("masked", [True, False])
def test_strangers_repeats_and_junk_are_named_and_change_nothing(*, masked: bool) -> None:
    fleet = Fleet(TERMS, vector, masked=masked)
    honest = fleet.ask

    def ask(frames, step):
        for name, frame in honest(frames, step):
            yield "nobody", frame
            if name == "site-001":
                yield name, b"junk"
            yield name, frame
            yield name, frame

    fleet.ask = ask  # type: ignore[method-assign]
    exact(fleet.run(fleet.rounds(), 1), 1)
    found = set(fleet.noted)
    assert ("nobody", Code.UNKNOWN_SENDER) in found
    assert ("site-001", Code.MALFORMED) in found
    assert ("site-002", Code.REPLAYED) in found


@pytest.mark.parametrize("masked", [True, False])
def test_where_a_study_confirms_a_vector_is_summed_only_with_its_sites_word(*, masked: bool) -> None:
    fleet, asked = Fleet(TERMS, vector, masked=masked), []

    def confirm(names):
        asked.append(names)
        return [name for name in names if name != "site-004"]

    exact(fleet.run(fleet.rounds(confirm=confirm), 1), 1, NAMES[:4])
    assert asked == [tuple(NAMES)]


def test_waiting_vectors_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedgen.coordinator.secure_round.MOST_HELD", 10)
    asked: list[tuple[str, ...]] = []

    def confirm(names):
        asked.append(names)
        return names

    answers = [("a", bytes(6)), ("b", bytes(6)), ("a", bytes(6)), ("c", bytes(6)), ("d", b"")]
    noted: list[tuple[str, Code]] = []
    found = list(confirmed(answers, {"a", "b", "c"}, confirm, lambda *what: noted.append(what)))
    assert [name for name, _ in found] == ["a", "b", "c"]
    assert asked == [("a", "b"), ("c",)]
    assert noted == [("a", Code.REPLAYED), ("d", Code.UNKNOWN_SENDER)]


def test_a_site_that_answers_twice_does_not_stand_in_for_one_that_is_silent() -> None:
    """The last site of the roster has nobody to offer anything to, so nothing in the core refuses its second answer."""
    fleet, shelf = Fleet(TERMS, vector, silent=lambda name, at: at == "offer" and name == "site-002"), Shelf()
    honest = fleet.ask

    def ask(frames, step):
        for name, frame in honest(frames, step):
            yield name, frame
            if name == "site-004":
                yield name, frame

    fleet.ask = ask  # type: ignore[method-assign]
    exact(fleet.run(fleet.rounds(shelf), 1), 1, [name for name in NAMES if name != "site-002"])
    assert shelf.setup == 2


def test_a_setup_goes_on_without_one_site_after_another() -> None:
    terms = terms_for(16, dropouts=5)
    names = [name for name, _ in terms.sites]
    gone = iter(names[:5])
    fleet, shelf = Fleet(terms, vector), Shelf()
    honest = fleet.ask

    def ask(frames, step):
        out = next(gone, None) if step == "offer" else None
        return (answer for answer in honest(frames, step) if answer[0] != out)

    fleet.ask = ask  # type: ignore[method-assign]
    exact(fleet.run(fleet.rounds(shelf), 1), 1, names[5:])
    assert shelf.setup == 6


@pytest.mark.parametrize("masked", [True, False])
def test_a_study_may_ask_for_more_sites_than_the_terms(*, masked: bool) -> None:
    terms = terms_for(6, dropouts=2)
    gone = {"site-001"}
    fleet = Fleet(terms, vector, masked=masked, silent=lambda name, at: at == "mask" and name in gone)
    rounds, names = fleet.rounds(fewest=6), [name for name, _ in terms.sites]
    outcome = fleet.run(rounds, 1)
    assert isinstance(outcome, Void)
    assert outcome.again
    assert fleet.steps["agree"] == fleet.steps["reveal"] == 0
    gone.clear()
    exact(fleet.run(rounds, 1, attempt=2), 1, names)


def test_too_few_for_the_study_are_found_out_before_anybody_is_charged() -> None:
    terms = terms_for(6, dropouts=2)
    for step in ("advertise", "offer", "deal"):
        fleet = Fleet(terms, vector, silent=lambda name, at, step=step: (name, at) == ("site-005", step))
        outcome = fleet.run(fleet.rounds(fewest=6), 1)
        assert isinstance(outcome, Void), step
        assert fleet.charged == []


def test_setups_and_opened_rounds_are_on_the_disk_before_they_are_used(tmp_path) -> None:
    path = tmp_path / "secagg.json"
    store = SetupFile(path, "ab")
    assert (store.next_setup(), store.next_setup(), store.opened()) == (1, 2, 0)
    store.opening(7)
    store.opening(3)
    again = SetupFile(path, "ab")
    assert (again.opened(), again.next_setup()) == (7, 3)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"run": "cd", "setup": 1, "opened": 0}', '{"run": "ab", "setup": true, "opened": 0}',
     '{"run": "ab", "setup": -1, "opened": 0}', '{"run": "ab", "setup": 1}'],
)  # fmt: skip
def test_a_damaged_or_foreign_file_is_refused(tmp_path, text: str) -> None:
    path = tmp_path / "secagg.json"
    path.write_text(text)
    with pytest.raises(IntegrityError) as error:
        SetupFile(path, "ab")
    assert error.value.code is Code.STORAGE
