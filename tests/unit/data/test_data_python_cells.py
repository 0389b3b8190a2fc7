"""What drivers return, as columns; by types alone."""

import uuid
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pytest

from fedgen.data.python_cells import PythonCells
from fedgen.errors import DataError


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([Decimal("1.50"), None], [1.5, None]),
        ([uuid.UUID(int=7)], ["00000000-0000-0000-0000-000000000007"]),
        ([date(2026, 1, 2)], [date(2026, 1, 2)]),
        ([datetime(2026, 1, 2, 3)], [datetime(2026, 1, 2, 3)]),  # noqa: DTZ001 -- as a driver returns it
        ([True, False], [True, False]),
        ([None, None], [None, None]),
    ],
)
def test_what_drivers_return_becomes_plain(values: Any, want: Any) -> None:
    assert PythonCells("t").array(values, "v", 0).to_pylist() == want


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ([True, 1], "row 12 is stored as another type"),
        ([1, None, "secret"], "row 13 is stored as another type"),
        ([2**70], "a value out of range in rows 11 to 11"),
        ([1, {"secret": 1}], "row 12: values of type dict"),
        ([b"secret"], "row 11: values of type bytes"),
        (["secret\ud800"], "a value out of range in rows 11 to 11"),
        ([Decimal("sNaN")], "a value out of range in rows 11 to 11"),
    ],
)
def test_what_cannot_be_a_column_is_refused(values: Any, what: str) -> None:
    with pytest.raises(DataError) as caught:
        PythonCells("t").array(values, "v", 10)
    assert what in str(caught.value)
    assert str(caught.value).startswith("t: v: ")
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_column_keeps_its_kind_from_batch_to_batch() -> None:
    cells = PythonCells("t")
    cells.array([None], "v", 0)
    cells.array([1], "v", 1)
    cells.array([2.5, None], "v", 2)
    cells.array(["x"], "other", 0)
    with pytest.raises(DataError, match="v: row 5 is stored as another type than rows before it"):
        cells.array(["secret"], "v", 4)


def test_more_types_of_a_driver() -> None:
    class Odd:
        pass

    cells = PythonCells("t", foreigners={Odd: lambda _value: "odd"}, hint="mend")
    assert cells.array([Odd(), None], "v", 0).to_pylist() == ["odd", None]
    with pytest.raises(DataError, match="mend"):
        cells.array([1], "v", 2)
