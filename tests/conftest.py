"""Makes ``tests/support`` importable, plain builders that several rooms' tests share; and keeps torch to one thread.

Tests compute on tensors of a few hundred numbers; more threads would only wait for each other.

Tests marked ``needs`` run where the tools they name are, and are left out, in so many words, where they are not.
With ``--require-tools`` that is an error. Some need a right, as to make networks: where this user does not have it they
are left out and that is said, with or without the option.

Tests marked ``postgres`` or ``mysql`` run where a server can be had, and are left out, in so many words, where none
can; those that stop and start a PostgreSQL server need its programs, too. With ``--require-postgres`` and
``--require-mysql`` that is an error, so that CI never passes without them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read once, when torch is first imported
sys.path.insert(0, str(Path(__file__).parent))

from support import mysql, postgres, tools

if TYPE_CHECKING:
    from collections.abc import Iterator


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-postgres", action="store_true", help="fail where tests marked postgres cannot run"
    )
    parser.addoption("--require-mysql", action="store_true", help="fail where tests marked mysql cannot run")
    parser.addoption("--require-tools", action="store_true", help="fail where tests marked needs cannot run")


def pytest_configure(config: pytest.Config) -> None:
    # Here and not while collecting: that is done by the workers, where there are any.
    if config.getoption("--require-postgres") and postgres.binaries() is None:
        raise pytest.UsageError("no PostgreSQL: install it; its programs are needed, a server is not enough")
    if config.getoption("--require-mysql") and not mysql.is_available():
        raise pytest.UsageError("no MariaDB: install it (mariadb-server-core and mariadb-client-core)")
    if config.getoption("--require-tools") and tools.missing():
        raise pytest.UsageError(f"not here: {', '.join(tools.missing())}; install them")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if not _can_run(item)]
    if left_out:
        items[:] = [item for item in items if item not in set(left_out)]
        config.hook.pytest_deselected(items=left_out)


def _can_run(item: pytest.Item) -> bool:
    if item.get_closest_marker("mysql") is not None and not mysql.is_available():
        return False
    if any(not tools.is_here(str(name)) for mark in item.iter_markers("needs") for name in mark.args):
        return False
    if item.get_closest_marker("postgres") is None:
        return True
    own = "own_cluster" in getattr(item, "fixturenames", ())
    return postgres.binaries() is not None if own else postgres.is_available()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if postgres.binaries() is None:
        which = "Some tests" if postgres.is_available() else "The tests"
        terminalreporter.write_line(f"{which} of PostgreSQL could not run: install it.", yellow=True)
    if not mysql.is_available():
        terminalreporter.write_line("The tests of MariaDB and MySQL could not run: install it.", yellow=True)
    asked = "not deployment" not in terminalreporter.config.getoption("markexpr", "")
    if asked and tools.missing():
        names = ", ".join(tools.missing())
        terminalreporter.write_line(f"Tests that need these could not run: {names}.", yellow=True)
    for name, why in tools.not_allowed().items() if asked else ():
        terminalreporter.write_line(f"Tests that need {name} could not run: {why}.", yellow=True)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of a database of PostgreSQL that tests may fill."""
    with postgres.any_server() as url:
        yield url


@pytest.fixture(scope="session")
def mysql_url() -> Iterator[str]:
    """The URL of a database of MariaDB or MySQL, as a user who may make more."""
    with mysql.any_server() as url:
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
