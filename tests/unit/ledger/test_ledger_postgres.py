"""A ledger in PostgreSQL: what is asked of the disk, and what a lost connection costs."""

import errno
import signal
import threading
import time
from typing import Any

import psycopg
import pytest
from support import postgres
from support.open_ledgers import KEY, STEP, opened, reserve
from support.postgres import Cluster
from support.raw_postgres import connected

from fedgen.errors import Code, ConfigError, IntegrityError
from fedgen.ledger import _postgres
from fedgen.ledger._database import LedgerBusy, LedgerUnreachable
from fedgen.ledger.address import Server
from fedgen.ledger.store import Ledger
from fedgen.ledger.verify import verify

pytestmark = pytest.mark.postgres


@pytest.fixture
def place(server_place: str) -> str:
    return server_place


def test_a_durable_ledger_is_not_opened_where_the_server_does_not_wait(place: str) -> None:
    option = f"{'&' if '?' in place else '?'}options=-csynchronous_commit%3Doff"
    with pytest.raises(ConfigError, match="does not wait for its disk: synchronous_commit off") as caught:
        opened(place + option, durable=True)
    assert "options" not in str(caught.value)
    with pytest.raises(ConfigError, match="no ledger here"):
        verify(place)
    with opened(place + option) as simulated:
        reserve(simulated)


def test_a_server_that_stops_waiting_is_noticed_before_anything_is_spent(place: str) -> None:
    with opened(place, durable=True) as ledger:
        reserve(ledger, 1)
        raw = _postgres.driver(ledger._connected())
        raw.execute("SET synchronous_commit = off")
        with pytest.raises(ConfigError, match="does not wait for its disk"):
            reserve(ledger, 2)
        raw.execute("SET synchronous_commit = on")
        assert reserve(ledger, 2).index == 2


def test_only_a_simulated_ledger_does_not_wait(place: str) -> None:
    seen: list[str] = []

    def look(_: object) -> None:
        raw = _postgres.driver(ledger._connected())
        seen.append(raw.execute("SHOW synchronous_commit").fetchone()[0])  # type: ignore[index]

    with opened(place) as ledger:
        reserve(ledger, check=look)
    postgres.drop(place)
    with opened(place, durable=True) as ledger:
        reserve(ledger, check=look)
    assert seen == ["off", "on"]


def test_what_was_acknowledged_survives_a_server_that_dies(own_cluster: Cluster) -> None:
    place = postgres.with_ledger(own_cluster.address())
    ledger = opened(place, durable=True)
    for life in range(3):
        for round_ in range(10 * life + 1, 10 * life + 9):
            reserve(ledger, round_)
        own_cluster.stop(signal.SIGQUIT)
        for _ in range(2):
            with pytest.raises(LedgerUnreachable):
                reserve(ledger, 10 * life + 9)
        own_cluster.start()
        assert ledger.spent("claims") == ((STEP, 4 * 8 * (life + 1)),)
    ledger.close()
    assert verify(place, KEY.verify_key).ok


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_does_not_flush_keeps_no_durable_ledger(own_cluster: Cluster, setting: str) -> None:
    place = postgres.with_ledger(own_cluster.address())
    opened(place, durable=True).close()
    own_cluster.stop()
    own_cluster.start(f"{setting}=off")
    with pytest.raises(ConfigError, match=f"{setting} off"):
        opened(place, durable=True)
    assert verify(place, KEY.verify_key).ok


def kill(place: str, ledger: Ledger) -> None:
    """End the ledger's connection from the server's side."""
    with connected(place) as raw:
        raw.execute(
            "SELECT pg_terminate_backend(%s)", (_postgres.driver(ledger._connected()).info.backend_pid,)
        )


def test_a_connection_lost_in_the_middle_counts_nothing_and_the_ledger_goes_on(place: str) -> None:
    with opened(place) as ledger:
        reserve(ledger, 1)
        with pytest.raises(LedgerUnreachable, match="does not answer") as caught:
            reserve(ledger, 2, check=lambda _: kill(place, ledger))
        assert caught.value.site_code == "storage"
        assert ledger.spent("claims") == ((STEP, 4),)
        assert reserve(ledger, 2).index == 2
        kill(place, ledger)
        with pytest.raises(LedgerUnreachable):
            reserve(ledger, 3)
        assert reserve(ledger, 3).index == 3
    assert verify(place, KEY.verify_key).ok


def test_a_commit_whose_answer_is_lost_counts_and_is_not_repeated(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one case nobody can tell apart from here: it stays at or above the truth."""
    with opened(place) as ledger:
        real = psycopg.Connection.execute

        def lost(self: Any, query: Any, *more: Any, **options: Any) -> Any:
            answer = real(self, query, *more, **options)
            if query == "COMMIT":
                self.close()
                raise psycopg.OperationalError("the connection was lost")
            return answer

        monkeypatch.setattr(psycopg.Connection, "execute", lost)
        with pytest.raises(LedgerUnreachable):
            reserve(ledger, 1)
        monkeypatch.setattr(psycopg.Connection, "execute", real)
        with pytest.raises(IntegrityError, match="reserved or settled before"):
            reserve(ledger, 1)
        assert ledger.spent("claims") == ((STEP, 4),)


def test_a_transaction_that_the_server_took_back_is_not_called_committed(place: str) -> None:
    def spoil(_: object) -> None:
        with pytest.raises(psycopg.Error):
            _postgres.driver(ledger._connected()).execute("SELECT 1 / 0")

    with opened(place) as ledger:
        with pytest.raises((IntegrityError, LedgerUnreachable)):
            reserve(ledger, 1, check=spoil)
        assert ledger.spent("claims") == ()
        assert reserve(ledger, 1).index == 1


def test_an_error_of_one_in_a_group_leaves_the_others(place: str) -> None:
    """A replay is found without an error of the server, which would take the whole transaction back."""
    came: dict[int, Any] = {}

    def work(round_: int) -> None:
        try:
            came[round_] = reserve(ledger, round_).index
        except IntegrityError as error:
            came[round_] = error.code

    with opened(place) as ledger:
        reserve(ledger, 1)
        threads = [threading.Thread(target=work, args=(round_,)) for round_ in (2, 1, 3)]
        with ledger._lock:  # so that all three wait, and one transaction serves them
            for count, thread in enumerate(threads, start=1):
                thread.start()
                while len(ledger._group._waiting) < count:
                    time.sleep(0.0005)
        for thread in threads:
            thread.join()
        assert came == {2: 2, 1: Code.REPLAYED, 3: 3}
    assert verify(place, KEY.verify_key).ok


def test_a_head_row_held_by_another_is_busy(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_postgres, "_BUSY_MS", 50)
    with opened(place) as ledger, connected(place) as other:
        other.execute(f"BEGIN; SELECT * FROM {Server.parse(place).schema}.meta FOR UPDATE")  # noqa: S608 -- the schema is ours
        with pytest.raises(LedgerBusy, match="another process holds"):
            reserve(ledger)
        other.execute("ROLLBACK")
        assert reserve(ledger).index == 1


@pytest.mark.parametrize(
    ("state", "kind", "number"),
    [("53100", OSError, errno.ENOSPC), ("58030", OSError, errno.EIO), ("42501", OSError, errno.EACCES),
     ("40001", LedgerBusy, None), ("57P01", LedgerUnreachable, None), ("08006", LedgerUnreachable, None),
     ("XX001", IntegrityError, None)],
)  # fmt: skip
def test_an_error_of_the_server_says_what_it_means(
    place: str, state: str, kind: type[Exception], number: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fault(psycopg.DatabaseError):
        sqlstate = state

    def fail(*_: object) -> None:
        raise Fault("quotes an entry")

    with opened(place) as ledger:
        reserve(ledger, 1)
        with monkeypatch.context() as patched:
            patched.setattr(_postgres.Schema, "append", fail)
            with pytest.raises(kind) as caught:
                reserve(ledger, 2)
        assert getattr(caught.value, "errno", None) == number
        assert "quotes" not in str(caught.value)
        assert ledger.spent("claims") == ((STEP, 4),)
        reserve(ledger, 2)
