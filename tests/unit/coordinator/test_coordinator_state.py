"""The coordinator's durable state: what is written when, by whom, and what a reader finds; in both databases."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
import torch

from fedgen.coordinator.progress import Progress
from fedgen.coordinator.secure_store import SetupFile
from fedgen.coordinator.state import hold as hold_module
from fedgen.coordinator.state.hold import KEPT, held
from fedgen.coordinator.state.store import StateStore
from fedgen.coordinator.state.tables import metadata, models, runs
from fedgen.errors import Code, ConfigError, IntegrityError, Interrupted
from fedgen.runs.journal import RoundLine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RUN = "ab" * 32
HEADER = {"study_hash": "cd" * 32, "model": "tabular-vae"}


def line(number: int, attempt: int = 1) -> RoundLine:
    return RoundLine.model_validate(
        {
            "round": number,
            "attempt": attempt,
            "sites": ("site-01",),
            "missing": {},
            "seconds": 1.0,
            "bytes_in": 1,
            "bytes_out": 1,
        }
    )


def progress(number: int) -> Progress:
    return Progress(
        round=number,
        weights=torch.full((5,), float(number)),
        average=torch.full((5,), number + 0.5),
        optimizer={"exp_avg": torch.full((3,), number / 7)},
    )


def begin(state: StateStore, run: str = RUN) -> None:
    state.begin(run, study_hash=HEADER["study_hash"], study="{}")


def play(state: StateStore, number: int, run: str = RUN) -> None:
    with held(state, run, header=HEADER) as mine:
        attempt = mine.next_attempt(number)
        mine.record(line(number, attempt))
        mine.save(progress(number))


def test_the_tables_of_the_migrations_are_those_that_queries_see(state: StateStore) -> None:
    with state.database.reading() as connection:
        inspector = sa.inspect(connection)
        for name, table in metadata.tables.items():
            found = {column["name"]: column["nullable"] for column in inspector.get_columns(name)}
            assert found == {column.name: bool(column.nullable) for column in table.columns}
            assert inspector.get_pk_constraint(name)["constrained_columns"] == [
                column.name for column in table.primary_key
            ]


def test_what_was_saved_comes_back_bit_for_bit(state: StateStore, address: str) -> None:
    begin(state)
    play(state, 1)
    with StateStore.open(address) as other, held(other, RUN, header=HEADER) as mine:
        found = mine.latest()
        assert found is not None
        assert found.round == 1
        assert torch.equal(found.weights, progress(1).weights)
        assert found.average is not None
        assert torch.equal(found.average, progress(1).average)  # type: ignore[arg-type]
        assert torch.equal(found.optimizer["exp_avg"], progress(1).optimizer["exp_avg"])
        assert mine.asked == 1


def test_before_the_first_round_there_is_no_progress(state: StateStore) -> None:
    begin(state)
    with held(state, RUN, header=HEADER) as mine:
        assert mine.latest() is None
        assert mine.opened() == 0
    found = state.run(RUN)
    assert found is not None
    assert (found.outcome, found.roll, found.error, found.stop) == (None, None, None, False)
    assert state.run("00" * 32) is None


def test_an_attempt_is_given_once_whatever_becomes_of_it(state: StateStore) -> None:
    begin(state)
    given = []
    for _ in range(3):
        with held(state, RUN, header=HEADER) as mine:
            given.append(mine.next_attempt(1))
    with held(state, RUN, header=HEADER) as mine:
        given.append(mine.next_attempt(1))
        given.append(mine.next_attempt(2))
        assert mine.asked == 5
    assert given == [1, 2, 3, 4, 1]
    assert [(it.round, it.attempt) for it in state.asked(RUN)] == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1)]
    assert [it.round for it in state.asked(RUN, first=4)] == [2]


def test_line_and_model_of_a_round_come_together_or_not_at_all(
    state: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(state)
    play(state, 1)
    with held(state, RUN, header=HEADER) as mine:
        mine.next_attempt(2)
        mine.record(line(2))

        def fails(*_: object) -> str:
            raise OSError("the disk is gone")

        real = hold_module.sha256_hex
        calls: list[int] = []

        def second_fails(data: bytes) -> str:
            calls.append(1)
            return fails() if len(calls) == 2 else real(data)

        monkeypatch.setattr(hold_module, "sha256_hex", second_fails)
        with pytest.raises(OSError, match="disk"):
            mine.save(progress(2))
        monkeypatch.undo()
        assert len(state.lines(RUN)) == 1
        assert [it.round for it in state.models(RUN)] == [1]
        mine.save(progress(2))  # the same round, once the disk is back
    assert len(state.lines(RUN)) == 2
    assert [it.round for it in state.models(RUN)] == [1, 2]


def test_a_round_is_saved_once(state: StateStore) -> None:
    begin(state)
    play(state, 1)
    play(state, 2)
    with held(state, RUN, header=HEADER) as mine:
        for number in (1, 2):
            with pytest.raises(IntegrityError) as caught:
                mine.save(progress(number))
            assert caught.value.code is Code.STALE_ROUND
        found = mine.latest()
        assert found is not None
        assert found.round == 2
    assert len(state.lines(RUN)) == 2


def test_the_newest_two_models_keep_their_data(state: StateStore) -> None:
    begin(state)
    for number in range(1, 6):
        play(state, number)
    kept = {it.round: it.data is not None for it in state.models(RUN)}
    assert kept == {1: False, 2: False, 3: False, 4: True, 5: True}
    assert KEPT == 2
    assert [it.round for it in state.models(RUN, after=3)] == [4, 5]
    assert all(it.data is None for it in state.models(RUN, with_data=False))


def test_the_line_of_a_round_that_was_lost_is_written_with_what_follows(state: StateStore) -> None:
    begin(state)
    with held(state, RUN, header=HEADER) as mine:
        mine.record(line(1, mine.next_attempt(1)))
        mine.record(line(1, mine.next_attempt(1)))
        assert len(state.lines(RUN)) == 1
        mine.finish("quorum")
    assert len(state.lines(RUN)) == 2
    assert state.models(RUN) == ()
    found = state.run(RUN)
    assert found is not None
    assert found.outcome == "quorum"


def test_two_coordinators_of_one_run_exclude_each_other(state: StateStore, address: str) -> None:
    begin(state)
    begin(state, "ef" * 32)
    with StateStore.open(address) as other:
        assert not other.is_held(RUN)
        with held(state, RUN, header=HEADER):
            assert other.is_held(RUN)
            with pytest.raises(ConfigError, match="another coordinator"), held(other, RUN, header=HEADER):
                pass
            with held(other, "ef" * 32, header=HEADER) as another:  # another run is another matter
                assert another.next_attempt(1) == 1
        assert not other.is_held(RUN)
        with held(other, RUN, header=HEADER) as mine:
            assert mine.next_attempt(1) == 1


def test_who_lost_the_run_writes_nothing_more(state: StateStore) -> None:
    begin(state)
    with held(state, RUN, header=HEADER) as mine:
        attempt = mine.next_attempt(1)
        with state.database.writing() as connection:  # a lost session: somebody else was let in meanwhile
            connection.execute(runs.update().values(holder="somebody else"))
        mine.record(line(1, attempt))
        writes: list[Callable[[], object]] = [
            lambda: mine.save(progress(1)),
            lambda: mine.next_attempt(1),
            mine.next_setup,
            lambda: mine.opening(3),
            lambda: mine.note_roll({}),
            lambda: mine.finish("completed"),
        ]
        for write in writes:
            with pytest.raises(IntegrityError, match="took this run over"):
                write()
    assert state.models(RUN) == ()
    assert state.lines(RUN) == ()
    assert len(state.asked(RUN)) == 1


def test_setups_and_opened_rounds_are_never_forgotten(state: StateStore, tmp_path: Path) -> None:
    begin(state)
    file = SetupFile(
        tmp_path / "secagg.json", RUN
    )  # a simulation's, which it stands in for: number for number
    with held(state, RUN, header=HEADER) as mine:
        assert mine.opened() == file.opened() == 0
        assert [mine.next_setup(), mine.next_setup()] == [file.next_setup(), file.next_setup()] == [1, 2]
        for number in (4, 2):
            mine.opening(number)
            file.opening(number)
    with held(state, RUN, header=HEADER) as mine:
        again = SetupFile(tmp_path / "secagg.json", RUN)
        assert mine.next_setup() == again.next_setup() == 3
        assert mine.opened() == again.opened() == 4


def test_who_asks_a_run_to_stop_is_heard_before_the_next_round(state: StateStore) -> None:
    begin(state)
    with held(state, RUN, header=HEADER) as mine:
        mine.record(line(1, mine.next_attempt(1)))
        mine.save(progress(1))
        state.ask_to_stop(RUN)
        with pytest.raises(Interrupted):
            mine.next_attempt(2)
        mine.finish("interrupted", {"error": "Interrupted", "what": "stopped"})
    found = state.run(RUN)
    assert found is not None
    assert (found.outcome, found.stop) == ("interrupted", True)
    assert found.error == {"error": "Interrupted", "what": "stopped"}
    state.reopen(RUN)
    with held(state, RUN, header=HEADER) as mine:
        assert mine.next_attempt(2) == 1
    assert [it.round for it in state.asked(RUN)] == [1, 2]


def test_a_damaged_or_foreign_model_is_not_taken_for_progress(state: StateStore) -> None:
    begin(state)
    play(state, 1)
    play(state, 2)
    other = {**HEADER, "study_hash": "00" * 32}
    with held(state, RUN, header=other) as mine, pytest.raises(IntegrityError, match="study hash"):
        mine.latest()
    with state.database.writing() as connection:
        data = connection.execute(sa.select(models.c.data).where(models.c.round == 2)).scalar_one()
        spoiled = data[:-1] + bytes([data[-1] ^ 1])
        connection.execute(models.update().where(models.c.round == 2).values(data=spoiled))
    with held(state, RUN, header=HEADER) as mine, pytest.raises(IntegrityError, match="damaged"):
        mine.latest()


def test_a_run_is_begun_once(state: StateStore) -> None:
    begin(state)
    begin(state)
    assert len(state.runs()) == 1
    assert [it.run for it in state.runs(HEADER["study_hash"])] == [RUN]
    assert state.runs("00" * 32) == ()
    with pytest.raises(ConfigError, match="another study"):
        state.begin(RUN, study_hash="11" * 32, study="{}")
    with pytest.raises(ConfigError, match="no such run"), held(state, "77" * 32, header=HEADER):
        pass


def test_the_roll_is_there_for_who_watches(state: StateStore) -> None:
    begin(state)
    with held(state, RUN, header=HEADER) as mine:
        mine.note_roll({"site-02": "not-approved"})
    found = state.run(RUN)
    assert found is not None
    assert found.roll == {"site-02": "not-approved"}


def test_a_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    StateStore.open(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="others may read"):
        StateStore.open(path)


def test_bad_addresses_and_files_are_one_line_without_a_password(tmp_path: Path) -> None:
    (tmp_path / "other.db").write_bytes(b"not a database, but long enough to be read as one" * 50)
    (tmp_path / "other.db").chmod(0o600)
    with pytest.raises(IntegrityError, match="damaged or not one"):
        StateStore.open(tmp_path / "other.db")
    for address in (
        "mysql://user:secret@host/db",
        "postgresql://user:secret@[/db",
        str(tmp_path / "no" / "x.db"),
    ):
        with pytest.raises(ConfigError) as caught:
            StateStore.open(address)
        assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="does not answer") as unreachable:
        StateStore.open(f"postgresql://user:secret@/db?host={tmp_path}")
    assert "secret" not in str(unreachable.value)


def test_a_later_schema_is_refused(tmp_path: Path) -> None:
    with StateStore.open(tmp_path / "state.db") as state, state.database.writing() as connection:
        connection.exec_driver_sql("UPDATE coordinator_revision SET version_num = '9999'")
    with pytest.raises(ConfigError, match="later version"):
        StateStore.open(tmp_path / "state.db")
