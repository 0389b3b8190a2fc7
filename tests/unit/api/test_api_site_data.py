"""A site's rows and the one identity they are charged under."""

from __future__ import annotations

import json
import os
import sqlite3
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from support.federation import _SCHEMA
from support.site_homes import write_table

from fedgen.api import site_data
from fedgen.api.site_data import SiteTable, dataset_of, known_dataset
from fedgen.crypto.keys import SigningKey
from fedgen.errors import DataError, IntegrityError
from fedgen.ledger.entries import Admitted
from fedgen.ledger.store import Ledger
from fedgen.privacy.events import PoissonGaussian
from fedgen.schema.table import parse_schema

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def _table(folder: Path, calls: list[int], address: str = "csv://rows.csv") -> SiteTable:
    return SiteTable(
        address,
        parse_schema(_SCHEMA),
        base=folder,
        mark=folder / "mark",
        changed=lambda: calls.append(1),
    )


def test_the_same_rows_are_the_very_same_table(tmp_path: Path) -> None:
    write_table(tmp_path)
    calls: list[int] = []
    table = _table(tmp_path, calls)
    first = table()
    assert len(first) == 40
    assert table() is first
    os.utime(tmp_path / "rows.csv")  # touched, not changed
    assert table() is first
    assert calls == [1]  # at the first start nothing is known of the rows


@pytest.mark.parametrize("change", ["a row less", "another order", "another value", "another person"])
def test_other_rows_are_told_before_they_are_lent(tmp_path: Path, change: str) -> None:
    write_table(tmp_path)
    calls: list[int] = []
    table = _table(tmp_path, calls)
    first = table()
    lines = (tmp_path / "rows.csv").read_text().splitlines()
    head, rows = lines[0], lines[1:]
    if change == "a row less":
        rows = rows[1:]
    elif change == "another order":
        rows = rows[::-1]
    elif change == "another value":
        rows[0] = rows[0].replace(",true", ",x").replace(",false", ",true").replace(",x", ",false")
    else:
        rows[0] = "q" + rows[0][1:]
    (tmp_path / "rows.csv").write_text("\n".join([head, *rows]) + "\n")
    second = table()
    assert second is not first
    assert calls == [1, 1]


def test_a_change_while_no_process_ran_is_seen(tmp_path: Path) -> None:
    write_table(tmp_path)
    calls: list[int] = []
    _table(tmp_path, calls)()
    _table(tmp_path, calls)()
    assert calls == [1]
    write_table(tmp_path, seed=2)
    _table(tmp_path, calls)()
    assert calls == [1, 1]


def test_rows_that_are_gone_are_an_error_and_not_the_old_rows(tmp_path: Path) -> None:
    write_table(tmp_path)
    table = _table(tmp_path, [])
    table()
    (tmp_path / "rows.csv").unlink()
    with pytest.raises(DataError):
        table()


def test_a_source_that_is_no_file_is_read_again_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_table(tmp_path)
    now = [0.0]
    monkeypatch.setattr(site_data.time, "monotonic", lambda: now[0])
    opened: list[str] = []
    real: Callable[..., object] = site_data.open_source
    monkeypatch.setattr(
        site_data, "open_source", lambda _url, base, **_: opened.append("") or real("rows.csv", base=base)
    )
    table = _table(tmp_path, [], "postgresql://user@host/db?table=rows")
    table()
    table()
    assert len(opened) == 1
    now[0] = 901.0
    table()
    assert len(opened) == 2


def test_a_folder_is_watched_file_by_file(tmp_path: Path) -> None:
    (tmp_path / "parts" / "deep").mkdir(parents=True)
    (tmp_path / "parts" / "deep" / "a").write_text("1")
    before = site_data._stamp("parquet://parts", tmp_path)
    assert before == site_data._stamp("parts", tmp_path)
    (tmp_path / "parts" / "deep" / "b").write_text("1")
    assert before != site_data._stamp("parquet://parts", tmp_path)


@pytest.mark.parametrize(
    "address", ["sqlite:///{}?table=t", "builtin:{}", "s3://bucket/{}", "postgresql://h/{}"]
)
def test_the_time_of_a_file_says_nothing_of_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    (tmp_path / "a.db").write_text("1")
    monkeypatch.setattr(site_data.time, "monotonic", lambda: 1800.0)
    for named in (address.format(tmp_path / "a.db"), address.format("a.db")):
        assert site_data._stamp(named, tmp_path) == 2
    for named in (f"csv://{tmp_path / 'a.db'}?delimiter=;", "csv://a.db", "a.db", str(tmp_path / "a.db")):
        assert isinstance(site_data._stamp(named, tmp_path), tuple)


def _ledger(folder: Path) -> Ledger:
    return Ledger.open(
        folder / "ledger.db", origin="fedgen/site/x", signing_key=SigningKey.generate(), durable=False
    )


def test_the_identity_is_made_once_and_stays(tmp_path: Path) -> None:
    with _ledger(tmp_path) as ledger:
        assert known_dataset(tmp_path / "d") is None
        first = dataset_of(tmp_path / "d", ledger)
        assert dataset_of(tmp_path / "d", ledger) == first == known_dataset(tmp_path / "d")
        assert dataset_of(tmp_path / "other", ledger) != first  # random, not made from anything
        assert (tmp_path / "d").stat().st_mode & 0o077 == 0


def _charge(ledger: Ledger, dataset: str) -> None:
    event = PoissonGaussian(0.5, 1.0)
    ledger.note(Admitted(study_hash="11" * 32, run="22" * 32, dataset=dataset))
    ledger.reserve(dataset, "11" * 32, "22" * 32, 1, 1, event, 1, check=lambda _spent: None)


def test_a_lost_file_is_restored_from_the_ledger(tmp_path: Path) -> None:
    with _ledger(tmp_path) as ledger:
        dataset = dataset_of(tmp_path / "d", ledger)
        _charge(ledger, dataset)
        (tmp_path / "d").unlink()
        assert dataset_of(tmp_path / "d", ledger) == dataset


def test_a_ledger_of_other_data_is_refused(tmp_path: Path) -> None:
    with _ledger(tmp_path) as ledger:
        _charge(ledger, "aa" * 32)
        (tmp_path / "d").write_text(json.dumps({"format": 1, "dataset": "bb" * 32}))
        with pytest.raises(IntegrityError, match="other data"):
            dataset_of(tmp_path / "d", ledger)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"dataset": "x"}', '{"dataset": 1}'])
def test_a_damaged_identity_is_refused_and_no_fresh_budget(tmp_path: Path, text: str) -> None:
    (tmp_path / "d").write_text(text)
    with _ledger(tmp_path) as ledger, pytest.raises(IntegrityError, match="does not say which data"):
        dataset_of(tmp_path / "d", ledger)


def test_a_sites_own_file_may_hold_a_query(tmp_path: Path) -> None:
    write_table(tmp_path)
    want = _table(tmp_path, [])()
    with sqlite3.connect(tmp_path / "rows.db") as connection:
        connection.execute(
            "CREATE TABLE stays (number INTEGER PRIMARY KEY, p TEXT, v INTEGER, w TEXT, s TEXT)"
        )
        cells = [line.split(",") for line in (tmp_path / "rows.csv").read_text().splitlines()[1:]]
        connection.executemany("INSERT INTO stays (p, v, w, s) VALUES (?, ?, ?, ?)", cells)
    connection.close()
    query = quote("SELECT p AS person, v AS visits, w AS ward, s AS sick FROM stays ORDER BY number")
    (tmp_path / "other").mkdir()
    table = SiteTable(
        f"sqlite:///rows.db?query={query}", parse_schema(_SCHEMA),
        base=tmp_path, mark=tmp_path / "other" / "mark", changed=lambda: None,
    )()  # fmt: skip
    assert (table.codes == want.codes).all()
    assert (table.subjects == want.subjects).all()
