"""What PostgreSQL itself refuses, what is named when somebody goes behind it, and which rights are enough."""

import psycopg
import pytest
from support.open_ledgers import KEY, D, H, R, opened, reserve
from support.raw_postgres import do

from fedgen.errors import IntegrityError
from fedgen.ledger.address import Server
from fedgen.ledger.entries import Closed
from fedgen.ledger.verify import verify

pytestmark = pytest.mark.postgres


@pytest.fixture
def place(server_place: str) -> str:
    return server_place


@pytest.fixture
def written(place: str) -> str:
    """A ledger of opened, reserved, settled, reserved, settled, closed."""
    with opened(place) as ledger:
        for round_ in (1, 2):
            ledger.settle(reserve(ledger, round_), D)
        ledger.append(Closed(study_hash=H, run=R, outcome="completed", rounds=2))
    return place


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {s}.entries SET body = ''::bytea WHERE idx = 1",
        "DELETE FROM {s}.entries WHERE idx = 1",
        "DELETE FROM {s}.entries",
        "TRUNCATE {s}.entries",
        "TRUNCATE {s}.meta",
        "INSERT INTO {s}.entries SELECT 9, prev, body, hash, signature, NULL FROM {s}.entries WHERE idx = 1",
        "INSERT INTO {s}.entries SELECT 6, prev, body, hash, signature, NULL FROM {s}.entries WHERE idx = 1",
        (
            "INSERT INTO {s}.entries SELECT 1, prev, body, hash, signature, NULL FROM {s}.entries WHERE idx = 1 "
            "ON CONFLICT (idx) DO UPDATE SET body = ''::bytea"
        ),
        "UPDATE {s}.meta SET size = 1",
        "UPDATE {s}.meta SET size = 7",
        "UPDATE {s}.meta SET note = 'durable'",
        "UPDATE {s}.meta SET id = 1, head = ''::bytea",
        "DELETE FROM {s}.meta",
        "INSERT INTO {s}.meta SELECT 2, note, size, head FROM {s}.meta",
        "SET session_replication_role = replica; DELETE FROM {s}.entries",
    ],
)
def test_the_tables_themselves_refuse_changes(written: str, statement: str) -> None:
    with pytest.raises(psycopg.Error):
        do(written, statement)
    report = verify(written, KEY.verify_key)
    assert (report.problems, report.warnings, report.entries) == ((), (), 6)


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE {s}.entries SET body = set_byte(body, 12, get_byte(body, 12) # 1) WHERE idx = 3", {"altered"}),
        ("UPDATE {s}.entries SET signature = set_byte(signature, 1, get_byte(signature, 1) # 1) WHERE idx = 3",
         {"not signed"}),
        ("DELETE FROM {s}.entries WHERE idx = 3", {"removed"}),
        ("DELETE FROM {s}.entries WHERE idx = 5", {"truncated"}),
        ("INSERT INTO {s}.entries SELECT 6, prev, body, hash, signature, NULL FROM {s}.entries WHERE idx = 3",
         {"replayed", "appended"}),
        ("DELETE FROM {s}.meta", {"removed"}),
    ],
)  # fmt: skip
def test_tampering_behind_the_triggers_is_named(written: str, statement: str, words: set[str]) -> None:
    do(written, statement, unguarded=True)
    named = {problem.split(":")[0] for problem in verify(written, KEY.verify_key).problems}
    assert words <= named


def test_a_ledger_rolled_back_under_an_open_one_is_refused(written: str) -> None:
    with opened(written) as ledger:
        promise = ledger.checkpoint()
        do(
            written,
            "DELETE FROM {s}.entries WHERE idx = 5",
            "UPDATE {s}.meta SET size = 5, head = (SELECT hash FROM {s}.entries WHERE idx = 4)",
            unguarded=True,
        )
        with pytest.raises(IntegrityError, match="rolled back"):
            reserve(ledger, 3)
    assert verify(written, KEY.verify_key).ok  # by itself it is whole
    (problem,) = verify(written, KEY.verify_key, checkpoint=promise).problems
    assert problem == "truncated: a checkpoint promises 6 entries, 5 are there"


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE {s}.entries DISABLE TRIGGER entries_never_change",
        "ALTER TABLE {s}.entries ENABLE TRIGGER entries_never_change",
        "DROP TRIGGER meta_only_follows ON {s}.meta",
        (
            "CREATE OR REPLACE FUNCTION {s}.entries_never_change() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN RETURN NULL; END$$"
        ),
    ],
)
def test_triggers_that_are_missing_or_others_are_a_warning(written: str, statement: str) -> None:
    do(written, statement)
    report = verify(written, KEY.verify_key)
    assert report.ok
    assert [warning.split(":")[0] for warning in report.warnings] == ["unguarded"]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE VIEW {s}.more AS SELECT 1",
        "ALTER TABLE {s}.entries RENAME TO old; CREATE VIEW {s}.entries AS SELECT * FROM {s}.old",
        "CREATE TABLE {s}.child () INHERITS ({s}.entries)",
        "ALTER TABLE {s}.entries SET UNLOGGED",
        "ALTER TABLE {s}.entries ENABLE ROW LEVEL SECURITY",
        "CREATE RULE quiet AS ON INSERT TO {s}.entries DO INSTEAD NOTHING",
    ],
)
def test_what_is_not_two_plain_tables_is_not_a_ledger(written: str, statement: str) -> None:
    do(written, statement)
    assert verify(written, KEY.verify_key).problems == ("unreadable: this is not a ledger",)


def test_a_schema_with_something_else_in_it_is_left_alone(place: str) -> None:
    do(place, "CREATE SCHEMA {s}; CREATE TABLE {s}.people (name TEXT)")
    with pytest.raises(IntegrityError):
        opened(place)
    assert do(place, "SELECT tablename FROM pg_tables WHERE schemaname = '{s}'") == [("people",)]


def test_an_empty_schema_made_by_an_administrator_is_used(place: str) -> None:
    do(place, "CREATE SCHEMA {s}")
    with opened(place) as ledger:
        assert reserve(ledger).index == 1


def test_an_auditor_needs_to_read_only(written: str) -> None:
    schema = Server.parse(written).schema
    role = f"auditor_{schema[-8:]}"
    do(
        written,
        f"CREATE ROLE {role} LOGIN",
        f"GRANT USAGE ON SCHEMA {{s}} TO {role}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA {{s}} TO {role}",
    )
    try:
        address = f"{written}&options=-crole%3D{role}"
        assert verify(address, KEY.verify_key).ok
        with pytest.raises(OSError, match="cannot be opened for writing"), opened(address) as ledger:
            reserve(ledger, 3)
    finally:
        do(written, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_a_site_needs_to_add_only_where_an_administrator_owns_the_ledger(written: str) -> None:
    """The rights of docs/how-to/ledger-in-postgresql.md are enough to write, and not to take anything away."""
    schema = Server.parse(written).schema
    role = f"site_{schema[-8:]}"
    do(
        written,
        f"CREATE ROLE {role} LOGIN",
        f"GRANT USAGE ON SCHEMA {{s}} TO {role}",
        f"GRANT SELECT, INSERT ON {{s}}.entries TO {role}",
        f"GRANT SELECT, UPDATE ON {{s}}.meta TO {role}",
    )
    address = f"{written}&options=-crole%3D{role}"
    try:
        with opened(address) as ledger:
            ledger.settle(reserve(ledger, 3), D)
            assert ledger.last_round(H) == 3
        for statement in (
            "DELETE FROM {s}.entries",
            "ALTER TABLE {s}.entries DISABLE TRIGGER entries_never_change",
            "DROP TRIGGER meta_only_follows ON {s}.meta",
            "UPDATE {s}.meta SET size = 2",
        ):
            with pytest.raises(psycopg.Error):
                do(address, statement)
        assert verify(written, KEY.verify_key).entries == 8
    finally:
        do(written, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_a_role_that_may_make_nothing_is_told_so(place: str) -> None:
    role = f"nobody_{place[-8:]}"
    do(place, f"CREATE ROLE {role} LOGIN")
    try:
        with pytest.raises(OSError, match="cannot be opened for writing"):
            opened(f"{place}&options=-crole%3D{role}")
    finally:
        do(place, f"DROP ROLE {role}")
