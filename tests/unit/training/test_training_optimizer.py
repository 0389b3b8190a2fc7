"""The flat optimizer: the arithmetic of torch.optim, and a state that continues exactly."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedgen.dpsgd.flat import FlatParameters
from fedgen.models.options import ModelOptions
from fedgen.models.registry import build
from fedgen.schema.layout import TableLayout
from fedgen.training.learner import Learner
from fedgen.training.optimizer import FlatOptimizer, LearnerOptimizer


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


# -- a whole learner --------------------------------------------------------------------------------


def _gan() -> Learner:
    layout = TableLayout(cardinalities=(5, 3, 2), ordered=(True, False, False), label=2)
    model = build("tabular-gan", layout, ModelOptions(latent=2, hidden=(4,), generator=(4,)), seed=2)
    return Learner(model, clip=1.0, engine="fused", fake_batch=8)


def _step(optimizer: LearnerOptimizer, learner: Learner, seed: int) -> None:
    optimizer.step_(torch.full((learner.parameters,), 0.1), torch.Generator().manual_seed(seed))


def test_a_learners_state_continues_exactly_the_public_part_included() -> None:
    whole, second = _gan(), _gan()
    straight = LearnerOptimizer(whole, name="adam", lr=0.01, public_steps=2)
    _step(straight, whole, 1)
    taken = {name: value.clone() for name, value in straight.state().items()}
    assert {name.split(".")[0] for name in taken} == {"private", "public"}
    after = LearnerOptimizer(second, name="adam", lr=0.01, public_steps=2)
    second.load_all_(whole.all_values())
    after.restore(taken)
    _step(straight, whole, 2)
    _step(after, second, 2)
    assert torch.equal(whole.all_values(), second.all_values())


def test_before_the_first_step_there_is_no_state() -> None:
    assert LearnerOptimizer(_gan(), name="adam", lr=0.01).state() == {}


@pytest.mark.parametrize("steps", [1, 3])
def test_the_public_part_takes_its_own_steps_at_its_own_rate(steps: int) -> None:
    learner = _gan()
    before = learner.all_values()
    optimizer = LearnerOptimizer(learner, name="adam", lr=1e-9, lr_public=0.5, public_steps=steps)
    _step(optimizer, learner, 1)
    moved = (learner.all_values() - before).abs()
    assert float(moved[: learner.parameters].max()) < 1e-6
    assert float(moved[learner.parameters :].max()) == pytest.approx(0.5 * steps, rel=0.9)
    assert int(optimizer.state()["public.step"]) == steps


def test_the_step_of_a_critic_holds_its_fakes_in_it() -> None:
    learner, alone = _gan(), _gan()
    LearnerOptimizer(learner, name="sgd", lr=1.0, lr_public=1e-9).step_(
        torch.zeros(learner.parameters), torch.Generator().manual_seed(1)
    )
    fakes = alone.public_gradient(torch.Generator().manual_seed(1))
    assert fakes is not None
    moved = alone.private.vector - learner.private.vector
    torch.testing.assert_close(moved.detach(), fakes)
