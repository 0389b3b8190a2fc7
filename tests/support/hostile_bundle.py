"""What a hostile ClientApp can do on a site's machine, under the rights of the relay's user and with no others.

Run as ``python hostile_bundle.py SOCKET HOME``; reads frames to send, as a JSON list of hex, from standard input, and
prints what it got, as JSON. It knows everything but the keys: the code, the protocol, where the home is.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from fedgen.site import frames

FLOOD = 300


def readable(home: Path) -> list[str]:
    """Return everything of the home that can be listed, read or written."""
    names = ["", "site.yaml", "rows.csv", "schema.yaml", "invitation.json", "ledger.db", "ledger.db-wal"]
    names += [
        "keys/identity.key",
        "keys/ledger.key",
        "keys/node.key",
        "state/answer",
        "state/incidents.jsonl",
    ]
    names += ["state/dataset.json", "approvals", "pending", "state", "keys", "peers"]
    found = []
    for name in names:
        place = home / name
        with suppress(OSError):
            found.append(f"list {os.listdir(place)}")  # noqa: PTH208
        with suppress(OSError):
            found.append(f"read {name} {place.read_bytes()[:1]!r}")
        with suppress(OSError):
            (home / "approvals" / f"{'00' * 32}.json").write_text("{}")
            found.append("write")
    return found


def imported(home: Path) -> list[str]:
    """Use the library itself, as the site would, and return what it gives away."""
    from fedgen.enrolment.site_home import SiteHome

    site, got = SiteHome(home), []
    for what in (site.spec, site.identity, site.ledger_signing_key, site.accepted, site.peers):
        try:
            got.append(f"{what.__name__}: {what()}")
        except Exception as error:  # noqa: BLE001 - what is refused is what is hoped for
            if "denied" not in str(error).lower() and "no such folder" not in str(error).lower():
                got.append(f"{what.__name__}: {error}")
    return got


def asked(path: str, request: bytes) -> str:
    """Return the answer in hex, or why there is none."""
    try:
        return frames.ask(path, request, timeout=60).hex()
    except frames.Broken as broken:
        return f"!{broken.why}"


def connected(path: str) -> socket.socket:
    """Return a raw connection."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(30)
    connection.connect(path)
    return connection


def nuisance(path: str) -> int:
    """Send garbage, half frames, lies about lengths, and a flood; return how many bytes came back."""
    heard = 0
    lies = [
        b"GET / HTTP/1.1\r\nHost: site\r\n\r\n",
        os.urandom(4096),
        frames.HEAD.pack(frames.MAGIC, 2**63) + b"x" * 4096,
        frames.HEAD.pack(frames.MAGIC, 0),
        frames.HEAD.pack(frames.MAGIC, 10) + b"half",
    ]
    for lie in lies:
        with suppress(OSError), connected(path) as connection:
            connection.sendall(lie)
            connection.shutdown(socket.SHUT_WR)
            heard += len(connection.recv(4096))
    for _ in range(FLOOD):
        with suppress(OSError), connected(path) as connection:
            connection.sendall(frames.HEAD.pack(frames.MAGIC, 16) + b"not an envelope!")
    return heard


def hold(path: str, seconds: float) -> int:
    """Hold as many connections as one gets, a byte now and then; return how many."""
    held = []
    for _ in range(32):
        with suppress(OSError):
            connection = connected(path)
            connection.sendall(frames.HEAD.pack(frames.MAGIC, 2**20))
            held.append(connection)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for connection in held:
            with suppress(OSError):
                connection.sendall(b"x")
        time.sleep(0.2)
    for connection in held:
        connection.close()
    return len(held)


def main() -> None:
    """Do all of it."""
    path, home, what = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    said: Any = None
    if what == "read":
        said = {"files": readable(home), "library": imported(home)}
    elif what == "send":
        said = [asked(path, bytes.fromhex(it)) for it in json.load(sys.stdin)]
    elif what == "nuisance":
        said = nuisance(path)
    elif what == "hold":
        said = hold(path, 2.0)
    sys.stdout.write(json.dumps({"uid": os.getuid(), "said": said}))


if __name__ == "__main__":
    main()
