"""Table and image schemas: names that agree, a digest that is stable, and errors that help."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from fedgen.errors import ConfigError
from fedgen.schema.columns import Boolean, Categorical, Continuous, Integer
from fedgen.schema.table import ImageSchema, TableSchema, load_schema, parse_schema

if TYPE_CHECKING:
    from pathlib import Path

AGE = Integer(name="age", min=0, max=120)
SEX = Categorical(name="sex", categories=("f", "m"), nullable=True)


def write(folder: Path, text: Any, name: Any = "schema.yaml") -> Any:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: Any, name: Any = "schema.yaml") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_schema(write(folder, text, name))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3
    return caught.value


def test_names_cardinalities_and_label() -> None:
    schema = TableSchema(columns=(AGE, SEX), label="sex", subject="person")
    assert schema.names == ("age", "sex")
    assert schema.cardinalities == (121, 3)
    assert schema.label_index == 1
    assert TableSchema(columns=(AGE,)).label_index is None


def test_image_is_a_row_of_pixels_and_a_label() -> None:
    schema = ImageSchema(height=2, width=3, channels=1, max_value=16, classes=("0", "1"), subject="who")
    assert schema.names == ("p0", "p1", "p2", "p3", "p4", "p5", "label")
    assert schema.cardinalities == (17,) * 6 + (2,)
    assert (schema.pixels, schema.label, schema.label_index) == (6, "label", 6)
    assert [column.cardinality for column in schema.columns] == list(schema.cardinalities)
    bare = ImageSchema(height=2, width=3, channels=3)
    assert (len(bare.names), bare.label, bare.label_index) == (18, None, None)


def test_digest_is_that_of_the_meaning_and_is_stable(tmp_path: Path) -> None:
    schema = TableSchema(columns=(AGE, SEX), label="sex")
    yaml = "label: sex\ncolumns:\n- {type: integer, max: 120, name: age, min: 0}\n"
    yaml += "- name: sex\n  type: categorical\n  categories: [f, m]\n  nullable: true\n"
    text = json.dumps(schema.model_dump(mode="json"), indent="\t")
    assert load_schema(write(tmp_path, yaml)).digest() == schema.digest()
    assert load_schema(write(tmp_path, text, "schema.json")).digest() == schema.digest()
    # A recorded value: a study's identity must not change with a release of fedgen or pydantic.
    assert schema.digest() == "12b65b3ed936788ab7f97ffc3d7c990fbc114c1473a6b16a508e1c623f78164f"


@pytest.mark.parametrize(
    "change",
    [
        {"label": None},
        {"columns": (SEX, AGE)},
        {"columns": (AGE, SEX.model_copy(update={"nullable": False}))},
        {"missing": ("", "NA")},
        {"subject": "person"},
    ],
)
def test_digest_changes_with_the_meaning(change: Any) -> None:
    schema = TableSchema(columns=(AGE, SEX), label="sex")
    assert TableSchema(**{**dict(schema), **change}).digest() != schema.digest()


def test_parse_is_the_inverse_of_dump() -> None:
    for schema in (
        TableSchema(columns=(AGE, Continuous(name="x", min=0.0, max=9.0, edges=(0.0, 1.0, 9.0)))),
        ImageSchema(height=8, width=8, max_value=16, classes=("a", "b")),
    ):
        assert parse_schema(schema.model_dump(mode="json")) == schema


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"columns": ()}, "at least 1"),
    ({"columns": (AGE, AGE)}, "'age' stands twice"),
    ({"columns": (AGE,), "label": "sex"}, "label is not among"),
    ({"columns": (AGE,), "subject": "age"}, "subject must not be modelled"),
    ({"columns": (SEX,), "missing": ("m",)}, "declared to mean a missing value"),
    ({"columns": (AGE,), "description": "FILL-IN"}, "still says FILL-IN"),
    ({"columns": (SEX,), "missing": ("", "")}, "stands twice"),
    ({"columns": (SEX,), "missing": (" ?",)}, "space"),
]


@pytest.mark.parametrize(("keys", "why"), REFUSED)
def test_a_table_that_contradicts_itself_is_refused(keys: Any, why: Any) -> None:
    with pytest.raises(ValidationError, match=why):
        TableSchema(**keys)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"height": 0, "width": 1}, "greater than or equal to 1"),
        ({"height": 4096, "width": 4096}, "more than"),
        ({"height": 1, "width": 1, "classes": ("a", "a")}, "stands twice"),
        ({"height": 1, "width": 1, "classes": ("NA",), "missing": ("NA",)}, "missing value"),
        ({"height": 1, "width": 1, "subject": "p0"}, "must not be a pixel"),
        ({"height": 1, "width": 1, "max_value": 65_535}, "less than or equal"),
    ],
)
def test_an_image_that_contradicts_itself_is_refused(keys: Any, why: Any) -> None:
    with pytest.raises(ValidationError, match=why):
        ImageSchema(**keys)


# text, line, key, part of what or hint
FILES = [
    ("columns:\n  - name: a\n    type: integer\n    minn: 0\n    max: 5\n", 4, "columns.0.minn", "'min'"),
    ("columns:\n  - name: a\n    type: integr\n    min: 0\n", 3, "columns.0.type", "'integer'"),
    ("columns:\n  - name: a\n    min: 0\n", 2, "columns.0.type", "missing"),
    ("columns:\n  - name: a\n    type: integer\n    min: 0\n", 2, "columns.0.max", "missing"),
    (
        "columns:\n- {name: b, type: boolean}\n- name: a\n  type: categorical\n  categories:\n  - x\n  - 1\n",
        7,
        "columns.1.categories.1",
        "quotes",
    ),
    ("columns:\n- {name: a, type: boolean}\nlable: a\n", 3, "lable", "'label'"),
    ("columns:\n- {name: a, type: boolean}\nlabel: b\n", 3, "label", "not among"),
    ("columns:\n- {name: a, type: boolean}\n\n- {name: a, type: boolean}\n", 4, "columns.1.name", "twice"),
    ("subject: a\ncolumns:\n- {name: a, type: boolean}\n", 3, "columns.0", "remove this column"),
    ("columns:\n- {name: a, type: integer, min: 0, max: 999}\n", 2, "columns.0.bins", "bins: 64"),
    ("kind: tabel\ncolumns: []\n", 1, "kind", "'table'"),
    ("columns: 3\n", 1, "columns", "must be a list"),
    ("- 3\n", 1, None, "mapping"),
    ("kind: image\nheight: 8\nwidth: 8\nmaxvalue: 16\n", 4, "maxvalue", "'max_value'"),
    ("label: x\nlabel: y\n", 2, "label", "twice"),
    ("columns: [\n", 1, None, "not valid YAML"),
]


@pytest.mark.parametrize(("text", "line", "key", "says"), FILES)
def test_an_error_names_file_line_key_and_hint(
    tmp_path: Path, text: Any, line: Any, key: Any, says: Any
) -> None:
    error = refusal(tmp_path, text)
    assert error.where == str(tmp_path / "schema.yaml")
    assert (error.line, error.key) == (line, key)
    assert says in str(error)


def test_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_schema(tmp_path / "none.yaml")


def test_a_mark_of_a_draft_is_refused_with_its_place_and_the_way_to_fill_it(tmp_path: Path) -> None:
    text = "columns:\n  - name: a\n    type: integer\n    min: 0\n    max: FILL-IN\n"
    error = refusal(tmp_path, text)
    assert (error.line, error.key) == (5, "columns.0.max")
    assert "1 place is left" in error.what
    assert "largest value" in str(error.hint)


def test_marks_are_counted_and_the_first_comes_first(tmp_path: Path) -> None:
    error = refusal(tmp_path, "subject: FILL-IN\ncolumns:\n  - {name: a, type: FILL-IN}\n")
    assert (error.line, error.key) == (1, "subject")
    assert "2 places are left" in error.what


def test_yaml_words_stay_words(tmp_path: Path) -> None:
    text = "columns:\n- {name: a, type: categorical, categories: [yes, no, on, 2020-01-01, 1_0]}\n"
    schema = load_schema(write(tmp_path, text))
    assert schema.columns[0] == Categorical(name="a", categories=("yes", "no", "on", "2020-01-01", "1_0"))


def test_a_file_without_kind_is_a_table(tmp_path: Path) -> None:
    schema = load_schema(write(tmp_path, "columns:\n- {name: a, type: boolean}\n"))
    assert schema == TableSchema(columns=(Boolean(name="a"),))
