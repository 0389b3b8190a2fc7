# ruff: noqa: S608 -- the statements are this file's own, and tampering is its subject

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fedgen.crypto.keys import SigningKey
from fedgen.errors import ConfigError, IntegrityError
from fedgen.ledger._sqlite import TRIGGERS
from fedgen.ledger.checkpoint import ENTRY_LABEL, Checkpoint
from fedgen.ledger.entries import Closed, Opened, entry_digest, entry_hash, from_body, to_body
from fedgen.ledger.store import Ledger
from fedgen.ledger.verify import Report, read, verify
from fedgen.privacy.events import PoissonGaussian

KEY = SigningKey.generate()
H, R, D = "a" * 64, "b" * 64, "c" * 64
STEP = PoissonGaussian(0.05, 1.25)


def written(path: Path, rounds: int = 4, *, durable: bool = False, key: SigningKey = KEY) -> Checkpoint:
    """Write a ledger of opened, ``rounds`` times reserved and settled, closed."""
    with Ledger.open(path, origin="hospital", signing_key=key, durable=durable) as ledger:
        for round_ in range(1, rounds + 1):
            ledger.settle(ledger.reserve("claims", H, R, round_, 1, STEP, 4, check=lambda _: None), D)
        ledger.append(Closed(study_hash=H, run=R, outcome="completed", rounds=rounds))
        return ledger.checkpoint()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written(tmp_path / "ledger.db")
    return tmp_path / "ledger.db"


def tamper(path: Path, *statements: str | tuple[str, tuple[Any, ...]]) -> None:
    """Do to the file what its triggers refuse, and leave it looking untouched."""
    raw = sqlite3.connect(path, isolation_level=None)
    for name in TRIGGERS:
        raw.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        text, values = statement if isinstance(statement, tuple) else (statement, ())
        raw.execute(text, values)
    for name, text in TRIGGERS.items():
        raw.execute(f"CREATE TRIGGER {name} {text}")
    raw.close()


def ask(path: Path, statement: str, *values: Any) -> list[Any]:
    """Return the rows a statement finds."""
    with closing(sqlite3.connect(path)) as raw:
        return raw.execute(statement, values).fetchall()


def only(report: Report, *words: str) -> None:
    """Every problem begins with one of the words, and each word names one."""
    named = [problem.split(":")[0] for problem in report.problems]
    assert set(named) == set(words), report.problems


@pytest.mark.parametrize("durable", [True, False])
def test_an_honest_ledger_has_no_problems(tmp_path: Path, *, durable: bool) -> None:
    promise = written(tmp_path / "ledger.db", durable=durable)
    report = verify(tmp_path / "ledger.db", KEY.verify_key, checkpoint=promise)
    assert report == Report(
        entries=10,
        problems=(),
        origin="hospital",
        public_key=KEY.public.hex(),
        durable=durable,
        head=report.head,
        root=promise.root.hex(),
        unsettled=0,
    )
    assert report.ok
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.db"]


def test_a_ledger_is_read_where_nothing_may_be_written(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    written(folder / "ledger.db", durable=True)
    (folder / "ledger.db").chmod(0o400)
    folder.chmod(0o500)
    try:
        assert verify(folder / "ledger.db").ok
    finally:
        folder.chmod(0o700)


def test_a_ledger_in_use_is_read_with_its_log(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    with Ledger.open(path, origin="hospital", signing_key=KEY, durable=True) as ledger:
        ledger.reserve("claims", H, R, 1, 1, STEP, 4, check=lambda _: None)
        report = verify(path)
        assert (report.entries, report.problems, report.unsettled) == (2, (), 1)
        assert [recorded.index for recorded in read(path)] == [0, 1]


def test_an_altered_body_is_named(path: Path) -> None:
    ((body,),) = ask(path, "SELECT body FROM entries WHERE idx = 3")
    tamper(path, ("UPDATE entries SET body = ? WHERE idx = 3", (body.replace(b'"count":4', b'"count":1'),)))
    report = verify(path)
    assert report.problems == (
        "altered: the contents of entry 3 do not match its hash",
        "not signed: entry 3 does not carry a signature of the ledger's key",
    )


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("body", {"altered", "unreadable"}),
        ("hash", {"altered", "not signed"}),
        ("prev", {"altered"}),
        ("signature", {"not signed"}),
    ],
)
@pytest.mark.parametrize("index", [0, 4, 9])
def test_one_flipped_bit_in_any_column_is_named_with_its_entry(
    path: Path, column: str, words: set[str], index: int
) -> None:
    ((value,),) = ask(path, f"SELECT {column} FROM entries WHERE idx = ?", index)
    for place in (0, len(value) // 2, len(value) - 1):
        flipped = value[:place] + bytes([value[place] ^ 1]) + value[place + 1 :]
        tamper(path, (f"UPDATE entries SET {column} = ? WHERE idx = ?", (flipped, index)))
        report = verify(path)
        assert {problem.split(":")[0] for problem in report.problems} & words, report.problems
        assert any(f"entry {index}" in problem for problem in report.problems), report.problems
    tamper(path, (f"UPDATE entries SET {column} = ? WHERE idx = ?", (value, index)))
    assert verify(path).ok


def test_a_removed_entry_is_named(path: Path) -> None:
    tamper(path, "DELETE FROM entries WHERE idx = 5")
    only(verify(path), "removed", "unfounded")
    assert "removed: entries 5 to 5 are missing" in verify(path).problems


def test_a_removed_entry_is_named_though_the_rest_was_renumbered(path: Path) -> None:
    tamper(
        path,
        "DELETE FROM entries WHERE idx = 4",
        "UPDATE entries SET idx = -idx WHERE idx > 4",
        "UPDATE entries SET idx = -idx - 1 WHERE idx < 0",
        "UPDATE meta SET size = 9",
    )
    problems = verify(path).problems
    assert problems == ("removed: 1 before entry 4 are missing and the rest was renumbered",)


def test_reordered_entries_are_named(path: Path) -> None:
    tamper(
        path,
        "UPDATE entries SET idx = 99 WHERE idx = 3",
        "UPDATE entries SET idx = 3 WHERE idx = 5",
        "UPDATE entries SET idx = 5 WHERE idx = 99",
    )
    report = verify(path)
    assert any(problem.startswith("reordered: entry 3 was written at 5") for problem in report.problems)
    assert any(problem.startswith("reordered: entry 5 was written at 3") for problem in report.problems)


@pytest.mark.parametrize("index", [0, 1, 2, 9])
def test_a_replayed_entry_is_named(path: Path, index: int) -> None:
    again = (
        f"INSERT INTO entries SELECT 10, prev, body, hash, signature, NULL FROM entries WHERE idx = {index}"
    )
    tamper(path, again, "UPDATE meta SET size = 11, head = (SELECT hash FROM entries WHERE idx = 10)")
    assert f"replayed: entry 10 is entry {index} a second time" in verify(path).problems


def test_a_replayed_entry_is_named_from_far_away_and_in_the_place_of_another(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    written(path, rounds=70)
    columns = ("prev", "body", "hash", "signature")
    values = ", ".join(f"{name} = (SELECT {name} FROM entries WHERE idx = 1)" for name in columns)
    tamper(path, f"UPDATE entries SET {values} WHERE idx = 121")
    assert "replayed: entry 121 is entry 1 a second time" in verify(path).problems


def test_a_truncated_file_is_named(path: Path) -> None:
    tamper(path, "DELETE FROM entries WHERE idx >= 7")
    only(verify(path), "truncated")
    assert verify(path).problems == ("truncated: 10 entries are promised, 7 are there",)


def rolled_back(path: Path, size: int = 7) -> None:
    """Put the file back to an earlier state that is whole in itself."""
    tamper(
        path,
        f"DELETE FROM entries WHERE idx >= {size}",
        f"UPDATE meta SET size = {size}, head = (SELECT hash FROM entries WHERE idx = {size - 1})",
    )


def test_a_rollback_shows_against_a_checkpoint_kept_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    promise = written(path)
    rolled_back(path)
    assert verify(path).ok  # the file alone cannot show it
    report = verify(path, checkpoint=promise)
    assert report.problems == ("truncated: a checkpoint promises 10 entries, 7 are there",)


def test_a_history_rewritten_by_the_key_itself_shows_against_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    promise = written(path)
    rolled_back(path)
    with Ledger.open(path, origin="hospital", signing_key=KEY, durable=False) as ledger:
        for round_ in range(50, 60):
            ledger.reserve("claims", H, R, round_, 1, STEP, 1, check=lambda _: None)
    assert verify(path).ok
    only(verify(path, checkpoint=promise), "rewritten")


def forge(path: Path, key: SigningKey, *, move_head: bool = True) -> None:
    """Append an entry that chains but is signed by another key."""
    ((size, head),) = ask(path, "SELECT size, head FROM meta")
    body = to_body(Closed(study_hash=H, run=R, outcome="budget", rounds=1), next(read(path)).time)
    digest = entry_digest(head, size, body)
    signature = key.sign(ENTRY_LABEL, digest)
    own = entry_hash(digest, signature)
    row = (size, head, body, own, signature)
    update: tuple[Any, ...] = (
        "UPDATE meta SET size = ?, head = ?",
        (size + 1, own) if move_head else (size, head),
    )
    tamper(path, ("INSERT INTO entries VALUES (?, ?, ?, ?, ?, NULL)", row), update)  # type: ignore[arg-type]


def test_an_entry_appended_without_the_key_is_named(path: Path) -> None:
    forge(path, SigningKey.generate())
    report = verify(path)
    assert report.problems == ("not signed: entry 10 does not carry a signature of the ledger's key",)


def test_a_tail_rewritten_with_another_key_is_named_entry_by_entry(path: Path) -> None:
    thief = SigningKey.generate()
    resigned(
        path, lambda index, body: body.replace(b'"count":4', b'"count":1') if index > 4 else body, thief, 5
    )
    named = [problem for problem in verify(path).problems if problem.startswith("not signed")]
    assert [problem.split(" ")[3] for problem in named] == ["5", "6", "7", "8", "9"]
    assert verify(path).problems == tuple(named)


def test_an_entry_appended_behind_the_head_is_named(path: Path) -> None:
    forge(path, KEY, move_head=False)
    assert verify(path).problems == ("appended: 11 entries are there, 10 are promised",)


def test_a_ledger_begun_anew_by_somebody_else_shows_against_a_pinned_key(tmp_path: Path) -> None:
    written(tmp_path / "ledger.db", key=SigningKey.generate())
    assert verify(tmp_path / "ledger.db").ok
    only(verify(tmp_path / "ledger.db", KEY.verify_key), "another key", "not signed")


def test_a_checkpoint_of_another_ledger_or_key_is_named(path: Path) -> None:
    root = bytes.fromhex(verify(path).root or "")
    other = Checkpoint.signed("clinic", 10, root, KEY)
    only(verify(path, checkpoint=other), "another origin")
    forged = Checkpoint.signed("hospital", 10, root, SigningKey.generate())
    only(verify(path, checkpoint=forged), "not signed")


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        ("DELETE FROM meta", "removed"),
        ("DELETE FROM entries WHERE idx = 0", "removed"),
        ("DELETE FROM entries", "removed"),
        ("UPDATE meta SET head = x'00'", "altered"),
        ("UPDATE meta SET note = 'durable'", "altered"),
        ("UPDATE meta SET size = 'many'", "unreadable"),
        ("UPDATE meta SET head = 12345678901234", "unreadable"),
        ("UPDATE entries SET hash = 999999999999 WHERE idx = 3", "unreadable"),
        ("UPDATE entries SET body = 'text' WHERE idx = 3", "unreadable"),
        ("UPDATE entries SET signature = x'00' WHERE idx = 3", "not signed"),
        ("UPDATE entries SET idx = -5 WHERE idx = 0", "removed"),
    ],
)
def test_a_ledger_without_its_ends_or_types_is_named_and_never_crashes(
    path: Path, statement: str, word: str
) -> None:
    tamper(path, statement)
    assert word in {problem.split(":")[0] for problem in verify(path).problems}


def resigned(
    path: Path, change: Callable[[int, bytes], bytes], key: SigningKey = KEY, first: int = 0
) -> None:
    """Write every entry anew, changed, with the ledger's own key, or from ``first`` on with another."""
    rows = ask(path, "SELECT idx, body FROM entries ORDER BY idx")
    prev, statements = bytes(32), []
    for index, body in rows:
        new = change(index, body)
        digest = entry_digest(prev, index, new)
        signature = (key if index >= first else KEY).sign(ENTRY_LABEL, digest)
        own = entry_hash(digest, signature)
        values = (prev, new, own, signature, index)
        statements.append(
            ("UPDATE entries SET prev = ?, body = ?, hash = ?, signature = ? WHERE idx = ?", values)
        )
        prev = own
    tamper(path, *statements, ("UPDATE meta SET head = ?", (prev,)))


def test_entries_that_chain_but_make_no_sense_are_named(path: Path) -> None:
    ((first,),) = ask(path, "SELECT body FROM entries WHERE idx = 0")
    resigned(path, lambda index, body: first if index == 6 else body)
    report = verify(path)
    assert "misplaced: entry 6 is 'opened'; 'opened' stands first and only there" in report.problems
    resigned(path, lambda index, body: b'{"entry":"forgotten"}' if index == 4 else body)
    assert "unreadable: entry 4 is an entry this version cannot read" in verify(path).problems


def test_a_settlement_of_nothing_is_named(path: Path) -> None:
    resigned(
        path, lambda index, body: body.replace(b'"reservation":3', b'"reservation":8') if index == 4 else body
    )
    assert verify(path).problems == ("unfounded: entry 4 settles a reservation that is not open",)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "CREATE TRIGGER entries_never_leave BEFORE DELETE ON entries BEGIN SELECT 1; END",
    ],
)
def test_missing_or_other_triggers_are_a_warning(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("DROP TRIGGER entries_never_leave")
        raw.execute(statement)
    report = verify(path)
    assert report.ok
    assert report.warnings == ("unguarded: triggers that refuse changes are missing or others",)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE more (a)",
        "ALTER TABLE entries RENAME TO other",
        "CREATE VIEW v AS SELECT 1",
    ],
)
def test_a_file_that_is_not_two_plain_tables_is_not_a_ledger(path: Path, statement: str) -> None:
    tables = "entries" if "RENAME" not in statement else "other"
    raw = sqlite3.connect(path)
    raw.execute("PRAGMA legacy_alter_table = ON")
    raw.execute(statement)
    assert raw.execute(f"SELECT count(*) FROM {tables}").fetchone()[0] == 10
    raw.close()
    assert verify(path).problems == ("unreadable: this is not a ledger",)


def test_a_view_that_never_ends_is_not_followed(tmp_path: Path) -> None:
    raw = sqlite3.connect(tmp_path / "ledger.db")
    endless = "WITH RECURSIVE n(idx) AS (SELECT 0 UNION ALL SELECT idx + 1 FROM n) SELECT * FROM n"
    raw.execute(f"CREATE VIEW entries AS {endless}")
    raw.execute("CREATE TABLE meta (id, note, size, head)")
    raw.close()
    assert verify(tmp_path / "ledger.db").problems == ("unreadable: this is not a ledger",)


@pytest.mark.parametrize("content", [b"", b"x", b"not a database " * 100])
def test_a_file_that_is_no_database_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ledger.db").write_bytes(content)
    only(verify(tmp_path / "ledger.db"), "unreadable")
    with pytest.raises(IntegrityError):
        list(read(tmp_path / "ledger.db"))


def test_no_file_is_a_fault_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no ledger here"):
        verify(tmp_path / "ledger.db")
    with pytest.raises(ConfigError, match="no ledger here"):
        list(read(tmp_path / "ledger.db"))


def test_a_report_names_a_hundred_problems_and_counts_the_rest(tmp_path: Path) -> None:
    written(tmp_path / "ledger.db", rounds=70)
    tamper(tmp_path / "ledger.db", "UPDATE entries SET signature = zeroblob(64)")
    report = verify(tmp_path / "ledger.db")
    assert len(report.problems) == 101
    assert report.problems[-1] == "and 184 more"


def test_reading_yields_what_was_written(path: Path) -> None:
    found = list(read(path))
    assert [recorded.index for recorded in found] == list(range(10))
    assert isinstance(found[0].entry, Opened)
    assert found[-1].hash.hex() == verify(path).head
    assert all(from_body(to_body(recorded.entry, recorded.time))[0] == recorded.entry for recorded in found)
