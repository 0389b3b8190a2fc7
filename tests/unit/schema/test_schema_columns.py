"""Columns: what a declaration means in codes, and which declarations are refused."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from pydantic import ValidationError

from fedgen.schema.columns import EXACT, Boolean, Categorical, Continuous, Date, Integer, Ordinal

SHAPES = [
    (Continuous(name="x", min=0.0, max=1.0), 32, True),
    (Continuous(name="x", min=0.0, max=1.0, bins=7, nullable=True), 8, True),
    (Continuous(name="x", min=0.0, max=9.0, edges=(0.0, 1.0, 9.0)), 2, True),
    (Integer(name="x", min=0, max=255), 256, True),
    (Integer(name="x", min=0, max=255, nullable=True), 257, True),
    (Integer(name="x", min=3, max=3), 1, True),
    (Integer(name="x", min=-(10**6), max=10**6, bins=10), 10, True),
    (Integer(name="x", min=0, max=100, edges=(0, 18, 65, 100), nullable=True), 4, True),
    (Categorical(name="x", categories=("a", "b", "c")), 3, False),
    (Ordinal(name="x", levels=("low", "high"), nullable=True), 3, True),
    (Boolean(name="x"), 2, False),
    (Boolean(name="x", nullable=True), 3, False),
    (Date(name="x", min=dt.date(2024, 1, 1), max=dt.date(2024, 12, 31)), 366, True),
    (Date(name="x", min=dt.date(2024, 1, 1), max=dt.date(2025, 1, 1)), 64, True),
    (Date(name="x", min=dt.date(2000, 1, 1), max=dt.date(2025, 1, 1), bins=9), 9, True),
]


@pytest.mark.parametrize(("column", "cardinality", "ordered"), SHAPES)
def test_cardinality_and_order(column: Any, cardinality: Any, ordered: Any) -> None:
    assert column.cardinality == cardinality
    assert column.ordered is ordered
    assert column.missing_code == (cardinality - 1 if column.nullable else None)


def test_equal_bins_run_from_bound_to_bound() -> None:
    column = Continuous(name="x", min=-1.0, max=3.0, bins=4)
    assert column.bin_edges == (-1.0, 0.0, 1.0, 2.0, 3.0)


def test_bounds_as_wide_as_doubles_do_not_overflow() -> None:
    column = Continuous(name="x", min=-1.7e308, max=1.7e308, bins=4)
    assert column.bin_edges == pytest.approx((-1.7e308, -0.85e308, 0.0, 0.85e308, 1.7e308), rel=1e-15)


def test_edges_decide_the_bins() -> None:
    column = Continuous(name="x", min=0.0, max=9.0, edges=(0.0, 1.0, 9.0))
    assert column.bins == 2
    assert column.bin_edges == (0.0, 1.0, 9.0)


def test_integer_bins_differ_by_one_value_at_most() -> None:
    column = Integer(name="x", min=0, max=9, bins=4)
    assert column.starts == (0, 2, 5, 7)


def test_integer_edges_are_first_values_of_bins() -> None:
    assert Integer(name="x", min=0, max=100, edges=(0, 18, 65, 100)).starts == (0, 18, 65)


def test_days_count_from_1970() -> None:
    column = Date(name="x", min=dt.date(1969, 12, 31), max=dt.date(1970, 1, 2))
    assert column.starts == (-1, 0, 1)


REFUSED = [
    (Continuous, {"min": 1.0, "max": 1.0}, "max must be above min"),
    (Continuous, {"min": 0.0, "max": float("inf")}, "finite"),
    (Continuous, {"min": 0.0, "max": float("nan")}, "finite"),
    (Continuous, {"min": "0", "max": 1.0}, "valid number"),
    (Continuous, {"min": True, "max": 2.0}, "valid number"),
    (Continuous, {"min": 0.0, "max": 1.0, "bins": 0}, "greater than or equal to 1"),
    (Continuous, {"min": 0.0, "max": 1.0, "bins": 65_536}, "less than or equal to 65535"),
    (Continuous, {"min": 1.0, "max": 1.0 + 2**-51, "bins": 64}, "too many bins for the width"),
    (Continuous, {"min": 0.0, "max": 1.0, "edges": (0.0,)}, "edges must make 1 to 65535 bins"),
    (Continuous, {"min": 0.0, "max": 1.0, "edges": (0.0, 2.0)}, "the last one max"),
    (Continuous, {"min": 0.0, "max": 1.0, "edges": (0.0, 0.5, 0.5, 1.0)}, "strictly increasing"),
    (Continuous, {"min": 0.0, "max": 1.0, "edges": (0.0, 1.0), "bins": 2}, "2 edges make 1 bins"),
    (Integer, {"min": 1, "max": 0}, "max must not be below min"),
    (Integer, {"min": 0, "max": 256}, "bins are needed for 257 values"),
    (Integer, {"min": 0, "max": 3, "bins": 5}, "more bins than the 4 values"),
    (Integer, {"min": 0, "max": EXACT + 1, "bins": 4}, "less than or equal to"),
    (Integer, {"min": 0.5, "max": 3}, "valid integer"),
    (Integer, {"min": 0, "max": 9, "edges": (1, 9)}, "first edge must be min"),
    (Categorical, {"categories": ()}, "at least 1"),
    (Categorical, {"categories": ("a", "a")}, "'a' stands twice"),
    (Categorical, {"categories": ("a", 1)}, "valid string"),
    (Categorical, {"categories": ("a", " b")}, "space"),
    (Categorical, {"categories": ("a", "b\n")}, "control"),
    (Categorical, {"categories": ("a", " FILL-IN ")}, "still says FILL-IN"),
    (Ordinal, {"levels": ("a", "b", "a")}, "'a' stands twice"),
    (Boolean, {"min": 0}, "Extra inputs"),
    (Date, {"min": 20_240_101, "max": "2024-02-01"}, "must be a date"),
    (Date, {"min": dt.datetime(2024, 1, 1, tzinfo=dt.UTC), "max": "2024-02-01"}, "must be a date"),
    (Date, {"min": "2024-02-02", "max": "2024-02-01"}, "max must not be before min"),
    (Date, {"min": "2024-02-01", "max": "2024-02-02", "bins": 3}, "more bins than the 2 days"),
]


@pytest.mark.parametrize(("kind", "keys", "why"), REFUSED)
def test_a_declaration_that_cannot_hold_is_refused(kind: Any, keys: Any, why: Any) -> None:
    with pytest.raises(ValidationError, match=why):
        kind(name="x", **keys)


def test_columns_are_frozen() -> None:
    column = Boolean(name="x")
    with pytest.raises(ValidationError, match="frozen"):
        column.name = "y"  # type: ignore[misc]
