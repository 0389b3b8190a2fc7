"""``simulate`` with ``trust: distributed``: the whole path with real sites, dropouts, restarts, and both protocols."""

from __future__ import annotations

import json
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import torch
from support.ledgers import reserved
from support.processes import PATIENCE_S, start, wait_for_rounds
from support.studies import write_study

import fedgen
from fedgen.api.desk import LoggedProgress
from fedgen.coordinator.secure_store import SetupFile
from fedgen.errors import BudgetExhausted, ConfigError, Interrupted, QuorumLost
from fedgen.events import RoundFinished
from fedgen.models.state import load_tensors
from fedgen.runs.journal import RoundLine, read_rounds, standing

if TYPE_CHECKING:
    from pathlib import Path

    from fedgen.events import Event

SITES = 5
FAULTS = [
    {"site": "site-02", "round": 2, "kind": "drop"},
    {"site": "site-04", "round": 3, "kind": "raise"},
    {"site": "site-01", "round": 4, "kind": "twice"},
    {"site": "site-05", "round": 5, "kind": "nan"},
]


def _study(folder: Path, *, faults: list[dict[str, Any]] | None = None, **sections: Any) -> Path:
    secagg = {"dropouts": 1, **sections.pop("secagg", {})}
    training = {"rounds": 6, "sample_rate": 0.3, **sections.pop("training", {})}
    privacy = {"trust": "distributed", **sections.pop("privacy", {})}
    return write_study(
        folder,
        data={"sites": {"count": SITES}},
        secagg=secagg,
        training=training,
        privacy=privacy,
        simulation={"faults": faults or []},
        **sections,
    )


def _rounds(run: fedgen.Run) -> dict[int, RoundLine]:
    return {line.round: line for line in read_rounds(run.folder.metrics)}


def _weights(run: fedgen.Run) -> torch.Tensor:
    tensors, _ = load_tensors(run.folder.checkpoints_newest_first()[0])
    return tensors["weights"]


@pytest.mark.parametrize(("unit", "local_steps"), [("record", 1), ("site", 2)])
@pytest.mark.parametrize("recovery", ["unmask", "restart"])
def test_full_and_sum_make_the_same_model_to_the_bit_whoever_drops_out(
    tmp_path: Path, unit: str, local_steps: int, recovery: str
) -> None:
    found = {}
    for protocol in ("full", "sum"):
        study = _study(
            tmp_path / protocol,
            faults=FAULTS,
            privacy={"unit": unit, "insecure_seed": 7},
            training={"local_steps": local_steps},
            secagg={"protocol": protocol, "recovery": recovery},
        )
        with suppress(BudgetExhausted):  # under restart: what void attempts cost is missing at the end
            fedgen.simulate(study, out=tmp_path / protocol / "run")
        run = fedgen.load_run(tmp_path / protocol / "run")
        assert (run.record.outcome, run.record.rounds_done) == (
            ("completed", 6) if recovery == "unmask" else ("budget", 3)
        )
        lines = read_rounds(run.folder.metrics)
        said = [(line.round, line.attempt, line.sites, line.missing, line.rejected) for line in lines]
        found[protocol] = _weights(run), said
    assert torch.equal(found["full"][0], found["sum"][0])
    assert found["full"][1] == found["sum"][1]
    assert bool(torch.isfinite(found["full"][0]).all())


def test_another_seed_makes_another_model(tmp_path: Path) -> None:
    """The control of the test above."""
    seeds = [{"insecure_seed": seed} for seed in (7, 8)]
    models = [
        _weights(fedgen.simulate(_study(tmp_path / str(i), privacy=seed), out=tmp_path / str(i) / "run"))
        for i, seed in enumerate(seeds)
    ]
    assert not torch.equal(*models)


def test_dropouts_are_named_charged_and_come_back(tmp_path: Path) -> None:
    run = fedgen.simulate(_study(tmp_path, faults=FAULTS), out=tmp_path / "run")
    lines = _rounds(run)
    assert [len(lines[number].sites) for number in range(1, 7)] == [5, 4, 4, 5, 4, 5]
    assert lines[2].missing == {"site-02": "dropped"}
    assert lines[3].missing == {"site-04": "fault"}
    assert lines[4].rejected == {"site-01": "replayed"}
    assert lines[5].missing == {"site-05": "not-finite"}
    for number in range(1, SITES + 1):
        name = f"site-0{number}"
        assert reserved(run.path / "sites" / name / "ledger.db") == [(r, 1) for r in range(1, 7)], name
    summary = {site.name: site for site in run.record.sites}
    assert summary["site-02"].rounds == 5
    assert all(line.epsilon is not None and line.epsilon <= 3.0 for line in lines.values())
    setups = json.loads((run.path / "coordinator" / "secagg.json").read_text())
    assert setups == {"run": run.record.run, "setup": 1, "opened": 6}
    assert len(run.sample(5)) == 5
    assert (run.path / "report.html").is_file()


@pytest.mark.slow
def test_a_site_that_answers_too_late_is_late_and_comes_back(tmp_path: Path) -> None:
    fault = [{"site": "site-02", "round": 2, "kind": "late"}]
    study = _study(tmp_path, faults=fault, training={"timeout_s": 10.0})

    def wait_for_it(event: Event) -> None:
        """Keep the rounds after the one that it missed until it is awake: they take milliseconds, it sleeps on."""
        if isinstance(event, RoundFinished) and event.round == 2:
            time.sleep(3.0)

    run = fedgen.simulate(study, out=tmp_path / "run", listener=wait_for_it)
    lines = _rounds(run)
    assert run.record.outcome == "completed"
    assert lines[2].missing == {"site-02": "late"}
    assert len(lines[6].sites) == SITES
    assert all(line.attempt == 1 for line in lines.values())


def test_too_few_sites_end_the_run_with_the_last_good_model(tmp_path: Path) -> None:
    faults = [{"site": f"site-0{number}", "round": 3, "kind": "refuse"} for number in (1, 2)]
    with pytest.raises(QuorumLost):
        fedgen.simulate(_study(tmp_path, faults=faults), out=tmp_path / "run")
    run = fedgen.load_run(tmp_path / "run")
    assert (run.record.outcome, run.record.rounds_done) == ("quorum", 2)
    assert _rounds(run)[3].missing == {"site-01": "study-refused", "site-02": "study-refused"}
    for name in ("site-03", "site-04", "site-05"):
        assert reserved(run.path / "sites" / name / "ledger.db") == [(1, 1), (2, 1), (3, 1)], "no third try"


def test_a_void_attempt_is_charged_asked_again_and_what_it_cost_is_missing_at_the_end(tmp_path: Path) -> None:
    """Under ``restart`` one missing site voids an attempt, and the next goes without it.

    A study's ε is for its rounds: with one attempt more, the last round would pass it, and the sites say so.
    """
    fault = [{"site": "site-03", "round": 2, "kind": "drop"}]
    study = _study(tmp_path, faults=fault, secagg={"recovery": "restart"}, training={"rounds": 3})
    with pytest.raises(BudgetExhausted):
        fedgen.simulate(study, out=tmp_path / "run")
    run = fedgen.load_run(tmp_path / "run")
    assert (run.record.outcome, run.record.rounds_done) == ("budget", 2)
    lines = [(line.round, line.attempt, len(line.sites)) for line in read_rounds(run.folder.metrics)]
    assert lines == [(1, 1, 5), (2, 1, 0), (2, 2, 4), (3, 1, 0)]
    assert reserved(run.path / "sites" / "site-01" / "ledger.db") == [(1, 1), (2, 1), (2, 2)]


def test_sums_without_a_mask_keep_no_setups(tmp_path: Path) -> None:
    study = _study(tmp_path, secagg={"protocol": "sum"}, training={"rounds": 2})
    run = fedgen.simulate(study, out=tmp_path / "run")
    assert not run.folder.setups.exists()


def test_masked_sums_are_refused_under_ray_before_a_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="under Ray") as error:
        fedgen.simulate(_study(tmp_path), out=tmp_path / "run", backend="ray")
    assert error.value.key == "secagg.protocol"
    assert not (tmp_path / "run").exists()


# -- killed and resumed -----------------------------------------------------------------------------


def _stop_before(monkeypatch: pytest.MonkeyPatch, where: type, method: str, number: int) -> list[int]:
    """End the process right before this call, the first time it is about round ``number``."""
    original, stopped = getattr(where, method), []

    def fatal(self: Any, about: Any, *rest: Any) -> Any:
        if getattr(about, "round", about) == number and not stopped:
            stopped.append(number)
            raise KeyboardInterrupt
        return original(self, about, *rest)

    monkeypatch.setattr(where, method, fatal)
    return stopped


def test_stopped_before_a_round_is_opened_it_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = _study(tmp_path, training={"rounds": 4})
    _stop_before(monkeypatch, SetupFile, "opening", 2)
    with pytest.raises(Interrupted):
        fedgen.simulate(study, out=tmp_path / "run")
    with pytest.raises(BudgetExhausted):
        fedgen.simulate(study, out=tmp_path / "run", resume=True)
    run = fedgen.load_run(tmp_path / "run")
    found = [(line.round, line.attempt, len(line.sites)) for line in read_rounds(run.folder.metrics)]
    assert found == [(1, 1, 5), (2, 2, 5), (3, 1, 5), (4, 1, 0)], (
        "the attempt that was lost is missing at the end"
    )
    assert reserved(run.path / "sites" / "site-01" / "ledger.db") == [(1, 1), (2, 1), (2, 2), (3, 1)]


def test_stopped_after_a_round_was_opened_it_is_lost_and_the_others_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = _study(tmp_path, training={"rounds": 4})
    _stop_before(monkeypatch, LoggedProgress, "save", 2)
    with pytest.raises(Interrupted):
        fedgen.simulate(study, out=tmp_path / "run")
    run = fedgen.simulate(study, out=tmp_path / "run", resume=True)
    assert (run.record.outcome, run.record.rounds_done) == ("completed", 4)
    found = [(line.round, line.attempt, len(line.sites)) for line in read_rounds(run.folder.metrics)]
    assert found == [(1, 1, 5), (2, 1, 5), (2, 1, 0), (3, 1, 5), (4, 1, 5)]
    assert [len(line.sites) for line in standing(read_rounds(run.folder.metrics))] == [5, 0, 5, 5]
    for name in ("site-01", "site-05"):
        assert reserved(run.path / "sites" / name / "ledger.db") == [(1, 1), (2, 1), (3, 1), (4, 1)]
    assert {site.rounds for site in run.record.sites} == {3}
    tensors = [load_tensors(run.folder.checkpoint(number))[0]["weights"] for number in (3, 4)]
    assert not torch.equal(*tensors)


def test_a_run_that_was_rolled_back_begins_its_setups_anew(tmp_path: Path) -> None:
    from fedgen.api.rollback import roll_back

    study = _study(tmp_path, training={"rounds": 2}, privacy={"insecure_seed": 3})
    fedgen.simulate(study, out=tmp_path / "run")
    roll_back(tmp_path / "run", 2)
    assert not (tmp_path / "run" / "coordinator" / "secagg.json").exists()


@pytest.mark.slow
@pytest.mark.process
def test_kill_nine_in_mid_run_resumes_and_nothing_is_counted_twice(tmp_path: Path) -> None:
    """Wherever it falls: the round is asked again and charged again, or it was opened and is passed over."""
    rounds = 30
    study = _study(tmp_path, training={"rounds": rounds})
    process = start("simulate", study, "--out", tmp_path / "run")
    try:
        wait_for_rounds(process, tmp_path / "run" / "metrics.jsonl", 5)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    with suppress(BudgetExhausted):  # it fell before the opening: one attempt more than the study has rounds
        fedgen.simulate(study, out=tmp_path / "run", resume=True)
    run = fedgen.load_run(tmp_path / "run")
    lines = standing(read_rounds(run.folder.metrics))
    summed = [line for line in lines if line.sites]
    assert run.record.rounds_done in {rounds, rounds - 1}
    assert rounds - 2 <= len(summed) <= rounds
    assert len(summed) >= rounds - 1 or run.record.outcome == "completed"
    for number in range(1, SITES + 1):
        name = f"site-0{number}"
        charged = reserved(run.path / "sites" / name / "ledger.db")
        assert len(set(charged)) == len(charged) <= rounds
        # A site that was charged for the attempt that died, and others were not, is missing in the last round.
        assert {(line.round, line.attempt) for line in summed if name in line.sites} <= set(charged)
        assert len([line for line in summed if name not in line.sites]) <= 1
