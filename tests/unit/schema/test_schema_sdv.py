"""SDV's metadata in and out."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import pytest

from fedgen.errors import ConfigError
from fedgen.schema.columns import Boolean, Categorical, Continuous, Date, Integer, Ordinal
from fedgen.schema.sdv import from_sdv, to_sdv
from fedgen.schema.table import TableSchema
from fedgen.schema.yamlsource import load_yaml

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = TableSchema(
    columns=(
        Continuous(name="bmi", min=10.0, max=60.0),
        Integer(name="age", min=0, max=120),
        Categorical(name="ward", categories=("a", "b")),
        Ordinal(name="pain", levels=("no", "some", "much")),
        Boolean(name="smoker"),
        Date(name="seen", min=dt.date(2020, 1, 1), max=dt.date(2021, 1, 1)),
    ),
    subject="person",
)


def columns(folder: Path, draft: Any) -> Any:
    path = folder / "draft.yaml"
    path.write_text(draft.text, encoding="utf-8")
    return load_yaml(path)[0]["columns"]


def test_out_is_version_v1_and_without_the_subject() -> None:
    assert to_sdv(SCHEMA, "visits") == {
        "METADATA_SPEC_VERSION": "V1",
        "relationships": [],
        "tables": {
            "visits": {
                "columns": {
                    "bmi": {"sdtype": "numerical", "computer_representation": "Float"},
                    "age": {"sdtype": "numerical", "computer_representation": "Int64"},
                    "ward": {"sdtype": "categorical"},
                    "pain": {"sdtype": "categorical", "order": ["no", "some", "much"]},
                    "smoker": {"sdtype": "boolean"},
                    "seen": {"sdtype": "datetime", "datetime_format": "%Y-%m-%d"},
                }
            }
        },
    }


def test_what_went_out_comes_back(tmp_path: Path) -> None:
    found = columns(tmp_path, from_sdv(to_sdv(SCHEMA)))
    assert [(column["name"], column["type"]) for column in found] == [
        (c.name, c.type) for c in SCHEMA.columns
    ]
    assert found[3]["levels"] == ["no", "some", "much"]
    assert found[0] == {"name": "bmi", "type": "continuous", "min": "FILL-IN", "max": "FILL-IN"}
    assert found[2] == {"name": "ward", "type": "categorical", "categories": "FILL-IN"}


SDTYPES = [
    ({"sdtype": "numerical"}, "FILL-IN"),
    ({"sdtype": "numerical", "computer_representation": "UInt8"}, "integer"),
    ({"sdtype": "numerical", "computer_representation": "Float32"}, "continuous"),
    ({"sdtype": "categorical", "order_by": "alphabetical"}, "categorical"),
    ({"sdtype": "categorical", "order": [1, 2, None]}, "ordinal"),
    ({"sdtype": "datetime"}, "date"),
    ({"sdtype": "unknown", "pii": True}, "FILL-IN"),
    ({"sdtype": "id"}, None),
    ({"sdtype": "email", "pii": True}, None),
    ({}, None),
]


@pytest.mark.parametrize(("column", "kind"), SDTYPES)
@pytest.mark.parametrize("version", ["V1", "SINGLE_TABLE_V1"])
def test_each_sdtype(tmp_path: Path, version: Any, column: Any, kind: Any) -> None:
    table = {"columns": {"x": column, "keep": {"sdtype": "boolean"}}, "primary_key": "x"}
    metadata = {"tables": {"t": table}} if version == "V1" else table
    draft = from_sdv({"METADATA_SPEC_VERSION": version, **metadata})
    found = {each["name"]: each["type"] for each in columns(tmp_path, draft)}
    assert found == ({"keep": "boolean"} if kind is None else {"x": kind, "keep": "boolean"})
    assert ("# - name: x  # left out" in draft.text) is (kind is None)


def test_a_foreign_date_format_is_remarked() -> None:
    column = {"sdtype": "datetime", "datetime_format": "%d.%m.%Y"}
    draft = from_sdv({"METADATA_SPEC_VERSION": "SINGLE_TABLE_V1", "columns": {"x": column}})
    assert "write the source's dates as 2026-01-31" in draft.text


def test_one_of_several_tables_is_named() -> None:
    tables = {
        "a": {"columns": {"x": {"sdtype": "boolean"}}},
        "b": {"columns": {"why": {"sdtype": "boolean"}}},
    }
    metadata = {"METADATA_SPEC_VERSION": "V1", "tables": tables}
    assert "- name: why" in from_sdv(metadata, table="b").text
    with pytest.raises(ConfigError, match=r"name one of the tables \(a, b\)"):
        from_sdv(metadata)


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({}, "not SDV metadata"),
        ({"METADATA_SPEC_VERSION": "MULTI_TABLE_V1", "tables": {}}, "not SDV metadata"),
        ({"METADATA_SPEC_VERSION": "V1", "tables": {}}, "name one of the tables"),
        ({"METADATA_SPEC_VERSION": "SINGLE_TABLE_V1", "columns": {}}, "without columns"),
        (
            {"METADATA_SPEC_VERSION": "SINGLE_TABLE_V1", "columns": {"x": {"sdtype": "id"}}},
            "no column that can",
        ),
    ],
)
def test_other_metadata_is_refused(metadata: Any, says: Any) -> None:
    with pytest.raises(ConfigError, match=says):
        from_sdv(metadata)
