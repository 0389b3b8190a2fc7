"""Drafts come from header and types: never from a value, and never usable before a person has completed them."""

from __future__ import annotations

import datetime as dt
import gzip
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedgen.errors import ConfigError
from fedgen.schema.columns import Boolean, Date, Integer
from fedgen.schema.draft import MAX_HEADER, draft_schema
from fedgen.schema.table import load_schema
from fedgen.schema.yamlsource import load_yaml

if TYPE_CHECKING:
    from pathlib import Path

TYPED = pa.schema(
    [
        ("id", pa.string()),
        ("age", pa.int16()),
        ("weight", pa.float32()),
        ("price", pa.decimal128(9, 2)),
        ("smoker", pa.bool_()),
        ("born", pa.date32()),
        ("seen", pa.timestamp("us")),
        ("ward", pa.dictionary(pa.int8(), pa.string())),
        ("codes", pa.list_(pa.int8())),
    ]
)


def rows(age: Any, ward: Any, born: Any) -> Any:
    empty = {"id": ["x"], "weight": [1.0], "price": [None], "smoker": [True], "seen": [None], "codes": [[1]]}
    return pa.table({**empty, "age": [age], "ward": [ward], "born": [born]}).select(TYPED.names).cast(TYPED)


def csv_file(folder: Path, text: Any, name: Any = "t.csv") -> Any:
    path = folder / name
    raw = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
    return path


def loaded(folder: Path, draft: Any) -> Any:
    path = folder / "draft.yaml"
    path.write_text(draft.text, encoding="utf-8")
    return load_yaml(path)[0]


def test_equal_headers_give_equal_drafts_whatever_the_rows_hold(tmp_path: Path) -> None:
    drafts = {
        draft_schema(csv_file(tmp_path, "age,sex\n" + body, name)).text
        for body in ("", "1,f\n", "999,canary-7741\n" * 1000, '"broken')
        for name in ("a.csv", "b.csv.gz")
    }
    assert len(drafts) == 1
    assert "canary" not in drafts.pop()


def test_equal_types_give_equal_drafts_whatever_the_rows_hold(tmp_path: Path) -> None:
    for index, table in enumerate(
        [
            rows(3, "canary-7741", dt.date(1977, 4, 1)),
            rows(99, "other", dt.date(2001, 1, 1)),
            TYPED.empty_table(),
        ]
    ):
        pq.write_table(table, tmp_path / f"{index}.parquet")
    drafts = [draft_schema(tmp_path / f"{index}.parquet") for index in range(3)]
    assert drafts[0] == drafts[1] == drafts[2]
    assert "canary" not in drafts[0].text
    assert "1977" not in drafts[0].text


def test_no_byte_behind_the_header_of_a_csv_decides(tmp_path: Path) -> None:
    assert draft_schema(csv_file(tmp_path, b"age,sex\n\xff\xfe\x00")).todo[1:] == [
        "age: type, and what it needs",
        "sex: type, and what it needs",
    ]


def test_a_csv_column_is_a_choice_for_a_person(tmp_path: Path) -> None:
    draft = draft_schema(csv_file(tmp_path, "age,sex\n"))
    assert loaded(tmp_path, draft) == {
        "kind": "table",
        "description": "",
        "subject": "FILL-IN",
        "label": None,
        "missing": [""],
        "columns": [{"name": "age", "type": "FILL-IN"}, {"name": "sex", "type": "FILL-IN"}],
    }
    for kind in ("continuous", "integer", "categorical", "ordinal", "boolean", "date"):
        assert draft.text.count(f"{kind}") >= 3
    assert draft.todo[0].startswith("subject:")


def test_parquet_types_become_kinds_without_bounds(tmp_path: Path) -> None:
    pq.write_table(TYPED.empty_table(), tmp_path / "t.parquet")
    draft = draft_schema(tmp_path / "t.parquet")
    columns = {column.pop("name"): column for column in loaded(tmp_path, draft)["columns"]}
    bounds = {"min": "FILL-IN", "max": "FILL-IN"}
    assert columns == {
        "id": {"type": "FILL-IN"},
        "age": {"type": "integer", **bounds},
        "weight": {"type": "continuous", **bounds},
        "price": {"type": "continuous", **bounds},
        "smoker": {"type": "boolean"},
        "born": {"type": "date", **bounds},
        "seen": {"type": "date", **bounds},
        "ward": {"type": "FILL-IN"},
    }
    assert "# - name: codes  # left out: stored as list" in draft.text
    assert "age: min, max" in draft.todo
    assert not any(entry.startswith(("smoker", "codes")) for entry in draft.todo)


def test_a_draft_is_refused_until_it_is_filled_in(tmp_path: Path) -> None:
    table = TYPED.empty_table().select(["age", "smoker", "born"])
    pq.write_table(table, tmp_path / "t.parquet")
    text = draft_schema(tmp_path / "t.parquet").text
    path = tmp_path / "schema.yaml"
    for mark in ["null", "0", "120", "1900-01-01", "2026-01-01"]:
        path.write_text(text)
        with pytest.raises(ConfigError, match="still says FILL-IN") as caught:
            load_schema(path)
        assert caught.value.line == text[: text.index("FILL-IN", text.index("subject"))].count("\n") + 1
        assert caught.value.key
        assert caught.value.hint
        text = (
            text[: (at := text.index("FILL-IN", text.index("subject")))] + mark + text[at + len("FILL-IN") :]
        )
    path.write_text(text)
    assert load_schema(path).columns == (
        Integer(name="age", min=0, max=120),
        Boolean(name="smoker"),
        Date(name="born", min=dt.date(1900, 1, 1), max=dt.date(2026, 1, 1)),
    )


NAMES = [
    "age",
    "sex at birth",
    "no",
    "größe",
    'say "x"',
    "a: b",
    "#x",
    "x\ny",
    "- x",
    "*x",
    " padded ",
    "FILL",
    "~x",
]


def test_every_name_is_read_back_as_it_was(tmp_path: Path) -> None:
    quoted = ",".join('"' + name.replace('"', '""') + '"' for name in NAMES)
    draft = draft_schema(csv_file(tmp_path, quoted + "\n"))
    assert [column["name"] for column in loaded(tmp_path, draft)["columns"]] == NAMES


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path: Path) -> None:
    draft = draft_schema(csv_file(tmp_path, b"\xef\xbb\xbfage,sex\n"))
    assert "  - name: age\n" in draft.text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "no header"),
        ("\n1,2\n", "no header"),
        ("age,,sex\n", "column 2 of the first line is empty or a value"),
        ("7741,f\n", "column 1 of the first line is empty or a value"),
        ("f,1977-04-01\n", "column 2 of the first line is empty or a value"),
        ("f,01.04.1977\n", "column 2 of the first line is empty or a value"),
        ("f,-7.7e41\n", "column 2 of the first line is empty or a value"),
        ("canary-7741,x,canary-7741\n", "columns 1 and 3 of the header have the same name"),
        ("age;sex\n", "separated by ';'"),
        ("age\tsex\n", "separated by"),
        (b"\xff\xfea\x00", "not UTF-8"),
        ('"age\n', "not a CSV record"),
        ('"x\n",' * (MAX_HEADER // 5 + 1), "no header in the first MiB"),
        ("x" * MAX_HEADER, "not a CSV record"),
        ("age\r7741,2\r", "not a CSV record"),
    ],
)
def test_a_first_line_that_is_no_header_is_refused_without_its_words(
    tmp_path: Path, content: Any, says: Any
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        draft_schema(csv_file(tmp_path, content))
    assert "7741" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [("t.csv", "no such file"), ("t.parquet", "no such file"), ("t.xlsx", "no format"), ("t", "no format")],
)
def test_a_file_that_is_not_there_or_not_known(tmp_path: Path, name: Any, says: Any) -> None:
    with pytest.raises(ConfigError, match=says):
        draft_schema(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "says"), [("t.parquet", "not a Parquet file"), ("t.csv.gz", "cannot be read: not a whole file")]
)
def test_a_file_that_is_not_what_its_name_says(tmp_path: Path, name: Any, says: Any) -> None:
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(ConfigError, match=says):
        draft_schema(tmp_path / name)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (pa.table({"a": [[1]]}), "no column that can be modelled"),
        (pa.table([[1], [2]], names=["a", "a"]), "same name"),
    ],
)
def test_a_parquet_file_without_use_is_refused(tmp_path: Path, table: Any, says: Any) -> None:
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(ConfigError, match=says):
        draft_schema(tmp_path / "t.parquet")
