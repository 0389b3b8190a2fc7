"""The reference pages of study and schema files name every key, with its default, and no other."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from fedgen.config.server import ServerSpec
from fedgen.config.site import SiteSpec
from fedgen.config.study import Study
from fedgen.schema.columns import Boolean, Categorical, Continuous, Date, Integer, Ordinal
from fedgen.schema.table import ImageSchema, TableSchema

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"
KEY = re.compile(r"`([a-z0-9_.\[\]]+)`")
BY_SECTION = {
    "table": TableSchema,
    "image": ImageSchema,
    "continuous": Continuous,
    "integer": Integer,
    "date": Date,
    "categorical": Categorical,
    "ordinal": Ordinal,
    "boolean": Boolean,
}
WORDS = {"none": None, "empty": ""}  # defaults that the pages write as a word


def defaults_in(text: str) -> dict[str, str]:
    """Return key to the text of its default column, for every row of the page's tables of keys."""
    cells = [
        [cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith("| `")
    ]
    keys = [(KEY.fullmatch(row[1]), row) for row in cells if len(row) == 6]
    return {match[1]: row[3] for match, row in keys if match is not None}


def inner_models(annotation: Any) -> tuple[list[type[BaseModel]], bool]:
    """Return the sections below a field, and whether they stand in a list."""
    if get_origin(annotation) is Annotated:
        return inner_models(get_args(annotation)[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation], False
    if (
        get_origin(annotation) is dict
    ):  # by a name of somebody's own; its sections are described once, elsewhere
        return [], False
    inner = [inner_models(part) for part in get_args(annotation)]
    many = get_origin(annotation) is tuple or any(listed for _, listed in inner)
    return [model for models, _ in inner for model in models], many


def keys_of(model: type[BaseModel], prefix: str = "") -> dict[str, Any]:
    """Return every key below a model, dotted, with its default or PydanticUndefined; sections have Ellipsis."""
    keys: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        below, many = inner_models(field.annotation)
        keys[key] = field.default
        for section in below:
            if not many and field.default is not PydanticUndefined and field.default is not None:
                keys[key] = ...
            keys |= keys_of(section, f"{key}{'[]' if many else ''}.")
    return keys


def plain(value: Any) -> Any:
    """Return a default as YAML would read it."""
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return getattr(value, "value", value)


def agrees(written: str, default: Any) -> bool:
    """Whether the page's default column says what the code does."""
    if default is ...:
        return written == "defaults below"
    if default is PydanticUndefined:
        return written == "required"
    if written.strip("`") != written:
        return bool(yaml.safe_load(written.strip("`")) == plain(default))
    return written in WORDS and default is not PydanticUndefined and WORDS[written] == plain(default)


def test_every_key_of_a_study_is_on_its_page_with_its_default():
    page = (REFERENCE / "study-file.md").read_text(encoding="utf-8")
    rows = defaults_in(page)
    expected = keys_of(Study)
    assert set(rows) == set(expected)
    wrong = [key for key, default in expected.items() if not agrees(rows[key], default)]
    assert wrong == []


@pytest.mark.parametrize("section", BY_SECTION)
def test_every_key_of_a_schema_is_in_its_section_with_its_default(section):
    page = (REFERENCE / "schema-file.md").read_text(encoding="utf-8")
    parts = re.split(r"^#+ (.*)$", page, flags=re.MULTILINE)
    text = dict(zip(parts[1::2], parts[2::2], strict=True))[f"`{section}`"]
    rows = defaults_in(text)
    fields = BY_SECTION[section].model_fields
    assert set(rows) == set(fields)
    wrong = [
        name
        for name, field in fields.items()
        if rows[name] and not agrees(rows[name], field.default)  # a discriminator needs no default
    ]
    assert wrong == []


def test_every_key_of_a_site_is_on_its_page_with_its_default():
    rows = defaults_in((REFERENCE / "site-file.md").read_text(encoding="utf-8"))
    expected = keys_of(SiteSpec)
    assert set(rows) == set(expected)
    assert [key for key, default in expected.items() if not agrees(rows[key], default)] == []


def test_every_key_of_a_server_is_on_its_page_with_its_default():
    rows = defaults_in((REFERENCE / "server-file.md").read_text(encoding="utf-8"))
    expected = keys_of(ServerSpec)
    assert set(rows) == set(expected)
    assert [key for key, default in expected.items() if not agrees(rows[key], default)] == []


def test_a_wrong_default_is_seen():
    assert agrees("required", PydanticUndefined)
    assert agrees("`[parquet]`", ("parquet",))
    assert not agrees("`[csv]`", ("parquet",))
    assert not agrees("none", 1.0)
    assert not agrees("required", 1.0)
