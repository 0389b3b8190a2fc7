"""A kind of database of the tests' own, with steps of a schema that they write themselves."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from support.boxes import WORDS, meaning
from support.stores import schema_of

from fedgen.databases.kind import Kind
from fedgen.databases.opened import Opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_ENV = """
from alembic import context
if __name__ == "env_py":
    connection = context.config.attributes["connection"]
    context.configure(connection=connection, transactional_ddl=True, version_table="box_version")
    context.run_migrations()
"""
_STEP = """
from alembic import op
revision, down_revision = {revision!r}, {before!r}
def upgrade():
    {does}
"""


@pytest.fixture
def step(tmp_path: Path) -> Callable[[str, str | None, str], None]:
    """Write a step of the schema."""
    folder = tmp_path / "migrations %"  # a sign that Alembic's own files would take for a variable
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(_ENV)

    def write(revision: str, before: str | None, does: str) -> None:
        (folder / "versions" / f"v{revision}.py").write_text(
            _STEP.format(revision=revision, before=before, does=does)
        )

    return write


@pytest.fixture
def kind(tmp_path: Path, step: Callable[[str, str | None, str], None]) -> Kind:
    """A kind with one table, of one step."""
    step("0001", None, 'op.execute("CREATE TABLE things (name TEXT PRIMARY KEY)")')
    return Kind(
        words=WORDS,
        name="a person's box",
        no_address="not where a box can be",
        addresses="a path or postgresql://...",
        meaning=meaning,
        migrations=tmp_path / "migrations %",
        revision="0001",
        version_table="box_version",
        lock=secrets.randbits(40),
        one_writer=False,
        pragmas=("busy_timeout = 20", "cache_size = -4321"),
    )


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place for one box: a new file, and a new schema of PostgreSQL."""
    if request.param == "sqlite":
        yield str(tmp_path / "box.db")
        return
    with schema_of(request.getfixturevalue("postgres_url"), tmp_path) as place:
        yield place.address


@pytest.fixture
def box(address: str, kind: Kind) -> Iterator[Opened]:
    """An open box."""
    opened = Opened(address, kind)
    yield opened
    opened.close()


@pytest.fixture
def with_second(step: Callable[[str, str | None, str], None], kind: Kind) -> Kind:
    """The same kind in its next version: a second table."""
    step("0002", "0001", 'op.execute("CREATE TABLE more (name TEXT)")')
    return replace(kind, revision="0002")
