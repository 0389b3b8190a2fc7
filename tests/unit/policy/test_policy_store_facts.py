"""Files of profiles and of records' facts: what they add, what they repeat, and what is kept out by name."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from support.stores import NOON, Clock, Place, consent

from fedgen.errors import DataError
from fedgen.policy.columns import NO_DAY, Basis, ThreeWay
from fedgen.policy.store import ConsentStore, files, import_file, import_profiles, import_records
from fedgen.policy.store.incoming import quarantined

PROFILES: list[dict[str, Any]] = [
    {"subject": "a", "birth_date": "1990-02-28", "residence": "DE", "timezone": "Europe/Berlin",
     "aliases": ["a2", "a3"]},
    {"subject": "b", "birth_date": None, "residence": "FR", "timezone": None, "aliases": None},
]  # fmt: skip
RECORDS: list[dict[str, Any]] = [
    {
        "record_id": "r1", "subject_id": "a", "collected_at": "2026-01-01T00:00:00Z", "collected_for": ["t", "u"],
        "special_categories": ["health"], "legal_basis": "consent", "inaccurate": "false", "retention_rule": "default",
        "deidentified": {"reasonable_measures": True, "public_commitment": True, "contractual_no_reid": True},
    },
    {
        "record_id": "r2", "subject_id": "b", "collected_at": "2026-01-02T00:00:00+01:00", "collected_for": [],
        "special_categories": [], "legal_basis": None, "inaccurate": None, "retention_rule": None,
        "deidentified": None,
    },
]  # fmt: skip


def cell(value: object) -> str:
    """Return a value as a quoted CSV cell: lists as words between semicolons, or as JSON."""
    if value is None:
        return ""
    if isinstance(value, dict) or value == []:
        return '"' + json.dumps(value).replace('"', '""') + '"'
    return ";".join(value) if isinstance(value, list) else str(value)


def written(folder: Path, kind: str, rows: list[dict[str, Any]]) -> Path:
    path = folder / f"facts{kind}"
    if kind == ".csv":
        path.write_text("\n".join([",".join(rows[0]), *(",".join(map(cell, row.values())) for row in rows)]))
    elif kind == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        if "birth_date" in rows[0]:
            born = [row["birth_date"] and date.fromisoformat(row["birth_date"]) for row in rows]
            rows = [{**row, "birth_date": at} for row, at in zip(rows, born, strict=True)]
        parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".parquet"])
def test_profiles_say_the_same_in_every_format(store: ConsentStore, tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind, PROFILES)
    done = import_profiles(store, path)
    assert (done.rows, done.added, done.quarantined, done.clean) == (2, 2, 0, True)
    people = store.columns().subjects
    assert people.people.tolist() == [b"a", b"b"]
    assert people.birth_day.tolist() == [7363, NO_DAY]
    assert [people.countries[i] for i in people.residence] == ["DE", "FR"]
    assert [people.zones[i] for i in people.zone if i >= 0] == ["Europe/Berlin"]
    assert (people.alias.tolist(), people.alias_of.tolist()) == ([b"a2", b"a3"], [0, 0])
    assert store.last_sync() is None  # who knows birthdays may have missed a withdrawal
    other = path.with_name("again" + kind)
    other.write_bytes(path.read_bytes() + (b"\n" if kind != ".parquet" else b""))
    again = import_profiles(
        store, other, mapping={n.replace("subject", "subject_id"): n for n in PROFILES[0]}
    )
    assert (again.added, again.repeated) == (0, 2)


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".parquet"])
def test_records_say_the_same_in_every_format(store: ConsentStore, tmp_path: Path, kind: str) -> None:
    done = import_records(store, written(tmp_path, kind, RECORDS))
    assert (done.rows, done.added, done.quarantined) == (2, 2, 0)
    ids, records = store.records()
    assert ids == ("r1", "r2")
    assert [records.people[i] for i in records.subject] == [b"a", b"b"]
    assert records.collected_at.tolist() == [1767225600000000, 1767308400000000]
    assert [records.purpose_sets[i] for i in records.collected_for] == [{"t", "u"}, set()]
    assert [records.category_sets[i][1] for i in records.categories] == [{"health"}, set()]
    assert records.basis.tolist() == [Basis.CONSENT, Basis.NONE]
    assert records.sensitive.tolist() == [ThreeWay.YES, ThreeWay.NO]
    assert records.deidentified.tolist() == [True, False]
    assert records.inaccurate.tolist() == [False, True]  # left open: it may be
    assert import_records(store, written(tmp_path, kind, RECORDS)).added == 2  # what it was the first time
    changed = [RECORDS[0], {**RECORDS[1], "legal_basis": "contract"}]
    done = import_records(store, written(tmp_path, kind, changed))
    assert (done.added, done.repeated) == (1, 1)
    assert store.records()[1].basis.tolist() == [Basis.CONSENT, Basis.CONTRACT]


@pytest.mark.parametrize(
    ("row", "column", "reason"),
    [
        (",1990-01-01,DE,,", "subject_id", "missing"),
        (" x,1990-01-01,DE,,", "subject_id", "not-a-person"),
        ("x,1990-02-30,DE,,", "birth_date", "not-a-date"),
        ("x,19900101,DE,,", "birth_date", "not-a-date"),
        ("x,2026-05-06,DE,,", "birth_date", "not-a-date"),
        ("x,,Germany,,", "residence", "not-a-country"),
        ("x,,de,,", "residence", "not-a-country"),
        ("x,,DE,Europe/Bonn,", "timezone", "not-a-zone"),
        ("x,,DE,../zone,", "timezone", "not-a-zone"),
        ("x,,DE,,a;; b", "aliases", "not-a-person"),
        ("x,,DE,,ok", "aliases", "alias-conflict"),
        ("x,,DE,,other-name", "aliases", "alias-conflict"),
        ("x,,DE,", "", "broken-row"),
    ],
)
def test_a_row_that_is_no_profile_is_kept_out_by_name(
    store: ConsentStore, tmp_path: Path, row: str, column: str, reason: str
) -> None:
    path = tmp_path / "people.csv"
    path.write_text(f"subject_id,birth_date,residence,timezone,aliases\nok,,DE,,other-name\n{row}\n")
    done = import_profiles(store, path)
    assert (done.added, done.quarantined, done.clean) == (1, 1, False)
    assert quarantined(store, done.job) == [(2, column, reason)]
    assert [store.columns().subjects.countries[0]] == ["DE"]
    if reason != "alias-conflict":
        with pytest.raises(DataError, match="row 2 is no profile") as caught:
            import_profiles(store, path, strict=True)
        assert "Bonn" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "column", "reason"),
    [
        ({"record_id": None}, "record_id", "missing"),
        ({"subject_id": None}, "subject_id", "missing"),
        ({"collected_at": None}, "collected_at", "missing"),
        ({"collected_at": "2026-01-01T00:00:00"}, "collected_at", "naive-time"),
        ({"collected_at": "2027-01-01T00:00:00Z"}, "collected_at", "in-the-future"),
        ({"collected_for": None}, "collected_for", "missing"),
        ({"special_categories": None}, "special_categories", "missing"),
        ({"special_categories": {"health": 1}}, "special_categories", "not-text"),
        ({"legal_basis": "because"}, "legal_basis", "unknown-word"),
        ({"legal_basis": "none"}, "legal_basis", "unknown-word"),
        ({"deidentified": {"reasonable_measures": "yes"}}, "deidentified", "not-measures"),
        ({"inaccurate": "maybe"}, "inaccurate", "not-a-flag"),
        ({"record_id": "r1", "subject_id": "z"}, "subject_id", "record-of-another"),
    ],
)
def test_a_row_that_is_no_record_is_kept_out_by_name(
    store: ConsentStore, tmp_path: Path, change: dict[str, Any], column: str, reason: str
) -> None:
    rows = [RECORDS[0], {**RECORDS[0], "record_id": "x", **change}]
    done = import_records(store, written(tmp_path, ".jsonl", rows))
    assert (done.added, done.quarantined) == (1, 1)
    assert quarantined(store, done.job) == [(2, column, reason)]
    assert store.records()[0] == ("r1",)


def test_a_second_birth_date_is_two_people_until_it_is_corrected(store: ConsentStore, tmp_path: Path) -> None:
    first, second = tmp_path / "one.csv", tmp_path / "two.csv"
    first.write_text("subject,birth_date\na,1990-01-01\n")
    second.write_text("subject,birth_date\na,1991-01-01\n")
    import_profiles(store, first)
    import_profiles(store, second)
    assert store.columns().subjects.ambiguous.tolist() == [True]
    assert import_profiles(store, second).added == 1  # the same import: nothing more
    done = import_profiles(store, second, corrects=True)
    assert (done.added, done.repeated) == (1, 0)
    assert store.columns().subjects.ambiguous.tolist() == [False]
    known = store.columns()
    assert import_profiles(store, first).added == 1
    assert store.columns().subjects is known.subjects


def test_somebody_who_was_erased_stays_away_under_any_name(
    place: Place, store: ConsentStore, tmp_path: Path
) -> None:
    store.record(consent("a"))
    store.put_alias("a2", "a")
    store.erase("a")
    path = tmp_path / "people.csv"
    path.write_text("subject,residence,aliases\na,DE,\nnew,DE,a2\nb,FR,\n")
    done = import_profiles(store, path)
    assert (done.added, done.suppressed) == (1, 2)
    assert store.columns().subjects.people.tolist() == [b"b"]
    path.write_text(
        "record_id,subject,collected_at,collected_for,special_categories\nr,a,2026-01-01T00:00:00Z,t,[]\n"
    )
    assert import_records(store, path).suppressed == 1
    assert store.records()[0] == ()


def test_an_alias_that_comes_later_is_seen(store: ConsentStore) -> None:
    store.put_profiles([("a", None, "DE", None)])
    assert store.columns().subjects.alias.tolist() == []
    store.put_alias("a2", "a")
    assert store.columns().subjects.alias.tolist() == [b"a2"]


def test_an_import_that_was_stopped_goes_on(
    store: ConsentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(files, "BLOCK", 10)
    path = tmp_path / "people.csv"
    path.write_text("subject,residence\n" + "".join(f"p{i},DE\n" for i in range(25)))

    class Stopped(Exception):
        pass

    def stop(rows: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        import_profiles(store, path, progress=stop)
    assert len(store.columns().subjects) == 10
    clock.go(hours=1)
    done = import_profiles(store, path)
    assert (done.rows, done.added, done.repeated) == (25, 25, 0)
    assert len(store.columns().subjects) == 25
    assert store.trouble() == "CONSENT_STORE_STALE"


@pytest.mark.parametrize("bring", [import_profiles, import_records])
def test_what_is_no_file_of_facts_is_refused(store: ConsentStore, tmp_path: Path, bring: object) -> None:
    path = tmp_path / "x.cloudevents.jsonl"
    path.write_text("{}")
    with pytest.raises(DataError, match="unknown kind"):
        bring(store, path)  # type: ignore[operator]
    path = tmp_path / "x.csv"
    path.write_text("subject,subject_id,record_id,collected_at,collected_for,special_categories\n")
    with pytest.raises(DataError, match="two columns of one name"):
        bring(store, path)  # type: ignore[operator]
    path.write_text("record_id,birth_date\n")
    with pytest.raises(DataError, match=r"unknown column|a column is missing"):
        bring(store, path)  # type: ignore[operator]


def test_a_file_is_not_taken_for_another_kind(store: ConsentStore, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("event_id,subject_id,purpose,action,effective_at\ne,a,t,given,2026-01-01T00:00:00Z\n")
    assert import_file(store, path).added == 1
    with pytest.raises(DataError, match="unknown column"):
        import_profiles(store, path)
    assert store.last_sync() == NOON
