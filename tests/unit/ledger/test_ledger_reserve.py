"""A reservation: decided on everything that was charged before, written once, or not at all."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support.open_ledgers import H2, KEY, R2, STEP, D, H, opened, reserve

from fedgen.errors import BudgetExhausted, Code, IntegrityError
from fedgen.ledger import _tally, store
from fedgen.ledger.entries import Reserved
from fedgen.ledger.store import Ledger
from fedgen.ledger.verify import verify
from fedgen.privacy.budget import Spent
from fedgen.privacy.events import Gaussian


def test_everything_reserved_counts_settled_or_not(ledger: Ledger) -> None:
    ledger.settle(reserve(ledger, 1), D)
    reserve(ledger, 2)
    reserve(ledger, 1, study_hash=H2, event=Gaussian(8.0), count=1)
    reserve(ledger, 1, dataset="other", run=R2)
    assert dict(ledger.spent("claims")) == {STEP: 8, Gaussian(8.0): 1}
    assert ledger.spent("claims", H) == ((STEP, 8),)
    assert ledger.spent("claims", H2) == ((Gaussian(8.0), 1),)
    assert ledger.spent("other") == ((STEP, 4),)
    assert ledger.spent("nothing") == ()


def test_the_check_sees_the_history_of_all_studies_and_of_its_own(ledger: Ledger) -> None:
    seen: list[Spent] = []
    reserve(ledger, 1, study_hash=H2, check=seen.append)
    reserve(ledger, 1, check=seen.append)
    reserve(ledger, 2, check=seen.append)
    assert seen == [
        Spent(),
        Spent(data=((STEP, 4),), year=((STEP, 4),)),
        Spent(data=((STEP, 8),), study=((STEP, 4),), year=((STEP, 8),)),
    ]


def test_nothing_is_written_where_the_check_says_no(ledger: Ledger) -> None:
    def no(_: Spent) -> None:
        raise BudgetExhausted("enough")

    with pytest.raises(BudgetExhausted):
        reserve(ledger, check=no)
    with pytest.raises(ZeroDivisionError):
        reserve(ledger, check=lambda _: 1 // 0)
    assert ledger.spent("claims") == ()
    assert len(list(ledger.entries())) == 1
    assert reserve(ledger).index == 1


def test_the_same_attempt_is_charged_once_and_a_new_one_again(ledger: Ledger) -> None:
    reserve(ledger, 1, 1)
    with pytest.raises(IntegrityError) as caught:
        reserve(ledger, 1, 1)
    assert caught.value.code is Code.REPLAYED
    assert ledger.spent("claims") == ((STEP, 4),)
    reserve(ledger, 1, 2)
    assert ledger.spent("claims") == ((STEP, 8),)


def test_a_replay_is_named_even_when_the_budget_is_gone(ledger: Ledger) -> None:
    def no(_: Spent) -> None:
        raise BudgetExhausted("enough")

    reserve(ledger, 1, 1)
    with pytest.raises(IntegrityError) as caught:
        reserve(ledger, 1, 1, check=no)
    assert caught.value.code is Code.REPLAYED


@pytest.mark.parametrize(
    "change", [{"round_": 0}, {"attempt": 0}, {"count": 0}, {"study_hash": "a"}, {"run": ""}, {"dataset": ""}]
)
def test_a_reservation_of_nonsense_is_refused_before_anything_is_written(
    ledger: Ledger, change: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="must be"):
        reserve(ledger, **change)
    assert ledger.head.index == 0


# -- units ----------------------------------------------------------------------------------------------


def test_a_data_set_is_charged_per_one_unit_and_never_per_another(ledger: Ledger, place: str) -> None:
    reserve(ledger, 1)
    for unit in ("person", "site"):
        asked: list[Spent] = []
        with pytest.raises(BudgetExhausted, match="was charged per record before") as caught:
            reserve(ledger, 2, unit=unit, check=asked.append)
        assert (caught.value.exit_code, caught.value.site_code) == (5, Code.BUDGET)
        assert "set privacy.unit to record" in str(caught.value)
        assert asked == []
    assert ledger.spent("claims") == ((STEP, 4),)
    reserve(ledger, 1, dataset="other", study_hash=H2, unit="person")
    with pytest.raises(BudgetExhausted, match="per person before"):
        reserve(ledger, 2, dataset="other", study_hash=H2)
    reserve(ledger, 2, dataset="other", study_hash=H2, unit="person")
    assert [it.entry.unit for it in ledger.entries() if isinstance(it.entry, Reserved)] == [
        "record", "person", "person",
    ]  # fmt: skip
    assert verify(place, KEY.verify_key).ok


def test_the_unit_is_remembered_by_the_ledger_and_not_by_the_process(place: str) -> None:
    with opened(place) as ledger:
        reserve(ledger, 1, unit="person")
    _tally.kept._by_head.clear()
    with opened(place) as ledger, pytest.raises(BudgetExhausted, match="per person before"):
        reserve(ledger, 2)


def test_two_first_studies_of_different_units_cannot_both_begin(place: str) -> None:
    """What another process charged a moment before is seen in the same transaction."""
    with opened(place) as one, opened(place) as two:
        assert one.spent("claims") == two.spent("claims") == ()
        reserve(one, 1)
        with pytest.raises(BudgetExhausted):
            reserve(two, 1, study_hash=H2, unit="person")


def test_a_replay_is_a_replay_under_another_unit_too(ledger: Ledger) -> None:
    reserve(ledger, 1)
    with pytest.raises(IntegrityError) as caught:
        reserve(ledger, 1, unit="person")
    assert caught.value.code is Code.REPLAYED


def test_a_unit_that_is_none_is_refused_before_anything_is_written(ledger: Ledger) -> None:
    with pytest.raises(ValueError, match="household"):
        reserve(ledger, unit="household")
    assert ledger.head.index == 0


# -- years ----------------------------------------------------------------------------------------------


class Clock:
    """A clock that stands where it is put."""

    at = datetime(2026, 1, 1, 23, 59, tzinfo=UTC)

    @classmethod
    def now(cls, _zone: Any) -> datetime:
        return cls.at


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    monkeypatch.setattr(store, "datetime", Clock)
    monkeypatch.setattr(Clock, "at", Clock.at)
    return Clock


def seen_by(ledger: Ledger, round_: int, **changed: Any) -> Spent:
    """Charge a round and return what its check saw."""
    seen: list[Spent] = []
    reserve(ledger, round_, check=seen.append, **changed)
    return seen[0]


def test_a_year_is_365_whole_days_and_the_border_day_counts(place: str, clock: type[Clock]) -> None:
    start = clock.at
    with opened(place) as ledger:
        reserve(ledger, 1)
        clock.at = start + timedelta(days=365)
        assert seen_by(ledger, 2).year == ((STEP, 4),)
        clock.at = start + timedelta(days=365, minutes=1)  # the next day
        now = seen_by(ledger, 3)
        assert (now.year, now.data) == (((STEP, 4),), ((STEP, 8),))
        assert seen_by(ledger, 1, dataset="other", run=R2).year == ()
    _tally.kept._by_head.clear()
    with opened(place) as ledger:
        assert seen_by(ledger, 4).year == ((STEP, 8),)


def test_a_clock_that_goes_backwards_frees_nothing(place: str, clock: type[Clock]) -> None:
    start = clock.at
    with opened(place) as ledger:
        reserve(ledger, 1)
        clock.at = start - timedelta(days=400)
        assert seen_by(ledger, 2).year == ((STEP, 4),)
        clock.at = start + timedelta(days=2)
        assert seen_by(ledger, 3).year == ((STEP, 8),)  # the second counts on the day of the first


def test_what_was_written_after_a_jump_ahead_stays_until_that_year_is_over(
    place: str, clock: type[Clock]
) -> None:
    start = clock.at
    with opened(place) as ledger:
        clock.at = start + timedelta(days=3000)
        reserve(ledger, 1)
        clock.at = start
        assert seen_by(ledger, 2).year == ((STEP, 4),)
        clock.at = start + timedelta(days=3364)
        assert seen_by(ledger, 3).year == ((STEP, 8),)
