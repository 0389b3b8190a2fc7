from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fedgen.errors import DataError
from fedgen.policy.subjects import MAX_SUBJECT_BYTES, subject_ids


def ids(values: Any, **options: Any) -> Any:
    array = values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values)
    return subject_ids(array, where="t.csv", name="person", **options)


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a1", "b"]),
        pa.array(["a1", "b"], pa.large_string()),
        pa.array(["a1", "b"]).dictionary_encode(),
        pa.chunked_array([["a1"], ["b"]]),
    ],
)
def test_text_in_every_arrow_form(column: Any) -> None:
    assert ids(column).tolist() == [b"a1", b"b"]


def test_whole_numbers_equal_their_text() -> None:
    assert (ids([7, 10]) == ids(["7", "10"])).all()
    assert ids(["007"])[0] != ids([7])[0]


def test_width_is_that_of_the_longest_in_bytes() -> None:
    assert ids(["a", "é"]).dtype == "S2"
    assert ids(["a", "é"]).tolist() == [b"a", "é".encode()]


@pytest.mark.parametrize("empty", [pa.array([], pa.string()), pa.array([], pa.null())])
def test_no_rows(empty: Any) -> None:
    assert ids(empty).shape == (0,)
    assert ids(empty).dtype.kind == "S"


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ("", "names no person"),
        (None, "names no person"),
        (" x", "space"),
        ("x\t", "space"),
        ("secret\0", "NUL"),
        ("s" * (MAX_SUBJECT_BYTES + 1), "over 128 bytes"),
    ],
)
def test_what_could_hide_a_person_is_refused_by_row_and_without_the_value(bad: Any, what: str) -> None:
    with pytest.raises(DataError) as caught:
        ids(["ok", bad], first_row=100)
    assert what in str(caught.value)
    assert "t.csv: person: row 102" in str(caught.value)
    if bad:
        assert bad.strip("\0\t ") * 2 not in str(caught.value)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("column", [pa.array([1.0]), pa.array([True]), pa.array([b"x"])])
def test_other_types_are_refused(column: Any) -> None:
    with pytest.raises(DataError, match="identifiers cannot be of type"):
        ids(column)


def test_longest_allowed_passes() -> None:
    assert len(ids(["s" * MAX_SUBJECT_BYTES])[0]) == MAX_SUBJECT_BYTES


def test_only_arrow_columns_are_taken() -> None:
    with pytest.raises(TypeError, match="pyarrow"):
        subject_ids(np.array(["a"]), where="t", name="n")
