"""Taking events in: each once, none of a person who was erased, none that says something else under a known id."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fedgen.policy.store import chain
from fedgen.policy.store.database import among, driver_rows, listed
from fedgen.policy.store.people import admit, look_up
from fedgen.policy.store.tables import SAID

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sqlalchemy as sa

    from fedgen.policy.store.secret import Secret

_ID: Final = 0  # both kinds begin with the event's id and the person
_WHO: Final = 1


@dataclass(slots=True)
class Taken:
    """What became of what was brought.

    Attributes:
        added: Events that are new.
        repeated: Events that were there with the same content.
        suppressed: Events of people who were erased; nothing of them is kept.
        conflicts: Places, by table, of events whose id stands for something else.
        head: Where the store stands now.
    """

    head: chain.Head
    added: int = 0
    repeated: int = 0
    suppressed: int = 0
    conflicts: dict[str, list[int]] = field(default_factory=dict)


def take(
    connection: sa.Connection,
    secret: Secret,
    at: int,
    source: str,
    consent: Sequence[tuple[Any, ...]],
    rights: Sequence[tuple[Any, ...]],
) -> Taken:
    """Append what is new, in one batch, inside the caller's transaction.

    Args:
        connection: Holds the write lock.
        secret: Of the store.
        at: Now, by the store's clock; the batch is recorded then, or just after the last one.
        source: Who brings it.
        consent: In the order of ``CONSENT_SAID``, people by name.
        rights: In the order of ``RIGHTS_SAID``, people by name.
    """
    last = chain.head(connection)
    taken = Taken(last)
    known = look_up(connection, secret, {row[_WHO] for rows in (consent, rights) for row in rows})
    refs = dict(known.refs)
    fresh: dict[str, list[tuple[Any, ...]]] = {}
    for table, rows in (("consent_event", consent), ("rights_event", rights)):
        fresh[table] = _fresh(connection, table, rows, refs, known.erased, taken)
    refs.update(
        admit(connection, (row[_WHO] for rows in fresh.values() for row in rows if row[_WHO] not in refs))
    )
    named = {
        table: [(row[_ID], refs[row[_WHO]], *row[_WHO + 1 :]) for row in rows]
        for table, rows in fresh.items()
    }
    taken.added = sum(map(len, named.values()))
    if taken.added:
        when = max(at, last.recorded_at + 1)  # a clock that went back makes nothing earlier
        taken.head = chain.append(
            connection, last, when, source, named["consent_event"], named["rights_event"]
        )
    return taken


def _fresh(
    connection: sa.Connection,
    table: str,
    rows: Sequence[tuple[Any, ...]],
    refs: dict[str, bytes],
    erased: dict[str, int],
    taken: Taken,
) -> list[tuple[Any, ...]]:
    """Return the rows that are new, and count the others."""
    ids = [row[_ID] for row in rows]
    there = _there(connection, table, ids)
    if not there and len(set(ids)) == len(ids) and not any(row[_WHO] in erased for row in rows):
        return list(rows)  # all are new, as in almost every block of a first import
    seen: dict[str, tuple[Any, ...]] = {}
    for place, row in enumerate(rows):
        if row[_WHO] in erased:
            taken.suppressed += 1
            continue
        if (before := there.get(row[_ID])) is not None:
            same = before == (refs.get(row[_WHO]), *row[_WHO + 1 :])
        elif (twin := seen.get(row[_ID])) is not None:
            same = twin == row
        else:
            seen[row[_ID]] = row
            continue
        if same:
            taken.repeated += 1
        else:
            taken.conflicts.setdefault(table, []).append(place)
    return list(seen.values())


def _there(connection: sa.Connection, table: str, ids: list[str]) -> dict[str, tuple[Any, ...]]:
    """Return the content of events that are there already, by id."""
    if not ids:
        return {}
    columns = ", ".join(SAID[table])
    query = f"SELECT {columns} FROM {table} WHERE {among(connection, 'event_id')}"  # noqa: S608 -- names are constants
    return {row[0]: tuple(row[1:]) for row in driver_rows(connection, query, (listed(connection, ids),))}
