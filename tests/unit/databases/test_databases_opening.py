"""From an address to a database: whose file it is, and that no password is ever repeated."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
from typing import TYPE_CHECKING

import pytest
from support.boxes import BoxBusy, Unknown

from fedgen.databases.opened import Opened
from fedgen.errors import ConfigError, IntegrityError, MissingExtra

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.databases.kind import Kind


@pytest.mark.parametrize("form", ["{0}", "sqlite:///{0}"])
def test_a_path_and_a_url_of_sqlite_are_the_same_file(tmp_path: Path, kind: Kind, form: str) -> None:
    path = tmp_path / "box.db"
    opened = Opened(form.format(path), kind)
    try:
        assert (opened.path, opened.name, opened.postgresql) == (path, str(path), False)
        assert path.is_file()
    finally:
        opened.close()


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("mysql://user:secret@host/db", "a person's box is SQLite or PostgreSQL"),
        ("sqlite://", "a person's box is SQLite or PostgreSQL"),
        ("sec ret://user:secret@host/db", "not where a box can be"),
        ("postgresql://user:secret@host:port/db", "not where a box can be"),
        ("://secret", "not where a box can be"),
    ],
)
def test_what_is_no_address_is_refused_without_being_quoted(kind: Kind, address: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Opened(address, kind)
    assert caught.value.what == what
    assert caught.value.hint == "a path or postgresql://..."
    assert "secret" not in str(caught.value)


def test_a_server_that_is_not_there_is_named_without_password_or_options(tmp_path: Path, kind: Kind) -> None:
    with pytest.raises(Unknown) as caught:
        Opened(f"postgresql://user:secret@/things?host={tmp_path}", kind)
    assert str(caught.value) == "postgresql:///things"
    assert caught.value.__cause__ is None  # nothing of what the driver said goes on


def test_without_the_driver_the_extra_is_named(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match="a big box in PostgreSQL"):
        Opened("postgresql://user@host/db", kind)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_new_file_and_all_beside_it_are_its_owner_s_only(tmp_path: Path, kind: Kind, umask: int) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    before = os.umask(umask)
    try:
        opened = Opened(folder / "box.db", kind)
        with opened.writing() as connection:
            connection.exec_driver_sql("INSERT INTO things VALUES ('a')")
        files = list(folder.iterdir())
        assert len(files) == 3  # the log, too
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
        opened.close()
    finally:
        os.umask(before)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601])
def test_a_file_open_to_others_is_refused_with_a_remedy(tmp_path: Path, kind: Kind, mode: int) -> None:
    path = tmp_path / "box.db"
    Opened(path, kind).close()
    path.chmod(mode)
    with pytest.raises(ConfigError, match="others may read the box") as caught:
        Opened(path, kind)
    assert (caught.value.where, caught.value.hint) == (str(path), "chmod 600 box.db")


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path, kind: Kind) -> None:
    with pytest.raises(ConfigError, match="no folder for the box") as caught:
        Opened(tmp_path / "none" / "box.db", kind)
    assert caught.value.hint == "make it first"
    assert not (tmp_path / "none").exists()


def test_no_file_is_made_where_a_link_leads_nowhere(tmp_path: Path, kind: Kind) -> None:
    (tmp_path / "box.db").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="No such file"):
        Opened(tmp_path / "box.db", kind)
    assert not (tmp_path / "elsewhere").exists()


def test_what_is_no_database_is_damaged(tmp_path: Path, kind: Kind) -> None:
    (tmp_path / "box.db").write_bytes(b"long enough to be read as a database" * 99)
    (tmp_path / "box.db").chmod(0o600)
    with pytest.raises(IntegrityError, match="the big box is damaged or not one"):
        Opened(tmp_path / "box.db", kind)


def test_every_connection_waits_for_the_disk_and_has_the_kind_s_pragmas(tmp_path: Path, kind: Kind) -> None:
    opened = Opened(tmp_path / "box.db", kind)
    try:
        with opened.reading() as one, opened.reading() as other:
            for connection in (one, other):
                found = {
                    name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                    for name in ("journal_mode", "synchronous", "busy_timeout", "cache_size")
                }
                assert found == {
                    "journal_mode": "wal", "synchronous": 2, "busy_timeout": 20, "cache_size": -4321,
                }  # fmt: skip
    finally:
        opened.close()


def test_who_waits_in_vain_is_told_so_by_the_kind_s_own_error(tmp_path: Path, kind: Kind) -> None:
    opened = Opened(tmp_path / "box.db", kind)
    other = sqlite3.connect(tmp_path / "box.db", isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BoxBusy, match="another process holds the box"), opened.writing():
            pass
        with opened.reading() as connection:  # who only reads waits for nobody
            assert connection.exec_driver_sql("SELECT count(*) FROM things").scalar() == 0
    finally:
        other.close()
        opened.close()
