"""Group commit: who waits together shares one commit, and nothing else."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fedgen.crypto.keys import SigningKey
from fedgen.errors import BudgetExhausted, Code, IntegrityError
from fedgen.ledger._group import Group
from fedgen.ledger.store import Ledger, Receipt
from fedgen.ledger.verify import verify
from fedgen.privacy.budget import Spent
from fedgen.privacy.events import PoissonGaussian

KEY = SigningKey.generate()
H, R, D = "a" * 64, "b" * 64, "c" * 64
STEP = PoissonGaussian(0.05, 1.25)
WAITERS = 64


class Counted:
    """A group over transactions that are only counted."""

    def __init__(self, *, fails: Callable[[int], bool] = lambda _: False) -> None:
        self.begun = self.committed = 0
        self.fails = fails
        self.lock = threading.RLock()
        self.group: Group[int] = Group(self.lock, self.transaction, lambda error: isinstance(error, OSError))

    @contextmanager
    def transaction(self) -> Iterator[int]:
        self.begun += 1
        if self.fails(self.begun):
            raise OSError("no space left")
        yield self.begun
        self.committed += 1

    def together(self, acts: list[Callable[[int], Any]]) -> list[Any]:
        """Run all acts, each in a thread of its own, begun while the lock is held; return what came of each."""
        found: list[Any] = [None] * len(acts)

        def run(place: int) -> None:
            try:
                found[place] = self.group.take(acts[place])
            except Exception as error:  # noqa: BLE001 -- the result of the test
                found[place] = error

        threads = [threading.Thread(target=run, args=(place,)) for place in range(len(acts))]
        with self.lock:
            for count, thread in enumerate(threads, start=1):
                thread.start()
                while len(self.group._waiting) < count:
                    time.sleep(0.0005)
        for thread in threads:
            thread.join()
        return found


def test_all_who_wait_share_one_transaction_in_the_order_they_came() -> None:
    it, order = Counted(), []
    results = it.together([lambda begun, n=n: order.append(n) or (n, begun) for n in range(WAITERS)])  # type: ignore[misc]
    assert it.committed == 1
    assert order == list(range(WAITERS))
    assert results == [(n, 1) for n in range(WAITERS)]


def test_an_act_that_raises_fails_alone() -> None:
    it = Counted()
    results = it.together([lambda _, n=n: 1 // (n - 3) for n in range(6)])  # type: ignore[misc]
    assert isinstance(results.pop(3), ZeroDivisionError)
    assert results == [-1, -1, -1, 1, 0]
    assert (it.begun, it.committed) == (1, 1)


def test_a_lost_transaction_fails_everybody_in_it_and_acknowledges_nobody() -> None:
    def broken(_: int) -> None:
        raise OSError("the disk")

    it = Counted()
    results = it.together([lambda _: 1, broken, lambda _: 2])
    assert [type(result) for result in results] == [OSError, OSError, int]
    assert it.committed == 1


def test_a_transaction_that_cannot_begin_fails_everybody_who_waits_and_the_next_goes_on() -> None:
    it = Counted(fails=lambda begun: begun == 1)
    assert all(isinstance(result, OSError) for result in it.together([lambda _: 1] * 5))
    assert it.group.take(lambda _: 7) == 7


def test_an_interrupted_thread_takes_nobody_with_it() -> None:
    it, looks = Counted(), []

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    def waiting() -> None:
        looks.append(it.group.take(lambda begun: begun))

    thread = threading.Thread(target=waiting)
    with it.lock:
        thread.start()
        while not it.group._waiting:
            time.sleep(0.0005)
        with pytest.raises(KeyboardInterrupt):
            it.group.take(interrupted)
    thread.join()
    assert looks == [2]
    assert it.committed == 1


def reserve(ledger: Ledger, round_: int, check: Callable[[Spent], object], count: int = 1) -> Receipt:
    return ledger.reserve("claims", H, R, round_, 1, STEP, count, check=check)


def waiters(ledger: Ledger, work: Callable[[int], Any], number: int = WAITERS) -> list[Any]:
    """Run ``work`` in threads that all wait for the ledger before the first is served."""
    found: list[Any] = [None] * number

    def run(place: int) -> None:
        try:
            found[place] = work(place + 1)
        except Exception as error:  # noqa: BLE001 -- the result of the test
            found[place] = error

    threads = [threading.Thread(target=run, args=(place,)) for place in range(number)]
    with ledger._lock:
        for thread in threads:
            thread.start()
        while len(ledger._group._waiting) < number:
            time.sleep(0.0005)
    for thread in threads:
        thread.join()
    return found


def commits(ledger: Ledger) -> list[str]:
    """Return a list that grows by each COMMIT of the ledger's connection."""
    said: list[str] = []
    assert ledger._connection is not None
    raw: Any = ledger._connection.connection.driver_connection
    raw.set_trace_callback(lambda text: said.append(text) if text == "COMMIT" else None)
    return said


def test_64_waiting_reservations_share_one_commit(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.db", origin="hospital", signing_key=KEY) as ledger:
        said, seen = commits(ledger), []
        receipts = waiters(ledger, lambda round_: reserve(ledger, round_, seen.append))
        assert said == ["COMMIT"]
        assert sorted(receipt.index for receipt in receipts) == list(range(1, WAITERS + 1))
        # Each check saw every reservation before it, though none was committed yet.
        assert [spent.data for spent in seen] == [(), *(((STEP, n),) for n in range(1, WAITERS))]
        waiters(ledger, lambda number: ledger.settle(receipts[number - 1], D))
        assert said == ["COMMIT", "COMMIT"]
    report = verify(tmp_path / "ledger.db", KEY.verify_key)
    assert (report.problems, report.entries, report.unsettled) == ((), 1 + 2 * WAITERS, 0)


def test_waiting_threads_cannot_jointly_overspend(tmp_path: Path) -> None:
    def check(spent: Spent) -> None:
        if sum(count for _, count in spent.data) >= 10:
            raise BudgetExhausted("enough")

    with Ledger.open(tmp_path / "ledger.db", origin="hospital", signing_key=KEY, durable=False) as ledger:
        results = waiters(ledger, lambda round_: reserve(ledger, round_, check))
        assert sum(isinstance(result, Receipt) for result in results) == 10
        assert sum(isinstance(result, BudgetExhausted) for result in results) == WAITERS - 10
        assert ledger.spent("claims") == ((STEP, 10),)
    assert verify(tmp_path / "ledger.db").ok


def test_a_replay_among_the_waiting_is_charged_once(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.db", origin="hospital", signing_key=KEY, durable=False) as ledger:
        results = waiters(ledger, lambda round_: reserve(ledger, 1 + round_ // 2, lambda _: None), 7)
        replayed = [result for result in results if isinstance(result, IntegrityError)]
        assert [error.code for error in replayed] == [Code.REPLAYED] * 3
        assert ledger.spent("claims") == ((STEP, 4),)
    assert verify(tmp_path / "ledger.db").ok


def test_a_full_disk_acknowledges_nobody_of_the_transaction_that_met_it(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.db", origin="hospital", signing_key=KEY) as ledger:
        reserve(ledger, 1000, lambda _: None)
        assert ledger._connection is not None
        raw: Any = ledger._connection.connection.driver_connection
        raw.execute(f"PRAGMA max_page_count = {raw.execute('PRAGMA page_count').fetchone()[0]}")
        results = waiters(ledger, lambda round_: reserve(ledger, round_, lambda _: None))
        assert any(isinstance(result, OSError) for result in results)
        acknowledged = sum(isinstance(result, Receipt) for result in results)
        assert ledger.spent("claims") == ((STEP, 1 + acknowledged),)
        assert reserve(ledger, 2000, lambda _: None).index == 2 + acknowledged
    assert verify(tmp_path / "ledger.db").ok


def test_a_commit_that_fails_is_not_counted(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.db", origin="hospital", signing_key=KEY, durable=False) as ledger:
        reserve(ledger, 1, lambda _: None)
        before = ledger.checkpoint()
        other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        assert ledger._connection is not None
        raw: Any = ledger._connection.connection.driver_connection
        raw.execute("PRAGMA busy_timeout = 20")
        other.execute("BEGIN")
        other.execute(
            "SELECT count(*) FROM entries"
        ).fetchone()  # a reader: the rollback journal cannot commit
        with pytest.raises(Exception, match="another process holds the ledger"):
            reserve(ledger, 2, lambda _: None)
        other.execute("ROLLBACK")
        other.close()
        assert ledger.checkpoint() == before
        assert ledger.spent("claims") == ((STEP, 1),)
        assert reserve(ledger, 2, lambda _: None).index == 2
    assert verify(tmp_path / "ledger.db").ok
