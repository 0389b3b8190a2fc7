"""Files of events: four formats, bad rows that are named and kept out, and kills that lose and double nothing."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from support.stores import NOON, Clock, Place

from fedgen.errors import DataError
from fedgen.policy.columns import Action, Right
from fedgen.policy.store import ConsentStore, files, import_file
from fedgen.policy.store.incoming import quarantined, settle

ROOT = Path(__file__).resolve().parents[3]
HEADER = "event_id,subject_id,purpose,action,effective_at"
ROWS = [
    {
        "event_id": "e1", "subject_id": "a", "purpose": "t", "action": "given",
        "effective_at": "2026-01-01T10:00:00+02:00", "notice_version": "3", "explicit": "true",
        "valid_until": "2027-01-01T00:00:00Z", "given_by": "parent",
    },
    {
        "event_id": "e2", "subject_id": "b", "purpose": "*", "action": "withdrawn",
        "effective_at": "2026-02-01T00:00:00.5Z", "notice_version": None, "explicit": None,
        "valid_until": None, "given_by": None,
    },
]  # fmt: skip


def csv_text(rows: list[dict[str, Any]]) -> str:
    lines = [",".join("" if v is None else str(v) for v in row.values()) for row in rows]
    return "\n".join([",".join(rows[0]), *lines]) + "\n"


def written(folder: Path, kind: str) -> Path:
    path = folder / f"events{kind}"
    if kind == ".csv":
        path.write_text(csv_text(ROWS), encoding="utf-8-sig")
    elif kind == ".csv.gz":
        path.write_bytes(gzip.compress(csv_text(ROWS).encode()))
    elif kind == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS))
    elif kind == ".parquet":
        table = pa.Table.from_pylist(ROWS)
        at = pa.array(["2026-01-01T08:00:00Z", "2026-02-01T00:00:00.5Z"]).cast(pa.timestamp("us", "UTC"))
        table = table.set_column(4, "effective_at", at).set_column(5, "notice_version", pa.array([3, None]))
        parquet.write_table(table.set_column(6, "explicit", pa.array([True, None])), path)
    else:
        events = [cloudevent(row) for row in ROWS]
        lines = kind.endswith("jsonl")
        path.write_text("\n".join(map(json.dumps, events)) if lines else json.dumps(events))
    return path


def cloudevent(row: dict[str, Any]) -> dict[str, Any]:
    own = ("event_id", "action", "effective_at", "subject_id", "valid_until")
    event = {
        "specversion": "1.0", "id": row["event_id"], "source": "urn:fedgen:client:x", "time": row["effective_at"],
        "type": f"org.fedgen.consent.{row['action']}.v1", "subject": row["subject_id"],
        "recordedtime": "1999-01-01T00:00:00Z", "data": {k: v for k, v in row.items() if k not in own},
    }  # fmt: skip
    return event | ({"expirytime": row["valid_until"]} if row["valid_until"] else {})


KINDS = [".csv", ".csv.gz", ".jsonl", ".parquet", ".cloudevents.json", ".cloudevents.jsonl"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_says_the_same(store: ConsentStore, tmp_path: Path, kind: str) -> None:
    done = import_file(store, written(tmp_path, kind))
    assert (done.rows, done.added, done.quarantined, done.clean) == (2, 2, 0, True)
    events = store.columns().consent
    assert [events.people[i] for i in events.subject] == [b"a", b"b"]
    assert [events.purposes[i] for i in events.purpose] == ["t", "*"]
    assert events.action.tolist() == [Action.GIVEN, Action.WITHDRAWN]
    assert events.effective.tolist() == [1767254400000000, 1769904000500000]
    assert events.valid_until.tolist() == [1798761600000000, 2**63 - 1]
    assert (events.notice_version.tolist(), events.explicit.tolist()) == ([3, -1], [True, False])
    assert events.given_by.tolist() == [2, 1]
    assert set(events.recorded.tolist()) == {store.now()}  # whatever the sender said
    assert store.last_sync() == NOON


def test_rights_and_a_mapping_of_columns(store: ConsentStore, tmp_path: Path) -> None:
    path = tmp_path / "rights.csv"
    path.write_text(
        "nr,who,what,when,ward\n1,a,gpc,2026-01-01T00:00:00Z,x\n2,b,legal_hold,2026-01-01T00:00:00Z,y\n"
    )
    names = {"event_id": "nr", "subject_id": "who", "kind": "what", "effective_at": "when", "scope": "ward"}
    assert import_file(store, path, mapping=names).added == 2
    rights = store.columns().rights
    assert rights.kind.tolist() == [Right.GPC, Right.LEGAL_HOLD]
    assert [rights.scopes[i] for i in rights.scope] == ["x", "y"]
    with pytest.raises(DataError, match="unknown column") as caught:
        import_file(store, path)
    assert caught.value.key == "nr"


FAULTY = [
    ("x,a,t,given,2026-01-01T00:00:00", "effective_at", "naive-time"),
    ("x,a,t,given,2026-02-30T00:00:00Z", "effective_at", "not-a-time"),
    ("x,a,t,given,yesterday", "effective_at", "not-a-time"),
    ("x,a,t,given,", "effective_at", "missing"),
    ("x,a,t,given,2026-05-04T12:05:00.000001Z", "effective_at", "in-the-future"),
    ("x,a,t,granted,2026-01-01T00:00:00Z", "action", "unknown-word"),
    ("x,a,t,,2026-01-01T00:00:00Z", "action", "missing"),
    ("x,,t,given,2026-01-01T00:00:00Z", "subject_id", "missing"),
    ("x, a,t,given,2026-01-01T00:00:00Z", "subject_id", "not-a-person"),
    (f"x,{'ä' * 65},t,given,2026-01-01T00:00:00Z", "subject_id", "not-a-person"),
    (",a,t,given,2026-01-01T00:00:00Z", "event_id", "missing"),
    ("x,a,,given,2026-01-01T00:00:00Z", "purpose", "missing"),
    ("x,a,*,given,2026-01-01T00:00:00Z", "purpose", "grants-every-purpose"),
    ("x,a,t,given", "", "broken-row"),
    ("x,a,t,given,2026-01-01T00:00:00Z,more", "", "broken-row"),
    ("ok,a,t,withdrawn,2026-01-01T00:00:00Z", "event_id", "event-id-conflict"),
]


@pytest.mark.parametrize(("row", "column", "reason"), FAULTY)
def test_a_row_that_is_no_event_is_kept_out_by_name(
    store: ConsentStore, tmp_path: Path, row: str, column: str, reason: str
) -> None:
    path = tmp_path / "events.csv"
    good = "ok,a,t,given,2026-01-01T00:00:00Z\n"
    path.write_text(f"{HEADER}\n{good}{row}\n" + good.replace("ok", "ok2"))
    done = import_file(store, path)
    assert (done.rows, done.added, done.quarantined, done.clean) == (3, 2, 1, False)
    assert quarantined(store, done.job) == [(2, column, reason)]
    assert store.last_sync() is None  # it may have been a withdrawal
    assert not import_file(store, path).clean
    settle(store, done.job)
    assert import_file(store, path).clean
    assert store.last_sync() == NOON


def test_five_minutes_ahead_is_taken_and_numbers_may_be_people(store: ConsentStore, tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    row = {
        "event_id": "1",
        "subject_id": 7,
        "purpose": "t",
        "action": "given",
        "effective_at": "2026-05-04T12:05:00Z",
    }
    path.write_text(json.dumps(row))
    assert import_file(store, path).added == 1
    assert store.columns().consent.people.tolist() == [b"7"]


@pytest.mark.parametrize("kind", [".jsonl", ".cloudevents.jsonl"])
def test_lines_that_are_no_events_are_counted(store: ConsentStore, tmp_path: Path, kind: str) -> None:
    good = json.dumps(cloudevent(ROWS[0]) if "cloud" in kind else ROWS[0])
    odd = [
        "[]",
        "{",
        '{"event_id": "x", "event_id": "y"}',
        json.dumps({"id": "q", "surprise": 1}),
        "7",
        "x" * (1 << 21),
    ]
    path = tmp_path / f"e{kind}"
    path.write_text("\n".join([*odd, good]))
    done = import_file(store, path)
    assert (done.rows, done.added, done.quarantined) == (7, 1, 6)
    assert [f.row for f in quarantined(store, done.job)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("value", [[1], {"a": 1}, 1.5, True, "\ud800"])
@pytest.mark.parametrize(
    "column", ["event_id", "subject_id", "action", "effective_at", "notice_version", "explicit"]
)
def test_no_value_of_any_kind_breaks_an_import(
    store: ConsentStore, tmp_path: Path, column: str, value: Any
) -> None:
    path = tmp_path / "e.jsonl"
    good = {
        "event_id": "g",
        "subject_id": "g",
        "purpose": "t",
        "action": "given",
        "effective_at": "2026-01-01T00:00:00Z",
    }
    path.write_text("\n".join(json.dumps(row) for row in (good, good | {"event_id": "o", column: value})))
    done = import_file(store, path)
    legal = (column, value) == ("explicit", True)
    assert (done.added, done.quarantined) == ((2, 0) if legal else (1, 1))


def test_strict_takes_all_or_nothing(store: ConsentStore, tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text(
        f"{HEADER}\nok,secret-name,t,given,2026-01-01T00:00:00Z\nx,secret-name,t,given,2026-01-01T00:00:00\n"
    )
    with pytest.raises(DataError, match="row 2 is no event: naive-time") as caught:
        import_file(store, path, strict=True)
    assert "secret" not in str(caught.value)
    assert store.head().size == 0


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("e.txt", b"", "unknown kind"),
        ("e.csv", b"", "no header"),
        ("e.csv", b"event_id,subject_id\n", "a column is missing"),
        ("e.csv", b"event_id,event_id\n", "two columns"),
        ("e.csv", HEADER.replace("purpose", "porpoise").encode(), "unknown column"),
        ("e.parquet", b"PAR1 no", "not a readable Parquet"),
        ("e.csv.gz", b"\x1f\x8b\x08\x00", "gzip"),
    ],
)
def test_a_file_that_is_none_is_refused(
    store: ConsentStore, tmp_path: Path, name: str, content: bytes, what: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=what):
        import_file(store, path)
    with pytest.raises(DataError, match="no such file"):
        import_file(store, tmp_path / "none.csv")
    assert store.head().size == 0


def test_the_same_events_in_another_file_are_nothing_new(
    store: ConsentStore, tmp_path: Path, clock: Clock
) -> None:
    import_file(store, written(tmp_path, ".csv"))
    before = store.head()
    clock.go(minutes=20)
    done = import_file(store, written(tmp_path, ".jsonl"))
    assert (done.added, done.repeated, store.head()) == (0, 2, before)
    again = import_file(store, written(tmp_path, ".csv"))
    assert (again.added, again.rows) == (2, 2)  # what it was the first time
    assert store.trouble() is None


def test_a_clean_file_does_not_hide_that_another_kept_rows_out(store: ConsentStore, tmp_path: Path) -> None:
    doubtful = tmp_path / "doubtful.csv"
    doubtful.write_text(HEADER + "\nother,p1,t,given,2026-01-01T00:00:00\n")  # no offset
    job = import_file(store, doubtful).job
    import_file(store, written(tmp_path, ".csv"))
    assert store.trouble() == "CONSENT_STORE_STALE"
    settle(store, job)
    assert store.trouble() is None


def test_a_file_that_is_imported_mended_is_no_longer_in_doubt(
    store: ConsentStore, tmp_path: Path, clock: Clock
) -> None:
    path = tmp_path / "said.csv"
    path.write_text(HEADER + "\nother,p1,t,given,2026-01-01T00:00:00\n")  # no offset
    import_file(store, path)
    assert store.trouble() == "CONSENT_STORE_STALE"
    clock.go(minutes=1)
    path.write_text(HEADER + "\nother,p1,t,given,2026-01-01T00:00:00Z\n")
    assert import_file(store, path).clean
    assert store.trouble() is None


def many(path: Path, n: int) -> None:
    """Write ``n`` events, every hundredth of them faulty."""
    with path.open("w") as file:
        file.write(HEADER + "\n")
        for i in range(n):
            zone = "" if i % 100 == 7 else "Z"
            file.write(f"e{i},p{i % 50},t,given,2026-01-01T00:00:{i % 60:02d}{zone}\n")


def test_progress_goes_on_block_by_block(
    store: ConsentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "BLOCK", 100)
    many(tmp_path / "e.csv", 250)
    seen: list[int] = []

    class Stopped(Exception):
        pass

    def stop(rows: int) -> None:
        seen.append(rows)
        if len(seen) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        import_file(store, tmp_path / "e.csv", progress=stop)
    assert store.last_sync() is None
    done = import_file(store, tmp_path / "e.csv", progress=seen.append)
    assert seen == [100, 200, 250]
    assert (done.rows, done.added, done.repeated, done.quarantined) == (250, 247, 0, 3)


# One program pays for the imports and forks a worker for each line it reads; it has one thread, so forking is safe.
IMPORTER = """
import os, sys
import pyarrow.compute
from fedgen.policy.store import ConsentStore, files, import_file
import fedgen.policy.store.judging
files.BLOCK = 20
for line in sys.stdin:
    child = os.fork()
    if not child:
        with ConsentStore.open(sys.argv[1], key=sys.argv[2]) as store:
            os.write(1, f"open {os.getpid()}\\n".encode())
            import_file(store, sys.argv[3], progress=lambda rows: os.write(1, f"rows {rows}\\n".encode()))
        os._exit(0)
    os.write(1, f"ended {os.waitpid(child, 0)[1]}\\n".encode())
"""


@pytest.mark.slow
@pytest.mark.process
def test_kills_lose_and_double_nothing(place: Place, tmp_path: Path) -> None:
    path, n = tmp_path / "e.csv", 3000
    many(path, n)
    place.open().close()
    rng, killed, heights = random.Random(7), 0, set()
    with subprocess.Popen(
        [sys.executable, "-c", IMPORTER, place.address, str(place.key), str(path)],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as program:  # fmt: skip
        assert program.stdin is not None
        assert program.stdout is not None
        for _ in range(20):
            program.stdin.write("go\n")
            program.stdin.flush()
            _, pid = program.stdout.readline().split()
            for _ in range(rng.randint(0, 4)):  # so many blocks, and then anywhere in the next one
                program.stdout.readline()
            time.sleep(rng.uniform(0, 0.01))
            os.kill(int(pid), signal.SIGKILL)
            while (line := program.stdout.readline().split())[0] != "ended":
                pass
            killed += int(line[1]) == signal.SIGKILL
            with place.open() as store:
                head = store.verify()
                assert head.consent == len(store.columns().consent)
                heights.add(head.consent)
        program.stdin.close()
    assert killed == 20
    assert len(heights) >= 5  # else nobody was killed at work
    with place.open() as store:
        done = import_file(store, path)
        assert (done.rows, done.added, done.repeated, done.quarantined) == (n, n - 30, 0, 30)
        assert store.verify().consent == n - 30
        raw = place.raw()
        ids = {row[0] for row in raw.execute("SELECT event_id FROM consent_event").fetchall()}
        raw.close()
        assert ids == {f"e{i}" for i in range(n) if i % 100 != 7}
        assert len(quarantined(store, done.job)) == 30


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    many(tmp_path / "e.csv", 60)
    blocks = files.blocks(tmp_path / "e.csv", "csv", None, 0)
    assert next(blocks).upto == 60
    monkey = files.BLOCK
    try:
        files.BLOCK = 10  # type: ignore[misc]
        sizes = [
            len(part.rows)
            for block in files.blocks(tmp_path / "e.csv", "csv", None, 25)
            for part in block.parts
        ]
    finally:
        files.BLOCK = monkey  # type: ignore[misc]
    assert sizes == [5, 10, 10, 10]


def test_a_day_is_not_five_minutes(store: ConsentStore, tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    at = (NOON + timedelta(days=1)).isoformat()
    path.write_text(f"{HEADER}\nx,a,t,withdrawn,{at}\n")
    assert import_file(store, path).quarantined == 1
