"""A small MongoDB server: enough of its wire protocol for a client that reads, over a real socket.

MongoDB's own server is not packaged by Debian or PyPI. This one answers ``hello``, ``find`` (a filter is only
``$exists``), one ``aggregate``, ``getMore`` and ``killCursors`` from a list of documents, keeps what it was asked, and
can be told to fail. Source: MongoDB Wire Protocol, OP_MSG (opcode 2013) and the handshake's OP_QUERY (2004).
"""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import bson

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEADER = struct.Struct("<iiii")
_OP_REPLY, _OP_QUERY, _OP_MSG = 1, 2004, 2013


class Mongo(socketserver.ThreadingTCPServer):
    """A server with one collection."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, documents: list[Any], *, replica_set: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.documents = documents
        self.replica_set = replica_set
        self.asked: list[dict[str, Any]] = []
        self.failing: dict[
            str, Any
        ] = {}  # command -> the reply that refuses it, or "hang up", or "say nothing"
        self.cursors: dict[int, tuple[list[Any], int]] = {}
        self.stopping = threading.Event()

    def url(self, rest: str = "clinic?collection=visits", login: str = "") -> str:
        return f"mongodb://{login}127.0.0.1:{self.server_address[1]}/{rest}"

    def answer(self, command: dict[str, Any]) -> Any:
        name = next(iter(command))
        if name.lower() in {"hello", "ismaster"}:
            return self._hello()
        self.asked.append(command)
        if name in self.failing:
            return self.failing[name]
        if name == "find":
            return self._page(self._found(command), command.get("batchSize", 101), "firstBatch", command)
        if name == "aggregate":  # the one pipeline there is: the names in the first documents
            limit = command["pipeline"][1]["$limit"]
            rows = self._found({"sort": {"_id": 1}, "limit": limit})
            return self._page([{"names": list(row)} for row in rows], 10**9, "firstBatch", command)
        if name == "getMore":
            rows, _ = self.cursors.pop(command["getMore"])
            return self._page(rows, command.get("batchSize", 10**9), "nextBatch", command)
        return {"ok": 1}

    def _hello(self) -> dict[str, Any]:
        said: dict[str, Any] = {
            "helloOk": True, "ismaster": True, "isWritablePrimary": True, "maxBsonObjectSize": 2**24,
            "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000, "logicalSessionTimeoutMinutes": 30,
            "minWireVersion": 0, "maxWireVersion": 21, "readOnly": False, "ok": 1.0,
        }  # fmt: skip
        if self.replica_set:
            here = f"127.0.0.1:{self.server_address[1]}"
            said |= {"setName": "rs", "hosts": [here], "me": here, "primary": here, "secondary": False}
        return said

    def _found(self, command: dict[str, Any]) -> list[Any]:
        rows = [row for row in self.documents if all(name in row for name in command.get("filter", {}))]
        for key, way in reversed(list(command.get("sort", {}).items())):
            rows = sorted(rows, key=lambda row: row[key], reverse=way < 0)
        wanted = command.get("projection")
        if wanted:
            rows = [{k: v for k, v in row.items() if wanted.get(k, k == "_id")} for row in rows]
        return rows[: command.get("limit") or None]

    def _page(self, rows: list[Any], size: int, name: str, command: dict[str, Any]) -> dict[str, Any]:
        left, number = rows[size:], 0
        if left and not command.get("singleBatch"):
            number = len(self.asked)
            self.cursors[number] = (left, size)
        cursor = {name: rows[:size], "id": bson.Int64(number), "ns": "clinic.visits"}
        if command.get("readConcern", {}).get("level") == "snapshot":
            cursor["atClusterTime"] = bson.Timestamp(7, 1)
        return {"cursor": cursor, "ok": 1.0}


class _Connection(socketserver.BaseRequestHandler):
    server: Mongo

    def handle(self) -> None:
        while True:
            header = self._take(16)
            if header is None:
                return
            size, number, _, kind = _HEADER.unpack(header)
            body = self._take(size - 16) or b""
            if kind == _OP_QUERY:  # flags, name, skip and number, then the document
                start = body.index(b"\0", 4) + 1 + 8
                said = bson.encode(self.server.answer(_decoded(body[start:])))
                reply, code = struct.pack("<iqii", 8, 0, 0, 1) + said, _OP_REPLY
            else:
                answer = self.server.answer(_decoded(body[5:]))
                if answer == "hang up":
                    return
                if answer == "say nothing":
                    self.server.stopping.wait(60)
                    return
                reply, code = (
                    struct.pack("<ib", 0, 0) + (answer if isinstance(answer, bytes) else bson.encode(answer)),
                    _OP_MSG,
                )
            self.request.sendall(_HEADER.pack(16 + len(reply), 1, number, code) + reply)

    def _take(self, size: int) -> bytes | None:
        parts = b""
        while len(parts) < size:
            try:
                part = self.request.recv(size - len(parts))
            except OSError:
                return None
            if not part:
                return None
            parts += part
        return parts


def _decoded(body: bytes) -> dict[str, Any]:
    size = struct.unpack_from("<i", body)[0]
    return bson.decode(body[:size])


@contextmanager
def serving(documents: list[Any], *, replica_set: bool = False) -> Iterator[Mongo]:
    """Serve documents for the length of a block."""
    server = Mongo(documents, replica_set=replica_set)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.shutdown()
        server.socket.shutdown(socket.SHUT_RDWR)
        server.server_close()
        thread.join()
