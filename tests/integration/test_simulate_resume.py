"""A run that was stopped, however it was stopped, goes on where it was; nothing is counted or charged twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from support.ledgers import reserved, settled
from support.processes import PATIENCE_S, ROOT, start, wait_for_rounds
from support.studies import write_study

import fedgen
from fedgen.api.desk import LoggedProgress
from fedgen.config.plan import plan_of
from fedgen.errors import BudgetExhausted, ConfigError, Interrupted
from fedgen.privacy.accountant import epsilon
from fedgen.runs.journal import read_rounds, standing
from fedgen.runs.lock import locked

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 60
LONG = {"training": {"rounds": ROUNDS}, "data": {"sites": {"count": 4}}}
NAMES = [f"site-0{number}" for number in (1, 2, 3, 4)]


def _stop(folder: Path, how: int) -> tuple[subprocess.Popen[str], str]:
    study = write_study(folder, **LONG)
    process = start("simulate", study, "--out", folder / "run")
    try:
        wait_for_rounds(process, folder / "run" / "metrics.jsonl", 5)
        process.send_signal(how)
        _out, err = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    return process, err


def _go_on(folder: Path) -> fedgen.Run:
    """Resume to the end.

    A site that was killed between its reservation and its answer was charged for nothing and so has to refuse the
    last round. With two workers that is at most two sites of four, and the quorum holds.
    """
    with suppress(BudgetExhausted):  # more cores, and every site was caught: one round less, and orderly
        fedgen.simulate(folder / "study.yaml", out=folder / "run", resume=True)
    run = fedgen.load_run(folder / "run")
    assert (run.record.outcome, run.record.rounds_done) in {("completed", ROUNDS), ("budget", ROUNDS - 1)}
    return run


def _check_the_books(run: fedgen.Run) -> None:
    """Nothing is counted twice, and every ledger is at or above the truth, and within the budget."""
    lines = standing(read_rounds(run.folder.metrics))
    assert [line.round for line in lines] == list(range(1, ROUNDS + 1))
    plan = plan_of(run.study)
    event, count = plan.event_per_round()
    for name in NAMES:
        ledger = run.path / "sites" / name / "ledger.db"
        charged = reserved(ledger)
        assert len(set(charged)) == len(charged)
        assert set(settled(ledger)) <= set(charged)
        in_sums = [line.round for line in lines if name in line.sites]
        assert set(in_sums) <= {number for number, _attempt in charged}
        spent = epsilon(((event, count * len(charged)),), plan.delta, relation=plan.relation).epsilon
        assert spent <= 3.0
        stated = {statement["scope"]: statement["epsilon"] for statement in run.privacy}
        assert stated[f"site {name}"] == pytest.approx(spent)
    assert all(line.epsilon is not None for line in lines)
    assert max(line.epsilon or 0.0 for line in lines) <= 3.0


@pytest.mark.slow
@pytest.mark.process
def test_ctrl_c_exits_130_keeps_what_was_done_and_resumes(tmp_path: Path) -> None:
    process, err = _stop(tmp_path, signal.SIGINT)
    assert process.returncode == 130
    assert "--resume" in err
    assert "Traceback" not in err
    stopped = fedgen.load_run(tmp_path / "run")
    assert stopped.record.outcome == "interrupted"
    # A round's line is on the disk before its checkpoint, so the fifth line seen may be of a round still to be saved.
    assert 4 <= stopped.record.rounds_done < ROUNDS
    assert (tmp_path / "run" / "report.html").is_file()
    assert len(stopped.sample(3)) == 3

    _check_the_books(_go_on(tmp_path))


@pytest.mark.slow
@pytest.mark.process
def test_kill_nine_in_mid_run_resumes_and_nothing_is_double_counted(tmp_path: Path) -> None:
    process, _err = _stop(tmp_path, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    document = json.loads((tmp_path / "run" / "run.json").read_text())
    assert document["outcome"] == "running"
    done = len(read_rounds(tmp_path / "run" / "metrics.jsonl"))
    assert done < ROUNDS
    with pytest.raises(ConfigError, match="--resume"):
        fedgen.simulate(tmp_path / "study.yaml", out=tmp_path / "run")

    _check_the_books(_go_on(tmp_path))


def test_a_crash_between_the_answers_and_the_checkpoint_charges_no_round_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path)
    save = LoggedProgress.save
    crashed: list[int] = []

    def crash(self: LoggedProgress, progress: object) -> None:
        if getattr(progress, "round", 0) == 2 and not crashed:
            crashed.append(2)
            raise KeyboardInterrupt
        save(self, progress)  # type: ignore[arg-type]

    monkeypatch.setattr(LoggedProgress, "save", crash)
    with pytest.raises(Interrupted):
        fedgen.simulate(study, out=tmp_path / "run")
    run = fedgen.simulate(study, out=tmp_path / "run", resume=True)
    assert run.record.outcome == "completed"
    lines = read_rounds(run.folder.metrics)
    assert [(line.round, line.attempt) for line in lines] == [(1, 1), (2, 1), (2, 2), (3, 1)]
    assert [(line.round, line.attempt) for line in standing(lines)] == [(1, 1), (2, 2), (3, 1)]
    for name in NAMES[:3]:
        assert reserved(run.path / "sites" / name / "ledger.db") == [(1, 1), (2, 1), (3, 1)]
    # The coordinator cannot know what its sites remembered; its log and its figures stay on the safe side.
    assert reserved(run.path / "ledger.db") == [(1, 1), (2, 1), (2, 2), (3, 1)]


def test_the_run_identity_and_the_start_survive_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path)

    def stop(event: object) -> None:
        if getattr(event, "round", 0) == 1 and hasattr(event, "roster"):
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        fedgen.simulate(study, out=tmp_path / "run", listener=stop)
    before = fedgen.load_run(tmp_path / "run").record
    after = fedgen.simulate(study, out=tmp_path / "run", resume=True).record
    assert after.run == before.run
    assert after.started_at == before.started_at
    assert after.wall_s > before.wall_s


def test_resume_without_an_earlier_run_starts_one(tmp_path: Path) -> None:
    run = fedgen.simulate(write_study(tmp_path), out=tmp_path / "run", resume=True)
    assert run.record.outcome == "completed"


def test_a_folder_of_another_study_is_refused_with_and_without_resume(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    fedgen.simulate(study, out=tmp_path / "run")
    before = (tmp_path / "run" / "study.yaml").read_bytes()
    for resume in (False, True):
        with pytest.raises(ConfigError, match="another study"):
            fedgen.simulate(study, out=tmp_path / "run", overrides=["training.rounds=4"], resume=resume)
    assert (tmp_path / "run" / "study.yaml").read_bytes() == before


def test_a_folder_with_foreign_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("do not touch")
    with pytest.raises(ConfigError, match="not a run's"):
        fedgen.simulate(study, out=tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_two_runs_cannot_use_one_folder(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    with locked(tmp_path / "run"), pytest.raises(ConfigError, match="another run is using this folder"):
        fedgen.simulate(study, out=tmp_path / "run")
    assert fedgen.simulate(study, out=tmp_path / "run").record.outcome == "completed"


@pytest.mark.process
def test_the_lock_holds_between_processes_and_ends_with_its_process(tmp_path: Path) -> None:
    study = write_study(tmp_path)
    hold = (
        "import sys; from pathlib import Path; from fedgen.runs.lock import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ConfigError, match=f"process {holder.pid}"):
        fedgen.simulate(study, out=tmp_path / "run")
    holder.kill()
    holder.communicate()
    assert fedgen.simulate(study, out=tmp_path / "run").record.outcome == "completed"
