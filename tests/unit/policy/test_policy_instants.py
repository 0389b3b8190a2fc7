from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fedgen.errors import DataError
from fedgen.policy.instants import microseconds


def read(values: Any, **options: Any) -> Any:
    array = values if isinstance(values, pa.Array) else pa.array(values, pa.string())
    return microseconds(pa.chunked_array([array]), where="c.csv", name="recorded_at", **options)


@pytest.mark.parametrize(
    "text",
    [
        "2026-05-04T11:00:00+02:00",
        "2026-05-04T09:00:00Z",
        "2026-05-04t09:00:00z",
        "2026-05-04 09:00:00.000000Z",
        "2026-05-04T03:30:00-05:30",
    ],
)
def test_one_instant_in_many_spellings(text: str) -> None:
    assert read([text]).tolist() == [1_777_885_200_000_000]


def test_microseconds_are_exact() -> None:
    assert read(["1970-01-01T00:00:00.000001Z", "1969-12-31T23:59:59.999999Z"]).tolist() == [1, -1]


def test_agrees_with_the_standard_library() -> None:
    rng = np.random.default_rng(3)
    times = [
        datetime(1900, 1, 1, tzinfo=timezone(timedelta(minutes=int(m)))) + timedelta(microseconds=int(u))
        for m, u in zip(rng.integers(-840, 840, 300), rng.integers(0, 2 * 10**16, 300), strict=True)
    ]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    want = [(t - epoch) // timedelta(microseconds=1) for t in times]
    assert read([t.isoformat() for t in times]).tolist() == want


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("2026-05-04T11:00:00", "without an offset"),
        ("2026-05-04", "not an RFC 3339 time"),
        ("2026-05-04T11:00Z", "not an RFC 3339 time"),
        ("2026-05-04T11:00:00.1234567Z", "not an RFC 3339 time"),
        ("04.05.2026 11:00:00", "not an RFC 3339 time"),
        ("", "not an RFC 3339 time"),
        ("2026-02-30T11:00:00Z", "not a time that exists"),
        ("2026-05-04T24:00:01Z", "not a time that exists"),
        ("2026-05-04T11:00:00+25:00", "not a time that exists"),
        ("2026-06-30T23:59:60Z", "not a time that exists"),
        (None, "has no time"),
    ],
)
def test_what_is_not_an_instant_is_refused_by_row(text: str, what: str) -> None:
    with pytest.raises(DataError) as caught:
        read(["2026-05-04T11:00:00Z", text])
    assert what in str(caught.value)
    assert str(caught.value).startswith("c.csv: recorded_at: row 2 ")
    assert not text or text not in caught.value.what


def test_nulls_become_what_they_are_told_to() -> None:
    assert read([None, "1970-01-01T00:00:00Z"], missing=9).tolist() == [9, 0]
    assert read(pa.nulls(2), missing=9).tolist() == [9, 9]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_arrow_instants_with_a_zone(unit: Any) -> None:
    column = pa.array([datetime(2026, 5, 4, 9, tzinfo=UTC)], pa.timestamp(unit, "Europe/Berlin"))
    assert read(column).tolist() == [1_777_885_200_000_000]


@pytest.mark.parametrize(
    ("column", "what"),
    [
        (pa.array([0], pa.timestamp("us")), "without a zone"),
        (pa.array([1], pa.timestamp("ns", "UTC")), "finer than a microsecond"),
        (pa.array([1], pa.int64()), "int64 where an instant belongs"),
        (pa.array([1], pa.date32()), "date32"),
    ],
)
def test_other_arrow_columns_are_refused(column: Any, what: str) -> None:
    with pytest.raises(DataError, match=what):
        read(column)
