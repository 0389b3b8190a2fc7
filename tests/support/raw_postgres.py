"""What somebody with the database's own tools can do to a ledger in PostgreSQL."""

from __future__ import annotations

from typing import Any

import psycopg

from fedgen.ledger import _postgres_guards
from fedgen.ledger.address import Server


def connected(place: str) -> psycopg.Connection[Any]:
    return psycopg.connect(Server.parse(place).conninfo, autocommit=True)


def do(place: str, *statements: str, unguarded: bool = False) -> list[Any]:
    """Do something to the tables directly; unguarded, with the triggers switched off meanwhile."""
    schema = Server.parse(place).schema
    switches = [f"ALTER TABLE {schema}.{table} {{}} TRIGGER USER" for table in ("entries", "meta")]
    always = [
        f"ALTER TABLE {schema}.{table} ENABLE ALWAYS TRIGGER {name}"
        for name, (table, _, _) in _postgres_guards.TRIGGERS.items()
    ]
    with connected(place) as raw:
        answer: Any = None
        for statement in (
            *(switch.format("DISABLE") for switch in switches if unguarded),
            *(statement.format(s=schema) for statement in statements),
        ):
            answer = raw.execute(statement)
        found = answer.fetchall() if answer is not None and answer.description else []
        for statement in always if unguarded else ():
            raw.execute(statement)
    return found
