"""A ledger in a file of SQLite: what the file itself refuses, and what a disk can do to it."""

import errno
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.open_ledgers import KEY, STEP, H, opened, reserve

from fedgen.errors import Code, IntegrityError
from fedgen.ledger import _database, _sqlite
from fedgen.ledger.entries import Opened
from fedgen.ledger.verify import verify


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


def test_a_full_disk_spends_nothing_and_the_ledger_goes_on_after(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "ledger.db")
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
    ledger.close()
    assert verify(tmp_path / "ledger.db").ok


def test_a_ledger_held_by_another_process_is_busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sqlite, "_BUSY_MS", 50)
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
    database = _sqlite.File(path, "read")
    connection = database.connect()
    with pytest.raises(OSError, match="cannot be opened for writing"), _database.translated(database):
        connection.execute(_database.meta.update().values(size=1))
    connection.close()


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


def test_many_ledgers_open_and_close_without_leaving_files_open(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    for turn in range(2):
        for site in range(30):
            with opened(tmp_path / f"{site}.db", origin=f"site-{site}") as ledger:
                reserve(ledger, turn + 1)
                assert ledger.spent("claims") == ((STEP, 4 * (turn + 1)),)
    after = len(list(Path("/proc/self/fd").iterdir())) if before else 0
    assert after <= before
