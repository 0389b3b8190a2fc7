"""The tables of the coordinator's state, as queries see them; they are made by the migrations."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

HEAD_REVISION: Final = "0001"
VERSION_TABLE: Final = "coordinator_revision"

metadata: Final = sa.MetaData()

runs: Final = sa.Table(
    "coordinator_runs",
    metadata,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("study_hash", sa.Text, nullable=False),
    sa.Column("study", sa.Text, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Column("holder", sa.Text),  # token of the process that may write; a new holder replaces it
    sa.Column("holder_note", sa.Text),  # for a person: host and process
    sa.Column("stop", sa.BigInteger, nullable=False),  # 1: end after the round that runs
    sa.Column("roll", sa.Text),
    sa.Column("outcome", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("ended_at", sa.Text),
)
attempts: Final = sa.Table(
    "coordinator_attempts",
    metadata,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("round", sa.BigInteger, primary_key=True),
    sa.Column("attempt", sa.BigInteger, primary_key=True),
    sa.Column("place", sa.BigInteger, nullable=False),  # counts the attempts of a run from zero
    sa.Column("asked_at", sa.Text, nullable=False),
)
rounds: Final = sa.Table(
    "coordinator_rounds",
    metadata,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("place", sa.BigInteger, primary_key=True),  # counts the lines of a run from zero
    sa.Column("round", sa.BigInteger, nullable=False),
    sa.Column("attempt", sa.BigInteger, nullable=False),
    sa.Column("line", sa.Text, nullable=False),
)
models: Final = sa.Table(
    "coordinator_models",
    metadata,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("round", sa.BigInteger, primary_key=True),
    sa.Column("attempt", sa.BigInteger, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),  # SHA-256 of the checkpoint, hex
    sa.Column(
        "weights", sa.Text, nullable=False
    ),  # SHA-256 of the weights in it, as the log of a run says it
    sa.Column("data", sa.LargeBinary),  # the checkpoint; None once it is older than the newest two
)
setups: Final = sa.Table(
    "coordinator_setups",
    metadata,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("setup", sa.BigInteger, nullable=False),
    sa.Column("opened", sa.BigInteger, nullable=False),
)
