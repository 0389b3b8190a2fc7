"""A small S3: a folder served as a bucket on this machine, enough for a client that lists and reads.

Source: Amazon S3 API, ListObjectsV2, HeadObject and GetObject with a range.
"""

from __future__ import annotations

import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_WHEN = ("Mon, 05 Jan 2026 10:00:00 GMT", "2026-01-05T10:00:00.000Z")


class Bucket(ThreadingHTTPServer):
    """A server with one bucket, called ``bucket``; keeps what it was asked, and can be told to refuse."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.folder = folder
        self.asked: list[tuple[str, str]] = []
        self.refusal: tuple[int, str] | None = None

    def url(self, path: str, options: str = "") -> str:
        return f"s3://bucket/{path}?endpoint=http://127.0.0.1:{self.server_address[1]}&anonymous=yes{options}"

    def keys(self) -> dict[str, Path]:
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path for path in sorted(files)}


class _Request(BaseHTTPRequestHandler):
    server: Bucket
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._object(with_body=False)

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query and not self.server.refusal:
            self._list(query.get("prefix", [""])[0], query.get("delimiter", [""])[0])
        else:
            self._object(with_body=True)

    def _list(self, prefix: str, delimiter: str) -> None:
        self.server.asked.append(("LIST", prefix))
        items, folders = [], set()
        for key, path in self.server.keys().items():
            if not key.startswith(prefix):
                continue
            inner, cut, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            if cut:
                folders.add(f"{prefix}{inner}/")
            else:
                items.append(
                    f"<Contents><Key>{escape(key)}</Key><Size>{path.stat().st_size}</Size>"
                    f"<LastModified>{_WHEN[1]}</LastModified></Contents>"
                )
        items += [f"<CommonPrefixes><Prefix>{escape(it)}</Prefix></CommonPrefixes>" for it in sorted(folders)]
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{''.join(items)}</ListBucketResult>"
        self._say(200, body.encode())

    def _object(self, *, with_body: bool) -> None:
        key = unquote(urlsplit(self.path).path).removeprefix("/bucket").lstrip("/")
        self.server.asked.append((self.command, key))
        if self.server.refusal:
            code, text = self.server.refusal
            return self._say(code, f"<Error><Code>{text}</Code><Message>{text}</Message></Error>".encode())
        path = self.server.keys().get(key)
        if path is None:
            return self._say(404 if key else 200, b"")
        content = path.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if asked:
            first, last = int(asked[1]), min(int(asked[2]), len(content) - 1)
            span = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
            return self._say(206, content[first : last + 1], with_body=with_body, **span)
        return self._say(200, content, with_body=with_body)

    def _say(self, code: int, body: bytes, *, with_body: bool = True, **headers: str) -> None:
        self.send_response(code)
        lines = {"Content-Length": str(len(body)), "Last-Modified": _WHEN[0], "ETag": '"0"', **headers}
        for name, value in lines.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body and self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_words: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[Bucket]:
    """Serve a folder for the length of a block."""
    server = Bucket(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
