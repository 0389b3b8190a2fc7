"""Where a ledger may lie: the same tests hold for a file and for a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support import postgres
from support.open_ledgers import opened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fedgen.ledger.store import Ledger


@pytest.fixture
def server_place(postgres_url: str) -> Iterator[str]:
    """A place for one ledger in PostgreSQL."""
    url = postgres.with_ledger(postgres_url)
    yield url
    postgres.drop(url)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for one ledger: a new file, and a new schema of PostgreSQL."""
    if request.param == "sqlite":
        return str(tmp_path / "ledger.db")
    url: str = request.getfixturevalue("server_place")
    return url


@pytest.fixture
def ledger(place: str) -> Iterator[Ledger]:
    """A new ledger, in either place."""
    with opened(place) as it:
        yield it
