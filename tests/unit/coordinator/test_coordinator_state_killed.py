"""A coordinator that is killed at any step of its writing, and one that goes on: nothing twice, nothing lost.

A forked child plays the rounds of a run and kills itself with SIGKILL before, inside or after one of its transactions;
each step has its turn. What stands for training is a sum that shows how often each round was counted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import torch

from fedgen.config.resolve import ResolvedStudy
from fedgen.coordinator.progress import Progress
from fedgen.coordinator.state.database import Database
from fedgen.coordinator.state.hold import held
from fedgen.coordinator.state.mirror import Mirror
from fedgen.coordinator.state.store import StateStore
from fedgen.crypto.digest import sha256_hex
from fedgen.errors import IntegrityError
from fedgen.runs.folder import RunFolder
from fedgen.runs.journal import RoundLine, read_rounds
from fedgen.runs.lines import read_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import sqlalchemy as sa

RUN = "ab" * 32
HEADER = {"study_hash": "cd" * 32, "model": "tabular-vae"}
ROUNDS = 3


def line(number: int, attempt: int) -> RoundLine:
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


def run_rounds(path: Path, asked: Path) -> None:
    """Play every round that is left, as a coordinator does: attempt, ask, record, save; then the end."""
    with StateStore.open(path) as state:
        state.begin(RUN, study_hash=HEADER["study_hash"], study="{}")
        with held(state, RUN, header=HEADER) as mine:
            before = mine.latest() or Progress(round=0, weights=torch.zeros(4))
            while before.round < ROUNDS:
                number = before.round + 1
                attempt = mine.next_attempt(number)
                setup = mine.next_setup()
                with asked.open("a", encoding="utf-8") as file:  # what sites would have seen
                    file.write(json.dumps([number, attempt, setup]) + "\n")
                mine.opening(number)
                mine.record(line(number, attempt))
                after = Progress(round=number, weights=before.weights + 10.0 ** (number - 1))
                mine.save(after)
                before = after
            mine.finish("completed")


def die_at(step: int) -> None:
    """Kill this process at one of the steps of its transactions."""
    left = [step]
    plain = Database.writing

    def tick() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def watched(self: Database) -> Iterator[sa.Connection]:
        tick()
        with plain(self) as connection:
            yield connection
            tick()  # written, not committed
        tick()

    Database.writing = watched  # type: ignore[method-assign]


def in_child(work: Any, step: int | None) -> int:
    """Fork, work, and return how the child ended; a negative number is a signal."""
    pid = os.fork()
    if pid == 0:
        try:
            if step is not None:
                die_at(step)
            work()
        except BaseException as error:  # noqa: BLE001 - a child of a test says what it can and is gone
            sys.stderr.write(f"{step}: {error!r}\n")
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.process
@pytest.mark.slow
def test_killed_at_any_step_it_goes_on_at_the_right_round_and_counts_nothing_twice(tmp_path: Path) -> None:
    killed = 0
    for step in range(1, 200):
        place = tmp_path / str(step)
        place.mkdir()
        path, asked = place / "state.db", place / "asked"
        first = in_child(lambda path=path, asked=asked: run_rounds(path, asked), step)
        assert first in {-signal.SIGKILL, 0}
        with StateStore.open(path) as state:  # a reader in between sees whole rounds only
            assert len(state.lines(RUN)) == len(state.models(RUN))
        assert in_child(lambda path=path, asked=asked: run_rounds(path, asked), None) == 0
        with StateStore.open(path) as state:
            found = state.models(RUN)
            assert [it.round for it in found] == [1, 2, 3]
            assert [json.loads(text)["round"] for text in state.lines(RUN)] == [1, 2, 3]
            with held(state, RUN, header=HEADER) as mine:
                last = mine.latest()
            assert last is not None
            assert last.weights.tolist() == [111.0] * 4  # each round once
            row = state.run(RUN)
            assert row is not None
            assert row.outcome == "completed"
        questions = [json.loads(text) for text in asked.read_text(encoding="utf-8").splitlines()]
        assert len({(number, attempt) for number, attempt, _ in questions}) == len(questions)
        assert len({setup for *_, setup in questions}) == len(questions)
        if first == 0:
            break
        killed += 1
    else:
        raise AssertionError("the run never came to its end")
    assert killed >= 3 * 5 * ROUNDS  # three steps for each of five transactions a round


# -- the run folder as a copy ------------------------------------------------------------------------


def play(path: Path, asked: Path) -> StateStore:
    run_rounds(path, asked)
    return StateStore.open(path)


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def test_a_folder_that_was_lost_is_made_again(tmp_path: Path) -> None:
    with play(tmp_path / "state.db", tmp_path / "asked") as state:
        folders = []
        for name in ("one", "two"):
            folder = RunFolder(tmp_path / name)
            folder.root.mkdir()
            new = Mirror(state, RUN, folder).sync()
            assert [it.round for it in new] == [1, 2, 3]
            folders.append(files(folder.root))
        assert folders[0] == folders[1]
        one = RunFolder(tmp_path / "one")
        assert [one.round_of(path) for path in one.checkpoints_newest_first()] == [3, 2]
        assert sha256_hex(one.checkpoint(3).read_bytes()) == state.models(RUN)[-1].digest
        assert read_lines(one.root / "attempts.jsonl") == [1, 2, 3]
        assert (one.root / "coordinator" / "run").read_text(encoding="utf-8").strip() == RUN
        assert Mirror(state, RUN, one).sync() == ()  # nothing is written twice
        assert files(one.root) == folders[0]


def test_a_copy_that_was_cut_off_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with play(tmp_path / "state.db", tmp_path / "asked") as state:
        whole = RunFolder(tmp_path / "whole")
        whole.root.mkdir()
        Mirror(state, RUN, whole).sync()
        from fedgen.coordinator.state import mirror as module

        for name in ("append_line", "append_round", "write_bytes"):
            for at in range(1, 4):
                folder = RunFolder(tmp_path / f"{name}-{at}")
                folder.root.mkdir()
                real, calls = getattr(module, name), []

                def cut(*arguments: Any, real: Any = real, calls: list[int] = calls, at: int = at) -> None:
                    calls.append(1)
                    if len(calls) == at:
                        raise OSError("cut off")
                    real(*arguments)

                with monkeypatch.context() as patched:
                    patched.setattr(module, name, cut)
                    if name == "write_bytes" and at == 3:  # two models keep their data
                        Mirror(state, RUN, folder).sync()
                    else:
                        with pytest.raises(OSError, match="cut off"):
                            Mirror(state, RUN, folder).sync()
                Mirror(state, RUN, folder).sync()
                assert files(folder.root) == files(whole.root), (name, at)
                assert len(read_rounds(folder.metrics)) == ROUNDS


def test_a_model_that_is_not_what_the_state_says_is_not_copied(tmp_path: Path) -> None:
    from fedgen.coordinator.state.tables import models

    with play(tmp_path / "state.db", tmp_path / "asked") as state:
        with state.database.writing() as connection:
            connection.execute(models.update().where(models.c.round == 3).values(data=b"another"))
        folder = RunFolder(tmp_path / "run")
        folder.root.mkdir()
        with pytest.raises(IntegrityError, match="damaged"):
            Mirror(state, RUN, folder).sync()
        assert [folder.round_of(path) for path in folder.checkpoints_newest_first()] == [2]
        assert len(read_rounds(folder.metrics)) == 0


def test_a_resolved_study_survives_the_state(tmp_path: Path) -> None:
    from support.studies import write_study

    from fedgen.api.prepare import prepare

    study = prepare(write_study(tmp_path / "study")).resolved
    with StateStore.open(tmp_path / "state.db") as state:
        state.begin(RUN, study_hash=study.study_hash, study=study.canonical())
        row = state.run(RUN)
    assert row is not None
    assert ResolvedStudy.from_json(row.study) == study
