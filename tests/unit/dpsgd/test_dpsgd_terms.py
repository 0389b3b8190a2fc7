"""Norms are never below the truth by more than the engine takes off the bound, whatever the numbers."""

from __future__ import annotations

import pytest
import torch

from fedgen.dpsgd.terms import (
    GRAM_POSITIONS,
    NORM_ERROR,
    Factored,
    Formed,
    Outer,
    outer_norms,
    over_positions,
    scratch_over_positions,
    squared_norms,
)


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def shortfall(square: torch.Tensor, truth: torch.Tensor) -> float:
    """Return by how much, relatively, the worst norm is below the truth."""
    return float((1.0 - square.double().sqrt() / truth).max())


@pytest.mark.parametrize("width", [1, 16, 784, 1024, 1025, 1 << 17])
def test_constant_rows_do_not_lose_digits(width):
    # Equal items are the worst case: each addition rounds the same way. vector_norm alone is off by 1e-4 at 2^17.
    rows = torch.full((8, width), 0.3) + torch.rand(8, 1, generator=torch.Generator().manual_seed(2))
    truth = rows.double().norm(dim=1)
    assert shortfall(squared_norms(rows), truth) < NORM_ERROR / 2
    assert float((squared_norms(rows).double().sqrt() / truth - 1).max()) < NORM_ERROR / 2


def gram_and_truth(g: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    square, _ = Factored.measured(g, u, None)
    return square, torch.bmm(g.double(), u.double().transpose(1, 2)).flatten(1).norm(dim=1)


def test_gram_norms_of_ordinary_rows_are_tight():
    square, truth = gram_and_truth(normal(64, 20, 16), normal(64, 30, 16, seed=2))
    assert shortfall(square, truth) <= 0
    assert float((square.double().sqrt() / truth - 1).max()) < 5e-6


@pytest.mark.parametrize("left", [0.0, 1e-7, 1e-4, 1e-2])
def test_gram_norms_survive_cancellation(left):
    # Alternating signs on a constant patch: the sum over positions all but vanishes, its terms do not.
    u = 100.0 * (normal(32, 30, 1, seed=3) + left * normal(32, 30, 8, seed=4))
    g = normal(32, 20, 1, seed=5) * torch.tensor([1.0, -1.0] * 4)
    square, truth = gram_and_truth(g, u)
    float32_noise = 1e-7 * float(torch.bmm(g.abs(), u.abs().transpose(1, 2)).flatten(1).norm(dim=1).max())
    assert float((truth - square.double().sqrt()).max()) <= NORM_ERROR * float(truth.max()) + float32_noise
    assert float((square.double().sqrt() - truth).max()) <= 1e-5 * float(truth.max()) + 10 * float32_noise


def test_gram_and_formed_gradients_are_the_same_term():
    g, u, bias = normal(6, 10, 4), normal(6, 12, 4, seed=2), normal(6, 10, seed=3)
    c = torch.rand(6, generator=torch.Generator().manual_seed(4))
    sums = []
    for square, term in (
        Factored.measured(g, u, bias),
        Formed.measured(torch.bmm(g, u.transpose(1, 2)), bias),
    ):
        weight, out_bias = torch.zeros(10, 12), torch.zeros(10)
        term.add_(c, weight, out_bias)
        sums.append((square, weight, out_bias))
    for one, other in zip(*sums, strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("outs", "width", "positions", "groups", "kind"),
    [
        (64, 64, 4, 1, Factored),
        (64, 64, GRAM_POSITIONS, 1, Factored),
        (64, 64, GRAM_POSITIONS + 1, 1, Formed),
        (4, 4, 4, 1, Formed),
        (64, 64, 4, 2, Formed),
    ],
)
def test_the_cheaper_exact_form_is_chosen(outs, width, positions, groups, kind):
    g, u = normal(2, outs, positions), normal(2, width * groups, positions)
    _, term = over_positions(g, u, bias=None, groups=groups)
    assert isinstance(term, kind)
    formed = outs * width if kind is Formed else 2 * positions**2
    room = scratch_over_positions(outs, width, positions, groups=groups)
    assert room == formed + (outs + width * groups) * positions


def test_outer_norms_are_those_of_the_outer_products():
    terms = [Outer(normal(5, 3), normal(5, 4, seed=2)), Outer(normal(5, 2, seed=3), normal(5, 1100, seed=4))]
    found = outer_norms(terms, torch.tensor([[1.0], [0.0]]))
    first = torch.einsum("bi,bj->bij", terms[0].g, terms[0].x).square().sum((1, 2)) + terms[0].g.square().sum(
        1
    )
    second = torch.einsum("bi,bj->bij", terms[1].g, terms[1].x).square().sum((1, 2))
    assert torch.allclose(found, first + second, rtol=1e-5)


def test_squares_lost_to_underflow_do_not_hide_a_long_gradient():
    # ‖g‖² underflows to zero while ‖x‖² is large: the product must not be taken for zero.
    g, x = torch.full((1, 4), 1e-23), torch.full((1, 4), 1e18)
    truth = float(g.double().norm() * x.double().norm())
    square = float(outer_norms([Outer(g, x)], torch.zeros(1, 1)))
    assert square**0.5 >= truth
