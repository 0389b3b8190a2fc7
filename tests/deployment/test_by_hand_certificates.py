"""What a relay says to a server whose certificate has expired, or is another authority's: nothing."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import tempfile
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.by_hand import PATIENCE_S, ByHand
from support.deployed import until

from fedgen.crypto.certificates import issue, make_authority

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.deployment, pytest.mark.process, pytest.mark.slow]
HOSTS = ("127.0.0.1", "localhost")


class Server(threading.Thread):
    """Speaks TLS under some certificate; keeps what it is told once TLS is agreed on, and answers nothing."""

    def __init__(self, pair: tuple[bytes, bytes], folder: Path) -> None:
        super().__init__(daemon=True)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        key, certificate = folder / "key.pem", folder / "certificate.pem"
        key.write_bytes(pair[0])
        certificate.write_bytes(pair[1])
        self._context.load_cert_chain(certificate, key)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.2)
        self.port = int(self._listener.getsockname()[1])
        self.tries, self.told, self._ends = 0, bytearray(), False

    def run(self) -> None:
        while not self._ends:
            with suppress(TimeoutError):
                raw, _ = self._listener.accept()
                self.tries += 1
                raw.settimeout(5)
                with raw, suppress(OSError), self._context.wrap_socket(raw, server_side=True) as connection:
                    self.told += connection.recv(4096)
        self._listener.close()

    def close(self) -> None:
        self._ends = True
        self.join(20)


@pytest.fixture(scope="module")
def made() -> Iterator[ByHand]:
    """One site that has joined, whose coordinator does not run."""
    root = Path(tempfile.mkdtemp(prefix="fd-", dir="/tmp"))
    made = ByHand(root, ["hospital-a"])
    try:
        made.enrol()
        yield made
    finally:
        made.close()
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def calling(made: ByHand, pair: tuple[bytes, bytes], folder: Path) -> Iterator[Server]:
    """Run the relay against a server with this key and certificate."""
    server = Server(pair, folder)
    server.start()
    path = made.root / "hospital-a-relay" / "relay.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**said, "address": f"127.0.0.1:{server.port}"}), encoding="utf-8")
    made.log("relay-hospital-a").unlink(missing_ok=True)
    made.relay_up("hospital-a")
    try:
        yield server
    finally:
        made.kill("relay-hospital-a")  # asked to end, the SuperNode would first wait for its next try
        server.close()


def test_a_certificate_that_holds_is_spoken_to(made: ByHand, tmp_path: Path) -> None:
    """The control: under a good certificate the same server is told what the relay wants."""
    with calling(made, issue(_authority(made), HOSTS, days=1, now=datetime.now(UTC)), tmp_path) as server:
        until(lambda: b"/v1/fleet/activate-node" in server.told, "the relay to speak", PATIENCE_S)


@pytest.mark.parametrize("why", ["expired", "another authority", "another host"])
def test_a_certificate_that_does_not_hold_is_told_nothing(made: ByHand, tmp_path: Path, why: str) -> None:
    now = datetime.now(UTC)
    pair = {
        "expired": lambda: issue(_authority(made), HOSTS, days=1, now=now - timedelta(days=2)),
        "another authority": lambda: issue(make_authority("fedgen", days=9, now=now), HOSTS, days=1, now=now),
        "another host": lambda: issue(_authority(made), ["other.example.org"], days=1, now=now),
    }[why]()
    with calling(made, pair, tmp_path) as server:
        # Whatever the pause, it is tried again, and told nothing again.
        until(lambda: made.said("relay-hospital-a").count("supernode ended") >= 2, "two tries", PATIENCE_S)
        assert server.tries >= 2
        assert bytes(server.told) == b""
    assert "certificate verify failed" in made.said("relay-hospital-a")


def _authority(made: ByHand) -> tuple[bytes, bytes]:
    return made.home.ca.key.read_bytes(), made.home.ca.certificate.read_bytes()
