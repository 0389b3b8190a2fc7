"""A real nginx before a small upstream that remembers what reached it; both on loopback, both with TLS."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support import tools

from fedgen.config.proxy import Proxy, nginx_configuration

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE_S = 20.0
NOBODY = 65534


def certificate(folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    """Make a self-signed certificate for ``name`` and 127.0.0.1; return certificate and key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName(
        [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=2))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.crt", folder / f"{name}.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    paths[1].write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    return paths


class Upstream:
    """Stands for a SuperLink: answers everything with 200 and remembers method, path and headers."""

    def __init__(self, crt: Path, key: Path) -> None:
        self.seen: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.hold = threading.Event()
        self.hold.set()
        upstream = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                upstream.seen.append((self.command, self.path))
                upstream.headers.append(dict(self.headers.items()))
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                upstream.hold.wait(_PATIENCE_S)
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(b"ok")

            do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(crt, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()


class Front:
    """A running nginx and its upstream."""

    def __init__(self, folder: Path, port: int, upstream: Upstream, ca: Path, process: Any) -> None:
        self.folder, self.port, self.upstream, self.ca, self.process = folder, port, upstream, ca, process

    def connect(self, version: ssl.TLSVersion | None = None) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=str(self.ca))
        if version is not None:
            context.minimum_version = context.maximum_version = version
            context.set_ciphers("ALL:@SECLEVEL=0")
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=_PATIENCE_S)
        return context.wrap_socket(plain, server_hostname="localhost")

    def raw(self, request: bytes) -> bytes:
        """Send bytes and return all that comes back until the end."""
        with self.connect() as tls:
            with suppress(OSError):  # it may be answered, and closed, before all is sent
                tls.sendall(request)
            return _read(tls)

    def ask(self, method: str, path: str, body: bytes = b"", *headers: str) -> tuple[int, bytes]:
        """Send one request as it is written; return status and everything that came."""
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        answer = self.raw("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        return (int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else 0), answer


def _read(tls: ssl.SSLSocket) -> bytes:
    parts = []
    try:
        while part := tls.recv(65536):
            parts.append(part)
    except OSError:
        pass
    return b"".join(parts)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def nginx(**limits: Any) -> Iterator[Front]:
    """Run the shipped configuration, as a user without privileges, until the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="fedgen-nginx-"))
    try:
        crt, key = certificate(folder)
        upstream = Upstream(crt, key)
        port = free_port()
        proxy = Proxy(
            listen=f"127.0.0.1:{port}", name="localhost", certificate=crt, key=key, folder=folder,
            upstream=f"127.0.0.1:{upstream.port}", upstream_ca=crt, **limits,
        )  # fmt: skip
        (folder / "nginx.conf").write_text(nginx_configuration(proxy))
        process = _start(folder)
        try:
            _wait(port, process)
            yield Front(folder, port, upstream, crt, process)
        finally:
            process.terminate()
            process.wait(_PATIENCE_S)
            upstream.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path) -> subprocess.Popen[bytes]:
    drop: dict[str, Any] = {}
    if os.geteuid() == 0:
        for path in [folder, *folder.iterdir()]:
            os.chown(path, NOBODY, NOBODY)
        drop = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    words = [str(tools.program("nginx")), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    with (folder / "stderr").open("wb") as errors:
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, cwd=folder, **drop
        )


def _wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        assert process.poll() is None, "nginx did not start"
        assert time.monotonic() < deadline, "nginx does not listen"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
