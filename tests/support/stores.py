"""Consent stores on both databases: a place for one, and events to put into it."""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from fedgen.policy.store import ConsentSaid, ConsentStore, RightSaid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
TRAIN = "train_generator"


class Place(NamedTuple):
    """Where a store is."""

    address: str
    key: Path

    @property
    def postgresql(self) -> bool:
        return self.address.startswith("postgresql")

    def open(self, clock: Any = None) -> ConsentStore:
        return ConsentStore.open(self.address, key=self.key, clock=clock)

    def raw(self) -> Any:
        """Return the driver's own connection, past everything the store does; it commits each statement."""
        if self.postgresql:
            import psycopg

            return psycopg.connect(self.address, autocommit=True)
        import sqlite3

        return sqlite3.connect(self.address, isolation_level=None)


class Clock:
    """A clock that says what it is told."""

    def __init__(self, at: datetime = NOON) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at

    def go(self, **by: float) -> None:
        self.at += timedelta(**by)


@contextmanager
def schema_of(url: str, folder: Path) -> Iterator[Place]:
    """Give a schema of its own on a server, and drop it."""
    import psycopg

    name = "store_" + secrets.token_hex(8)
    with psycopg.connect(url, autocommit=True) as raw:
        raw.execute(f"CREATE SCHEMA {name}")
    try:
        yield Place(f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{name}", folder / "pg.key")
    finally:
        with psycopg.connect(url, autocommit=True) as raw:
            raw.execute(f"SET client_min_messages = error; DROP SCHEMA {name} CASCADE")


def consent(subject: str = "p1", action: str = "given", at: datetime = NOON, **more: Any) -> ConsentSaid:
    fields = {"purpose": TRAIN, "effective_at": at, **more}
    return ConsentSaid(subject_id=subject, action=action, **fields)


def right(subject: str = "p1", kind: str = "objection", at: datetime = NOON, **more: Any) -> RightSaid:
    return RightSaid(subject_id=subject, kind=kind, effective_at=at, **more)
