"""Makes ``tests/support`` importable, plain builders that several rooms' tests share; and keeps torch to one thread.

Tests compute on tensors of a few hundred numbers; more threads would only wait for each other.

Tests marked ``postgres`` run where a server can be had, and are left out, in so many words, where none can; those that
stop and start a server need its programs, too. With
``--require-postgres`` that is an error, so that CI never passes without them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read once, when torch is first imported
sys.path.insert(0, str(Path(__file__).parent))

from support import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-postgres", action="store_true", help="fail where tests marked postgres cannot run"
    )


def pytest_configure(config: pytest.Config) -> None:
    # Here and not while collecting: that is done by the workers, where there are any.
    if config.getoption("--require-postgres") and postgres.binaries() is None:
        raise pytest.UsageError("no PostgreSQL: install it; its programs are needed, a server is not enough")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if not _can_run(item)]
    if left_out:
        items[:] = [item for item in items if item not in set(left_out)]
        config.hook.pytest_deselected(items=left_out)


def _can_run(item: pytest.Item) -> bool:
    if item.get_closest_marker("postgres") is None:
        return True
    own = "own_cluster" in getattr(item, "fixturenames", ())
    return postgres.binaries() is not None if own else postgres.is_available()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if postgres.binaries() is None:
        which = "Some tests" if postgres.is_available() else "The tests"
        terminalreporter.write_line(f"{which} of PostgreSQL could not run: install it.", yellow=True)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a database of PostgreSQL that tests may fill."""
    with postgres.any_server() as url:
        yield url


@pytest.fixture(scope="session")
def _cluster() -> Iterator[postgres.Cluster]:
    with postgres.private_cluster() as cluster:
        yield cluster


@pytest.fixture
def own_cluster(_cluster: postgres.Cluster) -> Iterator[postgres.Cluster]:
    """A private server that a test may stop and start."""
    yield _cluster
    _cluster.stop()
    _cluster.start()
