"""A user of Opacus changes one word and gets the same training, faster."""

from __future__ import annotations

import warnings

import pytest
import torch
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fedgen.dpsgd.noise import NoiseSource
from fedgen.dpsgd.opacus_plugin import FusedGradSampleModule, FusedPrivacyEngine
from fedgen.dpsgd.selftest import check_noise_scale
from fedgen.errors import ConfigError


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Secure RNG turned off", category=UserWarning)
        warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
        yield


@pytest.fixture
def make(filled):
    def _make(mode: str = "fused", **options):
        module = filled(nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1)))
        engine = FusedPrivacyEngine(accountant="rdp")
        settings = {"noise_multiplier": 0.0, "max_grad_norm": 0.5, "poisson_sampling": False, **options}
        made = engine.make_private(
            module=module,
            optimizer=torch.optim.SGD(module.parameters(), lr=0.5),
            data_loader=DataLoader(TensorDataset(normal(64, 5), normal(64, 1, seed=2)), batch_size=16),
            grad_sample_mode=mode,
            **settings,
        )
        return engine, *made

    return _make


def train(model, optimizer, loader, criterion) -> torch.Tensor:
    for rows, targets in loader:
        optimizer.zero_grad()
        criterion(model(rows), targets).backward()
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_training_is_that_of_opacus_hooks(make, reduction):
    ends, spent = [], []
    for mode in ("hooks", "fused"):
        engine, model, optimizer, loader = make(mode, loss_reduction=reduction, max_grad_norm=0.05)
        ends.append(train(model, optimizer, loader, nn.MSELoss(reduction=reduction)))
        spent.append(engine.accountant.history)
    assert torch.allclose(ends[0], ends[1], atol=2e-5)
    assert spent[0] == spent[1] == [(0.0, 0.25, 4)]


def test_epsilon_is_that_of_opacus(make):
    found = []
    for mode in ("hooks", "fused"):
        engine, model, optimizer, loader = make(mode, noise_multiplier=1.0)
        train(model, optimizer, loader, nn.MSELoss())
        found.append(engine.get_epsilon(1e-5))
    assert found[0] == found[1] > 0


def test_a_loss_over_a_column_is_clipped_all_the_same(make):
    # The shape that undoes Opacus 1.6's ghost clipping.
    _, model, optimizer, _ = make(loss_reduction="sum", max_grad_norm=1.0)
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    nn.MSELoss(reduction="sum")(model(1e3 * normal(64, 5)), torch.ones(64, 1)).backward()
    optimizer.step()
    moved = before - torch.cat([p.detach().flatten() for p in model.parameters()])
    assert float(moved.norm()) <= 0.5 * 64 * (1 + 1e-5)


def test_noise_comes_from_a_key_stream_at_the_stated_scale(make):
    _, model, optimizer, _ = make(noise_multiplier=4.0, max_grad_norm=0.5, loss_reduction="sum")
    optimizer._noise = NoiseSource.insecure(1)
    drawn = []

    def steps(out: torch.Tensor) -> None:
        while sum(map(len, drawn)) < len(out):
            optimizer.zero_grad()
            model(normal(0, 5)).sum().backward()
            optimizer.pre_step()
            drawn.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        out.copy_(torch.cat(drawn)[: len(out)])

    assert check_noise_scale(steps, 2.0, fault=0.1).passed


def test_a_generator_of_torch_is_honoured(make):
    ends = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(3)
        _, model, optimizer, loader = make(noise_multiplier=1.0, noise_generator=generator)
        ends.append(train(model, optimizer, loader, nn.MSELoss()))
    assert torch.equal(*ends)


def test_noise_of_the_system_does_not_repeat(make):
    ends = []
    for _ in range(2):
        _, model, optimizer, loader = make(noise_multiplier=1.0)
        ends.append(train(model, optimizer, loader, nn.MSELoss()))
    assert not torch.equal(*ends)


def test_poisson_loaders_and_empty_batches(make):
    _, model, optimizer, loader = make(noise_multiplier=1.0, poisson_sampling=True)
    assert bool(train(model, optimizer, loader, nn.MSELoss(reduction="sum")).isfinite().all())
    optimizer.zero_grad()
    model(normal(0, 5)).sum().backward()
    optimizer.step()
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_virtual_steps_add_up(make):
    ends = []
    for physical in (16, 3):
        _, model, optimizer, loader = make(loss_reduction="sum", max_grad_norm=0.05)
        with BatchMemoryManager(
            data_loader=loader, max_physical_batch_size=physical, optimizer=optimizer
        ) as parts:
            ends.append(train(model, optimizer, parts, nn.MSELoss(reduction="sum")))
    assert torch.allclose(ends[0], ends[1], atol=2e-5)


def test_a_critic_with_generated_rows_in_between(make):
    _, model, optimizer, _ = make()
    optimizer.zero_grad()
    model(normal(4, 5)).sum().backward()
    model.disable_hooks()
    fakes = torch.autograd.grad(model(normal(6, 5)).mean(), list(model.parameters()))
    model.enable_hooks()
    optimizer.pre_step()
    for parameter, gradient in zip(model.parameters(), fakes, strict=True):
        parameter.grad.add_(gradient)
    optimizer.original_optimizer.step()
    assert all(float(g.norm()) > 0 for g in fakes)


def test_eval_and_no_grad_pass_through(make):
    _, model, optimizer, _ = make()
    with torch.no_grad():
        first = model(normal(3, 5))
    model.eval()
    assert torch.equal(model(normal(3, 5)), first)
    assert torch.equal(model(normal(3, 5)), first)
    with pytest.raises(ConfigError, match="no forward pass"):
        optimizer.step()


def test_two_forward_passes_before_a_step_are_refused(make):
    _, model, optimizer, _ = make()
    model(normal(3, 5))
    with pytest.raises(ConfigError, match="two forward passes"):
        model(normal(3, 5))
    optimizer.zero_grad()
    model(normal(3, 5)).sum().backward()
    optimizer.step()


def test_two_backward_passes_before_a_step_are_refused(make):
    _, model, _, _ = make()
    out = model(normal(3, 5)).sum()
    out.backward(retain_graph=True)
    with pytest.raises(ConfigError, match="two backward passes"):
        out.backward()


def test_a_failed_forward_is_forgotten(make):
    _, model, _, _ = make()
    with pytest.raises(RuntimeError):
        model(normal(3, 4))
    model(normal(3, 5))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"clipping": "per_layer", "max_grad_norm": [1.0] * 4}, "clips flat"),
        ({"wrap_model": False}, "wraps the module"),
        ({"batch_first": False}, "first dimension"),
    ],
    ids=["per-layer", "no-wrapping", "batch-second"],
)
def test_what_the_mode_cannot_do_is_refused(make, options, match):
    with pytest.raises(ConfigError, match=match):
        make(**options)


def test_an_optimizer_of_some_parameters_is_refused(filled):
    module = filled(nn.Sequential(nn.Linear(5, 2), nn.Linear(2, 1)))
    with pytest.raises(ConfigError, match="all parameters"):
        FusedPrivacyEngine(accountant="rdp").make_private(
            module=module,
            optimizer=torch.optim.SGD(module[1].parameters(), lr=0.5),
            data_loader=DataLoader(TensorDataset(normal(8, 5)), batch_size=4),
            noise_multiplier=1.0,
            max_grad_norm=1.0,
        )


def test_a_wrapped_module_is_kept_and_another_wrapping_refused(make):
    engine, model, _, _ = make()
    assert engine._prepare_model(model, grad_sample_mode="fused") is model
    assert isinstance(model, FusedGradSampleModule)
    with pytest.raises(ConfigError, match="wrapped already"):
        engine._prepare_model(model, grad_sample_mode="fused", loss_reduction="sum")
    assert type(model.to_standard_module()) is nn.Sequential


def test_other_modes_are_still_those_of_opacus(make):
    _, model, _, _ = make("hooks")
    assert type(model).__name__ == "GradSampleModule"
