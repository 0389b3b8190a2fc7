"""Killed at every durable step, an erasure and a sweep are finished by the next process, and nothing is done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.erasing import ask_the_store, grant
from support.studies import write_consent, write_study

import fedgen
from fedgen.api.certificate import verify_certificate
from fedgen.errors import Interrupted
from fedgen.policy.store import ConsentStore
from fedgen.policy.store.numbers import erased_at, find
from fedgen.runs.folder import RunFolder
from fedgen.runs.journal import read_run
from fedgen.runs.register import removals
from fedgen.runs.rollback import rollbacks, run_id, unfinished

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
PERSON = "p0007"
FUTURE = "2035-01-01T00:00:00+00:00"


@contextmanager
def _patched() -> Iterator[pytest.MonkeyPatch]:
    patch = pytest.MonkeyPatch()
    try:
        yield patch
    finally:
        patch.undo()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four rounds that PERSON joined after the second, stopped after the third, with its store."""
    place = tmp_path_factory.mktemp("killed") / "template"
    study = write_study(
        place, policy={"consent": "consent.csv"}, training={"rounds": 4}, data={"holdout": 0.0}
    )
    write_consent(place / "consent.csv", granted=120)
    with ConsentStore.open(place / "consent.db") as store, _patched() as patch:
        grant(store, *(number for number in range(120) if number != int(PERSON[1:])))
        ask_the_store(patch, store, place / "consent.db.d" / "used")
        old = {"record_id": "rec-1", "subject_id": "p0001", "collected_at": 0, "retention_rule": "default"}
        kept = {"legal_basis": "consent", "collected_for": ["train_generator"]}
        store.put_records([{**old, **kept}])

        def watch(event: Any) -> None:
            if hasattr(event, "roster") and event.round == 2:
                grant(store, int(PERSON[1:]))
            if hasattr(event, "roster") and event.round == 3:
                raise KeyboardInterrupt

        with pytest.raises(Interrupted):
            fedgen.simulate(study, out=place / "run", listener=watch)
    return place


def _killed(template: Path, place: Path, what: dict[str, Any]) -> list[Path]:
    """Return one copy for each step at which a process was killed and another went on."""
    place.mkdir()
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "tests" / "support" / "killing.py"),
            str(template),
            str(place),
            json.dumps(what),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    ends = json.loads(done.stdout)
    assert [second for _first, second in ends] == [0] * len(ends), done.stderr
    assert [first for first, _second in ends] == [-signal.SIGKILL] * (len(ends) - 1) + [0], done.stderr
    assert len(ends) > 40, "the steps were not counted"
    return sorted(place.iterdir())


@pytest.mark.slow
@pytest.mark.process
def test_an_erasure_killed_at_any_step_is_finished_by_the_next(template: Path, tmp_path: Path) -> None:
    for copy in _killed(template, tmp_path / "copies", {"verb": "erase", "subject": PERSON}):
        folder = RunFolder(copy / "run")
        assert unfinished(folder) is None
        (rollback,) = rollbacks(folder)
        assert run_id(folder) == rollback.next_run
        assert [folder.round_of(path) for path in folder.checkpoints_newest_first()] == [2, 1], copy
        assert not list((copy / "run").glob("synthetic.*"))
        assert len({it.sha256 for it in removals(folder)}) == len(removals(folder)), copy
        record = read_run(copy / "run" / "run.json")
        assert (record.rounds_done, record.outcome, len(record.rollbacks)) == (2, "interrupted", 1), copy
        (certificate,) = (copy / "consent.db.d" / "certificates").glob("*.json")
        body = verify_certificate(certificate)
        files = {it["path"]: it for it in body["runs"][0]["artefacts"]}
        assert files["synthetic.parquet"]["removal"]["method"] == "deleted", copy
        with ConsentStore.open(copy / "consent.db") as store:
            assert find(store, PERSON) is None
            assert erased_at(store, PERSON) is not None
            targets = [task["target"] for task in store.tasks()]
            assert len(targets) == len(set(targets)) == 2, (
                copy
            )  # the store itself, and the rows in the source
            assert store.verify().rights == 1, copy


@pytest.mark.slow
@pytest.mark.process
def test_a_sweep_killed_at_any_step_is_finished_by_the_next(template: Path, tmp_path: Path) -> None:
    for copy in _killed(template, tmp_path / "copies", {"verb": "sweep", "at": FUTURE}):
        folder = RunFolder(copy / "run")
        assert folder.checkpoints_newest_first() == []
        assert not list((copy / "run").glob("synthetic.*"))
        gone = removals(folder)
        assert len({it.sha256 for it in gone}) == len(gone) >= 7, copy
        assert {it.reason for it in gone} == {"ARTEFACT_RETENTION_EXPIRED"}
        assert read_run(copy / "run" / "run.json").artefacts == (), copy
        with ConsentStore.open(copy / "consent.db") as store:
            assert [task["target"] for task in store.tasks()] == ["record/rec-1"], copy
            assert [task["reason_code"] for task in store.tasks()] == ["RETENTION_EXPIRED"]
