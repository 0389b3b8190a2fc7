"""One small HTTP server for probes and metrics: loopback unless told otherwise, three paths, GET and HEAD, no body."""

from __future__ import annotations

import ipaddress
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar, Final

from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from fedgen.observe.health import Probes
    from fedgen.observe.metrics import Meters

DEFAULT: Final = "127.0.0.1:9464"
_AT_ONCE: Final = 16
_PATIENCE_S: Final = 5.0
_PORTS: Final = 65_535
_ADDRESS: Final = re.compile(r"(?P<host>[0-9.]+|\[[0-9a-fA-F:.]+\]|localhost):(?P<port>[0-9]{1,5})")


def start(address: str, probes: Probes, meters: Meters, *, beyond_loopback: bool = False) -> Served:
    """Serve ``/health``, ``/ready`` and ``/metrics`` from a thread until the result is closed.

    Guarantees:
        - ``/health`` answers 200 while the process serves; ``/ready`` 200 or 503, with reasons from
          :class:`fedgen.observe.Reason` and nothing else.
        - Any other path is 404, any other method 501; a body is not read; at most 16 requests at once.
        - On loopback, a request that names another host is refused, so that a page in a browser cannot read it.

    Args:
        address: Numeric host and port, or ``localhost``; port 0 takes a free one.
        probes: What is ready.
        meters: What is counted.
        beyond_loopback: Whether other machines may ask, as a kubelet or a scraper does.

    Raises:
        ConfigError: The address is none, is not on loopback without ``beyond_loopback``, or is taken.
    """
    host, port = split(address, beyond_loopback=beyond_loopback)
    try:
        return Served(_Server((host, port), probes, meters, loopback=_is_loopback(host)))
    except OSError as error:
        raise ConfigError(
            "cannot be listened on",
            where=address,
            key="observe.address",
            hint="choose a free port of this machine; or what is to be started runs already",
        ) from error


def split(address: str, *, beyond_loopback: bool) -> tuple[str, int]:
    """Return host and port of an address.

    Raises:
        ConfigError: As :func:`start`.
    """
    match = _ADDRESS.fullmatch(address)
    host = match["host"].strip("[]") if match else ""
    host = "127.0.0.1" if host == "localhost" else host
    try:
        ipaddress.ip_address(host)
        port = int(match["port"]) if match else -1
    except ValueError:
        port = -1
    if not 0 <= port <= _PORTS:
        raise ConfigError("is not an address to listen on", key="observe.address", hint=f"such as {DEFAULT}")
    if not beyond_loopback and not _is_loopback(host):
        raise ConfigError(
            "would be seen by other machines",
            key="observe.address",
            hint=f"use {DEFAULT}, or set observe.beyond_loopback: true behind a firewall",
        )
    return host, port


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback


class Served:
    """A server that runs; leaving the context closes it."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        host, port = server.server_address[:2]
        self.address = f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"
        self._thread = threading.Thread(target=server.serve_forever, args=(0.2,), name="observe", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving; a second call does nothing."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = _AT_ONCE

    def __init__(self, address: tuple[str, int], probes: Probes, meters: Meters, *, loopback: bool) -> None:
        self.probes, self.meters, self.loopback = probes, meters, loopback
        self._places = threading.BoundedSemaphore(_AT_ONCE)
        if ":" in address[0]:
            import socket

            self.address_family = socket.AF_INET6
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hand a request to a thread, or hang up when sixteen are at work."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and give the place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, _request: Any, _client_address: Any) -> None:
        """Say nothing: what a stranger's connection did wrong is not worth a line."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout: ClassVar[float] = _PATIENCE_S
    error_content_type = "text/plain"
    error_message_format = "%(code)d\n"

    def version_string(self) -> str:
        """Return what the header ``Server`` says: nothing about versions."""
        return "fedgen"

    def log_message(self, *_: Any) -> None:
        """Keep quiet: an access log of probes helps nobody."""

    def do_HEAD(self) -> None:
        """Answer without a body."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer one of three paths."""
        if self.server.loopback and not _names_loopback(self.headers.get("Host", "")):
            self.send_error(421)
        elif self.path == "/health":
            self._json(200, {"live": True})
        elif self.path == "/ready":
            reasons = self.server.probes.reasons()
            said = {"ready": not reasons, **({"reasons": [str(it) for it in reasons]} if reasons else {})}
            self._json(503 if reasons else 200, said)
        elif self.path == "/metrics" and self.server.meters.present:
            self.server.meters.ready(self.server.probes.reasons())
            self._answer(200, "text/plain; version=0.0.4; charset=utf-8", self.server.meters.text())
        else:
            self.send_error(404)

    def _json(self, status: int, value: dict[str, Any]) -> None:
        self._answer(status, "application/json", json.dumps(value).encode() + b"\n")

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _names_loopback(host: str) -> bool:
    match = _ADDRESS.fullmatch(host if re.search(r":[0-9]+$", host) else f"{host}:80")
    if match is None:
        return False
    name = match["host"].strip("[]")
    try:
        return name == "localhost" or _is_loopback(name)
    except ValueError:
        return False
