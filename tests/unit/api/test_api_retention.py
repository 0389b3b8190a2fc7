"""A sweep: records become tasks, files past their time go, holds are respected, and doing it twice changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from fedgen.api.retention import checkpoint_header, stored_in, sweep
from fedgen.api.rights import held_numbers, open_desk
from fedgen.errors import ConfigError, Refused
from fedgen.policy.calendar import microseconds_of
from fedgen.policy.remedy import Kind
from fedgen.policy.store import ConsentSaid, ConsentStore, RightSaid
from fedgen.policy.store.numbers import find
from fedgen.runs.folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = datetime(2026, 11, 1, tzinfo=UTC)
YEARS_AGO = microseconds_of(datetime(2020, 1, 1, tzinfo=UTC))
LATELY = microseconds_of(datetime(2026, 10, 1, tzinfo=UTC))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ConsentStore]:
    with ConsentStore.open(tmp_path / "consent.db", clock=lambda: NOW) as opened:
        yield opened


def _record(name: str, person: str, collected: int, **more: Any) -> dict[str, Any]:
    return {
        "record_id": name,
        "subject_id": person,
        "collected_at": collected,
        "last_activity_at": collected,
        "retention_rule": "default",
        "legal_basis": "contract",
        "collected_for": ["service_analytics"],
        **more,
    }


def _right(person: str, kind: str, **more: Any) -> RightSaid:
    return RightSaid(subject_id=person, kind=kind, effective_at=NOW, given_by=None, **more)


def _sweep(tmp_path: Path, **more: Any) -> Any:
    return sweep(tmp_path / "consent.db", at=NOW, packs=["gdpr"], **more)


def test_a_record_past_its_time_is_one_task_however_often_one_sweeps(
    tmp_path: Path, store: ConsentStore
) -> None:
    store.put_records([_record("old", "anna", YEARS_AGO), _record("new", "bert", LATELY)])
    foreseen = _sweep(tmp_path, dry_run=True)
    assert [(it.record, it.code, it.task) for it in foreseen.due] == [("old", "RETENTION_EXPIRED", None)]
    assert store.tasks() == []
    first, second = _sweep(tmp_path), _sweep(tmp_path)
    assert first.due == second.due
    assert [task["target"] for task in store.tasks()] == ["record/old"]
    store.close_task(first.due[0].task, method="deleted", evidence="0 rows")
    assert [it.task for it in _sweep(tmp_path).due] == [first.due[0].task]  # still known, still one
    assert len(store.tasks()) == 1


def test_a_withdrawal_without_another_basis_and_an_erasure_are_due_too(
    tmp_path: Path, store: ConsentStore
) -> None:
    asked = {"legal_basis": "consent", "collected_for": ["train_generator"]}
    store.put_records([_record("w", "anna", LATELY, **asked), _record("e", "bert", LATELY)])
    store.record(
        ConsentSaid(
            subject_id="anna", purpose="train_generator", action="given", effective_at=NOW - timedelta(days=2)
        ),
        ConsentSaid(subject_id="anna", purpose="*", action="withdrawn", effective_at=NOW - timedelta(days=1)),
        _right("bert", "erasure_request"),
    )
    found = sweep(tmp_path / "consent.db", at=NOW + timedelta(hours=1), packs=["gdpr"])
    assert {it.record: it.code for it in found.due} == {
        "w": "CONSENT_WITHDRAWN_NO_OTHER_BASIS",
        "e": "ERASURE_REQUESTED",
    }


def test_a_legal_hold_keeps_a_record_until_it_is_released(tmp_path: Path, store: ConsentStore) -> None:
    store.put_records([_record("old", "anna", YEARS_AGO)])
    day_before = NOW - timedelta(days=1)
    store.record(
        RightSaid(subject_id="anna", kind="legal_hold", scope="m-1", effective_at=day_before, given_by=None)
    )
    later = NOW + timedelta(hours=1)
    assert sweep(tmp_path / "consent.db", at=later, packs=["gdpr"]).due == ()
    store.record(
        RightSaid(subject_id="anna", kind="legal_hold_released", scope="m-1", effective_at=NOW, given_by=None)
    )
    (due,) = sweep(tmp_path / "consent.db", at=later, packs=["gdpr"]).due
    assert due.code == "RETENTION_EXPIRED"


def test_a_record_nobody_can_decide_on_is_counted_and_kept(tmp_path: Path, store: ConsentStore) -> None:
    store.put_records([_record("odd", "anna", YEARS_AGO, retention_rule="never-heard-of")])
    found = _sweep(tmp_path)
    assert (found.due, found.undecided) == ((), {"MALFORMED_RECORD": 1})


def test_a_pack_nobody_answers_for_decides_nothing(tmp_path: Path, store: ConsentStore) -> None:
    from fedgen._resources import kit

    own = tmp_path / "own.yaml"
    own.write_text(kit("policies", "gdpr.yaml").read_text() + "\n# edited\n")
    with pytest.raises(Refused, match="nobody answers"):
        sweep(tmp_path / "consent.db", packs=[own])


def test_a_store_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such consent store"):
        sweep(tmp_path / "typo.db")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="--home"):
        sweep("postgresql://here/there")


def test_who_is_held_is_known_by_number(tmp_path: Path, store: ConsentStore) -> None:
    for person in ("anna", "bert"):
        store.record(_right(person, "restriction"))
    store.record(_right("bert", "legal_hold", scope="m-1"))
    known = find(store, "bert")
    assert known is not None
    with open_desk(tmp_path / "consent.db", clock=lambda: NOW) as desk:
        assert held_numbers(desk.store, microseconds_of(NOW) + 10**6) == {known.number}
        assert oct(desk.home.stat().st_mode)[-3:] == "700"


def test_two_at_once_is_one_too_many_and_leftovers_of_a_kill_are_swept(
    tmp_path: Path, store: ConsentStore
) -> None:
    with open_desk(tmp_path / "consent.db") as desk:
        left = desk.erasures / ".half.json.0123.writing.json"
        left.write_text("{")
        key = desk.home / ".signing.key.0123.writing.key"
        key.write_text("half")
        # The folder may be a site's own, and its daemon at work.
        site = desk.home / ".store-head.0123.writing"
        site.write_text("being written")
        with pytest.raises(ConfigError, match="another erasure or sweep"):
            _sweep(tmp_path)
    _sweep(tmp_path)
    assert not left.exists()
    assert not key.exists()
    assert site.exists()


def test_nothing_is_known_of_a_checkpoint_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "round-000001.safetensors"
    for content in (b"", b"\xff" * 20, b"\x02\0\0\0\0\0\0\0{}", b"\x04\0\0\0\0\0\0\0null"):
        path.write_bytes(content)
        assert checkpoint_header(path) == {}
    assert checkpoint_header(tmp_path / "none") == {}


def test_what_says_nothing_of_its_birth_counts_from_the_start_of_the_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.checkpoints.mkdir()
    folder.checkpoint(3).write_bytes(b"of an earlier version")
    folder.synthetic().write_bytes(b"rows")
    folder.study.write_text("study")
    began = folder.study.stat().st_mtime
    found = stored_in(folder)
    assert [it.kind for it in found] == [Kind.CHECKPOINT, Kind.RELEASE]
    for it in found:
        assert timedelta(days=729) < timedelta(microseconds=it.until - began * 1e6) < timedelta(days=732)
