"""Every figure says whose rows it was computed from; shares come with an interval."""

from __future__ import annotations

import numpy as np
import pytest

from fedgen.audit.basis import against, share, subset


def test_no_comparison_with_real_rows_is_private() -> None:
    for reference in ("held-out", "training"):
        basis = against(reference)
        assert not basis.private
        assert "not covered by ε" in basis.sentence
    assert "held-out" in against("held-out").data
    assert "training" in against("training").data


@pytest.mark.parametrize(("hits", "of"), [(0, 1), (1, 1), (0, 50), (50, 50), (12, 40), (1, 10_000)])
def test_interval_holds_the_value(hits: int, of: int) -> None:
    found = share(hits, of)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.of == of


def test_interval_agrees_with_the_published_formula() -> None:
    found = share(10, 100)  # Wilson, z = 2.5758: (0.0461, 0.2035)
    assert found.low == pytest.approx(0.0461, abs=5e-4)
    assert found.high == pytest.approx(0.2035, abs=5e-4)


def test_interval_narrows_with_more_rows() -> None:
    few, many = share(5, 10), share(5000, 10_000)
    assert many.high - many.low < (few.high - few.low) / 10


@pytest.mark.parametrize(("hits", "of"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_shares_are_refused(hits: int, of: int) -> None:
    with pytest.raises(ValueError, match="hits"):
        share(hits, of)


def test_subset_is_sorted_without_repeats_and_bounded() -> None:
    rng = np.random.default_rng(0)
    chosen = subset(1000, 100, rng)
    assert len(np.unique(chosen)) == 100
    assert (np.diff(chosen) > 0).all()
    assert subset(7, 100, rng).tolist() == list(range(7))
