"""Coders: which bin a value falls into, what is clamped, and what is drawn back."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fedgen.errors import DataError
from fedgen.schema.cells import Markers, Place
from fedgen.schema.coders import coder_of
from fedgen.schema.columns import Boolean, Categorical, Continuous, Date, Integer, Ordinal

PLACE = Place("x", 0, Markers(("",)))
ALPHA_1E_6_DF_3 = 30.66  # upper 1e-6 point of the chi-square distribution with three degrees of freedom


def encode(column: Any, values: Any) -> Any:
    codes, outside = coder_of(column).encode(pa.array(values), PLACE)
    return codes.tolist(), outside


def decode(column: Any, codes: Any, seed: Any = 0) -> Any:
    return coder_of(column).decode(np.array(codes), np.random.default_rng(seed)).to_pylist()


def test_a_bin_holds_its_lower_edge_and_the_last_one_its_upper_too() -> None:
    column = Continuous(name="x", min=0.0, max=3.0, bins=3)
    assert encode(column, [0.0, 0.999, 1.0, 2.0, 2.999, 3.0]) == ([0, 0, 1, 2, 2, 2], 0)


def test_declared_edges_make_uneven_bins() -> None:
    column = Continuous(name="x", min=-1.0, max=100.0, edges=(-1.0, 0.0, 10.0, 100.0))
    assert encode(column, [-1.0, -0.5, 0.0, 9.9, 10.0, 100.0]) == ([0, 0, 1, 1, 2, 2], 0)


@pytest.mark.parametrize(
    ("column", "values", "codes"),
    [
        (Continuous(name="x", min=0.0, max=3.0, bins=3), [-0.1, 3.1, 1e300, -1e300, 1.5], [0, 2, 2, 0, 1]),
        (Integer(name="x", min=0, max=9), [-1, 10, 2**62, -(2**62), 4], [0, 9, 9, 0, 4]),
        (Integer(name="x", min=0, max=999, bins=10), [-1, 1000, 10**9, -5, 499], [0, 9, 9, 0, 4]),
        (
            Date(name="x", min=dt.date(2024, 1, 1), max=dt.date(2024, 1, 5)),
            [
                dt.date(2023, 1, 1),
                dt.date(2025, 1, 1),
                dt.date(9999, 1, 1),
                dt.date(1, 1, 1),
                dt.date(2024, 1, 3),
            ],
            [0, 4, 4, 0, 2],
        ),
    ],
)
def test_values_out_of_bounds_are_clamped_and_counted(column: Any, values: Any, codes: Any) -> None:
    assert encode(column, values) == (codes, 4)


def test_integer_bins_hold_what_they_declare() -> None:
    column = Integer(name="x", min=0, max=100, edges=(0, 18, 65, 100))
    assert encode(column, [0, 17, 18, 64, 65, 100]) == ([0, 0, 1, 1, 2, 2], 0)


@pytest.mark.parametrize("values", [[1, 2.5], ["1", "2.5"]])
def test_a_number_that_is_not_whole_is_refused(values: Any) -> None:
    with pytest.raises(DataError, match="row 2: a number that is not whole"):
        encode(Integer(name="x", min=0, max=9), values)


def test_whole_floats_are_integers() -> None:
    assert encode(Integer(name="x", min=0, max=9), ["3.0", "4"]) == ([3, 4], 0)


def test_names_and_levels_keep_their_declared_order() -> None:
    assert encode(Categorical(name="x", categories=("z", "a")), ["a", "z"]) == ([1, 0], 0)
    assert encode(Ordinal(name="x", levels=("low", "high")), ["high", "low"]) == ([1, 0], 0)
    assert encode(Boolean(name="x"), [True, False]) == ([1, 0], 0)


EVERY_KIND = [
    (Continuous, {"min": 0.0, "max": 1.0, "bins": 4}),
    (Integer, {"min": 0, "max": 3}),
    (Date, {"min": "2024-01-01", "max": "2024-01-04"}),
    (Categorical, {"categories": ("a", "b", "c", "d")}),
    (Ordinal, {"levels": ("a", "b", "c", "d")}),
    (Boolean, {}),
]


@pytest.mark.parametrize(("kind", "keys"), EVERY_KIND)
def test_missing_is_the_last_code_of_a_nullable_column(kind: Any, keys: Any) -> None:
    column = kind(name="x", nullable=True, **keys)
    assert encode(column, pa.array([None, ""], pa.string())) == ([column.states] * 2, 0)
    assert decode(column, [column.states, 0])[0] is None
    assert decode(column, [column.states, 0])[1] is not None


@pytest.mark.parametrize(("kind", "keys"), EVERY_KIND)
def test_missing_is_refused_elsewhere(kind: Any, keys: Any) -> None:
    with pytest.raises(DataError, match="row 1: no value, and the column is not nullable"):
        encode(kind(name="x", **keys), pa.array([None], pa.string()))


def test_nan_counts_as_missing_where_that_may_be() -> None:
    column = Continuous(name="x", min=0.0, max=1.0, bins=4)
    assert encode(column.model_copy(update={"nullable": True}), [0.0, math.nan]) == ([0, 4], 0)
    with pytest.raises(DataError, match="row 2: no value"):
        encode(column, [0.0, math.nan])


def test_a_bin_one_double_wide_gives_its_own_edge_back() -> None:
    low = 1.0
    edges = (low, np.nextafter(low, 2), np.nextafter(np.nextafter(low, 2), 2))
    column = Continuous(name="x", min=edges[0], max=edges[-1], edges=edges)
    drawn = decode(column, [0, 1] * 500)
    assert set(drawn[::2]) == {edges[0]}
    assert set(drawn[1::2]) <= {edges[1], edges[2]}


def test_one_code_each_draws_nothing() -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    coder_of(Integer(name="x", min=0, max=9)).decode(np.arange(10), rng)
    assert rng.bit_generator.state == before


def test_decoded_types() -> None:
    kinds = [
        coder_of(k(name="x", **keys)).decode(np.zeros(1, int), np.random.default_rng(0)).type
        for k, keys in EVERY_KIND
    ]
    assert kinds == [pa.float64(), pa.int64(), pa.date32(), pa.string(), pa.string(), pa.bool_()]


def chi_square(drawn: Any, low: Any, high: Any) -> Any:
    counts, _ = np.histogram(drawn, bins=4, range=(low, high))
    expected = len(drawn) / 4
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("column", "low", "high"),
    [
        (Integer(name="x", min=0, max=999, bins=10), 400, 499 + 1),
        (Continuous(name="x", min=0.0, max=10.0, bins=10), 4.0, 5.0),
    ],
)
def test_values_are_uniform_inside_their_bin(column: Any, low: Any, high: Any) -> None:
    # alpha = 1e-6; with 40,000 draws a quarter that is 6 % too full is seen with power above 1 - 1e-6.
    drawn = np.array(decode(column, [4] * 40_000, seed=20_260_101))
    assert drawn.min() >= low
    assert drawn.max() < high
    assert chi_square(drawn, low, high) < ALPHA_1E_6_DF_3


@pytest.mark.statistical
def test_the_uniformity_test_sees_a_skewed_bin() -> None:
    share = np.random.default_rng(20_260_101).random(40_000)
    assert chi_square(share**1.1, 0.0, 1.0) > ALPHA_1E_6_DF_3
