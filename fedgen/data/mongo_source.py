"""Flat documents of a MongoDB collection: a row is a document, a column a name at its top."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode

from fedgen.data.python_cells import PythonCells
from fedgen.data.source import Source
from fedgen.errors import ConfigError, DataError, FedgenError, MissingExtra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeVar

    import pyarrow as pa

    T = TypeVar("T")

_FETCH_ROWS: Final = 4096
_LOOK_AT: Final = 1000
_NAMES: Final[list[dict[str, Any]]] = [
    {"$sort": {"_id": 1}},
    {"$limit": _LOOK_AT},
    {"$project": {"_id": 0, "names": {"$map": {"input": {"$objectToArray": "$$ROOT"}, "in": "$$this.k"}}}},
]
_SETTINGS: Final = {
    "appname": "fedgen",
    "connectTimeoutMS": 10_000,
    "serverSelectionTimeoutMS": 10_000,
    "socketTimeoutMS": 300_000,
}
_SNAPSHOT_WIRE: Final = 13  # MongoDB 5.0, the first whose snapshots any client may ask for
_HOSTS: Final = re.compile(r"[^:,@\s]+(:\d{1,5})?(,[^:,@\s]+(:\d{1,5})?)*|\[[0-9a-fA-F:]+\](:\d{1,5})?")
_ENCODE: Final = "percent-encode what is not a letter or digit in user and password"
_HINT: Final = "leave the field out, or make a view with a flat, typed one"


class MongoSource(Source):
    """A collection or view, named in the address: ``mongodb://user@host/db?collection=visits``.

    Guarantees:
        - Only the columns asked for are sent (``find`` with a projection), at most 16 MiB at a time, and nothing that
          writes is asked.
        - Documents come in the order of ``_id``, which the server has an index for.
        - On a replica set or cluster from MongoDB 5.0 on, all rows are of one moment (a snapshot).
        - A column's name is never an operator: names with a dot, or that begin with ``$``, are refused.
        - Connecting gives up after 10 s, waiting for an answer after 300 s, unless the address says otherwise.
        - The driver's log of commands and replies is off, whatever the level of the root logger.

    Edge cases:
        ===================================  ==========================================================
        a field that a document lacks        no value
        a field that no document has         refused
        a list or document as a value        refused by column and row
        ``ObjectId``, ``Decimal128``         text, a number
        a server that stands alone           no snapshot: read it when nobody writes
        a snapshot of over 5 minutes         the server may end it, as it is set up; then nothing is read
        ===================================  ==========================================================

    Args:
        address: The URL; options are pymongo's, and ``collection``.

    Raises:
        ConfigError: The address is not one.
        DataError: No connection, or no such collection.
        MissingExtra: pymongo is not installed.
    """

    def __init__(self, address: str) -> None:
        self._address, collection, database, hosts = _taken_apart(address)
        self._describe = f"{hosts}/{database} collection {collection}"
        self._names = (database, collection)
        with self._connected() as client:
            self._columns = self._told(lambda: self._look(client))

    @property
    def columns(self) -> list[str]:
        """The names in the first 1,000 documents; another one is looked for when it is asked for."""
        return list(self._columns)

    @property
    def describe(self) -> str:
        """Hosts, database and collection; without user, password and options."""
        return self._describe

    def batches(
        self, columns: Sequence[str] | None = None, batch_rows: int = 65_536
    ) -> Iterator[pa.RecordBatch]:
        """Return the rows in batches, as :meth:`fedgen.data.source.Source.batches`.

        Raises:
            DataError: As there; or a name that no flat document has.
        """
        unknown = [name for name in columns or () if name not in self._columns]
        for name in unknown:
            if not _is_flat(name):
                hint = "documents must be flat; make a view that brings the field to the top"
                raise DataError(
                    "not a field at the top of a document", where=self._describe, key=name, hint=hint
                )
        if unknown:
            with self._connected() as client:
                self._columns += self._told(lambda: [name for name in unknown if self._occurs(client, name)])
        return super().batches(columns, batch_rows)

    def _connected(self) -> Any:
        """Return a client, to be closed; it connects when it is first asked."""
        logging.getLogger("pymongo").setLevel(logging.WARNING)
        try:
            import pymongo
        except ImportError:
            raise MissingExtra("mongodb", needed_for="a mongodb:// source") from None
        given = self._address.lower()
        settings: dict[str, Any] = {
            name: value for name, value in _SETTINGS.items() if f"{name.lower()}=" not in given
        }
        try:
            return pymongo.MongoClient(self._address, **settings)
        except Exception:  # noqa: BLE001, S110 - its text may hold the address
            pass
        hint = "write mongodb://user@host/database?collection=NAME, with options of pymongo's"
        raise ConfigError("not a MongoDB address", where=self._describe, hint=hint)

    def _look(self, client: Any) -> list[str]:
        """Return the names in the first documents; the server sends no value of theirs."""
        database, collection = self._names
        found = client[database][collection].aggregate(_NAMES)
        names = dict.fromkeys(name for document in found for name in document["names"])
        if not names:
            hint = "check the name and its case; a collection without documents has no columns"
            raise DataError("no such collection, or no document in it", where=self._describe, hint=hint)
        return [name for name in names if _is_flat(name)]

    def _occurs(self, client: Any, name: str) -> bool:
        return bool(self._find(client, {name: {"$exists": True}}, ["_id"]).limit(1).to_list())

    def _find(self, client: Any, which: dict[str, Any], columns: Sequence[str], session: Any = None) -> Any:
        database, collection = self._names
        projection = {"_id": "_id" in columns} | dict.fromkeys(columns, True)
        return client[database][collection].find(which, projection, session=session).sort("_id", 1)

    def _read(self, columns: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        cells = PythonCells(self._describe, foreigners=_foreigners(), hint=_HINT)
        size = min(batch_rows, _FETCH_ROWS)
        seen = 0
        with self._connected() as client:
            documents = self._told(lambda: self._begun(client, columns).batch_size(size))
            try:
                while rows := self._told(lambda: documents.to_list(size)):
                    arrays = [cells.array([row.get(name) for row in rows], name, seen) for name in columns]
                    yield pa.RecordBatch.from_arrays(arrays, names=columns)
                    seen += len(rows)
            finally:
                with suppress(Exception):  # a cursor that is lost cannot be closed
                    documents.close()

    def _begun(self, client: Any, columns: list[str]) -> Any:
        """Return all rows as of one moment, where the server keeps snapshots: in a set or cluster, and new enough."""
        said = client.admin.command("hello")
        together = "setName" in said or said.get("msg") == "isdbgrid"
        snapshot = together and int(said.get("maxWireVersion", 0)) >= _SNAPSHOT_WIRE
        return self._find(client, {}, columns, client.start_session(snapshot=snapshot))

    def _told(self, act: Callable[[], T]) -> T:
        """Ask the server; its errors become ours, by their number alone: their text may quote a document."""
        code: Any = None
        try:
            return act()
        except FedgenError:
            raise
        except Exception as error:  # noqa: BLE001 - BSON's errors are of another tree than the driver's
            code = getattr(error, "code", None)
        what = f"the database refused ({code})" if type(code) is int else "the database cannot be reached"
        raise DataError(what, where=self._describe, hint="check address, password, rights and collection")


def _is_flat(name: str) -> bool:
    return bool(name) and not name.startswith("$") and "." not in name and "\0" not in name


def _foreigners() -> dict[type, Callable[[Any], Any]]:
    """Return the driver's own types that a column can be made of."""
    from bson import Decimal128, Int64, ObjectId

    return {Int64: int, ObjectId: str, Decimal128: lambda value: float(value.to_decimal())}


def _taken_apart(address: str) -> tuple[str, str, str, str]:
    """Return the address without our parameter, the collection, the database, and what may be shown of the hosts."""
    scheme, _, rest = address.partition("://")
    place, _, query = rest.partition("?")
    login, _, place = place.rpartition("@")
    hosts, _, database = place.partition("/")
    if "@" in query:  # of a password that is not percent-encoded, a part would be taken for a host
        raise ConfigError("not a MongoDB address", where=f"{scheme.lower()}://", hint=_ENCODE)
    shown = f"{scheme.lower()}://{hosts if _HOSTS.fullmatch(hosts) else ''}"
    options = parse_qsl(query, keep_blank_values=True)
    named = [value for name, value in options if name == "collection"]
    if not hosts or not database or len(named) != 1 or not named[0]:
        hint = "write mongodb://user@host/database?collection=NAME"
        raise ConfigError("the address names no collection", where=shown, hint=hint)
    left = urlencode([(name, value) for name, value in options if name != "collection"])
    bare = f"{scheme}://{login}{'@' if login else ''}{hosts}/{database}{'?' if left else ''}{left}"
    return bare, named[0], database, shown
