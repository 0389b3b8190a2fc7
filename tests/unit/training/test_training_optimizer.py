"""The flat optimizer: the arithmetic of torch.optim, and a state that continues exactly."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedgen.dpsgd.flat import FlatParameters
from fedgen.training.optimizer import FlatOptimizer


def _flat(size: int = 7) -> FlatParameters:
    layer = nn.Linear(size, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(3 * size, dtype=torch.float32).view(3, size) / 10)
        layer.bias.zero_()
    return FlatParameters(layer)


def _gradients(count: int, size: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(size, generator=generator) for _ in range(count)]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("adam", {"betas": (0.9, 0.999)}),
        ("adam", {"betas": (0.5, 0.9)}),
        ("sgd", {}),
        ("sgd", {"momentum": 0.9}),
    ],
)
def test_steps_are_those_of_torch_optim(name: str, settings: dict[str, object]) -> None:
    flat = _flat()
    oracle = flat.vector.detach().clone().requires_grad_()
    kind = torch.optim.Adam if name == "adam" else torch.optim.SGD
    theirs = kind([oracle], lr=0.01, **settings)  # type: ignore[arg-type]
    ours = FlatOptimizer(flat, name=name, lr=0.01, **settings)  # type: ignore[arg-type]
    for gradient in _gradients(25, oracle.numel()):
        oracle.grad = gradient.clone()
        theirs.step()
        ours.step_(gradient.clone())
    torch.testing.assert_close(flat.vector, oracle.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "momentum"), [("adam", 0.0), ("sgd", 0.9), ("sgd", 0.0)])
def test_a_restored_state_continues_exactly(name: str, momentum: float) -> None:
    whole, first, second = _flat(), _flat(), _flat()
    gradients = _gradients(10, whole.vector.numel())
    straight = FlatOptimizer(whole, name=name, lr=0.1, momentum=momentum)  # type: ignore[arg-type]
    for gradient in gradients:
        straight.step_(gradient.clone())
    before = FlatOptimizer(first, name=name, lr=0.1, momentum=momentum)  # type: ignore[arg-type]
    for gradient in gradients[:4]:
        before.step_(gradient.clone())
    second.load_(first.vector)
    after = FlatOptimizer(second, name=name, lr=0.1, momentum=momentum)  # type: ignore[arg-type]
    after.restore(before.state())
    for gradient in gradients[4:]:
        after.step_(gradient.clone())
    assert torch.equal(second.vector, whole.vector)


def test_a_state_of_another_size_is_refused() -> None:
    donor = FlatOptimizer(_flat(5), name="adam", lr=0.1)
    donor.step_(torch.ones(18))
    with pytest.raises(ValueError, match="does not fit"):
        FlatOptimizer(_flat(7), name="adam", lr=0.1).restore(donor.state())


@pytest.mark.parametrize("lr", [0.0, -1.0, float("nan")])
def test_the_learning_rate_is_positive(lr: float) -> None:
    with pytest.raises(ValueError, match="lr"):
        FlatOptimizer(_flat(), name="sgd", lr=lr)
