"""The state of a deployed coordinator: the runs it began. Reading it needs no lock."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Self

import sqlalchemy as sa

from fedgen.coordinator.state.database import Database
from fedgen.coordinator.state.lock import is_locked
from fedgen.coordinator.state.tables import attempts, models, rounds, runs
from fedgen.errors import ConfigError

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as the state knows it.

    Attributes:
        run: Its identity, hex.
        study_hash: Identity of its study.
        study: The resolved study, canonical text.
        created_at: When it was begun.
        stop: Whether somebody asked it to end after the round that runs.
        roll: Site to code, of the sites that do not take part; None before anybody was invited.
        outcome: How it ended, or None while it has not.
        error: What ended it, as diagnostics of the error; None without one.
    """

    run: str
    study_hash: str
    study: str
    created_at: datetime
    stop: bool
    roll: Mapping[str, str] | None
    outcome: str | None
    error: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class Asked:
    """An attempt at a round that was written down before its first message left."""

    round: int
    attempt: int
    at: datetime


@dataclass(frozen=True, slots=True)
class Model:
    """A saved model.

    Attributes:
        round: The round that made it.
        attempt: Of that round.
        digest: SHA-256 of ``data``, hex.
        weights: SHA-256 of the weights, hex.
        data: The checkpoint file's bytes, or None where an older one was dropped.
    """

    round: int
    attempt: int
    digest: str
    weights: str
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Earlier:
    """What a run goes on from that began under another identity: a rolled-back folder, as it stands.

    Attributes:
        asked: Round of every attempt so far, in order.
        lines: Round, attempt and text of every line of metrics.jsonl so far, in order.
        model: The last good model, or None.
    """

    asked: tuple[int, ...]
    lines: tuple[tuple[int, int, str], ...]
    model: Model | None


class StateStore:
    """The state; close it, or use it as a context.

    Guarantees:
        - A run is begun once; its study never changes.

    Args:
        address: See :class:`fedgen.coordinator.state.database.Database`.
    """

    def __init__(self, address: str | os.PathLike[str]) -> None:
        self.database: Final = Database(address)

    @classmethod
    def open(cls, address: str | os.PathLike[str]) -> Self:
        """Open the state, and make it if it is not there."""
        return cls(address)

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self, run: str, *, study_hash: str, study: str, earlier: Earlier | None = None) -> None:
        """Begin a run; the same one again changes nothing.

        Args:
            run: Its identity, hex.
            study_hash: Identity of its study.
            study: The resolved study, canonical text.
            earlier: What it goes on from, if that is not the beginning.

        Raises:
            ConfigError: The run is of another study.
        """
        with self.database.writing() as connection:
            there = connection.execute(runs.select().where(runs.c.run == run)).one_or_none()
            if there is not None:
                if there.study_hash != study_hash or there.study != study:
                    raise ConfigError("the run is of another study", where=self.database.name)
                return
            connection.execute(
                runs.insert(),
                [
                    {
                        "run": run,
                        "study_hash": study_hash,
                        "study": study,
                        "created_at": datetime.now(UTC).isoformat(),
                        "stop": 0,
                    }
                ],
            )
            if earlier is not None:
                _go_on(connection, run, earlier)

    def run(self, run: str) -> RunRow | None:
        """Return a run, or None if there is none."""
        with self.database.reading() as connection:
            row = connection.execute(runs.select().where(runs.c.run == run)).one_or_none()
        return None if row is None else _run_of(row)

    def runs(self, study_hash: str | None = None) -> tuple[RunRow, ...]:
        """Return the runs of one study, or all, oldest first."""
        query = runs.select().order_by(runs.c.created_at, runs.c.run)
        if study_hash is not None:
            query = query.where(runs.c.study_hash == study_hash)
        with self.database.reading() as connection:
            return tuple(_run_of(row) for row in connection.execute(query))

    def ask_to_stop(self, run: str, *, stop: bool = True) -> None:
        """Have a run end after the round that runs, or take that back."""
        with self.database.writing() as connection:
            connection.execute(runs.update().where(runs.c.run == run).values(stop=int(stop)))

    def reopen(self, run: str) -> None:
        """Forget how an unfinished run ended, so that it may go on."""
        with self.database.writing() as connection:
            connection.execute(
                runs.update().where(runs.c.run == run).values(outcome=None, error=None, ended_at=None, stop=0)
            )

    def is_held(self, run: str) -> bool:
        """Return whether a coordinator works on a run now."""
        return is_locked(self.database, run)

    def lines(self, run: str, first: int = 0) -> tuple[str, ...]:
        """Return the lines of metrics.jsonl of a run from ``first`` (from zero) on, in order."""
        query = (
            sa.select(rounds.c.line)
            .where(rounds.c.run == run, rounds.c.place >= first)
            .order_by(rounds.c.place)
        )
        with self.database.reading() as connection:
            return tuple(connection.execute(query).scalars())

    def asked(self, run: str, first: int = 0) -> tuple[Asked, ...]:
        """Return the attempts of a run from ``first`` (from zero) on, in order."""
        query = (
            attempts.select()
            .where(attempts.c.run == run, attempts.c.place >= first)
            .order_by(attempts.c.place)
        )
        with self.database.reading() as connection:
            return tuple(
                Asked(row.round, row.attempt, datetime.fromisoformat(row.asked_at))
                for row in connection.execute(query)
            )

    def models(self, run: str, *, after: int = -1, with_data: bool = True) -> tuple[Model, ...]:
        """Return the models of a run that came of later rounds than ``after``, oldest first."""
        columns = [models.c.round, models.c.attempt, models.c.digest, models.c.weights]
        query = (
            sa.select(*columns, *([models.c.data] if with_data else []))
            .where(models.c.run == run, models.c.round > after)
            .order_by(models.c.round)
        )
        with self.database.reading() as connection:
            rows = connection.execute(query).all()
        return tuple(
            Model(row.round, row.attempt, row.digest, row.weights, row.data if with_data else None)
            for row in rows
        )


def _run_of(row: Any) -> RunRow:
    return RunRow(
        run=row.run,
        study_hash=row.study_hash,
        study=row.study,
        created_at=datetime.fromisoformat(row.created_at),
        stop=bool(row.stop),
        roll=None if row.roll is None else json.loads(row.roll),
        outcome=row.outcome,
        error=None if row.error is None else json.loads(row.error),
    )


def _go_on(connection: sa.Connection, run: str, earlier: Earlier) -> None:
    """Write down where a run begins that has rounds behind it."""
    at, seen = datetime.now(UTC).isoformat(), Counter[int]()
    asked = []
    for place, number in enumerate(earlier.asked):
        seen[number] += 1
        asked.append({"run": run, "round": number, "attempt": seen[number], "place": place, "asked_at": at})
    lines = [
        {"run": run, "place": place, "round": number, "attempt": attempt, "line": text}
        for place, (number, attempt, text) in enumerate(earlier.lines)
    ]
    for table, rows in ((attempts, asked), (rounds, lines)):
        if rows:
            connection.execute(table.insert(), rows)
    if earlier.model is not None:
        it = earlier.model
        row = {"round": it.round, "attempt": it.attempt, "digest": it.digest, "weights": it.weights}
        connection.execute(models.insert(), [{"run": run, **row, "data": it.data}])
