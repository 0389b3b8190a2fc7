"""One coordinator at a time for a run: a lock that its holder's death frees at once.

Beside a SQLite file lies an empty file that is locked; PostgreSQL has advisory locks of a session. A process that lost
its session without noticing is kept from writing by the holder's token in the run's row (see ``hold.py``).
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fedgen.coordinator.state.database import Database


# A server notices within a minute that a machine is gone, not after the two hours of most systems.
_ALIVE: Final = ("tcp_keepalives_idle = 30", "tcp_keepalives_interval = 10", "tcp_keepalives_count = 3")
_HELD: Final = (
    "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND ((classid::bigint << 32) | objid::bigint) = :number)"
)


def is_locked(database: Database, run: str) -> bool:
    """Return whether somebody holds a run now.

    Edge cases:
        - Beside SQLite this takes the lock for an instant; :func:`fedgen.coordinator.state.hold.held` tries for longer.
    """
    if database.path is not None:
        with _file(database.path, run) as free:
            return not free
    with database.reading() as connection:
        return bool(connection.execute(sa.text(_HELD), {"number": _number(run)}).scalar())


@contextmanager
def try_lock(database: Database, run: str) -> Iterator[bool]:
    """Hold the lock of a run for the length of the block; yield whether it was free.

    Guarantees:
        - Two processes never hold one run; the system frees it when the holder ends, however it ends.
    """
    if database.path is not None:
        with _file(database.path, run) as free:
            yield free
    else:
        with _advisory(database, run) as free:
            yield free


@contextmanager
def _file(path: Path, run: str) -> Iterator[bool]:
    beside = path.with_name(f"{path.name}.{run[:16]}.lock")
    descriptor = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EACCES, errno.EAGAIN}:
                raise
            yield False
        else:
            yield True
    finally:
        # The file stays: removing it would let a third process lock a new file beside the one still held.
        os.close(descriptor)


def _number(run: str) -> int:
    """Return the number of a run's advisory lock."""
    return int.from_bytes(hashlib.sha256(b"fedgen run " + run.encode()).digest()[:8], "big", signed=True)


@contextmanager
def _advisory(database: Database, run: str) -> Iterator[bool]:
    # A connection of its own: one that went back to the pool would take its lock along.
    engine = sa.create_engine(
        database.engine.url,
        poolclass=sa.NullPool,
        connect_args={"connect_timeout": 10, "keepalives_idle": 30},
    )
    with database.translated():
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    try:
        with database.translated():
            for setting in _ALIVE:
                connection.exec_driver_sql(f"SET {setting}")
            answer = connection.exec_driver_sql(f"SELECT pg_try_advisory_lock({_number(run)})").scalar()
        yield bool(answer)
    finally:
        with suppress(sa.exc.SQLAlchemyError):  # a session that is lost has let go already
            connection.exec_driver_sql("SELECT pg_advisory_unlock_all()")
        connection.close()
        engine.dispose()
