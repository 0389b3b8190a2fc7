"""A copy for an auditor: entry for entry what the ledger says, wherever that lies, and no more than that."""

import sqlite3
from pathlib import Path

import pytest
from support.open_ledgers import KEY, STEP, D, opened, reserve

from fedgen.errors import ConfigError, IntegrityError
from fedgen.ledger._sqlite import TRIGGERS
from fedgen.ledger.export import export
from fedgen.ledger.verify import read, verify


@pytest.mark.parametrize("durable", [True, False])
def test_a_copy_says_what_the_ledger_says(place: str, tmp_path: Path, *, durable: bool) -> None:
    out = tmp_path / "copy.db"
    with opened(place, durable=durable) as ledger:
        for round_ in (1, 2, 3):
            ledger.settle(reserve(ledger, round_), D)
        promise = ledger.checkpoint()
        assert export(place, out) == 7  # also while somebody writes
        reserve(ledger, 4)
    assert out.stat().st_mode & 0o777 == 0o600
    report = verify(out, KEY.verify_key, checkpoint=promise)
    assert (report.problems, report.warnings, report.entries, report.durable) == ((), (), 7, durable)
    assert list(read(out)) == list(read(place))[:7]
    assert {file.name for file in tmp_path.iterdir()} <= {"copy.db", "ledger.db"}


def test_a_copy_remembers_what_may_be_said_once_only(place: str, tmp_path: Path) -> None:
    with opened(place) as ledger:
        reserve(ledger, 1)
    export(place, tmp_path / "copy.db")
    with opened(tmp_path / "copy.db") as copy:
        assert copy.spent("claims") == ((STEP, 4),)
        with pytest.raises(IntegrityError, match="before"):
            reserve(copy, 1)


def test_nothing_is_put_where_something_lies(place: str, tmp_path: Path) -> None:
    opened(place).close()
    (tmp_path / "copy.db").write_text("mine")
    with pytest.raises(ConfigError, match="something lies here already"):
        export(place, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "mine"


def test_without_a_ledger_there_is_no_copy(place: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no ledger here"):
        export(place, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


def test_a_ledger_that_does_not_hold_together_is_not_copied(tmp_path: Path) -> None:
    path, out = tmp_path / "ledger.db", tmp_path / "copy.db"
    with opened(path) as ledger:
        reserve(ledger, 1)
        reserve(ledger, 2)
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute(f"DROP TRIGGER {next(it for it in TRIGGERS if it == 'entries_never_leave')}")
    raw.execute("DELETE FROM entries WHERE idx = 1")
    raw.close()
    with pytest.raises(IntegrityError):
        export(path, out)
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.db"]
