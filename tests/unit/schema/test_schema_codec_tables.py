"""The codec on tables: names, rows, batches and messages."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fedgen.errors import Code, DataError, code_of
from fedgen.schema import codec as codec_module
from fedgen.schema.codec import Codec
from fedgen.schema.columns import Boolean, Categorical, Continuous, Integer
from fedgen.schema.table import ImageSchema, TableSchema

SCHEMA = TableSchema(
    columns=(
        Integer(name="age", min=0, max=120),
        Categorical(name="sex", categories=("f", "m"), nullable=True),
        Continuous(name="bmi", min=10.0, max=60.0, bins=5),
    ),
    subject="person",
)
TABLE = pa.table({"age": [30, 200, 41], "sex": ["m", None, "f"], "bmi": [10.0, 60.5, 35.0]})
CODES = [[30, 1, 0], [120, 2, 4], [41, 0, 2]]


def test_a_table_becomes_codes_and_counts_of_what_was_clamped() -> None:
    encoded = Codec(SCHEMA).encode(TABLE)
    assert encoded.codes.tolist() == CODES
    assert encoded.codes.flags.c_contiguous
    assert encoded.clamped == {"age": 1, "bmi": 1}


def test_the_result_is_frozen() -> None:
    encoded = Codec(SCHEMA).encode(TABLE)
    with pytest.raises(dataclasses.FrozenInstanceError):
        encoded.codes = encoded.codes


def test_columns_are_found_by_name_and_the_subject_is_not_read() -> None:
    columns = {
        "bmi": TABLE["bmi"],
        "person": pa.array([[1], [2], [3]]),
        "sex": TABLE["sex"],
        "age": TABLE["age"],
    }
    assert Codec(SCHEMA).encode(pa.table(columns)).codes.tolist() == CODES


def test_a_record_batch_is_read_like_a_table() -> None:
    assert Codec(SCHEMA).encode(TABLE.to_batches()[0]).codes.tolist() == CODES


def test_chunks_and_their_dictionaries_may_differ() -> None:
    left = pa.table({"sex": pa.array(["m", "f"]).dictionary_encode()})
    right = pa.table({"sex": pa.array(["f", None]).dictionary_encode()})
    schema = TableSchema(columns=(SCHEMA.columns[1],))
    assert Codec(schema).encode(pa.concat_tables([left, right])).codes.tolist() == [[1], [0], [0], [2]]


def test_rows_are_numbered_through_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_module, "_BATCH", 2)
    table = pa.table({"age": ["1", "2", "3", "x"], "sex": ["f"] * 4, "bmi": ["20"] * 4})
    with pytest.raises(DataError, match=r"^age: row 1004: text where a number is expected"):
        Codec(SCHEMA).encode(table, first_row=1000)


def test_counts_add_up_over_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec_module, "_BATCH", 1)
    encoded = Codec(SCHEMA).encode(TABLE)
    assert encoded.codes.tolist() == CODES
    assert encoded.clamped == {"age": 1, "bmi": 1}


def test_no_rows_are_no_codes() -> None:
    encoded = Codec(SCHEMA).encode(TABLE.slice(0, 0))
    assert encoded.codes.shape == (0, 3)
    assert Codec(SCHEMA).decode(encoded.codes, np.random.default_rng(0)).num_rows == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.drop_columns(["age"]), "age: the table has no such column"),
        (
            lambda t: t.rename_columns(["Age", "sex", "bmi"]),
            r"age: the table has no such column \(did you mean 'Age'\?\)",
        ),
        (lambda t: t.append_column("zip", t["age"]), "zip: not a column of the schema"),
        (lambda t: t.append_column("age", t["age"]), "age: this column stands twice"),
        (
            lambda t: t.set_column(1, "sex", pa.array(["f", "x", "m"])),
            "sex: row 2: not among the declared names",
        ),
        (lambda t: t.set_column(0, "age", pa.array([1, None, 2])), "age: row 2: no value"),
        (lambda t: t.set_column(2, "bmi", pa.array([20.0, 30.0, float("inf")])), "bmi: row 3: infinity"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(change: Any, says: Any) -> None:
    with pytest.raises(DataError, match=f"^{says}") as caught:
        Codec(SCHEMA).encode(change(TABLE))
    assert caught.value.exit_code == 3
    assert code_of(caught.value) is Code.DATA


@pytest.mark.parametrize(
    ("column", "dtype"),
    [
        (Integer(name="x", min=0, max=255), np.uint8),
        (Integer(name="x", min=0, max=255, nullable=True), np.uint16),
        (Integer(name="x", min=0, max=255, bins=255, nullable=True), np.uint8),
        (Integer(name="x", min=0, max=10**6, bins=65_535, nullable=True), np.uint16),
    ],
)
def test_codes_are_as_narrow_as_they_may_be(column: Any, dtype: Any) -> None:
    codec = Codec(TableSchema(columns=(column,)))
    assert codec.dtype == dtype
    assert codec.width == 1
    last = np.array([[column.cardinality - 1], [0]], dtype)
    back = codec.encode(codec.decode(last, np.random.default_rng(0)))
    assert back.codes.dtype == dtype
    assert np.array_equal(back.codes, last)


def test_decode_is_repeatable_and_names_its_columns() -> None:
    codec, codes = Codec(SCHEMA), np.array(CODES)
    first, second = (codec.decode(codes, np.random.default_rng(7)) for _ in range(2))
    assert first.equals(second)
    assert first.column_names == ["age", "sex", "bmi"]


@pytest.mark.parametrize(
    "codes",
    [
        np.zeros((2, 2), np.uint8),
        np.zeros(3, np.uint8),
        np.zeros((2, 3)),
        np.array([[0, 0, -1]]),
        np.array([[0, 3, 0]]),
        np.array([[121, 0, 0]]),
    ],
)
def test_codes_that_do_not_fit_are_refused(codes: Any) -> None:
    with pytest.raises(ValueError, match=r"codes? must"):
        Codec(SCHEMA).decode(codes, np.random.default_rng(0))


def test_images_and_tables_do_not_mix() -> None:
    codec = Codec(SCHEMA)
    with pytest.raises(ValueError, match="not images"):
        codec.encode_images(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="not images"):
        codec.decode_images(np.zeros((1, 3), np.uint8))


def test_markers_mean_the_same_in_text_and_in_types() -> None:
    schema = TableSchema(
        columns=(Integer(name="a", min=0, max=9, nullable=True), Boolean(name="b", nullable=True)),
        missing=("", "-9", "?"),
    )
    text = pa.table({"a": ["-9", "3", "?"], "b": ["?", "yes", ""]})
    typed = pa.table({"a": [-9, 3, None], "b": [None, True, None]})
    codec = Codec(schema)
    assert (
        codec.encode(text).codes.tolist() == codec.encode(typed).codes.tolist() == [[10, 2], [3, 1], [10, 2]]
    )


def test_what_is_not_declared_as_missing_is_not() -> None:
    schema = TableSchema(columns=(Integer(name="a", min=0, max=9, nullable=True),), missing=("NA",))
    with pytest.raises(DataError, match="row 2: text where a number is expected"):
        Codec(schema).encode(pa.table({"a": ["NA", ""]}))


def test_an_image_schema_reads_a_table_of_pixels() -> None:
    schema = ImageSchema(height=1, width=2, max_value=16, classes=("cat", "dog"))
    table = pa.table({"label": ["dog", "cat"], "p0": ["0.0", "17"], "p1": [3, 16]})
    encoded = Codec(schema).encode(table)
    assert encoded.codes.tolist() == [[0, 3, 1], [16, 16, 0]]
    assert encoded.clamped == {"p0": 1}
