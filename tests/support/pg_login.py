"""A private PostgreSQL server whose one user needs a password, and a control that it does."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
from support.postgres import private_cluster

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORD = "Canary/4711@:%"  # noqa: S105 - of this server alone


@contextmanager
def login_needed(*statements: str, password: str = PASSWORD) -> Iterator[str]:
    """Give the address of a database that a user must log in to; statements are run there before, as its owner.

    The address has no password, and without one nobody gets in.
    """
    with private_cluster() as cluster:
        with psycopg.connect(cluster.address(), autocommit=True) as raw:
            raw.execute("SET password_encryption = 'scram-sha-256'")
            raw.execute("CREATE ROLE clerk LOGIN PASSWORD '" + password.replace("'", "''") + "'")
            raw.execute("CREATE DATABASE clinic OWNER clerk")
        with psycopg.connect(cluster.address("clinic"), autocommit=True) as raw:
            raw.execute("SET ROLE clerk")
            for statement in statements:
                raw.execute(statement)
        rules = cluster._folder / "data" / "pg_hba.conf"
        rules.write_text("local all clerk scram-sha-256\n" + rules.read_text())
        with psycopg.connect(cluster.address(), autocommit=True) as raw:
            raw.execute("SELECT pg_reload_conf()")
        address = cluster.address("clinic").replace("tester@", "clerk@")
        _wait_until_needed(address)
        yield address


def _wait_until_needed(address: str) -> None:
    """Return when nobody gets in without a password any more; the server reads its rules again in its own time."""
    import time

    deadline = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(address).close()
        except psycopg.OperationalError:
            return
        assert time.monotonic() < deadline, "the server lets everybody in"
        time.sleep(0.05)


def change_password(address: str, old: str, new: str) -> None:
    """Give the user another password, as he may himself."""
    with psycopg.connect(address, password=old, autocommit=True) as raw:
        raw.execute("ALTER ROLE clerk PASSWORD '" + new.replace("'", "''") + "'")
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(address, password=old)
