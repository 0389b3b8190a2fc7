from datetime import UTC, datetime, timedelta, timezone

import pytest

from fedgen.ledger import _tally, merkle
from fedgen.ledger._tally import Tally
from fedgen.ledger.entries import Admitted, Reserved, Settled
from fedgen.privacy.budget import Spent
from fedgen.privacy.events import Gaussian, PoissonGaussian

H, H2, R, D = "a" * 64, "d" * 64, "b" * 64, "c" * 64
STEP = PoissonGaussian(0.05, 1.25)
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


def test_a_tally_adds_up_by_data_set_and_study() -> None:
    tally = Tally()
    tally.add(0, b"0", Reserved("claims", H, R, 1, 1, STEP, 4), NOW)
    tally.add(1, b"1", Reserved("claims", H2, R, 1, 1, STEP, 3), NOW)
    tally.add(2, b"2", Reserved("claims", H, R, 2, 1, Gaussian(8.0), 1), NOW)
    tally.add(3, b"3", Reserved("images", H, R, 3, 1, STEP, 9), NOW)
    assert tally.spent("claims", H, NOW) == Spent(
        data=((STEP, 7), (Gaussian(8.0), 1)),
        study=((STEP, 4), (Gaussian(8.0), 1)),
        year=((STEP, 7), (Gaussian(8.0), 1)),
    )
    assert tally.spent("claims", None, NOW).study == ()
    assert tally.spent("nothing", H, NOW) == Spent()
    assert (tally.size, tally.head) == (4, b"3")
    assert tally.root == merkle.root([merkle.leaf_hash(head) for head in (b"0", b"1", b"2", b"3")])


def test_a_settled_round_stays_charged_and_is_open_no_more() -> None:
    tally = Tally()
    tally.add(0, b"0", Admitted(H, R, "claims"), NOW)
    tally.add(1, b"1", Reserved("claims", H, R, 1, 1, STEP, 4), NOW)
    assert list(tally.unsettled) == [1]
    tally.add(2, b"2", Settled(1, 1, 1, D), NOW)
    assert not tally.unsettled
    assert tally.spent("claims", H, NOW).data == ((STEP, 4),)


def test_the_latest_round_is_not_moved_back_by_an_earlier_one() -> None:
    tally = Tally()
    for index, (round_, attempt) in enumerate([(5, 2), (4, 9), (5, 1)], start=0):
        tally.add(index, b"x", Reserved("claims", H, R, round_, attempt, STEP, 1), NOW)
    assert tally.last(H, R) == (5, 2)
    assert tally.last(H, None) == (5, 2)
    assert tally.last(H2, None) == (0, 0)


def test_a_kept_tally_has_one_owner_and_old_ones_are_crowded_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tally, "_KEPT_MAX", 3)
    shelf = _tally._Kept()
    tallies = [Tally(size=n, head=bytes([n])) for n in range(5)]
    for tally in tallies:
        shelf.keep(tally)
    assert shelf.take(bytes([0])) is None
    assert shelf.take(bytes([1])) is None
    assert shelf.take(bytes([4])) is tallies[4]
    assert shelf.take(bytes([4])) is None


def test_days_older_than_a_year_are_forgotten_and_totals_are_not() -> None:
    tally = Tally()
    for day in range(1000):
        tally.add(day, b"x", Reserved("claims", H, R, day + 1, 1, STEP, 1), NOW + timedelta(days=day))
    assert len(tally.days["claims"]) == 366
    last = NOW + timedelta(days=999)
    assert tally.spent("claims", H, last).year == ((STEP, 366),)
    assert tally.spent("claims", H, last + timedelta(days=100)).year == ((STEP, 266),)
    assert tally.spent("claims", H, last + timedelta(days=366)).year == ()
    assert tally.spent("claims", H, NOW).year == ((STEP, 366),)  # an earlier clock sees no less
    assert tally.spent("claims", H, last).data == ((STEP, 1000),)


def test_any_entry_moves_the_day_and_none_moves_it_back() -> None:
    tally = Tally()
    tally.add(0, b"0", Admitted(H, R, "claims"), NOW)
    tally.add(1, b"1", Reserved("claims", H, R, 1, 1, STEP, 4), NOW - timedelta(days=4000))
    assert tally.spent("claims", H, NOW + timedelta(days=365)).year == ((STEP, 4),)
    assert tally.spent("claims", H, NOW + timedelta(days=366)).year == ()


def test_a_day_is_one_of_utc() -> None:
    tally = Tally()
    west = timezone(timedelta(hours=-11))
    tally.add(0, b"0", Reserved("claims", H, R, 1, 1, STEP, 4), datetime(2026, 6, 1, 13, tzinfo=west))
    assert tally.day == datetime(2026, 6, 2, tzinfo=UTC).toordinal()
