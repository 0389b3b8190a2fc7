"""A run in the hands of one coordinator: what it writes down, when, and what a killed one leaves.

Before a round is asked, its attempt is on the disk. When it is finished, its line and its model come into the state
in one transaction. So whoever goes on after a kill finds either the round, whole, or a round that was asked and is
asked again under an attempt nobody used: an answer to the first one is refused by its number.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from fedgen.coordinator.progress import Progress, progress_of, tensors_of
from fedgen.coordinator.state.lock import try_lock
from fedgen.coordinator.state.tables import attempts, models, rounds, runs, setups
from fedgen.crypto.digest import sha256_hex
from fedgen.errors import Code, ConfigError, IntegrityError, Interrupted
from fedgen.models.state import dump_tensors, parse_tensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from fedgen.coordinator.state.store import StateStore
    from fedgen.runs.journal import RoundLine

_PATIENCE_S: Final = 1.0
_LOOK_S: Final = 0.02
KEPT: Final = 2  # models whose data stay: the newest, and the one before it


@contextmanager
def held(
    store: StateStore, run: str, *, header: Mapping[str, str], born: Callable[[], Mapping[str, str]] = dict
) -> Iterator[HeldRun]:
    """Hold a run for the length of the block.

    Args:
        store: The state.
        run: Identity of the run, hex; it was begun.
        header: What must match on restore: study hash, model.
        born: What a checkpoint says of its birth beside that.

    Raises:
        ConfigError: Another coordinator holds the run, or it was never begun.
    """
    with ExitStack() as stack:
        deadline = time.monotonic() + _PATIENCE_S
        # Who only looks whether a run is held may hold its lock for an instant.
        while not stack.enter_context(try_lock(store.database, run)):
            stack.close()
            if time.monotonic() < deadline:
                time.sleep(_LOOK_S)
                continue
            raise ConfigError(
                "another coordinator works on this run",
                where=store.database.name,
                hint="wait for it, or stop it",
            )
        token = secrets.token_hex(16)
        note = f"{socket.gethostname()} process {os.getpid()}"
        with store.database.writing() as connection:
            done = connection.execute(
                runs.update().where(runs.c.run == run).values(holder=token, holder_note=note)
            )
        if done.rowcount != 1:
            raise ConfigError("there is no such run", where=store.database.name)
        yield HeldRun(store, run, token, header, born)


class HeldRun:
    """What one coordinator knows and writes of its run: it stands in for a run folder's progress and setups.

    Guarantees:
        - A crash at any instant leaves the last saved model readable, and its round known.
        - A round is saved once, with its line, in one transaction; an earlier or the same round is refused.
        - An attempt number is never given twice, nor a setup.
        - Who no longer holds the run writes nothing.

    Args:
        store: The state.
        run: Identity of the run.
        token: What the state says of who holds it.
        header: See :func:`held`.
        born: See :func:`held`.
    """

    def __init__(
        self,
        store: StateStore,
        run: str,
        token: str,
        header: Mapping[str, str],
        born: Callable[[], Mapping[str, str]],
    ) -> None:
        self._store, self._run, self._token = store, run, token
        self._header, self._born = dict(header), born
        self._line: RoundLine | None = None
        self._attempt = 0
        with store.database.reading() as connection:
            self.asked = _count(connection, attempts, run)

    # -- progress -----------------------------------------------------------------------------------

    def latest(self) -> Progress | None:
        """Return the progress after the last saved round, or None.

        Raises:
            IntegrityError: The newest model is damaged or of another study, model or round. An older one is not
                taken for it: its round would be counted twice.
        """
        with self._store.database.reading() as connection:
            row = connection.execute(
                models.select().where(models.c.run == self._run).order_by(models.c.round.desc()).limit(1)
            ).one_or_none()
        if row is None:
            return None
        where = f"{self._store.database.name} round {row.round}"
        if row.data is None or sha256_hex(row.data) != row.digest:
            raise IntegrityError(
                "the last good model is damaged", code=Code.STORAGE, where=where, hint="restore the state"
            )
        tensors, header = parse_tensors(row.data, where=where)
        for name, value in (*self._header.items(), ("round", str(row.round))):
            if header.get(name) != value:
                raise IntegrityError(
                    f"a model of another {name.replace('_', ' ')}", code=Code.STALE_ROUND, where=where
                )
        return progress_of(tensors, row.round)

    def next_attempt(self, number: int) -> int:
        """Return a number no earlier attempt at round ``number`` had, one for the first, already on disk.

        Raises:
            Interrupted: Somebody asked the run to stop.
            IntegrityError: The run is in other hands.
        """
        with self._writing() as connection:
            self._write_line(connection)
            stop = connection.execute(sa.select(runs.c.stop).where(runs.c.run == self._run)).scalar_one()
            if not stop:
                self._attempt = 1 + _attempts_at(connection, self._run, number)
                row = {
                    "run": self._run,
                    "round": number,
                    "attempt": self._attempt,
                    "place": _count(connection, attempts, self._run),
                    "asked_at": datetime.now(UTC).isoformat(),
                }
                connection.execute(attempts.insert(), [row])
        self._line = None
        if stop:
            raise Interrupted("stopped; every finished round is saved", hint="go on with --resume")
        self.asked += 1
        return self._attempt

    def attempts(self, number: int) -> int:
        """Return the newest attempt at round ``number``, at least one."""
        with self._store.database.reading() as connection:
            return max(1, _attempts_at(connection, self._run, number))

    def record(self, line: RoundLine) -> None:
        """Keep the line of a round that was closed until its model is saved, or until it is known that none will be."""
        self._line = line

    def save(self, progress: Progress) -> None:
        """Write down a finished round: its line and its model, in one transaction.

        Raises:
            IntegrityError: The round was saved before, or the run is in other hands.
        """
        header = {**self._born(), **self._header, "round": str(progress.round)}
        data = dump_tensors(tensors_of(progress), header)
        weights = progress.weights.numpy().astype("<f4", copy=False)
        with self._writing() as connection:
            last = connection.execute(
                sa.select(sa.func.max(models.c.round)).where(models.c.run == self._run)
            ).scalar()
            if last is not None and last >= progress.round:
                raise IntegrityError(
                    "a round that was saved before", code=Code.STALE_ROUND, where=self._store.database.name
                )
            self._write_line(connection)
            row = {
                "run": self._run,
                "round": progress.round,
                "attempt": self._attempt if self._line is None else self._line.attempt,
                "digest": sha256_hex(data),
                "weights": sha256_hex(weights.tobytes()),
                "data": data,
            }
            connection.execute(models.insert(), [row])
            kept = (
                sa.select(models.c.round)
                .where(models.c.run == self._run)
                .order_by(models.c.round.desc())
                .limit(KEPT)
            )
            connection.execute(
                models.update()
                .where(models.c.run == self._run, models.c.round.not_in(kept.scalar_subquery()))
                .values(data=None)
            )
        self._line = None

    # -- secure aggregation -------------------------------------------------------------------------

    def next_setup(self) -> int:
        """Return a setup number that was never used, one for the first, having written down that it is used now."""
        with self._writing() as connection:
            setup, opened = self._setup(connection)
            self._write_setup(connection, setup + 1, opened)
        return setup + 1

    def opening(self, round_number: int) -> None:
        """Write down that sites are asked to open this round."""
        with self._writing() as connection:
            setup, opened = self._setup(connection)
            self._write_setup(connection, setup, max(opened, round_number))

    def opened(self) -> int:
        """Return the last round that sites were asked to open; zero if none."""
        with self._store.database.reading() as connection:
            return self._setup(connection)[1]

    # -- who takes part, and the end ----------------------------------------------------------------

    def note_roll(self, absent: Mapping[str, str]) -> None:
        """Write down which sites do not take part, with their codes, for whoever watches."""
        text = json.dumps(dict(absent), sort_keys=True)
        with self._writing() as connection:
            connection.execute(runs.update().where(runs.c.run == self._run).values(roll=text))

    def finish(self, outcome: str, error: Mapping[str, Any] | None = None) -> None:
        """Write down how this coordinator's part of the run ended.

        Args:
            outcome: As in run.json.
            error: Diagnostics of what ended it, if it was an error.
        """
        with self._writing() as connection:
            self._write_line(connection)
            connection.execute(
                runs.update()
                .where(runs.c.run == self._run)
                .values(
                    outcome=outcome,
                    error=None if error is None else json.dumps(dict(error)),
                    ended_at=datetime.now(UTC).isoformat(),
                )
            )
        self._line = None

    # -- inside -------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        """Write as the one who holds the run, or not at all."""
        with self._store.database.writing() as connection:
            # An update, so that on PostgreSQL the row is locked until the end of the transaction.
            mine = connection.execute(
                runs.update()
                .where(runs.c.run == self._run, runs.c.holder == self._token)
                .values(holder=self._token)
            )
            if mine.rowcount != 1:
                raise IntegrityError(
                    "another coordinator took this run over",
                    code=Code.STALE_ROUND,
                    where=self._store.database.name,
                    hint="this one has stopped; nothing it did was written",
                )
            yield connection

    def _write_line(self, connection: sa.Connection) -> None:
        if self._line is None:
            return
        row = {
            "run": self._run,
            "place": _count(connection, rounds, self._run),
            "round": self._line.round,
            "attempt": self._line.attempt,
            "line": json.dumps(self._line.model_dump(mode="json", exclude_none=True)),
        }
        connection.execute(rounds.insert(), [row])

    def _setup(self, connection: sa.Connection) -> tuple[int, int]:
        row = connection.execute(setups.select().where(setups.c.run == self._run)).one_or_none()
        return (0, 0) if row is None else (row.setup, row.opened)

    def _write_setup(self, connection: sa.Connection, setup: int, opened: int) -> None:
        connection.execute(setups.delete().where(setups.c.run == self._run))
        connection.execute(setups.insert(), [{"run": self._run, "setup": setup, "opened": opened}])


def _attempts_at(connection: sa.Connection, run: str, number: int) -> int:
    """Return the newest attempt at a round; zero if there was none."""
    query = sa.select(sa.func.max(attempts.c.attempt)).where(
        attempts.c.run == run, attempts.c.round == number
    )
    return int(connection.execute(query).scalar() or 0)


def _count(connection: sa.Connection, table: sa.Table, run: str) -> int:
    """Return how many rows of a run a table has."""
    query = sa.select(sa.func.count()).select_from(table).where(table.c.run == run)
    return int(connection.execute(query).scalar_one())
