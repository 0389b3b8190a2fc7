import gzip
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedgen.policy.consent import ConsentLog

NAMES = ("subject", "purpose", "status", "recorded_at", "effective_at", "expires_at")
ROWS = (
    ("ann", "train", "granted", "2026-01-01T00:00:00Z", "", ""),
    ("bob", "train", "granted", "2026-01-01T00:00:00Z", "", ""),
    ("bob", "train", "withdrawn", "2026-03-01T01:00:00+01:00", "", ""),
    ("cyd", "train", "granted", "2026-01-01T00:00:00Z", "", "2026-02-01T00:00:00Z"),
    ("dan", "care", "granted", "2026-01-01T00:00:00Z", "", ""),
    ("eve", "train", "objected", "2026-01-01T00:00:00Z", "2026-09-01T00:00:00Z", ""),
    ("fay", "*", "refused", "2026-01-01T00:00:00Z", "", "2026-02-01T00:00:00Z"),
    ("gus", "train", "invalidated", "2026-01-01T00:00:00Z", "", ""),
    ("hal", "train", "expired", "2026-01-01T00:00:00Z", "", ""),
    ("ida", "train", "granted", "2026-01-01T00:00:00Z", "2026-06-01T00:00:00Z", ""),
)
PEOPLE = np.array([b"ann", b"bob", b"cyd", b"dan", b"eve", b"fay", b"gus", b"hal", b"ida", b"unheard-of"])
MAY = datetime(2026, 5, 1, tzinfo=UTC)


def write(path: Any, rows: Any = ROWS) -> Any:
    if path.suffix == ".parquet":
        pq.write_table(pa.table({n: [r[i] or None for r in rows] for i, n in enumerate(NAMES)}), path)
    elif path.suffix == ".jsonl":
        objects = ({n: v for n, v in zip(NAMES, r, strict=True) if v} for r in rows)
        path.write_text("".join(json.dumps(o) + "\n" for o in objects))
    else:
        text = "".join(",".join(r) + "\n" for r in (NAMES, *rows))
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.fixture
def log(tmp_path: Path) -> Any:
    return ConsentLog.read(write(tmp_path / "consent.csv"))


@pytest.mark.parametrize("name", ["c.csv", "c.csv.gz", "c.parquet", "c.jsonl"])
def test_every_format_says_the_same(tmp_path: Path, name: str) -> None:
    decision = ConsentLog.read(write(tmp_path / name)).decide(PEOPLE, "train", MAY)
    assert decision.permitted.tolist() == [True] + [False] * 9
    assert decision.reasons == {
        "consent-withdrawn": 1,
        "consent-expired": 2,  # cyd's grant ended, hal's was declared expired
        "purpose-not-consented": 1,
        "objected": 1,
        "consent-refused": 1,
        "consent-invalidated": 1,
        "consent-missing": 2,  # ida's grant has not begun; one is unheard of
    }
    assert decision.until == datetime(2026, 6, 1, tzinfo=UTC)


def test_parquet_instants_are_read_as_such(tmp_path: Path) -> None:
    instants = pa.array([datetime(2026, 1, 1, tzinfo=UTC)], pa.timestamp("ms", "UTC"))
    row = {"subject": [7], "purpose": ["train"], "status": ["granted"], "recorded_at": instants}
    path = tmp_path / "c.parquet"
    pq.write_table(pa.table(row), path)
    log = ConsentLog.read(path)
    assert log.decide(np.array([b"7", b"8"]), "train", MAY).permitted.tolist() == [True, False]


def test_silence_means_yes_only_under_opt_out(log: Any) -> None:
    decision = log.decide(PEOPLE, "train", MAY, "opt-out")
    assert [p.decode() for p in PEOPLE[decision.permitted]] == ["ann", "dan", "ida", "unheard-of"]
    assert "consent-missing" not in decision.reasons
    assert "purpose-not-consented" not in decision.reasons


def test_counts_are_of_rows_and_rows_of_one_person_go_together(log: Any) -> None:
    rows = PEOPLE[[1, 0, 1, 1, 9]]
    decision = log.decide(rows, "train", MAY)
    assert decision.permitted.tolist() == [False, True, False, False, False]
    assert decision.reasons == {"consent-withdrawn": 3, "consent-missing": 1}


def test_a_withdrawal_takes_effect_at_the_instant_it_is_recorded(log: Any) -> None:
    instant = datetime(2026, 3, 1, tzinfo=UTC)
    before = log.decide(PEOPLE[1:2], "train", instant - timedelta(microseconds=1))
    assert before.permitted.all()
    assert before.until == instant
    assert not log.decide(PEOPLE[1:2], "train", instant).permitted.any()


def test_the_zone_of_the_question_does_not_matter(log: Any) -> None:
    at = datetime(2026, 3, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    assert not log.decide(PEOPLE[1:2], "train", at).permitted.any()


def test_no_rows(log: Any) -> None:
    decision = log.decide(PEOPLE[:0], "train", MAY)
    assert decision.permitted.shape == (0,)
    assert decision.reasons == {}


def test_an_identifier_that_only_begins_alike_is_another_person(log: Any) -> None:
    assert not log.decide(np.array([b"an", b"annx", b"Ann"]), "train", MAY).permitted.any()


def test_the_answer_is_remembered_until_it_may_change(log: Any) -> None:
    first = log.decide(PEOPLE, "train", MAY)
    assert log.decide(PEOPLE, "train", first.until - timedelta(microseconds=1)) is first
    assert log.decide(PEOPLE, "train", first.until) is not first
    assert log.decide(PEOPLE, "train", first.until).permitted[8]


def test_memory_never_mixes_questions(log: Any) -> None:
    opt_in = log.decide(PEOPLE, "train", MAY)
    assert log.decide(PEOPLE, "train", MAY, "opt-out").permitted.sum() > opt_in.permitted.sum()
    assert log.decide(PEOPLE, "care", MAY).permitted.tolist() == [False] * 3 + [True] + [False] * 6
    assert len(log.decide(PEOPLE[:2], "train", MAY).permitted) == 2
    earlier = log.decide(PEOPLE, "train", MAY - timedelta(days=100))
    assert earlier.permitted.sum() == 3


def test_memory_does_not_grow_without_bound(log: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedgen.policy.consent._MOST_ANSWERS", 3)
    kept = [PEOPLE.copy() for _ in range(10)]
    for subjects in kept:
        log.decide(subjects, "train", MAY)
    assert len(log._decisions) <= 3


def test_a_decision_cannot_be_changed(log: Any) -> None:
    with pytest.raises(ValueError, match="read-only"):
        log.decide(PEOPLE, "train", MAY).permitted[1] = True


def test_after_the_last_instant_nothing_changes_any_more(log: Any) -> None:
    assert log.decide(PEOPLE, "train", datetime(2030, 1, 1, tzinfo=UTC)).until is None


def test_an_instant_beyond_the_calendar_is_never(tmp_path: Path) -> None:
    row = ("ann", "train", "granted", "2026-01-01T00:00:00Z", "", "9999-12-31T23:59:59-01:00")
    decision = ConsentLog.read(write(tmp_path / "c.csv", [row])).decide(PEOPLE[:1], "train", MAY)
    assert decision.permitted.all()
    assert decision.until is None


def test_the_end_of_a_restriction_is_no_instant_of_change(tmp_path: Path) -> None:
    row = ("ann", "train", "withdrawn", "2026-01-01T00:00:00Z", "", "2026-08-01T00:00:00Z")
    assert ConsentLog.read(write(tmp_path / "c.csv", [row])).decide(PEOPLE[:1], "train", MAY).until is None


def test_rereading_an_unchanged_file_keeps_the_log_and_its_memory(tmp_path: Path) -> None:
    log = ConsentLog.read(write(tmp_path / "c.csv"))
    assert log.reread() is log


def test_rereading_sees_a_withdrawal_of_the_same_length_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "c.csv", [("ann", "train", "invalidated", "2026-01-01T00:00:00Z", "", "")])
    log = ConsentLog.read(path)
    write(path, [("ann", "xtrai", "invalidated", "2026-01-01T00:00:00Z", "", "")])
    again = log.reread()
    assert again is not log
    assert again.digest != log.digest
    assert again.decide(PEOPLE[:1], "train", MAY).reasons == {"consent-missing": 1}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"at": datetime(2026, 5, 1)}, "time zone"),  # noqa: DTZ001 -- the naive time is the fault under test
        ({"regime": "maybe"}, "opt-in or opt-out"),
        ({"subjects": np.array(["ann"])}, "bytes"),
        ({"subjects": np.array([[b"ann"]])}, "one-dimensional"),
    ],
)
def test_a_question_that_is_not_one_is_refused(log: Any, change: Any, what: str) -> None:
    question = {"subjects": PEOPLE, "purpose": "train", "at": MAY, "regime": "opt-in"} | change
    with pytest.raises(ValueError, match=what):
        log.decide(**question)
