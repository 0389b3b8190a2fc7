"""The consent store's tests run on SQLite and, where there is a server, on PostgreSQL alike."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
from support.stores import Clock, Place, schema_of

from fedgen.policy.store import ConsentStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def blank_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an empty store: making its schema anew for every test would cost half a second each."""
    folder = tmp_path_factory.mktemp("blank")
    ConsentStore.open(folder / "consent.db").close()
    return folder


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        for file in request.getfixturevalue("blank_store").iterdir():
            shutil.copy(file, tmp_path)
        yield Place(str(tmp_path / "consent.db"), tmp_path / "consent.db.key")
        return
    with schema_of(request.getfixturevalue("postgres_url"), tmp_path) as place:
        yield place


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(place: Place, clock: Clock) -> Iterator[ConsentStore]:
    with place.open(clock) as store:
        yield store
