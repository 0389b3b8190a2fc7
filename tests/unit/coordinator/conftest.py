"""Where a coordinator's state may lie: the same tests hold for a file and for a server."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from fedgen.coordinator.state.store import StateStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def server_address(postgres_url: str) -> Iterator[str]:
    """An empty database of its own in PostgreSQL."""
    import psycopg

    name = f"state_{secrets.token_hex(6)}"
    with psycopg.connect(postgres_url, autocommit=True) as raw:
        raw.execute(f"CREATE DATABASE {name}")
    before, _, options = postgres_url.partition("?")
    yield f"{before.rpartition('/')[0]}/{name}" + (f"?{options}" if options else "")
    with psycopg.connect(postgres_url, autocommit=True) as raw:
        raw.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for one state: a new file, and a new database of PostgreSQL."""
    if request.param == "sqlite":
        return str(tmp_path / "state.db")
    url: str = request.getfixturevalue("server_address")
    return url


@pytest.fixture
def state(address: str) -> Iterator[StateStore]:
    """A new state, in either place."""
    with StateStore.open(address) as it:
        yield it
