"""Notes and refusals: written where they are news, so that a message that is repeated adds nothing."""

import pytest
from support.open_ledgers import H2, KEY, R2, D, H, R, opened, reserve

from fedgen.ledger import _tally
from fedgen.ledger.entries import Admitted, Closed, Refused
from fedgen.ledger.store import Ledger
from fedgen.ledger.verify import verify

JOIN = Admitted(study_hash=H, run=R, dataset="claims")
CLOSE = Closed(study_hash=H, run=R, outcome="interrupted", rounds=1)


def kinds(ledger: Ledger) -> list[str]:
    return [recorded.entry.kind for recorded in ledger.entries()]


def refused(round_: int, attempt: int = 1, code: str = "consent") -> Refused:
    return Refused(study_hash=H, run=R, round=round_, attempt=attempt, code=code)


def test_a_note_that_is_repeated_is_written_once(ledger: Ledger, place: str) -> None:
    assert ledger.note(JOIN) is not None
    for _ in range(3):
        assert ledger.note(JOIN) is None
    ledger.settle(reserve(ledger, 1), D)
    for _ in range(3):  # taken in turns, too
        ledger.note(CLOSE)
        ledger.note(JOIN)
    assert kinds(ledger) == ["opened", "admitted", "reserved", "settled", "closed", "admitted"]
    assert verify(place, KEY.verify_key).ok


def test_a_round_makes_the_same_words_news_again(ledger: Ledger) -> None:
    ledger.note(JOIN)
    ledger.note(CLOSE)
    reserve(ledger, 1)
    assert ledger.note(JOIN) is not None
    assert ledger.note(CLOSE) is not None
    assert kinds(ledger) == ["opened", "admitted", "closed", "reserved", "admitted", "closed"]


def test_other_words_and_other_runs_are_news(ledger: Ledger) -> None:
    ledger.note(JOIN)
    assert ledger.note(Admitted(study_hash=H, run=R2, dataset="claims")) is not None
    assert ledger.note(Admitted(study_hash=H2, run=R, dataset="claims")) is not None
    assert ledger.note(CLOSE) is not None
    assert ledger.note(Closed(study_hash=H, run=R, outcome="completed", rounds=1)) is not None


def test_what_was_said_is_known_to_another_process(place: str) -> None:
    with opened(place) as ledger:
        ledger.note(JOIN)
        ledger.note(refused(1))
    _tally.kept._by_head.clear()
    with opened(place) as ledger, opened(place) as other:
        assert ledger.note(refused(1)) is None
        other.note(JOIN)  # a refusal is news, so this may be said again
        assert ledger.note(JOIN) is None


def test_an_attempt_is_refused_once_and_none_that_is_over(ledger: Ledger) -> None:
    assert ledger.note(refused(1)) is not None
    assert ledger.note(refused(1)) is None
    assert ledger.note(refused(1, code="cohort-too-small")) is None
    assert ledger.note(refused(1, 2)) is not None
    reserve(ledger, 3)
    assert ledger.note(refused(2)) is None
    assert ledger.note(refused(3)) is not None  # charged, and then discarded
    assert ledger.note(refused(3)) is None
    reserve(ledger, 4, 2)
    assert ledger.note(refused(4, 1)) is None
    assert ledger.note(refused(4, 2)) is not None


def test_another_runs_refusals_are_its_own(ledger: Ledger) -> None:
    assert ledger.note(refused(5)) is not None
    assert ledger.note(Refused(study_hash=H, run=R2, round=1, attempt=1, code="consent")) is not None


def test_a_refused_attempt_may_still_be_asked_later_and_is_then_charged(ledger: Ledger) -> None:
    ledger.note(refused(1))
    assert reserve(ledger, 1, 1).index == 2
    with pytest.raises(ValueError, match="round must be"):
        refused(-1)
