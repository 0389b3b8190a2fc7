"""An open database: the schema is up to date, a transaction is whole or never was; in both databases."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from support.boxes import BoxBusy, Unknown

from fedgen.databases.opened import Opened
from fedgen.errors import ConfigError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fedgen.databases.kind import Kind


def put(opened: Opened, *names: str) -> None:
    with opened.writing() as connection:
        for name in names:
            connection.execute(sa.text("INSERT INTO things VALUES (:name)"), {"name": name})


def found(opened: Opened, table: str = "things") -> list[str]:
    with opened.reading() as connection:
        return sorted(connection.exec_driver_sql(f"SELECT name FROM {table}").scalars())  # noqa: S608


def in_child(work: Callable[[], Any]) -> int:
    """Fork, work, and return how the child ended; a negative number is a signal."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - a child of a test must end here
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


# -- transactions ---------------------------------------------------------------------------------------


def test_what_was_written_is_there_for_the_next_who_opens(box: Opened, address: str, kind: Kind) -> None:
    put(box, "a", "b")
    other = Opened(address, kind)
    try:
        assert found(other) == ["a", "b"]
    finally:
        other.close()


def test_a_block_that_fails_never_happened(box: Opened) -> None:
    def half(connection: sa.Connection) -> None:
        connection.exec_driver_sql("INSERT INTO things VALUES ('half')")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), box.writing() as connection:
        half(connection)
    assert found(box) == []
    put(box, "whole")  # the connection is fit for the next
    assert found(box) == ["whole"]


def test_a_process_that_is_killed_in_the_block_wrote_nothing(address: str, kind: Kind, box: Opened) -> None:
    put(box, "a")
    box.close()

    def dies() -> None:
        mine = Opened(address, kind)
        with mine.writing() as connection:
            connection.exec_driver_sql("INSERT INTO things VALUES ('half')")
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_child(dies) == -signal.SIGKILL
    assert found(box) == ["a"]


def test_a_reader_sees_one_moment(box: Opened) -> None:
    put(box, "a")
    with box.reading() as connection:
        before = connection.exec_driver_sql("SELECT count(*) FROM things").scalar()
        put(box, "b")
        assert connection.exec_driver_sql("SELECT count(*) FROM things").scalar() == before == 1
    assert found(box) == ["a", "b"]


def test_an_error_of_the_driver_becomes_the_kind_s_and_nothing_of_it_goes_on(box: Opened) -> None:
    put(box, "CANARY")
    with pytest.raises(Unknown if box.postgresql else IntegrityError) as caught:
        put(box, "CANARY")  # it is there already
    assert caught.value.__cause__ is None
    assert "CANARY" not in str(caught.value)
    assert found(box) == ["CANARY"]


def test_a_full_disk_is_said_and_nothing_was_written(tmp_path: Path, kind: Kind) -> None:
    box = Opened(tmp_path / "box.db", replace(kind, pragmas=("max_page_count = 12",)))
    try:
        with pytest.raises(OSError, match="no space left for the big box; nothing was put in") as caught:
            put(box, *(str(number) * 2000 for number in range(100)))
        assert caught.value.errno == errno.ENOSPC
        assert found(box) == []
    finally:
        box.close()


def test_a_file_that_may_not_be_written_is_said(tmp_path: Path, kind: Kind) -> None:
    Opened(tmp_path / "box.db", kind).close()
    box = Opened(tmp_path / "box.db", replace(kind, pragmas=("query_only = ON",)))
    try:
        assert found(box) == []
        with pytest.raises(OSError, match="cannot be opened for writing") as caught:
            put(box, "a")
        assert caught.value.errno == errno.EACCES
    finally:
        box.close()


# -- who writes -----------------------------------------------------------------------------------------


def test_in_a_file_one_writes_at_a_time_whatever_the_kind(tmp_path: Path, kind: Kind) -> None:
    one, other = Opened(tmp_path / "box.db", kind), Opened(tmp_path / "box.db", kind)
    try:
        with one.writing():
            with (
                pytest.raises(BoxBusy),
                other.writing(),
            ):  # before it has read anything that will not stay true
                pass
            assert found(other) == []
        put(other, "a")
    finally:
        one.close()
        other.close()


@pytest.mark.postgres
@pytest.mark.parametrize("one_writer", [True, False])
@pytest.mark.parametrize("address", ["postgresql"], indirect=True)
def test_in_a_server_one_writes_at_a_time_where_the_kind_says_so(
    address: str, kind: Kind, *, one_writer: bool
) -> None:
    box, other = Opened(address, replace(kind, one_writer=one_writer)), Opened(address, kind)
    asks = f"SELECT pg_try_advisory_xact_lock({kind.lock})"
    try:
        with box.writing() as first, other.reading() as second:
            first.exec_driver_sql("INSERT INTO things VALUES ('a')")
            assert second.exec_driver_sql(asks).scalar() is not one_writer
        with other.reading() as second:
            assert second.exec_driver_sql(asks).scalar() is True
    finally:
        box.close()
        other.close()


# -- the schema -----------------------------------------------------------------------------------------


def test_missing_steps_are_taken_and_what_was_there_stays(
    box: Opened, address: str, with_second: Kind
) -> None:
    put(box, "a")
    later = Opened(address, with_second)
    try:
        assert found(later) == ["a"]
        assert found(later, "more") == []
    finally:
        later.close()


def test_a_schema_of_a_later_version_is_refused_and_not_touched(
    address: str, kind: Kind, with_second: Kind
) -> None:
    later = Opened(address, with_second)
    put(later, "a")
    with pytest.raises(ConfigError, match="the box was written by a later version") as caught:
        Opened(address, kind)
    assert caught.value.hint == "upgrade fedgen"
    assert caught.value.where == later.name
    assert found(later) == ["a"]
    later.close()


def test_a_step_that_fails_or_is_killed_never_happened(
    box: Opened, address: str, kind: Kind, step: Callable[[str, str | None, str], None]
) -> None:
    put(box, "a")
    box.close()
    first = "op.execute('CREATE TABLE more (name TEXT)'); "
    later = replace(kind, revision="0002")
    step("0002", "0001", first + "1 / 0")
    with pytest.raises(ZeroDivisionError):
        Opened(address, later)
    step("0002", "0001", first + "import os; os.kill(os.getpid(), 9)")
    assert in_child(lambda: Opened(address, later)) == -signal.SIGKILL
    assert found(box) == ["a"]
    Opened(address, kind).close()  # still of the version before
    step("0002", "0001", first)
    opened = Opened(address, later)
    assert found(opened, "more") == []
    opened.close()


def test_many_who_open_a_new_one_at_once_make_it_once(address: str, kind: Kind) -> None:
    kind = replace(kind, pragmas=())  # the usual patience
    gate, failed = threading.Barrier(4), []

    def one() -> None:
        gate.wait()
        try:
            for _ in range(3):
                opened = Opened(address, kind)
                assert found(opened) == []
                opened.close()
        except BaseException as error:  # noqa: BLE001 - told below
            failed.append(error)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_processes_that_open_a_new_one_at_once_make_it_once(address: str, kind: Kind) -> None:
    kind = replace(kind, pragmas=())
    children = []
    for number in range(4):
        pid = os.fork()
        if pid == 0:
            try:
                put(Opened(address, kind), str(number))
            except BaseException as error:  # noqa: BLE001 - a child of a test must end here
                sys.stderr.write(f"{error!r}\n")
                os._exit(1)
            os._exit(0)
        children.append(pid)
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 4
    opened = Opened(address, kind)
    assert found(opened) == ["0", "1", "2", "3"]
    opened.close()


@pytest.mark.postgres
@pytest.mark.parametrize("address", ["postgresql"], indirect=True)
def test_in_a_server_who_makes_the_schema_waits_for_another_who_does(address: str, kind: Kind) -> None:
    import psycopg

    waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = %s"
    low = kind.lock & 0xFFFF_FFFF
    with psycopg.connect(address, autocommit=True) as raw, raw.transaction():
        raw.execute("SELECT pg_advisory_xact_lock(%s)", [kind.lock])
        thread = threading.Thread(target=lambda: Opened(address, kind).close())
        thread.start()
        seen = False
        while thread.is_alive() and not seen:
            seen = raw.execute(waits, [low]).fetchone() == (1,)
        assert raw.execute("SELECT to_regclass('things')").fetchone() == (None,)
    thread.join()
    assert seen
    opened = Opened(address, kind)
    assert found(opened) == []
    opened.close()


def test_two_kinds_in_one_database_do_not_mistake_each_other_s_schema(
    box: Opened, address: str, kind: Kind, tmp_path: Path
) -> None:
    other = tmp_path / "others"
    (other / "versions").mkdir(parents=True)
    text = (kind.migrations / "env.py").read_text().replace("box_version", "crate_version")
    (other / "env.py").write_text(text)
    text = (kind.migrations / "versions" / "v0001.py").read_text().replace("things", "crates")
    (other / "versions" / "v0001.py").write_text(text)
    crate = Opened(address, replace(kind, version_table="crate_version", migrations=other))
    put(box, "a")
    assert (found(box), found(crate, "crates")) == (["a"], [])
    crate.close()


def test_alembic_is_loaded_only_where_a_step_is_missing(
    tmp_path: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    Opened(tmp_path / "box.db", kind).close()
    monkeypatch.setitem(sys.modules, "alembic", None)
    Opened(tmp_path / "box.db", kind).close()
    with pytest.raises(ImportError, match="alembic"):
        Opened(tmp_path / "new.db", kind)


def test_closing_lets_go_of_the_file(tmp_path: Path, kind: Kind) -> None:
    opened = Opened(tmp_path / "box.db", kind)
    put(opened, "a")
    opened.close()
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["box.db"]  # the log is folded in


def test_one_that_cannot_be_opened_lets_go_of_its_connections(tmp_path: Path, kind: Kind) -> None:
    Opened(tmp_path / "box.db", replace(kind, version_table="box_version")).close()
    with pytest.raises(ConfigError):
        Opened(tmp_path / "box.db", replace(kind, revision="0000"))
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["box.db"]
