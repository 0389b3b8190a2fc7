"""A SuperLink whose database fails it while it runs, and what that database says of who lives."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ALIVE_UNTIL = {"node": "online_until", "task": "active_until"}


@contextmanager
def failing(database: Path) -> Iterator[None]:
    """Let the SuperLink answer what nodes ask for with a 500, for the length of the block."""
    with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as raw:
        raw.execute("ALTER TABLE message_ins RENAME TO message_ins_away")
        try:
            yield
        finally:
            raw.execute("ALTER TABLE message_ins_away RENAME TO message_ins")


@contextmanager
def deaf(database: Path) -> Iterator[None]:
    """Let the SuperLink answer heartbeats, and nothing else, with a 500, for the length of the block."""
    with closing(sqlite3.connect(database, timeout=60, isolation_level=None)) as raw:
        for table, column in _ALIVE_UNTIL.items():
            raw.execute(
                f"CREATE TRIGGER deaf_{table} BEFORE UPDATE OF {column} ON {table}"
                f" WHEN NEW.{column} > OLD.{column} BEGIN SELECT RAISE(FAIL, 'no heartbeat'); END"
            )
        try:
            yield
        finally:
            for table in _ALIVE_UNTIL:
                raw.execute(f"DROP TRIGGER deaf_{table}")


def lives(database: Path) -> dict[int, float]:
    """Return how many seconds from now Flower takes each node, and each ServerApp at work, for alive."""
    nodes = "SELECT node_id, COALESCE(online_until, 0) FROM node WHERE status != 'unregistered'"
    tasks = "SELECT task_id, (julianday(active_until) - 2440587.5) * 86400 FROM task"
    tasks += " WHERE running_at IS NOT NULL AND finished_at IS NULL"
    now = time.time()
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as raw:
        return {number: until - now for text in (nodes, tasks) for number, until in raw.execute(text)}
