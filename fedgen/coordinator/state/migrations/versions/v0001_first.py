"""The first schema: runs, attempts, rounds, models, setups.

The tables are written out here, so that what a released step does never changes; ``tables.py`` says what the newest
schema looks like to queries, and a test compares the two.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "coordinator_runs",
        sa.Column("run", sa.Text, primary_key=True),
        sa.Column("study_hash", sa.Text, nullable=False),
        sa.Column("study", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("holder", sa.Text),
        sa.Column("holder_note", sa.Text),
        sa.Column("stop", sa.BigInteger, nullable=False),
        sa.Column("roll", sa.Text),
        sa.Column("outcome", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("ended_at", sa.Text),
    )
    op.create_table(
        "coordinator_attempts",
        sa.Column("run", sa.Text, sa.ForeignKey("coordinator_runs.run"), primary_key=True),
        sa.Column("round", sa.BigInteger, primary_key=True),
        sa.Column("attempt", sa.BigInteger, primary_key=True),
        sa.Column("place", sa.BigInteger, nullable=False),
        sa.Column("asked_at", sa.Text, nullable=False),
    )
    op.create_table(
        "coordinator_rounds",
        sa.Column("run", sa.Text, sa.ForeignKey("coordinator_runs.run"), primary_key=True),
        sa.Column("place", sa.BigInteger, primary_key=True),
        sa.Column("round", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.BigInteger, nullable=False),
        sa.Column("line", sa.Text, nullable=False),
        sa.UniqueConstraint("run", "round", "attempt"),
    )
    op.create_table(
        "coordinator_models",
        sa.Column("run", sa.Text, sa.ForeignKey("coordinator_runs.run"), primary_key=True),
        sa.Column("round", sa.BigInteger, primary_key=True),
        sa.Column("attempt", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("weights", sa.Text, nullable=False),
        sa.Column("data", sa.LargeBinary),
    )
    op.create_table(
        "coordinator_setups",
        sa.Column("run", sa.Text, sa.ForeignKey("coordinator_runs.run"), primary_key=True),
        sa.Column("setup", sa.BigInteger, nullable=False),
        sa.Column("opened", sa.BigInteger, nullable=False),
    )
    op.create_index("coordinator_runs_of_study", "coordinator_runs", ["study_hash", "created_at"])
