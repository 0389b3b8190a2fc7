"""The streaming sum: each site once, nothing that is not finite, one vector of memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgen.coordinator.aggregate import StreamingSum
from fedgen.errors import Code, IntegrityError


def _bytes(values: list[float]) -> bytes:
    return np.array(values, dtype="<f4").tobytes()


@given(
    rows=st.lists(st.lists(st.floats(-1e3, 1e3, width=32), min_size=3, max_size=3), min_size=1, max_size=8),
    weight=st.sampled_from([1.0, 2.5]),
)
@settings(max_examples=50, deadline=None)
def test_sum_equals_the_sum_of_the_parts(rows: list[list[float]], weight: float) -> None:
    fold = StreamingSum(3)
    for number, row in enumerate(rows):
        fold.add(f"site-{number}", _bytes(row), weight)
    aggregate = fold.finish()
    expected = weight * np.array(rows, dtype=np.float32).astype(np.float64).sum(axis=0)
    np.testing.assert_allclose(aggregate.total, expected, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(aggregate.mean(), expected / (weight * len(rows)), rtol=1e-5, atol=1e-5)
    assert aggregate.sites == tuple(f"site-{n}" for n in range(len(rows)))


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (_bytes([1.0, float("nan"), 0.0]), Code.NOT_FINITE),
        (_bytes([1.0, float("inf"), 0.0]), Code.NOT_FINITE),
        (_bytes([1.0, 2.0]), Code.WRONG_SHAPE),
        (b"\0" * 13, Code.WRONG_SHAPE),
    ],
)
def test_a_bad_update_changes_nothing(payload: bytes, code: Code) -> None:
    fold = StreamingSum(3)
    fold.add("a", _bytes([1.0, 2.0, 3.0]), 1.0)
    with pytest.raises(IntegrityError) as caught:
        fold.add("b", payload, 1.0)
    assert caught.value.code == code
    aggregate = fold.finish()
    assert aggregate.sites == ("a",)
    np.testing.assert_array_equal(aggregate.total, [1.0, 2.0, 3.0])


def test_one_site_counts_once() -> None:
    fold = StreamingSum(1)
    fold.add("a", _bytes([1.0]), 1.0)
    with pytest.raises(IntegrityError) as caught:
        fold.add("a", _bytes([5.0]), 1.0)
    assert caught.value.code == Code.REPLAYED
    assert fold.finish().total[0] == 1.0


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_weights_are_positive(weight: float) -> None:
    with pytest.raises(ValueError, match="weight"):
        StreamingSum(1).add("a", _bytes([1.0]), weight)
