"""One vector, many views."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fedgen.dpsgd.flat import FlatParameters
from fedgen.errors import ConfigError


@pytest.fixture
def module(filled):
    return filled(nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1)))


def test_parameters_keep_value_shape_and_identity(module):
    before = [(p, p.detach().clone()) for p in module.parameters()]
    flat = FlatParameters(module)
    assert flat.size == 11
    assert flat.names == ("0.weight", "0.bias", "2.weight", "2.bias")
    assert flat.layout() == [("0.weight", (2, 3)), ("0.bias", (2,)), ("2.weight", (1, 2)), ("2.bias", (1,))]
    for (parameter, value), now in zip(before, module.parameters(), strict=True):
        assert now is parameter
        assert torch.equal(now, value)
    assert torch.equal(flat.vector, torch.cat([value.flatten() for _, value in before]))


def test_a_change_of_the_vector_is_a_change_of_the_module(module):
    flat = FlatParameters(module)
    rows = torch.ones(2, 3)
    flat.load_(torch.zeros(11))
    assert bool((module(rows) == 0).all())
    flat.vector[-1] = 5.0
    assert bool((module(rows) == 5).all())
    with torch.no_grad():
        module[2].bias.fill_(7.0)
    assert float(flat.vector[-1]) == 7.0


def test_load_takes_numpy(module):
    flat = FlatParameters(module)
    values = np.arange(11, dtype=np.float32)
    flat.load_(values)
    assert np.array_equal(flat.vector.numpy(), values)
    assert flat.vector.data_ptr() != torch.from_numpy(values).data_ptr()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_load_refuses_what_is_not_finite_and_changes_nothing(module, bad):
    flat = FlatParameters(module)
    before = flat.vector.clone()
    with pytest.raises(ValueError, match="finite"):
        flat.load_(torch.tensor([bad] + [0.0] * 10))
    assert torch.equal(flat.vector, before)


@pytest.mark.parametrize("size", [0, 10, 12])
def test_load_and_views_refuse_another_length(module, size):
    flat = FlatParameters(module)
    with pytest.raises(ValueError, match="shape"):
        flat.load_(torch.zeros(size))
    with pytest.raises(ValueError, match="shape"):
        flat.views(torch.zeros(size))


def test_views_share_memory(module):
    flat = FlatParameters(module)
    vector = torch.zeros(11)
    flat.views(vector)[2].fill_(3.0)
    assert vector.tolist() == [0.0] * 8 + [3.0, 3.0, 0.0]


def test_gradient_of_a_public_loss_is_added(module):
    flat = FlatParameters(module)
    loss = module(torch.ones(4, 3)).mean()
    wanted = torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)]
    )
    out = torch.ones(11)
    flat.add_gradient_(out, loss)
    assert torch.allclose(out, wanted + 1.0)


def test_gradient_of_a_loss_that_skips_a_layer_leaves_it_alone(module):
    flat = FlatParameters(module)
    out = torch.zeros(11)
    flat.add_gradient_(out, module[0](torch.ones(4, 3)).sum())
    assert bool((out[8:] == 0).all())
    assert bool((out[:8] != 0).all())


def test_gradient_of_more_than_a_scalar_is_refused(module):
    flat = FlatParameters(module)
    with pytest.raises(ValueError, match="scalar"):
        flat.add_gradient_(torch.zeros(11), module(torch.ones(4, 3)))


def test_an_optimizer_of_torch_can_drive_the_vector(module):
    flat = FlatParameters(module)
    before = flat.vector.clone()
    optimizer = torch.optim.SGD([flat.as_parameter()], lr=0.5)
    flat.gradient.fill_(2.0)
    optimizer.step()
    assert torch.allclose(flat.vector, before - 1.0)
    assert torch.equal(module[0].weight.detach().flatten(), flat.vector[:6])


@pytest.mark.parametrize("move", [nn.Module.double, lambda m: m.to(torch.float16)], ids=["double", "half"])
def test_a_moved_module_is_noticed(module, move):
    flat = FlatParameters(module)
    flat.check()
    move(module)
    with pytest.raises(ConfigError, match="were moved"):
        flat.check()
    with pytest.raises(ConfigError, match="were moved"):
        flat.load_(torch.zeros(11))


def test_tied_parameters_are_refused():
    pair = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    pair[1].weight = pair[0].weight
    with pytest.raises(ConfigError, match=r"'1\.weight' is tied to '0\.weight'"):
        FlatParameters(pair)
    layer = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="is tied to"):
        FlatParameters(nn.Sequential(layer, nn.Tanh(), layer))


def test_frozen_parameters_are_refused():
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    with pytest.raises(ConfigError, match="'bias' is frozen"):
        FlatParameters(module)


def test_other_types_and_nothing_at_all_are_refused():
    with pytest.raises(ConfigError, match="float32"):
        FlatParameters(nn.Linear(2, 2).double())
    with pytest.raises(ConfigError, match="ReLU has no parameters"):
        FlatParameters(nn.ReLU())
