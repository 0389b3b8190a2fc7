"""The bound on a whole site's change: exact in float32, and never a clipped NaN."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from fedgen.errors import Code, IntegrityError
from fedgen.training.change import bounded_


def _exact_square(values: torch.Tensor) -> Fraction:
    return sum((Fraction(float(value)) ** 2 for value in values), Fraction(0))


@pytest.mark.parametrize("clip", [1e-6, 0.1, 1.0, 3.7, 1e4])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e20, 1e37])
def test_the_exact_norm_of_what_is_returned_is_at_most_the_bound(clip: float, scale: float) -> None:
    change = torch.randn(300, generator=torch.Generator().manual_seed(1)) * scale
    before = change.clone()
    after = bounded_(change, clip)
    assert after is change
    assert _exact_square(after) <= Fraction(clip) ** 2
    if float(before.double().norm()) > clip:
        assert _exact_square(after) >= (Fraction(clip) * (1 - Fraction(1, 2**20))) ** 2, "and no smaller"
    cosine = torch.nn.functional.cosine_similarity(before.double(), after.double(), dim=0)
    assert float(cosine) == pytest.approx(1.0, abs=1e-6)


def test_a_change_below_the_bound_is_left_alone() -> None:
    change = torch.tensor([0.3, -0.4])
    assert torch.equal(bounded_(change.clone(), 1.0), change)
    assert torch.equal(bounded_(torch.zeros(3), 1.0), torch.zeros(3))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_refused_and_not_touched(value: float) -> None:
    change = torch.tensor([1.0, value, 100.0])
    with pytest.raises(IntegrityError) as caught:
        bounded_(change, 1.0)
    assert caught.value.code is Code.NOT_FINITE
    assert float(change[2]) == 100.0


def test_a_bound_is_positive() -> None:
    with pytest.raises(ValueError, match="clip"):
        bounded_(torch.ones(2), 0.0)
