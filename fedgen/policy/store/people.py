"""Who a person is in the store: a pseudonym under a salt of their own, or a tombstone that keeps them out."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, NamedTuple

from fedgen.policy.store.database import among, driver_rows, insert_many, listed
from fedgen.policy.store.secret import SALT_BYTES, subject_ref

if TYPE_CHECKING:
    from collections.abc import Iterable

    import sqlalchemy as sa

    from fedgen.policy.store.secret import Secret


class Known(NamedTuple):
    """What the store knows of identifiers.

    Attributes:
        refs: Identifiers, or aliases, that stand for one person.
        erased: Identifiers under a tombstone, with the instant of the erasure.
    """

    refs: dict[str, bytes]
    erased: dict[str, int]


def look_up(connection: sa.Connection, secret: Secret, names: Iterable[str]) -> Known:
    """Return who of ``names`` is known, and who was erased; the others are strangers."""
    wanted = list(names)
    refs: dict[str, bytes] = {}
    for table, column in (("subject_alias", "alias"), ("subject_salt", "subject_id")):
        query = f"SELECT {column}, subject_ref FROM {table} WHERE {among(connection, column)}"  # noqa: S608 -- names are constants
        refs.update(
            (name, bytes(ref)) for name, ref in driver_rows(connection, query, (listed(connection, wanted),))
        )
    return Known(refs, tombstones(connection, secret, (name for name in wanted if name not in refs)))


def tombstones(connection: sa.Connection, secret: Secret, names: Iterable[str]) -> dict[str, int]:
    """Return who of ``names`` was erased, and when; it costs nothing while nobody was."""
    if not driver_rows(connection, "SELECT 1 FROM suppression WHERE lifted_at IS NULL LIMIT 1", ()):
        return {}
    tags = {secret.tag(name): name for name in names}
    query = f"SELECT tag, erased_at FROM suppression WHERE lifted_at IS NULL AND {among(connection, 'tag')}"  # noqa: S608 -- names are constants
    return {
        tags[tag]: int(at) for tag, at in driver_rows(connection, query, (listed(connection, list(tags)),))
    }


def admit(connection: sa.Connection, names: Iterable[str]) -> dict[str, bytes]:
    """Give strangers a salt and a pseudonym."""
    new = sorted(set(names))
    if not new:
        return {}
    last = last_number(connection)
    noise = secrets.token_bytes(SALT_BYTES * len(new))
    salts = [noise[i : i + SALT_BYTES] for i in range(0, len(noise), SALT_BYTES)]
    refs = {name: subject_ref(salt, name) for name, salt in zip(new, salts, strict=True)}
    rows = [
        (last + n, refs[name], name, salt) for n, (name, salt) in enumerate(zip(new, salts, strict=True), 1)
    ]
    insert_many(connection, "subject_salt", ("seq", "subject_ref", "subject_id", "salt"), rows)
    return refs


def last_number(connection: sa.Connection) -> int:
    """Return the greatest number that was ever given, also to somebody who was erased: none is given twice."""
    query = (
        "SELECT (SELECT COALESCE(max(seq), 0) FROM subject_salt), "
        "(SELECT COALESCE(max(people_upto), 0) FROM suppression)"
    )
    return max(map(int, driver_rows(connection, query, ())[0]))
