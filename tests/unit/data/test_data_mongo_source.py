"""Documents over a real socket, from a server that speaks MongoDB's wire protocol; see ``tests/support/mongo.py``."""

import datetime as dt
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bson
import pyarrow as pa
import pytest
from support import mongo

from fedgen.data.sources import open_source
from fedgen.errors import ConfigError, DataError, MissingExtra

CANARY = "CANARY-4711"
HERE = Path()


def documents(count: int = 10) -> list[Any]:
    return [{"_id": i, "age": i % 90, "ward": "ab"[i % 2], "note": CANARY} for i in reversed(range(count))]


@pytest.fixture
def server() -> Iterator[mongo.Mongo]:
    with mongo.serving(documents()) as running:
        yield running


def read(source: Any, columns: Any = None, batch_rows: Any = 65_536) -> Any:
    return pa.Table.from_batches(list(source.batches(columns, batch_rows))).to_pydict()


def refused(kind: Any, url: str, columns: Any = None) -> str:
    with pytest.raises(kind) as caught:
        read(open_source(url, base=HERE), columns)
    error = caught.value
    if kind is not MissingExtra:
        assert error.__context__ is None, "the driver's exception quotes documents"
    assert "\n" not in str(error)
    assert CANARY not in str(error)
    assert error.hint
    return str(error)


def finds(server: mongo.Mongo) -> list[dict[str, Any]]:
    return [command for command in server.asked if "find" in command]


def test_rows_come_by_id_with_the_columns_asked_for(server: mongo.Mongo) -> None:
    source = open_source(server.url(), base=HERE)
    assert set(source.columns) == {"_id", "age", "ward", "note"}
    assert read(source, ["ward", "age"]) == {"ward": ["a", "b"] * 5, "age": list(range(10))}
    assert finds(server)[-1]["projection"] == {"_id": False, "ward": True, "age": True}
    assert source.describe == server.url("clinic collection visits")


def test_the_server_is_asked_for_pages_and_for_nothing_that_writes() -> None:
    with mongo.serving(documents(10_000)) as server:
        source = open_source(server.url(), base=HERE)
        batches = list(source.batches(["_id"], batch_rows=700))
        assert [v for b in batches for v in b.column(0).to_pylist()] == list(range(10_000))
        assert {b.num_rows for b in batches[:-1]} == {700}
        pages = [command["batchSize"] for command in server.asked if "getMore" in command]
        assert set(pages) == {700}
        said = {next(iter(command)) for command in server.asked}
        assert said <= {"aggregate", "find", "getMore", "killCursors", "endSessions", "hello"}


def test_a_replica_set_is_read_as_of_one_moment() -> None:
    with mongo.serving(documents(), replica_set=True) as server:
        read(open_source(server.url(), base=HERE), ["age"])
        assert [command["readConcern"]["level"] for command in finds(server)] == ["snapshot"]


def test_a_server_that_stands_alone_has_no_snapshots(server: mongo.Mongo) -> None:
    read(open_source(server.url(), base=HERE), ["age"])
    assert all("readConcern" not in command for command in finds(server))


def test_types_of_the_driver_become_plain() -> None:
    row = {
        "_id": bson.ObjectId("0" * 24), "big": bson.Int64(2**40), "price": bson.Decimal128("1.50"), "gone": None,
        "day": dt.datetime(2026, 1, 2, 3), "yes": True,  # noqa: DTZ001 - as the driver takes it
    }  # fmt: skip
    with mongo.serving([row]) as server:
        assert read(open_source(server.url(), base=HERE)) == {
            "_id": ["0" * 24], "big": [2**40], "price": [1.5], "gone": [None],
            "day": [dt.datetime(2026, 1, 2, 3)], "yes": [True],  # noqa: DTZ001
        }  # fmt: skip


def test_a_field_that_some_documents_lack_is_no_value_there() -> None:
    rows = [{"_id": i} for i in range(1500)] + [{"_id": 1500, "rare": 7}]
    with mongo.serving(rows) as server:
        source = open_source(server.url(), base=HERE)
        assert "rare" not in source.columns
        assert read(source, ["rare"])["rare"][-2:] == [None, 7]


def test_a_field_that_no_document_has(server: mongo.Mongo) -> None:
    assert "Age: the table has no such column (did you mean 'age'?)" in refused(
        DataError, server.url(), ["Age"]
    )


@pytest.mark.parametrize("name", ["$where", "$expr", "a.b", "a\0b"])
def test_a_columns_name_is_never_an_operator(server: mongo.Mongo, name: str) -> None:
    source = open_source(server.url(), base=HERE)
    with pytest.raises(DataError, match="not a field at the top"):
        source.batches([name])
    assert not finds(server)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({"in": CANARY}, "v: row 3: values of type dict"),
        ([CANARY], "v: row 3: values of type list"),
        (b"x", "v: row 3: values of type bytes"),
        (bson.Regex(CANARY), "v: row 3: values of type Regex"),
        (CANARY, "v: row 3 is stored as another type"),
    ],
)
def test_what_is_not_flat_is_refused_by_row(value: Any, what: str) -> None:
    with mongo.serving([{"_id": 1, "v": 1}, {"_id": 2, "v": None}, {"_id": 3, "v": value}]) as server:
        assert what in refused(DataError, server.url(), ["v"])
        assert "v" in open_source(server.url(), base=HERE).columns


def test_nobody_there() -> None:
    with mongo.serving([]) as server:
        assert "no such collection, or no document" in refused(DataError, server.url())


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        ({"ok": 0, "errmsg": CANARY, "code": 13, "codeName": "Unauthorized"}, "the database refused (13)"),
        ("hang up", "cannot be reached"),
        (b"\x0c\0\0\0\x02a\0\x05\0\0\0\xff", "cannot be reached"),
    ],
)
def test_what_the_server_says_is_not_repeated(server: mongo.Mongo, reply: Any, what: str) -> None:
    source = open_source(server.url(), base=HERE)
    server.failing["find"] = reply
    with pytest.raises(DataError) as caught:
        read(source, ["age"])
    assert what in str(caught.value)
    assert CANARY not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_failure_between_two_pages_is_one_too() -> None:
    with mongo.serving(documents(50)) as server:
        source = open_source(server.url(), base=HERE)
        server.failing["getMore"] = {"ok": 0, "errmsg": CANARY, "code": 239, "codeName": "SnapshotTooOld"}
        batches = source.batches(["age"], batch_rows=20)
        assert next(batches).num_rows == 20
        with pytest.raises(DataError, match=r"the database refused \(239\)"):
            next(batches)


def test_a_server_that_says_nothing_is_given_up(server: mongo.Mongo) -> None:
    server.failing["aggregate"] = "say nothing"
    began = time.monotonic()
    text = refused(DataError, server.url("clinic?collection=visits&socketTimeoutMS=200&retryReads=false"))
    assert "cannot be reached" in text
    assert time.monotonic() - began < 30


def test_nobody_listens() -> None:
    url = f"mongodb://me:{CANARY}@127.0.0.1:1/clinic?collection=v&serverSelectionTimeoutMS=100"
    assert refused(DataError, url).startswith(
        "mongodb://127.0.0.1:1/clinic collection v: the database cannot"
    )


@pytest.mark.parametrize(
    "url",
    [
        f"mongodb://me:{CANARY}@host/clinic",
        f"mongodb://me:{CANARY}@host?collection=v",
        f"mongodb://me:{CANARY}@host/clinic?collection=v&collection=w",
        f"mongodb://me:{CANARY}@host/clinic?collection=v&readPreference={CANARY}",
        f"mongodb://me:{CANARY}@host:port/clinic?collection=v",
        f"mongodb://me:{CANARY}?{CANARY}@host/clinic?collection=v",
        f"mongodb://me:{CANARY}/{CANARY}@host/clinic?collection=v",
        f"mongodb://me:{CANARY}%@host/clinic?collection=v",
    ],
)
def test_addresses_that_are_not_one(url: str) -> None:
    refused(ConfigError, url)


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymongo", None)
    assert "pip install 'fedgen[mongodb]'" in refused(
        MissingExtra, f"mongodb://me:{CANARY}@host/db?collection=v"
    )


def test_no_document_lands_in_a_log(server: mongo.Mongo, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert CANARY in read(open_source(server.url(), base=HERE))["note"]
    assert CANARY not in caplog.text
    logging.getLogger("pymongo").setLevel(logging.NOTSET)  # the control: what the driver would have written
    import pymongo

    with caplog.at_level(logging.DEBUG), pymongo.MongoClient(server.url("clinic")) as client:
        client.clinic.visits.find_one()
    logging.getLogger("pymongo").setLevel(logging.WARNING)
    assert CANARY in caplog.text


def test_stopping_early_leaves_no_cursor_behind() -> None:
    with mongo.serving(documents(1000)) as server:
        batches = open_source(server.url(), base=HERE).batches(["age"], batch_rows=10)
        next(batches)
        batches.close()
        assert any("killCursors" in command for command in server.asked)
