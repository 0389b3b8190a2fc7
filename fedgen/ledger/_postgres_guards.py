"""What keeps a ledger's tables in PostgreSQL append-only, and how one sees that it is still in place.

Whoever owns the tables can take the triggers away; the hash chain shows what was done then, and a check says that they
are missing. They stop everybody else, and every accident.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Name of the trigger: table, when, what it does. A trigger fires whatever the session's replication role is.
TRIGGERS: Final = {
    "entries_never_change": (
        "entries",
        "BEFORE UPDATE OR DELETE OR TRUNCATE ON {schema}.entries FOR EACH STATEMENT",
        "BEGIN RAISE EXCEPTION 'append-only'; END",
    ),
    "entries_follow_the_head": (
        "entries",
        "BEFORE INSERT ON {schema}.entries FOR EACH ROW",
        (
            "BEGIN IF NOT EXISTS (SELECT 1 FROM {schema}.meta WHERE size = NEW.idx AND head = NEW.prev) "
            "THEN RAISE EXCEPTION 'not-at-head'; END IF; RETURN NEW; END"
        ),
    ),
    "entries_move_the_head": (
        "entries",
        "AFTER INSERT ON {schema}.entries FOR EACH ROW",
        (
            "BEGIN UPDATE {schema}.meta SET size = NEW.idx + 1, head = NEW.hash "
            "WHERE size = NEW.idx AND head = NEW.prev; "
            "IF NOT FOUND THEN RAISE EXCEPTION 'not-at-head'; END IF; RETURN NULL; END"
        ),
    ),
    "meta_never_leaves": (
        "meta",
        "BEFORE DELETE OR TRUNCATE ON {schema}.meta FOR EACH STATEMENT",
        "BEGIN RAISE EXCEPTION 'append-only'; END",
    ),
    "meta_only_follows": (
        "meta",
        "BEFORE UPDATE ON {schema}.meta FOR EACH ROW",
        (
            "BEGIN IF NEW.id <> OLD.id OR NEW.size <> OLD.size + 1 OR NEW.note <> OLD.note OR NOT EXISTS "
            "(SELECT 1 FROM {schema}.entries WHERE idx = OLD.size AND hash = NEW.head AND prev = OLD.head) "
            "THEN RAISE EXCEPTION 'append-only'; END IF; RETURN NEW; END"
        ),
    ),
}
_TYPE_BITS: Final = {  # pg_trigger.tgtype, see src/include/catalog/pg_trigger.h
    "FOR EACH ROW": 1,
    "BEFORE": 2,
    "INSERT": 4,
    "DELETE": 8,
    "UPDATE": 16,
    "TRUNCATE": 32,
}
RELATIONS: Final = (
    "SELECT c.relname, c.relkind = 'r' AND c.relpersistence = 'p' AND NOT c.relhasrules AND NOT c.relrowsecurity "
    "AND NOT c.relhassubclass FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
    "WHERE n.nspname = %s AND c.relkind NOT IN ('i', 'I', 't')"
)
FOUND: Final = (
    "SELECT c.relname, t.tgname, t.tgtype, t.tgenabled, t.tgqual IS NULL, p.prosrc FROM pg_catalog.pg_trigger t "
    "JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
    "JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid WHERE n.nspname = %s AND NOT t.tgisinternal"
)


def statements(schema: str) -> list[str]:
    """Return what makes the triggers of a schema."""
    made = []
    for name, (table, when, body) in TRIGGERS.items():
        text = body.format(schema=schema)
        made += [
            f"CREATE FUNCTION {schema}.{name}() RETURNS trigger LANGUAGE plpgsql AS $fedgen${text}$fedgen$",
            f"ALTER FUNCTION {schema}.{name}() SET search_path = pg_catalog",
            f"CREATE TRIGGER {name} {when.format(schema=schema)} EXECUTE FUNCTION {schema}.{name}()",
            f"ALTER TABLE {schema}.{table} ENABLE ALWAYS TRIGGER {name}",
        ]
    return made


def are_ours(schema: str, found: Iterable[Sequence[object]]) -> bool:
    """Return whether the rows that :data:`FOUND` gives are our triggers, all of them and no others."""
    wanted = {
        (table, name, _type_of(when), "A", True, body.format(schema=schema))
        for name, (table, when, body) in TRIGGERS.items()
    }
    return {tuple(map(_text, row)) for row in found} == wanted


def _type_of(when: str) -> int:
    """Return how the catalogue says when a trigger fires."""
    return sum(bit for word, bit in _TYPE_BITS.items() if word in when)


def _text(value: object) -> object:
    """Return a value of the catalogue as plain text or number; a one-character type comes as bytes."""
    return value.decode() if isinstance(value, bytes) else value
