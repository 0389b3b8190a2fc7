"""A rehearsed store: learned when the file says so, exactly once, and never mistaken for a real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fedgen.errors import DataError
from fedgen.policy.columns import Action, Right
from fedgen.policy.store import ConsentSaid, ConsentStore
from fedgen.policy.store.rehearsal import bring, is_rehearsal, read_profiles, read_script

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "subject,purpose,status,recorded_at,expires_at,explicit,given_by,notice_version"
ROWS = [
    "a,train,granted,2026-01-01T00:00:00Z,,true,,3",
    "b,train,granted,2026-01-01T00:00:00Z,2026-06-01T00:00:00Z,,parent,2",
    "a,train,withdrawn,2026-02-01T00:00:00+01:00,,,,",
    "b,train,objected,2026-03-01T00:00:00Z,,,,",
    "b,*,gpc,2026-03-01T00:00:00Z,,,,",
]


def _write(path: Path, rows: list[str], header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def _store(folder: Path) -> ConsentStore:
    return ConsentStore.open(folder / "consent.db")


def test_events_are_learned_when_the_file_says(tmp_path: Path) -> None:
    script = read_script(_write(tmp_path / "events.csv", ROWS))
    with _store(tmp_path) as store:
        assert bring(store, script.lines) == 5
        assert is_rehearsal(store)
        store.verify()
        view = store.columns()
        assert view.consent.action.tolist() == [Action.GIVEN, Action.GIVEN, Action.WITHDRAWN]
        assert view.rights.kind.tolist() == [Right.OBJECTION, Right.GPC]
        recorded = np.array(
            ["2026-01-01T00:00", "2026-01-01T00:00", "2026-01-31T23:00"], dtype="datetime64[us]"
        )
        assert view.consent.recorded.tolist() == recorded.astype(np.int64).tolist()
        assert view.consent.notice_version.tolist()[:2] == [3, 2]
        assert view.consent.explicit.tolist() == [True, False, False]
        assert view.rights.scopes == ("train",)
        before = int(np.datetime64("2026-01-31T22:59:59.999999", "us").astype(np.int64))
        assert len(store.columns(before).consent) == 2


def test_what_is_there_is_not_brought_again_and_a_longer_file_adds_its_own(tmp_path: Path) -> None:
    with _store(tmp_path) as store:
        assert bring(store, read_script(_write(tmp_path / "a.csv", ROWS[:3])).lines) == 3
        head = store.head()
        assert bring(store, read_script(_write(tmp_path / "a.csv", ROWS)).lines) == 2
        assert bring(store, read_script(_write(tmp_path / "a.csv", ROWS)).lines) == 0
        assert store.extends(head)


def test_an_event_that_comes_too_late_is_learned_now_not_then(tmp_path: Path) -> None:
    with _store(tmp_path) as store:
        bring(store, read_script(_write(tmp_path / "a.csv", ROWS)).lines)
        last = store.head().recorded_at
        late = read_script(_write(tmp_path / "b.csv", ["c,train,granted,2025-01-01T00:00:00Z,,,,"]))
        bring(store, late.lines)
        assert store.head().recorded_at == last + 1


def test_two_equal_rows_are_two_events(tmp_path: Path) -> None:
    script = read_script(_write(tmp_path / "a.csv", [ROWS[0], ROWS[0]]))
    with _store(tmp_path) as store:
        assert bring(store, script.lines) == 2


def test_a_store_of_real_events_is_not_rehearsed_in(tmp_path: Path) -> None:
    script = read_script(_write(tmp_path / "a.csv", ROWS))
    with _store(tmp_path) as store:
        store.record(ConsentSaid(subject_id="a", purpose="t", action="given", effective_at=_now()))
        assert not is_rehearsal(store)
        with pytest.raises(DataError, match="not rehearsed in"):
            bring(store, script.lines)
        assert store.head().size == 1


def test_who_was_erased_is_not_brought_back(tmp_path: Path) -> None:
    script = read_script(_write(tmp_path / "a.csv", ROWS))
    with _store(tmp_path) as store:
        store.erase("a")
        assert bring(store, script.lines) == 3


def _now() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ("a,train,agreed,2026-01-01T00:00:00Z,,,,", "status"),
        ("a,train,granted,2026-01-01T00:00:00,,,,", "recorded_at"),
        ("a,train,granted,yesterday,,,,", "recorded_at"),
        ("a,train,granted,2026-01-01T00:00:00Z,tomorrow,,,", "expires_at"),
        ("a,*,granted,2026-01-01T00:00:00Z,,,,", "purpose"),
        ("a,,granted,2026-01-01T00:00:00Z,,,,", "purpose"),
        ("a,train,granted,2026-01-01T00:00:00Z,,maybe,,", "explicit"),
        ("a,train,granted,2026-01-01T00:00:00Z,,,uncle,", "given_by"),
        ("a,train,granted,2026-01-01T00:00:00Z,,,,three", "notice_version"),
        (",train,granted,2026-01-01T00:00:00Z,,,,", "subject"),
        (" a,train,granted,2026-01-01T00:00:00Z,,,,", "subject_id"),
    ],
)
def test_one_row_that_is_no_event_refuses_the_file_without_a_value(
    tmp_path: Path, row: str, key: str
) -> None:
    with pytest.raises(DataError) as refused:
        read_script(_write(tmp_path / "a.csv", [ROWS[0], row]))
    assert "row 2" in refused.value.what
    assert refused.value.key == key
    assert "uncle" not in str(refused.value)


@pytest.mark.parametrize("header", ["subject,status", "subject,status,recorded_at,expires"])
def test_columns_are_those_of_a_script(tmp_path: Path, header: str) -> None:
    with pytest.raises(DataError, match="column"):
        read_script(_write(tmp_path / "a.csv", [], header))


def test_profiles_are_read_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "subjects.csv"
    path.write_text("subject,birth_date,residence,timezone\na,1984-03-09,DE,Europe/Berlin\nb,,,\n")
    assert read_profiles(path) == {
        "a": ("a", "1984-03-09", "DE", "Europe/Berlin"),
        "b": ("b", None, None, None),
    }
    for bad in ("c,1984-13-09,DE,Europe/Berlin", "c,,Germany,", "c,,DE,Mars/Base", "a,,DE,"):
        path.write_text(f"subject,birth_date,residence,timezone\na,1984-03-09,DE,Europe/Berlin\n{bad}\n")
        with pytest.raises(DataError, match="row 2"):
            read_profiles(path)
