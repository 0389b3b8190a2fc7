"""Erasing a person from a run that goes on: later models go, the run returns to before them, and the books agree."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support.erasing import ask_the_store, grant
from support.ledgers import reserved
from support.studies import write_consent, write_study

import fedgen
from fedgen.api.budgets import audit_budget
from fedgen.api.certificate import verify_certificate
from fedgen.api.erase import erase
from fedgen.errors import BudgetExhausted, ConfigError, Interrupted
from fedgen.policy.lineage import Stretch
from fedgen.policy.remedy import Remedy
from fedgen.policy.store import ConsentStore, RightSaid
from fedgen.policy.store.numbers import find
from fedgen.runs.folder import RunFolder
from fedgen.runs.journal import read_rounds, read_run, standing
from fedgen.runs.lock import locked
from fedgen.runs.register import removals
from fedgen.runs.rollback import lineage, rollbacks, run_id
from fedgen.site.uses import read_uses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LATE = 7  # agrees only after round 5
EARLY = 3
NAMES = ("site-01", "site-02", "site-03")
ROUNDS = 8


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ConsentStore]:
    with ConsentStore.open(tmp_path / "consent.db") as opened:
        grant(opened, *(number for number in range(120) if number != LATE))
        ask_the_store(monkeypatch, opened, tmp_path / "consent.db.d" / "used")
        yield opened


@pytest.fixture
def stopped(tmp_path: Path, store: ConsentStore) -> Path:
    """A run that was stopped after seven of eight rounds, in the last two of which LATE took part."""
    # Nobody is held out, so that LATE is at a site.
    study = write_study(
        tmp_path, policy={"consent": "consent.csv"}, training={"rounds": ROUNDS}, data={"holdout": 0.0}
    )
    write_consent(tmp_path / "consent.csv", granted=120)

    def watch(event: Any) -> None:
        if not hasattr(event, "roster"):
            return
        if event.round == 5:
            grant(store, LATE)
        if event.round == 7:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        fedgen.simulate(study, out=tmp_path / "run", listener=watch)
    return tmp_path / "run"


def _number(store: ConsentStore, name: str) -> int:
    known = find(store, name)
    assert known is not None
    return known.number


def test_who_came_late_is_rolled_back_and_never_used_again(
    tmp_path: Path, store: ConsentStore, stopped: Path
) -> None:
    number, before = _number(store, f"p{LATE:04d}"), run_id(RunFolder(stopped))
    uses = read_uses(tmp_path / "consent.db.d" / "used")
    assert {at for _run, at in uses.rounds([number])} == {6, 7}
    assert (stopped / "synthetic.parquet").is_file()

    done = erase(f"p{LATE:04d}", tmp_path / "consent.db", [stopped])

    assert done.state == "done"
    (told,) = done.runs
    assert (told["remedy"], told["first_use"], told["back_to"]) == ("withdraw_release", 6, 5)
    assert (told["rounds_needed"], told["rounds_that_fit"]) == (3, 1)
    classes = {it["path"]: it["remedy"] for it in told["artefacts"]}
    assert classes["checkpoints/round-000005.safetensors"] == Remedy.NONE_NEEDED
    assert classes["checkpoints/round-000006.safetensors"] == Remedy.ROLLBACK
    assert classes["synthetic.parquet"] == Remedy.WITHDRAW_RELEASE
    assert max((stopped / "checkpoints").glob("*.safetensors")).name == "round-000005.safetensors"
    for gone in ("synthetic.parquet", "synthetic.csv", "report.html", "report.json"):
        assert not (stopped / gone).exists()
    assert not list(stopped.glob("sites/*/answer"))
    (notice,) = stopped.glob("recall-*.txt")
    text = notice.read_text()
    assert f"p{LATE:04d}" not in text
    assert next(it["sha256"] for it in told["artefacts"] if it["path"] == "synthetic.parquet") in text
    record = read_run(stopped / "run.json")
    assert (record.outcome, record.rounds_done, len(record.rollbacks)) == ("interrupted", 5, 1)
    assert record.run != before == record.rollbacks[0].run
    assert [
        line.round for line in standing(read_rounds(stopped / "metrics.jsonl"), rollbacks(RunFolder(stopped)))
    ] == [1, 2, 3, 4, 5]

    # The noise was bought for eight rounds: seven are spent, one fits, and the run then ends with its last safe model.
    with pytest.raises(BudgetExhausted) as short:
        fedgen.simulate(tmp_path / "study.yaml", out=stopped, resume=True)
    assert short.value.exit_code == 5

    run = fedgen.load_run(stopped)
    assert (run.record.outcome, run.record.rounds_done) == ("budget", 6)
    later = {
        (of, at) for of, at in read_uses(tmp_path / "consent.db.d" / "used").on_record if of == run.record.run
    }
    assert {at for _run, at in later} == {
        6,
        7,
    }  # round 7 was asked, put on record, and refused for want of budget
    assert not later & read_uses(tmp_path / "consent.db.d" / "used").rounds([number])
    assert lineage(run.folder, 6) == (Stretch(before, 1, 5), Stretch(run.record.run, 6, 6))
    for name in NAMES:
        rounds = [number for number, _attempt in reserved(stopped / "sites" / name / "ledger.db")]
        assert rounds == [1, 2, 3, 4, 5, 6, 7, 6]
    audited = audit_budget(stopped)
    assert audited.ok
    assert audited.claims
    assert "rolled back" in (stopped / "report.html").read_text()
    assert len(run.sample(5)) == 5


def test_the_certificate_is_signed_and_names_nobody(
    tmp_path: Path, store: ConsentStore, stopped: Path
) -> None:
    name = f"p{LATE:04d}"
    done = erase(name, tmp_path / "consent.db", [stopped])
    assert done.certificate is not None
    assert done.opening is not None
    text = done.certificate.read_text()
    assert name not in text
    assert str(tmp_path) not in text
    key = done.certificate.parent / "public-key.hex"
    body = verify_certificate(done.certificate, key=key, subject=name, opening=done.opening)
    (run,) = body["runs"]
    gone = {it["path"]: it["removal"] for it in run["artefacts"] if it["remedy"] != "none_needed"}
    assert len(gone) >= 5
    assert all(it["method"] == "deleted" and it["verified_at"] for it in gone.values())
    assert {it.path for it in removals(RunFolder(stopped))} == set(gone)
    for place in (tmp_path / "consent.db.d").rglob("*"):
        if place.is_file():
            assert name.encode() not in place.read_bytes(), place
    assert done.opening.encode() not in b"".join(
        p.read_bytes() for p in (tmp_path / "consent.db.d").rglob("*") if p.is_file()
    )


def test_done_twice_changes_nothing_and_the_person_cannot_come_back(
    tmp_path: Path, store: ConsentStore, stopped: Path
) -> None:
    name = f"p{LATE:04d}"
    first = erase(name, tmp_path / "consent.db", [stopped])
    identity = run_id(RunFolder(stopped))
    again = erase(name, tmp_path / "consent.db", [stopped])
    assert (again.state, again.id, again.certificate) == ("already", first.id, first.certificate)
    assert run_id(RunFolder(stopped)) == identity
    grant(store, LATE)  # suppressed
    assert find(store, name) is None


def test_who_was_there_from_the_start_means_beginning_anew(
    tmp_path: Path, store: ConsentStore, stopped: Path
) -> None:
    foreseen = erase(f"p{EARLY:04d}", tmp_path / "consent.db", [stopped], dry_run=True)
    (told,) = foreseen.runs
    assert (told["first_use"], told["back_to"], told["rounds_that_fit"]) == (1, 0, 1)
    assert (stopped / "synthetic.parquet").is_file()
    assert find(store, f"p{EARLY:04d}") is not None

    erase(f"p{EARLY:04d}", tmp_path / "consent.db", [stopped])
    assert not list((stopped / "checkpoints").glob("*.safetensors"))
    with pytest.raises(BudgetExhausted):
        fedgen.simulate(tmp_path / "study.yaml", out=stopped, resume=True)
    record = read_run(stopped / "run.json")
    assert record.rounds_done == 1
    assert audit_budget(stopped).ok


def test_somebody_else_is_nobodys_business(tmp_path: Path, store: ConsentStore, stopped: Path) -> None:
    before = run_id(RunFolder(stopped))
    done = erase("somebody-else", tmp_path / "consent.db", [stopped])
    assert done.state == "done"
    assert done.runs[0]["remedy"] == Remedy.NONE_NEEDED
    assert run_id(RunFolder(stopped)) == before
    assert (stopped / "synthetic.parquet").is_file()


def test_a_run_that_is_not_named_is_a_task_with_its_first_round(
    tmp_path: Path, store: ConsentStore, stopped: Path, fedgen: Callable[..., Any]
) -> None:
    said = fedgen("erase", f"p{LATE:04d}", "--store", tmp_path / "consent.db", "--json")
    assert said.code == 0
    (elsewhere,) = said.document["elsewhere"]
    assert (elsewhere["first_round"], elsewhere["run"]) == (6, run_id(RunFolder(stopped)))
    assert len(said.document["open_tasks"]) == 2  # that run, and the rows in the source
    assert not said.document["complete"]
    # What its coordinator then does, and the site writes down.
    rolled = fedgen("retention", "rollback", stopped, "--before", 6, "--json")
    assert (rolled.code, rolled.document["back_to"]) == (0, 5)
    for task in said.document["open_tasks"]:
        closed = fedgen(
            "retention", "done", task, "--store", tmp_path / "consent.db", "--method", "rolled back"
        )
        assert closed.code == 0
    assert fedgen("erase", f"p{LATE:04d}", "--store", tmp_path / "consent.db", "--json").document["complete"]


def test_under_a_legal_hold_nothing_goes_until_it_is_released(
    tmp_path: Path, store: ConsentStore, stopped: Path, fedgen: Callable[..., Any]
) -> None:
    from datetime import UTC, datetime

    name, place = f"p{LATE:04d}", tmp_path / "consent.db"
    hold = RightSaid(
        subject_id=name, kind="legal_hold", scope="m-1", effective_at=datetime.now(UTC), given_by=None
    )
    store.record(hold)
    said = fedgen("erase", name, "--store", place, "--run", stopped, "--json")
    assert (said.code, said.document["state"]) == (0, "suspended")
    assert (stopped / "synthetic.parquet").is_file()
    assert find(store, name) is not None
    assert fedgen("retention", "sweep", "--store", place, "--json").document["finished_erasures"] == []

    store.record(
        RightSaid(
            subject_id=name,
            kind="legal_hold_released",
            scope="m-1",
            effective_at=datetime.now(UTC),
            given_by=None,
        )
    )
    swept = fedgen("retention", "sweep", "--store", place, "--json")
    assert swept.document["finished_erasures"] == [said.document["id"]]
    assert not (stopped / "synthetic.parquet").exists()
    assert find(store, name) is None
    (certificate,) = (tmp_path / "consent.db.d" / "certificates").glob("*.json")
    assert json.loads(certificate.read_text())["certificate"]["id"] == said.document["id"]


def test_while_the_run_goes_on_the_person_is_out_and_the_rest_waits(
    tmp_path: Path, store: ConsentStore, stopped: Path
) -> None:
    name = f"p{LATE:04d}"
    with locked(stopped), pytest.raises(ConfigError, match="another run is using"):
        erase(name, tmp_path / "consent.db", [stopped])
    assert store.columns().rights.kind.size == 1  # the request stands
    assert erase(name, tmp_path / "consent.db", [stopped]).state == "done"
    assert store.columns(subjects=None).rights.kind.size == 0  # and belongs to nobody now


def test_a_run_nobody_has_on_record_is_unsupported_and_left_to_a_person(
    tmp_path: Path, store: ConsentStore, stopped: Path
) -> None:
    for path in (tmp_path / "consent.db.d" / "used").iterdir():
        path.unlink()
    done = erase(f"p{LATE:04d}", tmp_path / "consent.db", [stopped])
    assert done.state == "done"
    assert not done.complete
    assert {it["remedy"] for it in done.runs[0]["artefacts"]} == {Remedy.UNSUPPORTED}
    assert (stopped / "synthetic.parquet").is_file()
    targets = [task["target"] for task in store.tasks(open_only=True)]
    assert any("/by-hand/" in target for target in targets)


def test_a_round_charged_and_not_on_record_counts_as_used(
    tmp_path: Path, store: ConsentStore, stopped: Path
) -> None:
    for journal in (tmp_path / "consent.db.d" / "used").glob("rounds-*.jsonl"):
        lines = journal.read_text().splitlines(keepends=True)
        journal.write_text("".join(line for line in lines if json.loads(line)["round"] != 4))
    (told,) = erase(f"p{LATE:04d}", tmp_path / "consent.db", [stopped], dry_run=True).runs
    assert (told["first_use"], told["back_to"]) == (4, 3)


def test_a_withdrawal_is_a_task_of_the_sweep_with_its_first_round(
    tmp_path: Path, store: ConsentStore, stopped: Path, fedgen: Callable[..., Any]
) -> None:
    from datetime import UTC, datetime, timedelta

    name, now = f"p{LATE:04d}", datetime.now(UTC)
    facts = {
        "collected_at": int(now.timestamp() * 1e6),
        "retention_rule": "default",
        "legal_basis": "consent",
    }
    store.put_records([{"record_id": "r", "subject_id": name, "collected_for": ["train_generator"], **facts}])
    store.withdraw(name, "*", at=now - timedelta(seconds=1))
    place = ("--store", tmp_path / "consent.db", "--run", stopped, "--pack", "gdpr")
    for _ in range(2):
        swept = fedgen("retention", "sweep", *place, "--json").document
        assert [it["code"] for it in swept["records"]] == ["CONSENT_WITHDRAWN_NO_OTHER_BASIS"]
        revoked = swept["runs"][0]["revoked"]
        assert (revoked["first_use"], revoked["back_to"]) == (6, 5)
        assert swept["runs"][0]["removed"] == []  # what is done about it is for a person to say
    assert sorted(task["reason_code"] for task in store.tasks()) == [
        "ARTEFACT_LINEAGE_REVOKED",
        "CONSENT_WITHDRAWN_NO_OTHER_BASIS",
    ]
    assert "--before 6" in fedgen("retention", "sweep", *place).out


def test_an_exception_keeps_the_records_and_not_the_model(
    tmp_path: Path, store: ConsentStore, stopped: Path, fedgen: Callable[..., Any]
) -> None:
    name = f"p{LATE:04d}"
    said = fedgen(
        "erase",
        name,
        "--store",
        tmp_path / "consent.db",
        "--run",
        stopped,
        "--exception",
        "17(3)(b)",
        "--json",
    )
    assert said.code == 0
    assert (said.document["state"], said.document["open_tasks"]) == ("done", [])
    assert find(store, name) is not None
    assert not (stopped / "synthetic.parquet").exists()
    body = verify_certificate(said.document["certificate"])
    assert body["records"]["code"] == "ERASURE_EXCEPTION_RETAIN"
    assert body["identity"] == {"state": "kept"}
