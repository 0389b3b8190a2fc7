"""A PostgreSQL server for tests: the one that ``FEDGEN_TEST_POSTGRES`` names, or a private one that is thrown away.

A private server listens on a Unix socket in a folder of its own and on nothing else. PostgreSQL refuses to run as root,
so root hands it to an unprivileged user.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE = "FEDGEN_TEST_POSTGRES"
_PATIENCE_S = 60.0


def binaries() -> Path | None:
    """Return the folder with ``initdb`` and ``postgres``, the newest there is, or None."""
    beside = shutil.which("initdb")
    folders = [Path(beside).resolve().parent] if beside else []
    folders += sorted(
        Path("/usr/lib/postgresql").glob("*/bin"),
        key=lambda folder: [int(part) for part in folder.parent.name.split(".") if part.isdecimal()],
        reverse=True,
    )
    return next((it for it in folders if all((it / name).exists() for name in ("initdb", "postgres"))), None)


def is_available() -> bool:
    """Return whether tests can reach a PostgreSQL server."""
    return bool(os.environ.get(VARIABLE)) or binaries() is not None


class Cluster:
    """A private server; ``address`` takes the name of a database."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self._folder, self._programs = folder, programs
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
            os.chown(folder, user.pw_uid, user.pw_gid)
            self._as = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._process: subprocess.Popen[bytes] | None = None
        self._call(
            "initdb", "-D", str(folder / "data"), "-U", "tester", "--auth=trust", "-E", "UTF8", "--no-sync"
        )

    def _call(self, name: str, *words: str) -> None:
        done = subprocess.run(
            [str(self._programs / name), *words],
            capture_output=True, text=True, check=False, cwd=self._folder, **self._as,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def address(self, database: str = "postgres") -> str:
        """Return the URL of a database."""
        return f"postgresql://tester@/{database}?host={self._folder}"

    def start(self, *settings: str) -> None:
        """Start the server and wait until it answers; settings are ``name=value``."""
        fixed = [
            f"unix_socket_directories={self._folder}", "listen_addresses=", "shared_buffers=16MB",
            "max_connections=60", "autovacuum=off", "log_min_messages=fatal",
        ]  # fmt: skip
        words = [word for setting in (*fixed, *settings) for word in ("-c", setting)]
        self._process = subprocess.Popen(
            [str(self._programs / "postgres"), "-D", str(self._folder / "data"), *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd=self._folder, **self._as,
        )  # fmt: skip
        self._wait()

    def _wait(self) -> None:
        import psycopg

        end = time.monotonic() + _PATIENCE_S
        while True:
            try:
                psycopg.connect(self.address()).close()
            except psycopg.OperationalError:
                assert self._process is not None
                assert self._process.poll() is None, "the server did not start"
                assert time.monotonic() < end, "the server does not answer"
                time.sleep(0.05)
            else:
                return

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT in order, SIGQUIT at once, as if the power failed."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(_PATIENCE_S)
            self._process = None


@contextmanager
def private_cluster(*settings: str) -> Iterator[Cluster]:
    """Run a server of one's own for the length of a block."""
    programs = binaries()
    assert programs is not None, "no PostgreSQL here"
    with tempfile.TemporaryDirectory(prefix="fg-pg-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        cluster = Cluster(Path(folder), programs)
        try:
            cluster.start(*settings)
            yield cluster
        finally:
            cluster.stop()


@contextmanager
def any_server() -> Iterator[str]:
    """Give the URL of a database that tests may fill: on the server that is named, or on a private one."""
    named = os.environ.get(VARIABLE)
    if named:
        yield named
    else:
        with private_cluster() as cluster:
            yield cluster.address()


def with_ledger(url: str, name: str | None = None) -> str:
    """Return ``url`` with a ledger in it, a fresh one unless it is named."""
    return f"{url}{'&' if '?' in url else '?'}ledger={name or 't' + secrets.token_hex(8)}"


def drop(url: str) -> None:
    """Remove the schema of the ledger that ``url`` names."""
    import psycopg

    from fedgen.ledger.address import Server

    server = Server.parse(url)
    with psycopg.connect(server.conninfo, autocommit=True) as raw:
        raw.execute(f"SET client_min_messages = error; DROP SCHEMA IF EXISTS {server.schema} CASCADE")
