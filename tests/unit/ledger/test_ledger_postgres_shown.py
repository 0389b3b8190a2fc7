"""Many ledgers in one database, and nothing that is shown of a server holds a secret."""

import logging
from collections.abc import Iterator

import psycopg
import pytest
from support import postgres
from support.open_ledgers import KEY, opened, reserve
from support.raw_postgres import do

from fedgen.errors import ConfigError, IntegrityError
from fedgen.ledger._database import LedgerUnreachable
from fedgen.ledger.address import PREFIX, Server, ledgers_on
from fedgen.ledger.verify import read, verify

pytestmark = pytest.mark.postgres
SECRET = "hunter2"  # noqa: S105 -- what must not be shown


@pytest.fixture
def place(server_place: str) -> str:
    return server_place


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://ann:{SECRET}@127.0.0.1:1/claims?ledger=x",
        f"postgresql://127.0.0.1:1/claims?ledger=x&password={SECRET}",
        f"postgresql://ann:{SECRET}%zz@127.0.0.1:1/claims?ledger=x",
        f"postgresql://127.0.0.1:1/claims?ledger=x&pasword={SECRET}",
    ],
)
def test_a_server_that_cannot_be_reached_is_named_without_secrets(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for call in (lambda: opened(address), lambda: verify(address), lambda: list(read(address))):
        with pytest.raises(LedgerUnreachable, match="does not answer") as caught:
            call()
        error: BaseException | None = caught.value
        assert "postgresql://127.0.0.1:1/claims?ledger=x" in str(error)
        while error is not None:
            assert SECRET not in str(error)
            error = error.__cause__
    assert SECRET not in caplog.text


def test_a_ledger_names_itself_without_secrets(place: str) -> None:
    address = place.replace("tester@", f"tester:{SECRET}@")
    with opened(address) as ledger:
        reserve(ledger)
        with pytest.raises(IntegrityError) as caught:
            reserve(ledger)
    assert SECRET not in f"{caught.value} {ledger._database}"


@pytest.fixture
def database(postgres_url: str) -> Iterator[str]:
    """A database of one's own."""
    server = Server.parse(postgres_url)
    with psycopg.connect(server.conninfo, autocommit=True) as raw:
        raw.execute("DROP DATABASE IF EXISTS shared_ledgers")
        raw.execute("CREATE DATABASE shared_ledgers")
    head, _, tail = server.conninfo.partition("?")
    yield f"{head.rpartition('/')[0]}/shared_ledgers" + (f"?{tail}" if tail else "")
    with psycopg.connect(server.conninfo, autocommit=True) as raw:
        raw.execute("DROP DATABASE shared_ledgers WITH (FORCE)")


def test_ledgers_of_several_origins_share_a_database(database: str) -> None:
    with pytest.raises(ConfigError, match="no ledger here"):
        verify(database)
    with opened(database, origin="hospital/a") as a:
        reserve(a, 1)
        assert verify(database).entries == 2  # the only one needs no name
        with opened(database, origin="hospital/b") as b:
            assert b.spent("claims") == ()
            reserve(b, 1)
            reserve(b, 2)
    names = [it.ledger for it in ledgers_on(Server.parse(database))]
    assert [name is not None and name.startswith(f"hospital_{it}_") for name, it in zip(names, "ab", strict=True)] == [
        True, True,
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="2 ledgers here") as caught:
        verify(database)
    assert all(str(name) in str(caught.value) for name in names)
    found = [verify(postgres.with_ledger(database, name), KEY.verify_key) for name in names]
    assert [(report.origin, report.entries, report.problems) for report in found] == [
        ("hospital/a", 2, ()), ("hospital/b", 3, ()),
    ]  # fmt: skip
    with pytest.raises(IntegrityError, match="another origin"):
        opened(postgres.with_ledger(database, names[0]), origin="hospital/b")
    assert do(database + "&ledger=x" if "?" in database else database + "?ledger=x",
              f"SELECT count(*) FROM pg_namespace WHERE starts_with(nspname, '{PREFIX}')") == [(2,)]  # noqa: S608 # fmt: skip
