"""Several who use one ledger at once, and one who is not entitled to."""

import threading

import pytest
from support.open_ledgers import KEY, STEP, D, opened, reserve

from fedgen.crypto.keys import SigningKey
from fedgen.errors import BudgetExhausted, Code, IntegrityError
from fedgen.ledger.store import Ledger
from fedgen.ledger.verify import verify
from fedgen.privacy.budget import Ceiling, Request, Spent, decide
from fedgen.privacy.events import PoissonGaussian


def test_two_open_ledgers_see_each_other(place: str) -> None:
    with opened(place) as one, opened(place) as two:
        receipt = reserve(one, 1)
        assert two.spent("claims") == ((STEP, 4),)
        reserve(two, 2)
        two.settle(receipt, D)
        seen: list[Spent] = []
        reserve(one, 3, check=seen.append)
        assert seen == [Spent(data=((STEP, 8),), study=((STEP, 8),), year=((STEP, 8),))]
        with pytest.raises(IntegrityError) as caught:
            reserve(one, 2)
        assert caught.value.code is Code.REPLAYED
    assert verify(place).ok


def test_threads_with_their_own_ledgers_cannot_jointly_overspend(place: str) -> None:
    ceiling = [Ceiling(1.0, 1e-5, "data")]
    step = PoissonGaussian(0.05, 2.0)

    def spend(run: str) -> None:
        with opened(place) as ledger:
            for round_ in range(1, 60):
                try:
                    reserve(
                        ledger, round_, run=run, event=step, count=1,
                        check=lambda spent: decide(spent, Request(step, 1), ceiling),
                    )  # fmt: skip
                except BudgetExhausted:
                    return

    opened(place).close()
    threads = [threading.Thread(target=spend, args=(run * 64,)) for run in "123"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with opened(place) as ledger:
        ((event, count),) = ledger.spent("claims")
        request = Request(step, 1)
        decide(Spent(data=((event, count - 1),)), request, ceiling)  # the last one was allowed
        with pytest.raises(BudgetExhausted):
            decide(Spent(data=((event, count),)), request, ceiling)  # and the next is not
    assert verify(place).ok


def test_one_ledger_shared_by_threads_keeps_its_chain(ledger: Ledger, place: str) -> None:
    def work(run: str) -> None:
        for round_ in range(1, 11):
            ledger.settle(reserve(ledger, round_, run=run), D)

    threads = [threading.Thread(target=work, args=(run * 64,)) for run in "1234"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.spent("claims") == ((STEP, 160),)
    report = verify(place)
    assert (report.problems, report.entries, report.unsettled) == ((), 81, 0)


def test_a_head_the_key_did_not_sign_is_not_built_upon(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Thief:
        """Signs with another key and claims the ledger's."""

        public = KEY.public
        sign = staticmethod(SigningKey.generate().sign)

    with opened(place) as ledger:
        with opened(place, signing_key=Thief()) as forger:
            reserve(forger, 1)
        with pytest.raises(IntegrityError) as caught:
            reserve(ledger, 2)
    assert caught.value.code is Code.BAD_SIGNATURE


def test_several_who_begin_one_ledger_at_once_find_one(place: str) -> None:
    gate, came = threading.Barrier(6), list[object]()

    def begin(round_: int) -> None:
        gate.wait()
        try:
            with opened(place) as ledger:
                came.append(reserve(ledger, round_).index)
        except Exception as error:  # noqa: BLE001 -- the result of the test
            came.append(error)

    threads = [threading.Thread(target=begin, args=(round_,)) for round_ in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(came, key=str) == [1, 2, 3, 4, 5, 6]
    assert verify(place, KEY.verify_key).ok
