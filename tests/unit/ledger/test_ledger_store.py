import errno
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fedgen.crypto.keys import SigningKey
from fedgen.errors import BudgetExhausted, Code, IntegrityError
from fedgen.ledger import _database, _tally, store
from fedgen.ledger.entries import Admitted, Closed, Opened, Refused, Reserved, Settled
from fedgen.ledger.store import Ledger, Receipt
from fedgen.ledger.verify import verify
from fedgen.privacy.budget import Ceiling, Request, Spent, decide
from fedgen.privacy.events import Gaussian, PoissonGaussian

KEY = SigningKey.generate()
H, H2, R, R2, D = "a" * 64, "d" * 64, "b" * 64, "e" * 64, "c" * 64
STEP = PoissonGaussian(0.05, 1.25)


def opened(path: Path, **changed: Any) -> Ledger:
    given: dict[str, Any] = {"origin": "hospital", "signing_key": KEY, "durable": False}
    return Ledger.open(path, **{**given, **changed})


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with opened(tmp_path / "ledger.db") as it:
        yield it


def reserve(ledger: Ledger, round_: int = 1, attempt: int = 1, **changed: Any) -> Receipt:
    given: dict[str, Any] = {
        "dataset": "claims", "study_hash": H, "run": R, "round": round_, "attempt": attempt,
        "event": STEP, "count": 4, "check": lambda _: None,
    }  # fmt: skip
    return ledger.reserve(**{**given, **changed})


@pytest.mark.parametrize("durable", [True, False])
def test_a_new_ledger_names_itself_and_is_its_owners_alone(tmp_path: Path, *, durable: bool) -> None:
    path = tmp_path / "ledger.db"
    with opened(path, durable=durable) as ledger:
        reserve(ledger)
        (first, _) = ledger.entries()
        assert first.entry == Opened(origin="hospital", public_key=KEY.public.hex(), durable=durable)
        assert ledger.durable is durable
        assert all(file.stat().st_mode & 0o777 == 0o600 for file in tmp_path.iterdir())
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.db"]
    with closing(sqlite3.connect(path)) as raw:
        ((note,),) = raw.execute("SELECT note FROM meta")
    assert note == ("durable" if durable else "simulated: no fsync")


@pytest.mark.parametrize(("durable", "synchronous", "journal"), [(True, 2, "wal"), (False, 0, "delete")])
def test_only_a_durable_ledger_waits_for_the_disk(
    tmp_path: Path, *, durable: bool, synchronous: int, journal: str
) -> None:
    with opened(tmp_path / "ledger.db", durable=durable) as ledger:
        assert ledger._connection is not None
        raw: Any = ledger._connection.connection.driver_connection
        assert raw.execute("PRAGMA synchronous").fetchone()[0] == synchronous
        assert raw.execute("PRAGMA journal_mode").fetchone()[0] == journal


def test_entries_stand_in_the_order_they_were_made(ledger: Ledger) -> None:
    ledger.append(Admitted(study_hash=H, run=R, dataset="claims"))
    receipt = reserve(ledger)
    ledger.settle(receipt, D)
    ledger.append(Refused(study_hash=H, run=R, round=2, attempt=1, code="consent"))
    last = ledger.append(Closed(study_hash=H, run=R, outcome="completed", rounds=1))
    kinds = [recorded.entry.kind for recorded in ledger.entries()]
    assert kinds == ["opened", "admitted", "reserved", "settled", "refused", "closed"]
    assert [recorded.index for recorded in ledger.entries(2)] == [2, 3, 4, 5]
    assert ledger.head == last
    assert receipt.index == 2
    settled = list(ledger.entries())[3].entry
    assert settled == Settled(reservation=2, round=1, attempt=1, digest=D)


def test_entries_with_a_verb_of_their_own_are_not_appended(ledger: Ledger) -> None:
    for entry in (
        Opened(origin="x", public_key=D, durable=True),
        Reserved("claims", H, R, 1, 1, STEP, 1),
        Settled(1, 1, 1, D),
    ):
        with pytest.raises(ValueError, match="its own verb"):
            ledger.append(entry)


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
        Spent(data=((STEP, 4),)),
        Spent(data=((STEP, 8),), study=((STEP, 4),)),
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


def test_a_reservation_is_settled_once(ledger: Ledger) -> None:
    receipt = reserve(ledger)
    ledger.settle(receipt, D)
    with pytest.raises(IntegrityError) as caught:
        ledger.settle(receipt, D)
    assert caught.value.code is Code.REPLAYED
    with pytest.raises(IntegrityError, match="no such reservation") as caught:
        ledger.settle(Receipt(77, bytes(32)), D)
    assert caught.value.code is Code.LEDGER


@pytest.mark.parametrize(
    "change", [{"round_": 0}, {"attempt": 0}, {"count": 0}, {"study_hash": "a"}, {"run": ""}, {"dataset": ""}]
)
def test_a_reservation_of_nonsense_is_refused_before_anything_is_written(
    ledger: Ledger, change: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="must be"):
        reserve(ledger, **change)
    assert ledger.head.index == 0


def test_the_last_round_is_the_latest_reserved_one(ledger: Ledger) -> None:
    assert ledger.last_round(H) == 0
    reserve(ledger, 1)
    reserve(ledger, 5)
    reserve(ledger, 5, 2)
    reserve(ledger, 2, 7, run=R2)
    assert ledger.last_round(H) == 5
    assert ledger.last_round(H, R2) == 2
    assert ledger.last_attempt(H, R) == (5, 2)
    assert ledger.last_attempt(H2) == (0, 0)


@pytest.mark.parametrize("durable", [True, False])
def test_a_ledger_closes_and_opens_where_it_was(tmp_path: Path, *, durable: bool) -> None:
    path = tmp_path / "ledger.db"
    with opened(path, durable=durable) as ledger:
        receipt = reserve(ledger, 3)
        promise = ledger.checkpoint()
    for forget in (False, True):
        if forget:
            _tally.kept._by_head.clear()
        with opened(path, durable=durable) as ledger:
            assert ledger.head == receipt
            assert ledger.spent("claims") == ((STEP, 4),)
            assert ledger.last_round(H) == 3
            assert ledger.checkpoint() == promise
    with opened(path, durable=durable) as ledger:
        ledger.settle(receipt, D)
    assert verify(path, KEY.verify_key, checkpoint=promise).ok


def test_a_closed_ledger_answers_nothing(ledger: Ledger) -> None:
    ledger.close()
    ledger.close()
    with pytest.raises(ValueError, match="closed"):
        reserve(ledger)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"origin": "clinic"}, "another origin"),
        ({"signing_key": SigningKey.generate()}, "another key"),
        ({"durable": True}, "'simulated: no fsync', not 'durable'"),
    ],
)
def test_a_ledger_of_somebody_else_is_not_opened(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    opened(tmp_path / "ledger.db").close()
    with pytest.raises(IntegrityError, match=words) as caught:
        opened(tmp_path / "ledger.db", **change)
    assert caught.value.code is Code.LEDGER


@pytest.mark.parametrize("content", [b"not a ledger at all, and long enough to be a header " * 40, b"x"])
def test_what_is_no_ledger_is_not_opened(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ledger.db").write_bytes(content)
    with pytest.raises(IntegrityError) as caught:
        opened(tmp_path / "ledger.db")
    assert caught.value.code is Code.LEDGER
    assert (tmp_path / "ledger.db").read_bytes() == content


def test_another_database_is_not_opened(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "ledger.db")
    other.execute("CREATE TABLE people (name TEXT)")
    other.close()
    with pytest.raises(IntegrityError):
        opened(tmp_path / "ledger.db")


def test_a_missing_folder_is_the_systems_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        opened(tmp_path / "nowhere" / "ledger.db")


def test_a_creation_that_was_killed_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch(0o600)
    with opened(tmp_path / "ledger.db") as ledger:
        assert ledger.head.index == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET body = x'00' WHERE idx = 1",
        "DELETE FROM entries WHERE idx = 1",
        "DELETE FROM entries",
        "INSERT INTO entries SELECT 9, prev, body, hash, signature, NULL FROM entries WHERE idx = 1",
        "INSERT INTO entries SELECT 2, prev, body, hash, signature, NULL FROM entries WHERE idx = 1",
        "INSERT OR REPLACE INTO entries SELECT 1, prev, body, x'00', signature, NULL FROM entries WHERE idx = 1",
        "INSERT OR REPLACE INTO entries SELECT 2, hash, body, x'00', signature, once FROM entries WHERE idx = 1",
        "UPDATE meta SET size = 1",
        "UPDATE meta SET size = 3",
        "UPDATE meta SET note = 'durable'",
        "DELETE FROM meta",
        "INSERT INTO meta SELECT 2, note, size, head FROM meta",
    ],
)
def test_the_file_itself_refuses_changes(tmp_path: Path, statement: str) -> None:
    with opened(tmp_path / "ledger.db") as ledger:
        reserve(ledger)
    raw = sqlite3.connect(tmp_path / "ledger.db")
    with pytest.raises(sqlite3.IntegrityError):
        raw.execute(statement)
    raw.close()
    assert verify(tmp_path / "ledger.db").ok


def test_two_open_ledgers_see_each_other(tmp_path: Path) -> None:
    with opened(tmp_path / "ledger.db") as one, opened(tmp_path / "ledger.db") as two:
        receipt = reserve(one, 1)
        assert two.spent("claims") == ((STEP, 4),)
        reserve(two, 2)
        two.settle(receipt, D)
        seen: list[Spent] = []
        reserve(one, 3, check=seen.append)
        assert seen == [Spent(data=((STEP, 8),), study=((STEP, 8),))]
        with pytest.raises(IntegrityError) as caught:
            reserve(one, 2)
        assert caught.value.code is Code.REPLAYED
    assert verify(tmp_path / "ledger.db").ok


def test_threads_with_their_own_ledgers_cannot_jointly_overspend(tmp_path: Path) -> None:
    path, ceiling = tmp_path / "ledger.db", [Ceiling(1.0, 1e-5, "data")]
    step = PoissonGaussian(0.05, 2.0)

    def spend(run: str) -> None:
        with opened(path) as ledger:
            for round_ in range(1, 60):
                try:
                    reserve(
                        ledger, round_, run=run, event=step, count=1,
                        check=lambda spent: decide(spent, Request(step, 1), ceiling),
                    )  # fmt: skip
                except BudgetExhausted:
                    return

    opened(path).close()
    threads = [threading.Thread(target=spend, args=(run * 64,)) for run in "123"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with opened(path) as ledger:
        ((event, count),) = ledger.spent("claims")
        request = Request(step, 1)
        decide(Spent(data=((event, count - 1),)), request, ceiling)  # the last one was allowed
        with pytest.raises(BudgetExhausted):
            decide(Spent(data=((event, count),)), request, ceiling)  # and the next is not
    assert verify(path).ok


def test_one_ledger_shared_by_threads_keeps_its_chain(ledger: Ledger, tmp_path: Path) -> None:
    def work(run: str) -> None:
        for round_ in range(1, 11):
            ledger.settle(reserve(ledger, round_, run=run), D)

    threads = [threading.Thread(target=work, args=(run * 64,)) for run in "1234"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.spent("claims") == ((STEP, 160),)
    report = verify(tmp_path / "ledger.db")
    assert (report.problems, report.entries, report.unsettled) == ((), 81, 0)


def test_a_file_rolled_back_under_an_open_ledger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with opened(path) as ledger:
        reserve(ledger, 1)
        old = path.read_bytes()
        reserve(ledger, 2)
        path.write_bytes(old)
        with pytest.raises(IntegrityError) as caught:
            reserve(ledger, 3)
        assert caught.value.code is Code.LEDGER
    assert path.read_bytes() == old


def test_a_head_the_key_did_not_sign_is_not_built_upon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Thief:
        """Signs with another key and claims the ledger's."""

        public = KEY.public
        sign = staticmethod(SigningKey.generate().sign)

    path = tmp_path / "ledger.db"
    with opened(path) as ledger:
        with opened(path, signing_key=Thief()) as forger:
            reserve(forger, 1)
        with pytest.raises(IntegrityError) as caught:
            reserve(ledger, 2)
    assert caught.value.code is Code.BAD_SIGNATURE


def test_a_full_disk_spends_nothing_and_the_ledger_goes_on_after(ledger: Ledger, tmp_path: Path) -> None:
    reserve(ledger, 1)
    assert ledger._connection is not None
    raw: Any = ledger._connection.connection.driver_connection
    pages = raw.execute("PRAGMA page_count").fetchone()[0]
    raw.execute(f"PRAGMA max_page_count = {pages}")

    def until_it_is_full() -> None:
        for round_ in range(2, 100):
            reserve(ledger, round_)

    with pytest.raises(OSError, match="no space left for the ledger; nothing was spent") as caught:
        until_it_is_full()
    assert caught.value.errno == errno.ENOSPC
    spent = ledger.spent("claims")[0][1]  # a fresh connection has no such limit
    last = ledger.last_round(H)
    assert spent == 4 * last
    reserve(ledger, last + 1)
    assert verify(tmp_path / "ledger.db").ok


def test_a_ledger_held_by_another_process_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_database, "_BUSY_MS", 50)
    with opened(tmp_path / "ledger.db") as ledger:
        other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(_database.LedgerBusy, match="another process holds"):
            reserve(ledger)
        other.execute("ROLLBACK")
        other.close()
        assert reserve(ledger).index == 1


def test_a_ledger_that_may_not_be_written_is_an_os_error(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    opened(path).close()
    connection = _database.connect(path, "read")
    with pytest.raises(OSError, match="cannot be opened for writing"), _database.translated(path):
        connection.execute(_database.meta.update().values(size=1))
    connection.close()


def test_a_clock_that_goes_backwards_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        """A clock an hour later at every other look, and an hour earlier at the next."""

        looks = 0

        @classmethod
        def now(cls, _zone: Any) -> datetime:
            cls.looks += 1
            return datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(hours=(-1) ** cls.looks)

    monkeypatch.setattr(store, "datetime", Clock)
    with opened(tmp_path / "ledger.db") as ledger:
        for round_ in range(1, 5):
            reserve(ledger, round_)
        assert [recorded.index for recorded in ledger.entries()] == [0, 1, 2, 3, 4]
        assert ledger.last_round(H) == 4
    report = verify(tmp_path / "ledger.db")
    assert report.ok
    assert len(report.warnings) == 2
    assert all(warning.startswith("clock: entry") for warning in report.warnings)


def test_a_copy_made_while_the_ledger_is_in_use_is_an_earlier_whole_state(tmp_path: Path) -> None:
    """A power cut between two commits leaves what was acknowledged, and what it leaves is a ledger."""
    path, copy = tmp_path / "ledger.db", tmp_path / "copy" / "ledger.db"
    copy.parent.mkdir()
    with opened(path, durable=True) as ledger:
        for round_ in range(1, 6):
            reserve(ledger, round_)
            copied = {file.name: file.read_bytes() for file in tmp_path.glob("ledger.db*")}
            for name in ("ledger.db", "ledger.db-wal"):
                copy.with_name(name).write_bytes(copied[name])
            copy.with_name("ledger.db-shm").unlink(missing_ok=True)
            with opened(copy, durable=True) as revived:
                assert revived.last_round(H) == round_
                assert revived.spent("claims") == ((STEP, 4 * round_),)
            assert verify(copy, KEY.verify_key).ok


def test_an_entry_that_was_never_committed_was_never_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Torn(SigningKey):
        """A key whose holder dies while it signs."""

        def sign(self, label: str, data: Any) -> bytes:
            if self.dies:  # type: ignore[attr-defined]
                raise KeyboardInterrupt
            return super().sign(label, data)

    key = Torn(KEY._key)
    monkeypatch.setattr(Torn, "dies", False, raising=False)
    with opened(tmp_path / "ledger.db", signing_key=key) as ledger:
        reserve(ledger, 1)
        monkeypatch.setattr(Torn, "dies", True)
        with pytest.raises(KeyboardInterrupt):
            reserve(ledger, 2)
        monkeypatch.setattr(Torn, "dies", False)
        assert ledger.spent("claims") == ((STEP, 4),)
        assert reserve(ledger, 2).index == 2
    assert verify(tmp_path / "ledger.db", KEY.verify_key).ok


def test_many_ledgers_open_and_close_without_leaving_files_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    for turn in range(2):
        for site in range(30):
            with opened(tmp_path / f"{site}.db", origin=f"site-{site}") as ledger:
                reserve(ledger, turn + 1)
                assert ledger.spent("claims") == ((STEP, 4 * (turn + 1)),)
    after = len(list(Path("/proc/self/fd").iterdir())) if before else 0
    assert after <= before
