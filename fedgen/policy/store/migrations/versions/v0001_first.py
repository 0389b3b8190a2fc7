"""The first schema: events with two clocks, people and their salts, rounds, artefacts, erasures.

The tables are written out here and nowhere else, so that what a released step does never changes. One text serves
SQLite and PostgreSQL; only triggers differ.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

CONSENT_RESTRICTIVE: Final = "action IN ('refused', 'withdrawn', 'invalidated', 'expired')"
RIGHTS_RESTRICTIVE: Final = (
    "kind IN ('erasure_request', 'legal_hold', 'restriction', 'objection', 'opt_out_sale_share', 'gpc', "
    "'limit_sensitive', 'admt_opt_out')"
)
CONSENT_KNOWN: Final = "action IN ('given', 'renewed', 'refused', 'withdrawn', 'invalidated', 'expired')"
RIGHTS_KNOWN: Final = (
    f"{RIGHTS_RESTRICTIVE} OR kind IN ('erasure_request_cancelled', 'legal_hold_released', 'restriction_lifted', "
    "'objection_rejected', 'opt_in_sale_share', 'limit_sensitive_lifted')"
)
# The earlier of the two clocks for what restricts, the later for what permits (POLICY S1); the same SQL for both
# databases, since one of them says min() where the other says LEAST().
ACTING: Final = (
    "CASE WHEN {restrictive} THEN CASE WHEN effective_at < recorded_at THEN effective_at ELSE recorded_at END "
    "ELSE CASE WHEN effective_at > recorded_at THEN effective_at ELSE recorded_at END END"
)
APPEND_ONLY: Final = (
    "batch",
    "consent_event",
    "rights_event",
    "sync",
    "policy_pack",
    "decision_round",
    "artefact_lineage",
)


def upgrade() -> None:
    """Create everything."""
    metadata = sa.MetaData()
    _log(metadata)
    _people(metadata)
    _evidence(metadata)
    _incoming(metadata)
    metadata.create_all(op.get_bind(), checkfirst=False)
    (_postgresql if op.get_bind().dialect.name == "postgresql" else _sqlite)()


def downgrade() -> None:
    """Refuse: a store that forgets its first step is a store without its events."""
    raise NotImplementedError("the first step of the consent store cannot be undone")


def _number(name: str, *, null: bool = False, key: bool = False) -> sa.Column[int]:
    """Return a column of 64-bit whole numbers; as a key it is SQLite's row number."""
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column(name, kind, nullable=null, primary_key=key, autoincrement=False)


def _flag(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.SmallInteger, sa.CheckConstraint(f"{name} IN (0, 1)"), nullable=False)


def _text(name: str, *, null: bool = False, unique: bool = False, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=null, unique=unique, primary_key=key)


def _bytes(name: str, *, null: bool = False, key: bool = False) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=null, primary_key=key)


def _clocks(restrictive: str) -> list[sa.Column[int]]:
    """Return the two clocks and what the database computes from them."""
    return [
        _number("effective_at"),
        _number("recorded_at"),
        sa.Column(
            "restrictive",
            sa.SmallInteger,
            sa.Computed(f"CASE WHEN {restrictive} THEN 1 ELSE 0 END", persisted=True),
        ),
        sa.Column(
            "acting_at", sa.BigInteger, sa.Computed(ACTING.format(restrictive=restrictive), persisted=True)
        ),
    ]


def _log(metadata: sa.MetaData) -> None:
    """Declare what is chained: batches of consent and rights events."""
    sa.Table(
        "batch",
        metadata,
        _number("no", key=True),
        _bytes("prev"),
        _bytes("digest"),
        _number("recorded_at"),
        _number("consent_upto"),
        _number("rights_upto"),
        _text("source"),
    )
    consent = sa.Table(
        "consent_event",
        metadata,
        _number("seq", key=True),
        _text("event_id", unique=True),
        _bytes("subject_ref"),
        _text("purpose"),
        sa.Column("action", sa.Text, sa.CheckConstraint(CONSENT_KNOWN), nullable=False),
        _flag("explicit"),
        _text("given_by"),
        _text("notice_id", null=True),
        _number("notice_version", null=True),
        _text("method", null=True),
        _number("valid_until", null=True),
        _text("source"),
        _bytes("evidence_sha256", null=True),
        *_clocks(CONSENT_RESTRICTIVE),
    )
    rights = sa.Table(
        "rights_event",
        metadata,
        _number("seq", key=True),
        _text("event_id", unique=True),
        _bytes("subject_ref"),
        sa.Column("kind", sa.Text, sa.CheckConstraint(RIGHTS_KNOWN), nullable=False),
        _text("scope", null=True),
        _text("exception", null=True),
        _text("given_by", null=True),
        _flag("after_conflict_notice"),
        _text("method", null=True),
        _number("verified_at", null=True),
        _text("source"),
        _bytes("evidence_sha256", null=True),
        *_clocks(RIGHTS_RESTRICTIVE),
    )
    for table, what in ((consent, consent.c.purpose), (rights, rights.c.kind)):
        c = table.c
        sa.Index(
            f"{table.name}_state", c.subject_ref, what, c.acting_at.desc(), c.restrictive.desc(), c.seq.desc()
        )
        # BRIN holds one range a block: recorded_at only ever grows, so that is all it takes.
        sa.Index(f"{table.name}_recorded", c.recorded_at, postgresql_using="brin")


def _people(metadata: sa.MetaData) -> None:
    """Declare what an erasure deletes, and what it keeps."""
    sa.Table(
        "subject_salt",
        metadata,
        _number("seq", key=True),
        sa.Column("subject_ref", sa.LargeBinary, nullable=False, unique=True),
        _text("subject_id", unique=True),
        _bytes("salt"),
    )
    sa.Table("subject_alias", metadata, _text("alias", key=True), _bytes("subject_ref"))
    profile = sa.Table(
        "subject_profile",
        metadata,
        _number("seq", key=True),
        _bytes("subject_ref"),
        _text("birth_date", null=True),
        _text("residence", null=True),
        _text("timezone", null=True),
        _flag("corrects"),
        _number("recorded_at"),
    )
    record = sa.Table(
        "record_meta",
        metadata,
        _number("seq", key=True),
        _text("record_id"),
        _bytes("subject_ref", null=True),
        _text("type"),
        _number("collected_at", null=True),
        _number("last_activity_at", null=True),
        _text("retention_rule", null=True),
        _text("legal_basis", null=True),
        _text("collected_for"),
        _text("categories"),
        _text("special_categories"),
        _text("art9_condition", null=True),
        _flag("sensitive_pi"),
        _text("deidentified", null=True),
        _flag("inaccurate"),
        _text("compatibility_ref", null=True),
        _text("criminal_law_ref", null=True),
        _number("recorded_at"),
    )
    sa.Index("subject_profile_subject", profile.c.subject_ref)
    sa.Index("record_meta_subject", record.c.subject_ref)
    sa.Index("record_meta_record", record.c.record_id, record.c.seq)
    suppression = sa.Table(
        "suppression",
        metadata,
        _number("seq", key=True),
        _text("tag"),
        _text("reason_code"),
        _number("erased_at"),
        _number("people_upto"),
        _number("lifted_at", null=True),
    )
    standing = sa.text("lifted_at IS NULL")
    sa.Index(
        "suppression_tag", suppression.c.tag, unique=True, sqlite_where=standing, postgresql_where=standing
    )


def _evidence(metadata: sa.MetaData) -> None:
    """Declare packs, rounds, artefacts and what became of an erasure."""
    sa.Table(
        "policy_pack",
        metadata,
        _text("pack_id", key=True),
        _text("version", key=True),
        _number("in_force_from", null=True),
        _number("in_force_to", null=True),
        _text("sha256"),
        _text("body"),
        _number("recorded_at"),
    )
    sa.Table(
        "decision_round",
        metadata,
        _number("seq", key=True),
        _text("run_uid"),
        _number("round"),
        _number("attempt"),
        _text("client_ref"),
        _number("known_at"),
        _number("store_head_seq"),
        _text("mask_sha256"),
        _text("body"),
        _number("recorded_at"),
        sa.UniqueConstraint("run_uid", "round", "attempt", "client_ref"),
    )
    sa.Table(
        "artefact",
        metadata,
        _text("sha256", key=True),
        _text("kind"),
        _number("created_at"),
        _number("retain_until", null=True),
        _text("anonymity_ref", null=True),
        _text("state"),
    )
    sa.Table(
        "artefact_lineage",
        metadata,
        _number("seq", key=True),
        _text("child"),
        _text("parent_artefact", null=True),
        _text("round_uid", null=True),
    )
    sa.Table(
        "erasure_task",
        metadata,
        _number("seq", key=True),
        _text("target"),
        _text("reason_code"),
        _number("opened"),
        _number("due", null=True),
        _number("done", null=True),
        _text("method", null=True),
        _text("evidence", null=True),
    )


def _incoming(metadata: sa.MetaData) -> None:
    """Declare how far each import got, what it could not take, and when the store was last up to date."""
    sa.Table("sync", metadata, _number("seq", key=True), _number("synced_at"), _text("source"))
    sa.Table(
        "import_job",
        metadata,
        _text("job", key=True),
        _text("source"),
        _number("rows_done"),
        _number("added"),
        _number("repeated"),
        _number("suppressed"),
        _number("quarantined"),
        _number("finished_at", null=True),
        _number("settled_at", null=True),
    )
    sa.Table(
        "quarantine",
        metadata,
        _text("job", key=True),
        _number("row", key=True),
        _text("column_name", key=True),
        _text("reason"),
    )
    sa.Table(
        "store_meta",
        metadata,
        sa.Column("id", sa.Integer, sa.CheckConstraint("id = 1"), primary_key=True, autoincrement=False),
        _text("store_uid"),
        _text("key_check"),
    )


# What a change may touch: nothing that was said, only what became of it, and once.
CHANGES: Final = {
    "artefact": "NEW.sha256 <> OLD.sha256 OR NEW.kind <> OLD.kind OR NEW.created_at <> OLD.created_at",
    "suppression": (
        "OLD.lifted_at IS NOT NULL OR NEW.tag <> OLD.tag OR NEW.erased_at <> OLD.erased_at OR NEW.seq <> OLD.seq "
        "OR NEW.reason_code <> OLD.reason_code"
    ),
    "erasure_task": (
        "OLD.done IS NOT NULL OR NEW.target <> OLD.target OR NEW.opened <> OLD.opened OR NEW.seq <> OLD.seq "
        "OR NEW.reason_code <> OLD.reason_code"
    ),
    "subject_profile": "1 = 1",
    "record_meta": "1 = 1",
    "store_meta": "1 = 1",
}
NEVER_LEAVE: Final = (
    *APPEND_ONLY,
    "artefact",
    "suppression",
    "erasure_task",
    "store_meta",
    "import_job",
    "quarantine",
)
# An event comes after all others, in both orders; a batch takes up where the last one ended.
FOLLOWS: Final = {
    "consent_event": (
        "NEW.seq <= COALESCE((SELECT max(seq) FROM consent_event), 0) OR NEW.recorded_at <= "
        "COALESCE((SELECT recorded_at FROM batch ORDER BY no DESC LIMIT 1), NEW.recorded_at - 1)"
    ),
    "rights_event": (
        "NEW.seq <= COALESCE((SELECT max(seq) FROM rights_event), 0) OR NEW.recorded_at <= "
        "COALESCE((SELECT recorded_at FROM batch ORDER BY no DESC LIMIT 1), NEW.recorded_at - 1)"
    ),
    "batch": (
        "NEW.no <> COALESCE((SELECT max(no) FROM batch), 0) + 1 OR (NEW.no > 1 AND NOT EXISTS (SELECT 1 FROM batch "
        "WHERE no = NEW.no - 1 AND digest = NEW.prev AND recorded_at < NEW.recorded_at))"
    ),
}


def _sqlite() -> None:
    """Guard the tables of a SQLite file."""
    refuse = "BEGIN SELECT RAISE(ABORT, 'append-only'); END"
    for table in APPEND_ONLY:
        op.execute(f"CREATE TRIGGER {table}_never_changes BEFORE UPDATE ON {table} {refuse}")
    for table, wrong in CHANGES.items():
        op.execute(f"CREATE TRIGGER {table}_keeps BEFORE UPDATE ON {table} WHEN {wrong} {refuse}")
    for table in NEVER_LEAVE:
        op.execute(f"CREATE TRIGGER {table}_never_leaves BEFORE DELETE ON {table} {refuse}")
    for table, wrong in FOLLOWS.items():
        if table != "batch":  # replacing a row deletes it without the delete trigger
            wrong += f" OR EXISTS (SELECT 1 FROM {table} WHERE event_id = NEW.event_id)"  # noqa: PLW2901, S608 -- one more reason
        op.execute(
            f"CREATE TRIGGER {table}_follows BEFORE INSERT ON {table} WHEN {wrong} "
            "BEGIN SELECT RAISE(ABORT, 'out-of-order'); END"
        )


def _postgresql() -> None:
    """Guard the tables of a PostgreSQL schema."""
    op.execute(
        "CREATE FUNCTION fedgen_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'append-only'; END $$"
    )
    for table in APPEND_ONLY:
        op.execute(_trigger(f"{table}_never_changes", f"BEFORE UPDATE ON {table} FOR EACH ROW"))
    for table, wrong in CHANGES.items():
        op.execute(_trigger(f"{table}_keeps", f"BEFORE UPDATE ON {table} FOR EACH ROW WHEN ({wrong})"))
    for table in NEVER_LEAVE:
        op.execute(_trigger(f"{table}_never_leaves", f"BEFORE DELETE ON {table} FOR EACH ROW"))
        op.execute(_trigger(f"{table}_never_empties", f"BEFORE TRUNCATE ON {table} FOR EACH STATEMENT"))
    for table, wrong in FOLLOWS.items():  # a WHEN of PostgreSQL may not ask another table
        op.execute(
            f"CREATE FUNCTION fedgen_{table}_follows() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF {wrong} THEN RAISE EXCEPTION 'out-of-order'; END IF; RETURN NEW; END $$"
        )
        op.execute(
            f"CREATE TRIGGER {table}_follows BEFORE INSERT ON {table} FOR EACH ROW "
            f"EXECUTE FUNCTION fedgen_{table}_follows()"
        )


def _trigger(name: str, when: str) -> str:
    return f"CREATE TRIGGER {name} {when} EXECUTE FUNCTION fedgen_append_only()"
