"""One column, as text and as every type it may be stored in: the same answer, and faults without values."""

from __future__ import annotations

import datetime as dt
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fedgen.errors import DataError
from fedgen.schema.cells import NOTHING, Markers, Place, days, numbers, plain, positions, truths

NAN = math.nan
NAMES = pa.array(["1", "2", "b"])


def place(*markers: Any, first_row: Any = 0) -> Place:
    return Place("age", first_row, Markers(markers))


def same(found: Any, expected: Any) -> bool:
    return np.array_equal(found, np.array(expected, np.float64), equal_nan=True)


NUMBERS = [
    (pa.array(["1", " -2 ", "+3", ".5", "1e2", "4."]), [1, -2, 3, 0.5, 100, 4]),
    (pa.array(["1", None, "", " ", "NA", " NA"]), [1, NAN, NAN, NAN, NAN, NAN]),
    (pa.array(["1", "nan"]), [1, NAN]),
    (pa.array(["-9", "-9.0", "9"]), [NAN, NAN, 9]),
    (pa.array(["1"], pa.large_string()), [1]),
    (pa.array(["1", "2"], pa.string_view()), [1, 2]),
    (pa.array([1, None, -9], pa.int8()), [1, NAN, NAN]),
    (pa.array([2**53 - 1, -(2**53) + 1, 2**62], pa.int64()), [2**53 - 1, -(2**53) + 1, 2**62]),
    (pa.array([2**64 - 1], pa.uint64()), [2.0**64]),
    (pa.array([1.5, None, NAN]), [1.5, NAN, NAN]),
    (pa.array([0.1], pa.float32()), [float(np.float32(0.1))]),
    (pa.array([np.float16(1.5)]), [1.5]),
    (pa.array([Decimal("1.10"), None]), [1.1, NAN]),
    (pa.nulls(2), [NAN, NAN]),
    (pa.array(["7", "8", "7"]).dictionary_encode(), [7, 8, 7]),
    (pa.array([], pa.string()), []),
]


@pytest.mark.parametrize(("values", "expected"), NUMBERS)
def test_numbers(values: Any, expected: Any) -> None:
    assert same(numbers(plain(values), place("", "NA", "-9")), expected)


@pytest.mark.parametrize("text", ["x", "1,5", "0x10", "1_000", "1 2", "٣", "1d", "", "--1"])
def test_text_in_a_number_names_the_row(text: Any) -> None:
    with pytest.raises(DataError) as caught:
        numbers(pa.array(["1", None, "2", text, "also bad"]), place("NA", first_row=100))
    assert str(caught.value) == "age: row 104: text where a number is expected"


@pytest.mark.parametrize(
    "values", [pa.array(["1", "inf"]), pa.array(["0", "-Infinity"]), pa.array([1.0, -math.inf])]
)
def test_infinity_is_refused(values: Any) -> None:
    with pytest.raises(DataError, match="row 2: infinity"):
        numbers(values, place())


def test_the_first_of_many_faults_is_found_wherever_it_stands() -> None:
    for row in range(33):
        cells = ["1"] * row + ["x"] + ["y"] * (32 - row)
        with pytest.raises(DataError, match=f"row {row + 1}:"):
            numbers(pa.array(cells), place())


def day(year: Any, month: Any, date: Any) -> Any:
    return (dt.date(year, month, date) - dt.date(1970, 1, 1)).days


INSTANT = dt.datetime(1969, 12, 31, 23, 30)  # noqa: DTZ001 - a naive timestamp is what is tested
DAYS = [
    (pa.array(["2024-02-29", " 1969-12-31", None, ""]), [day(2024, 2, 29), -1, NAN, NAN]),
    (
        pa.array(["2024-02-29", "2024-02-29T23:59:59", "1960-01-01 23:00:00.5"]),
        [19782, 19782, day(1960, 1, 1)],
    ),
    (pa.array(["9999-12-31", "0001-01-01"]), [NAN, day(1, 1, 1)]),
    (pa.array([dt.date(2024, 2, 29), None, dt.date(9999, 12, 31)]), [19782, NAN, NAN]),
    (pa.array([dt.date(1960, 1, 1), None]).cast(pa.date64()), [day(1960, 1, 1), NAN]),
    *((pa.array([INSTANT, None], pa.timestamp(unit)), [-1, NAN]) for unit in ("s", "ms", "us", "ns")),
    (pa.array([INSTANT], pa.timestamp("us", tz="UTC")), [-1]),
    (pa.array([INSTANT], pa.timestamp("us", tz="+05:00")), [0]),
    (pa.array([2**62], pa.timestamp("s")), [2**62 // 86_400]),
    (pa.nulls(1), [NAN]),
]


@pytest.mark.parametrize(("values", "expected"), DAYS)
def test_days(values: Any, expected: Any) -> None:
    assert same(days(plain(values), place("", "9999-12-31")), expected)


@pytest.mark.parametrize(
    "text", ["2023-02-29", "20230201", "01.02.2023", "2023-02-01T00:00:00Z", "yesterday", "5"]
)
def test_text_that_is_no_date_names_the_row(text: Any) -> None:
    with pytest.raises(DataError, match=r"^age: row 2: text where a date \(YYYY-MM-DD\) is expected$"):
        days(pa.array(["2023-01-01", text]), place(""))


POSITIONS = [
    (pa.array(["b", "1", None, "", "2"]), [2, 0, NOTHING, NOTHING, 1]),
    (pa.array([" b ", "1"]), [2, 0]),
    (pa.array(["b", "2"]).dictionary_encode(), [2, 1]),
    (pa.array(["b"], pa.large_string()), [2]),
    (pa.array([2, 1, None], pa.int16()), [1, 0, NOTHING]),
    (pa.array([2.0, 1.0, NAN, None]), [1, 0, NOTHING, NOTHING]),
    (pa.array([-9, 1]), [NOTHING, 0]),
    (pa.nulls(2), [NOTHING, NOTHING]),
]


@pytest.mark.parametrize(("values", "expected"), POSITIONS)
def test_positions(values: Any, expected: Any) -> None:
    assert positions(plain(values), NAMES, place("", "-9")).tolist() == expected


@pytest.mark.parametrize("values", [["b", "B"], ["1", "01"], ["b", "b b"], [1, 3], ["b", ""]])
def test_a_name_that_is_not_declared_names_the_row(values: Any) -> None:
    with pytest.raises(DataError, match=r"^age: row 2: not among the declared names"):
        positions(pa.array(values), NAMES, place())


def test_a_broken_number_is_no_name() -> None:
    with pytest.raises(DataError, match="row 2: a number that is not whole"):
        positions(pa.array([1.0, 1.5]), NAMES, place())
    with pytest.raises(DataError, match="row 1: a number that is not whole"):
        positions(pa.array([math.inf]), NAMES, place())


TRUTHS = [
    (
        pa.array(["true", "F", "Yes", "n", "1", "0", None, "", " TRUE "]),
        [1, 0, 1, 0, 1, 0, NOTHING, NOTHING, 1],
    ),
    (pa.array([True, False, None]), [1, 0, NOTHING]),
    (pa.array([1, 0, None], pa.uint8()), [1, 0, NOTHING]),
    (pa.array([1.0, NAN, 0.0]), [1, NOTHING, 0]),
]


@pytest.mark.parametrize(("values", "expected"), TRUTHS)
def test_truths(values: Any, expected: Any) -> None:
    assert truths(plain(values), place("")).tolist() == expected


@pytest.mark.parametrize("values", [["true", "maybe"], ["1", "2"], [1, 2], ["t", ""]])
def test_neither_true_nor_false_names_the_row(values: Any) -> None:
    with pytest.raises(DataError, match=r"^age: row 2: neither true nor false$"):
        truths(pa.array(values), place())


@pytest.mark.parametrize(
    ("read", "values", "says"),
    [
        (numbers, pa.array([True]), "stored as bool, declared as a number"),
        (numbers, pa.array([dt.date(2024, 1, 1)]), r"stored as date32\[day\], declared as a number"),
        (days, pa.array([1]), "stored as int64, declared as a date"),
        (truths, pa.array([b"x"]), "stored as binary, declared as names"),
        (lambda values, at: positions(values, NAMES, at), pa.array([[1]]), "stored as list"),
    ],
)
def test_a_type_that_cannot_hold_it_is_refused(read: Any, values: Any, says: Any) -> None:
    with pytest.raises(DataError, match=says):
        read(values, place())


@pytest.mark.parametrize("read", [numbers, days, truths, lambda values, at: positions(values, NAMES, at)])
def test_no_fault_carries_a_value(read: Any) -> None:
    with pytest.raises(DataError) as caught:
        read(pa.array(["canary-7741"]), place(""))
    error: BaseException | None = caught.value
    assert "canary" not in str(error.diagnostics())  # type: ignore[union-attr]
    assert error is not None
    assert error.__context__ is None
    assert error.__cause__ is None
