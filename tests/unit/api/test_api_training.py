"""Following a run: ServerApps that die are started again, ends are told as in a simulation, folders are made anew."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from support.studies import write_study

import fedgen.api.training as module
from fedgen.api import following
from fedgen.api.bench import new_learner
from fedgen.api.enrolment import server_init
from fedgen.api.prepare import prepare
from fedgen.api.run import progress_header
from fedgen.api.training import train
from fedgen.coordinator.progress import Progress
from fedgen.coordinator.state.hold import held
from fedgen.coordinator.state.store import StateStore
from fedgen.errors import BudgetExhausted, ConfigError, FedgenError, Interrupted, QuorumLost
from fedgen.events import RoundFinished, SiteRefused, StudyStarted
from fedgen.flower.control import Control
from fedgen.runs.folder import RunFolder, claim
from fedgen.runs.journal import RoundLine
from fedgen.runs.lines import read_lines
from fedgen.runs.rollback import decide, roll_back, run_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import torch

    from fedgen.coordinator.state.hold import HeldRun
    from fedgen.enrolment.server_home import ServerHome

Act = str  # what one ServerApp does: "rounds:N", "dies", "outcome:budget", "fails", "stops"
ROUNDS = 3


def line(number: int, attempt: int, sites: list[str], missing: dict[str, str]) -> RoundLine:
    return RoundLine.model_validate(
        {
            "round": number,
            "attempt": attempt,
            "sites": sites,
            "missing": missing,
            "seconds": 1.0,
            "bytes_in": 1,
            "bytes_out": 1,
            "epsilon": 1.0,
        }
    )


class Script(Control):
    """A SuperLink on which each ServerApp does the next act of a script, at once."""

    def __init__(self, home: ServerHome, acts: list[Act]) -> None:
        self.home, self.acts = home, acts
        self.started: list[str] = []
        self.stopped: list[int] = []
        self.up = True

    def is_up(self) -> bool:
        return self.up

    def start(self, run: str, *, version: str, wait: float) -> int:
        self.started.append(run)
        act = self.acts.pop(0)
        with StateStore.open(self.home.state_url) as store:
            row = store.run(run)
            assert row is not None
            from fedgen.config.resolve import ResolvedStudy

            study = ResolvedStudy.from_json(row.study)
            with held(store, run, header=progress_header(study)) as mine:
                self._play(act, mine, new_learner(study).all_values(), [it.name for it in study.roster])
        return len(self.started)

    def _play(self, act: Act, mine: HeldRun, weights: torch.Tensor, names: list[str]) -> None:
        what, _, value = act.partition(":")
        if what == "rounds":
            before = mine.latest()
            done = 0 if before is None else before.round
            for number in range(done + 1, done + 1 + int(value)):
                mine.record(line(number, mine.next_attempt(number), names, {}))
                mine.save(Progress(round=number, weights=weights + number))
            if done + int(value) == ROUNDS:
                mine.finish("completed")
        elif what == "outcome":
            mine.note_roll({names[1]: "not-approved"})
            mine.record(line(1, mine.next_attempt(1), names[:1], {names[1]: "budget"}))
            mine.finish(value)
        elif what == "fails":
            mine.finish("failed", ConfigError("the study is wrong", key="a.b", hint="mend it").diagnostics())
        elif what == "interrupt":
            raise KeyboardInterrupt

    def status(self, number: int) -> str:
        return "finished:failed"

    def stop(self, number: int) -> None:
        self.stopped.append(number)


Trial = tuple["Path", "ServerHome", "Callable[[list[str]], Script]"]


@pytest.fixture
def trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trial:
    """A study, a home with its sites enrolled, and a way to say what the ServerApps do."""
    from support.deployed import let_in

    study = write_study(
        tmp_path / "study", data={"sites": {"names": ["a", "b"]}}, training={"rounds": ROUNDS}
    )
    home = server_init(tmp_path / "server", "127.0.0.1:18443")
    for entry in prepare(study).resolved.roster:
        let_in(home, entry.name, entry.rows)
    monkeypatch.setattr(module, "_LOOK_S", 0.001)
    monkeypatch.setattr(following, "_LOOK_S", 0.001)
    monkeypatch.setattr(following, "_STATUS_S", 0.0)
    monkeypatch.setattr(following, "_STOP_S", 0.1)

    def script(acts: list[str]) -> Script:
        made = Script(home, acts)
        monkeypatch.setattr(module, "control_of", lambda _home: made)
        return made

    return study, home, script


def test_a_run_is_followed_to_its_end(trial: Trial) -> None:
    study, home, script = trial
    link = script(["rounds:3"])
    events: list[Any] = []
    run = train(study, server=home.root, listener=events.append)
    assert run.path == home.runs / f"tiny-{run.study.study_hash[:8]}"
    assert [event.round for event in events if isinstance(event, RoundFinished)] == [1, 2, 3]
    record = run.record
    assert (record.outcome, record.rounds_done, record.backend) == ("completed", 3, "deployed")
    assert {site.rounds for site in record.sites} == {3}
    assert record.privacy[0]["epsilon"] > 0
    assert (run.path / "synthetic.parquet").is_file()
    assert not (run.path / "evaluation.json").exists()
    again = train(study, server=home.root, resume=True)  # it is finished: nothing is started
    assert again.record == record
    assert len(link.started) == 1


def test_server_apps_that_die_are_started_again_and_nothing_is_told_twice(trial: Trial) -> None:
    study, home, script = trial
    link = script(["dies", "rounds:1", "dies", "dies", "rounds:2"])
    events: list[Any] = []
    run = train(study, server=home.root, listener=events.append)
    assert run.record.outcome == "completed"
    assert len(link.started) == 5
    assert link.stopped == [1, 2, 3, 4]
    assert [event.round for event in events if isinstance(event, RoundFinished)] == [1, 2, 3]


def test_after_too_many_deaths_in_a_row_a_person_is_asked(trial: Trial) -> None:
    study, home, script = trial
    script(["dies"] * 9)
    with pytest.raises(ConfigError, match="ended 5 times without a word"):
        train(study, server=home.root)
    script(["rounds:3"])
    assert train(study, server=home.root, resume=True).record.outcome == "completed"


def test_what_ended_a_server_app_is_what_is_raised(trial: Trial) -> None:
    study, home, script = trial
    script(["fails"])
    with pytest.raises(ConfigError, match="the study is wrong") as caught:
        train(study, server=home.root)
    assert caught.value.hint == "mend it"
    (folder,) = home.runs.iterdir()
    assert json.loads((folder / "run.json").read_text())["outcome"] == "failed"


@pytest.mark.parametrize(("outcome", "error"), [("budget", BudgetExhausted), ("quorum", QuorumLost)])
def test_an_early_end_is_the_exit_code_of_a_simulation(
    trial: Trial, outcome: str, error: type[FedgenError]
) -> None:
    study, home, script = trial
    script([f"outcome:{outcome}"])
    events: list[Any] = []
    with pytest.raises(error, match="no round was finished"):
        train(study, server=home.root, listener=events.append)
    said = {(event.round, event.site, str(event.code)) for event in events if isinstance(event, SiteRefused)}
    assert said == {(0, "b", "not-approved"), (1, "b", "budget")}


def test_ctrl_c_leaves_a_run_that_goes_on(trial: Trial) -> None:
    study, home, script = trial
    link = script(["rounds:1", "interrupt"])
    with pytest.raises(Interrupted):
        train(study, server=home.root)
    assert link.stopped[-1] == 1
    (folder,) = home.runs.iterdir()
    record = json.loads((folder / "run.json").read_text())
    assert (record["outcome"], record["rounds_done"]) == ("interrupted", 1)
    with pytest.raises(ConfigError, match="already holds this study"):
        train(study, server=home.root)
    script(["rounds:2"])
    assert train(study, server=home.root, resume=True).record.run == record["run"]


def test_a_folder_that_was_lost_is_made_again_from_the_state(trial: Trial) -> None:
    study, home, script = trial
    script(["rounds:1", "interrupt"])
    with pytest.raises(Interrupted):
        train(study, server=home.root)
    (folder,) = home.runs.iterdir()
    run = json.loads((folder / "run.json").read_text())["run"]
    shutil.rmtree(folder)
    script(["rounds:2"])
    events: list[Any] = []
    done = train(study, server=home.root, resume=True, listener=events.append)
    assert done.record.run == run
    assert done.record.rounds_done == 3
    assert len((done.path / "metrics.jsonl").read_text().splitlines()) == 3
    assert [event.round for event in events if isinstance(event, RoundFinished)] == [2, 3]


@pytest.mark.parametrize("word", ["interrupted", "failed"])
def test_the_last_word_of_a_serverapp_from_before_does_not_end_the_next_one(trial: Trial, word: str) -> None:
    study, home, script = trial
    script(["rounds:1", "interrupt"])
    with pytest.raises(Interrupted):
        train(study, server=home.root)
    link = script(["rounds:2"])

    def the_other_ends(event: object) -> None:
        if isinstance(event, StudyStarted):  # the next `train` follows the run already
            with StateStore.open(home.state_url) as store:
                (row,) = store.runs(event.study_hash)
                with held(store, row.run, header=progress_header(prepare(study).resolved)) as mine:
                    mine.finish(word)

    done = train(study, server=home.root, resume=True, listener=the_other_ends)
    assert (done.record.outcome, done.record.rounds_done, len(link.started)) == ("completed", ROUNDS, 1)


def test_a_folder_whose_run_the_state_does_not_know_is_not_touched(trial: Trial, tmp_path: Path) -> None:
    study, home, script = trial
    link = script([])
    out = tmp_path / "out"
    with claim(out, prepare(study).resolved):
        (out / "coordinator").mkdir()
        (out / "coordinator" / "run").write_text("ab" * 32 + "\n")
    with pytest.raises(ConfigError, match="does not know the run of this folder"):
        train(study, server=home.root, out=out, resume=True)
    assert link.started == []


def test_without_a_superlink_nothing_is_begun(trial: Trial) -> None:
    study, home, script = trial
    script([]).up = False
    with pytest.raises(ConfigError, match="SuperLink does not answer") as caught:
        train(study, server=home.root)
    assert "fedgen server up" in (caught.value.hint or "")
    assert not home.runs.exists() or list(home.runs.iterdir()) == []


def test_a_run_that_was_rolled_back_goes_on_under_its_new_identity(trial: Trial) -> None:
    study, home, script = trial
    script(["rounds:2", "interrupt"])
    with pytest.raises(Interrupted):
        train(study, server=home.root)
    (path,) = home.runs.iterdir()
    folder = RunFolder(path)
    before = json.loads(folder.record.read_text())["run"]
    roll_back(folder, decide(folder, back_to=1, done=2, lines=2, reason="erasure"))
    assert run_id(folder) != before
    script(["rounds:2"])
    events: list[Any] = []
    done = train(study, server=home.root, resume=True, listener=events.append)
    assert done.record.run == run_id(folder)
    assert done.record.rounds_done == 3
    assert [event.round for event in events if isinstance(event, RoundFinished)] == [2, 3]
    said = [json.loads(text) for text in folder.metrics.read_text().splitlines()]
    assert [(it["round"], it["attempt"]) for it in said] == [(1, 1), (2, 1), (2, 2), (3, 1)]
    assert {site.rounds for site in done.record.sites} == {3}  # what was undone no longer counts
    assert read_lines(folder.root / "attempts.jsonl") == [1, 2, 2, 3]


def test_a_superlink_that_is_started_again_is_waited_for(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, home, script = trial
    link = script(["dies", "rounds:3"])
    answers = [True] * 2 + [False] * 5

    def is_up() -> bool:
        return answers.pop(0) if answers else True

    monkeypatch.setattr(link, "is_up", is_up)
    assert train(study, server=home.root).record.outcome == "completed"
    assert answers == []
    link = script(["dies"])
    answers = [True] * 2 + [False] * 9
    monkeypatch.setattr(following, "_DOWN_S", -1.0)
    monkeypatch.setattr(link, "is_up", is_up)
    with pytest.raises(ConfigError, match="does not answer any more"):
        train(study, server=home.root, out=home.root / "another")
