"""A MariaDB or MySQL server for tests: the one that ``FEDGEN_TEST_MYSQL`` names, or a private one that is thrown away.

A private server listens on a Unix socket in a folder of its own and on nothing else.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE = "FEDGEN_TEST_MYSQL"
_PATIENCE_S = 60.0


def binaries() -> tuple[str, str] | None:
    """Return the programs that make a data folder and serve it, or None."""
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin"))
    install, serve = (shutil.which(name, path=path) for name in ("mariadb-install-db", "mariadbd"))
    needed = shutil.which("my_print_defaults", path=path)  # in another package
    return (install, serve) if install and serve and needed else None


def is_available() -> bool:
    """Return whether tests can reach a server."""
    return bool(os.environ.get(VARIABLE)) or binaries() is not None


@contextmanager
def any_server() -> Iterator[str]:
    """Give the URL of a database that tests may fill: on the server that is named, or on a private one."""
    named = os.environ.get(VARIABLE)
    if named:
        yield named
    else:
        with _private() as url:
            yield url


@contextmanager
def _private() -> Iterator[str]:
    programs = binaries()
    assert programs is not None, "no MariaDB here"
    with tempfile.TemporaryDirectory(prefix="fg-my-", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        user = ["--user=root"] if os.geteuid() == 0 else []  # the server asks for it to be said
        done = subprocess.run(
            [
                programs[0], "--no-defaults", f"--datadir={folder / 'data'}", "--skip-test-db",
                "--auth-root-authentication-method=normal", "--skip-name-resolve", *user,
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        place = folder / "socket"
        process = subprocess.Popen(
            [
                programs[1], "--no-defaults", f"--datadir={folder / 'data'}", f"--socket={place}", "--skip-networking",
                "--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=0",
                "--performance-schema=OFF", *user,
            ],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            _wait(process, place)
            yield f"mysql://root@localhost/fedgen?unix_socket={place}"
        finally:
            process.terminate()
            process.wait(_PATIENCE_S)


def _wait(process: subprocess.Popen[bytes], place: Path) -> None:
    import pymysql

    end = time.monotonic() + _PATIENCE_S
    while not _listens(place):  # pymysql leaves a socket open that could not connect
        assert process.poll() is None, "the server did not start"
        assert time.monotonic() < end, "the server does not answer"
        time.sleep(0.05)
    with pymysql.connect(unix_socket=str(place), user="root") as connection:
        connection.cursor().execute("CREATE DATABASE fedgen CHARACTER SET utf8mb4")


def _listens(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return place.exists() and probe.connect_ex(str(place)) == 0


def connected(url: str) -> Any:
    """Return a connection of the driver's, that can write."""
    import pymysql
    from sqlalchemy import make_url

    parts = make_url(url)
    where: dict[str, Any] = {"host": parts.host, "port": parts.port or 3306}
    if "unix_socket" in parts.query:
        where = {"unix_socket": parts.query["unix_socket"]}
    return pymysql.connect(
        user=parts.username, password=parts.password or "", database=parts.database, autocommit=True, **where
    )
