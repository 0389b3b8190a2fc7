import pytest

from fedgen.ledger import _tally, merkle
from fedgen.ledger._tally import Tally
from fedgen.ledger.entries import Admitted, Reserved, Settled
from fedgen.privacy.budget import Spent
from fedgen.privacy.events import Gaussian, PoissonGaussian

H, H2, R, D = "a" * 64, "d" * 64, "b" * 64, "c" * 64
STEP = PoissonGaussian(0.05, 1.25)


def test_a_tally_adds_up_by_data_set_and_study() -> None:
    tally = Tally()
    tally.add(0, b"0", Reserved("claims", H, R, 1, 1, STEP, 4))
    tally.add(1, b"1", Reserved("claims", H2, R, 1, 1, STEP, 3))
    tally.add(2, b"2", Reserved("claims", H, R, 2, 1, Gaussian(8.0), 1))
    tally.add(3, b"3", Reserved("images", H, R, 3, 1, STEP, 9))
    assert tally.spent("claims", H) == Spent(
        data=((STEP, 7), (Gaussian(8.0), 1)), study=((STEP, 4), (Gaussian(8.0), 1))
    )
    assert tally.spent("claims", None).study == ()
    assert tally.spent("nothing", H) == Spent()
    assert (tally.size, tally.head) == (4, b"3")
    assert tally.root == merkle.root([merkle.leaf_hash(head) for head in (b"0", b"1", b"2", b"3")])


def test_a_settled_round_stays_charged_and_is_open_no_more() -> None:
    tally = Tally()
    tally.add(0, b"0", Admitted(H, R, "claims"))
    tally.add(1, b"1", Reserved("claims", H, R, 1, 1, STEP, 4))
    assert list(tally.unsettled) == [1]
    tally.add(2, b"2", Settled(1, 1, 1, D))
    assert not tally.unsettled
    assert tally.spent("claims", H).data == ((STEP, 4),)


def test_the_latest_round_is_not_moved_back_by_an_earlier_one() -> None:
    tally = Tally()
    for index, (round_, attempt) in enumerate([(5, 2), (4, 9), (5, 1)], start=0):
        tally.add(index, b"x", Reserved("claims", H, R, round_, attempt, STEP, 1))
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
