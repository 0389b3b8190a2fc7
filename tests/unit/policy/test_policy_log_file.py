"""A consent log is understood whole or refused whole; the message says where, never what stood there."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedgen.errors import DataError
from fedgen.policy.consent import ConsentLog

HEADER = "subject,purpose,status,recorded_at,effective_at,expires_at"
GOOD = "p1,train,granted,2026-01-01T00:00:00Z,,"


def write(folder: Any, *rows: Any, header: Any = HEADER, name: Any = "consent.csv") -> Any:
    path = folder / name
    text = "\n".join((header, *rows)) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def refusal(path: Any) -> Any:
    with pytest.raises(DataError) as caught:
        ConsentLog.read(path)
    text = str(caught.value)
    assert "\n" not in text
    assert path.name in text
    assert caught.value.hint
    assert caught.value.exit_code == 3
    return text


@pytest.mark.parametrize(
    ("row", "column", "what"),
    [
        ("secret,train,Granted,2026-01-01T00:00:00Z,,", "status", "not a known status"),
        ("secret,train,secret,2026-01-01T00:00:00Z,,", "status", "not a known status"),
        ("secret,train,,2026-01-01T00:00:00Z,,", "status", "is empty"),
        ("secret,,withdrawn,2026-01-01T00:00:00Z,,", "purpose", "is empty"),
        ("secret,train ,withdrawn,2026-01-01T00:00:00Z,,", "purpose", "space"),
        ("secret,*,granted,2026-01-01T00:00:00Z,,", "purpose", "grants every purpose"),
        (" secret,train,withdrawn,2026-01-01T00:00:00Z,,", "subject", "space"),
        (",train,withdrawn,2026-01-01T00:00:00Z,,", "subject", "names no person"),
        ("secret,train,withdrawn,2026-01-01T00:00:00,,", "recorded_at", "without an offset"),
        ("secret,train,withdrawn,,,", "recorded_at", "has no time"),
        ("secret,train,granted,2026-01-01T00:00:00Z,2026-01-01,", "effective_at", "not an RFC 3339"),
        ("secret,train,granted,2026-01-01T00:00:00Z,,2026-13-01T00:00:00Z", "expires_at", "not a time"),
    ],
)
def test_a_row_not_understood_refuses_the_file(tmp_path: Path, row: Any, column: Any, what: str) -> None:
    text = refusal(write(tmp_path, GOOD, GOOD, row))
    assert what in text
    assert f": {column}: row 3 " in text
    assert "secret" not in text


@pytest.mark.parametrize("row", ["secret,train,granted", "secret,train,granted,2026-01-01T00:00:00Z,,,"])
def test_a_ragged_row_is_named(tmp_path: Path, row: Any) -> None:
    text = refusal(write(tmp_path, GOOD, row, GOOD))
    assert "row 2 has too many or too few values" in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("header", "what"),
    [
        ("subject,purpose,status", "recorded_at: a column is missing"),
        ("subject,purpose,status,recorded_at,recorded_at", "two columns of one name"),
        ("subject,purpose,status,recorded_at,expire_at", "did you mean expires_at?"),
        ("subject,purpose,status,recorded_at,colour", "unknown column"),
    ],
)
def test_columns_are_a_closed_set(tmp_path: Path, header: Any, what: str) -> None:
    row = ",".join(["x"] * len(header.split(",")))
    assert what in refusal(write(tmp_path, row, header=header))


def test_a_missing_file(tmp_path: Path) -> None:
    assert "no such consent log" in refusal(tmp_path / "absent.csv")


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "c.csv").mkdir()
    assert "cannot be read" in refusal(tmp_path / "c.csv")


def test_an_unknown_suffix(tmp_path: Path) -> None:
    assert ".jsonl" in refusal(write(tmp_path, name="consent.xlsx"))


@pytest.mark.parametrize("name", ["c.csv", "c.csv.gz", "c.parquet"])
def test_bytes_of_another_kind(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"" if name == "c.csv" else os.urandom(64))
    assert "not a readable" in refusal(path)


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_bytes(f"{HEADER}\n".encode() + b"p\xff,train,granted,2026-01-01T00:00:00Z,,\n")
    assert "UTF-8" in refusal(path)


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[1]",
        '"text"',
        '{"subject": 7}',
        '{"subject": "secret", "status": "withdrawn", "status": "granted"}',
        '{"subject": {"secret": 1}}',
        '{"subject": "\\ud800"}',
        "[" * 100_000,
        "",
    ],
)
def test_a_json_line_that_is_no_flat_object_is_named_by_line(tmp_path: Path, line: Any) -> None:
    good = json.dumps(dict(zip(HEADER.split(",")[:4], GOOD.split(","), strict=False)))
    path = tmp_path / "c.jsonl"
    path.write_text(f"{good}\n{line}\n{good}\n")
    text = refusal(path)
    assert "c.jsonl:2: not a JSON object of texts" in text
    assert "secret" not in text


def test_a_json_line_that_lacks_a_key_is_a_missing_value(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    keys = HEADER.split(",")[:4]
    rows = [dict(zip(keys, GOOD.split(","), strict=False)) for _ in range(2)]
    del rows[1]["status"]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert "status: row 2 is empty" in refusal(path)


def test_parquet_columns_of_another_type_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.parquet"
    good = {"subject": ["p"], "purpose": ["t"], "status": [1], "recorded_at": ["2026-01-01T00:00:00Z"]}
    pq.write_table(pa.table(good), path)
    assert "int64 where text belongs" in refusal(path)


@pytest.mark.parametrize("name", ["c.csv", "c.csv.gz", "c.jsonl", "c.parquet"])
def test_a_log_in_which_nobody_spoke_is_a_log(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("jsonl"):
        path.write_text("")
    elif name.endswith("parquet"):
        pq.write_table(pa.table({n: pa.array([], pa.string()) for n in HEADER.split(",")}), path)
    else:
        write(tmp_path, name=name)
    assert len(ConsentLog.read(path).events.people) == 0
