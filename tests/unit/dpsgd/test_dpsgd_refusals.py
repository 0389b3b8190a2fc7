"""What cannot be clipped exactly is refused before anything is written, never guessed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from fedgen.dpsgd.engine import make_engine
from fedgen.dpsgd.flat import FlatParameters
from fedgen.errors import ConfigError


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def fused(module: nn.Module, clip: float = 1.0):
    return make_engine("fused", FlatParameters(module), module, clip)


def refused(engine, loss, rows, match: str) -> None:
    out = torch.ones(engine.flat.size)
    with pytest.raises(ConfigError, match=match):
        engine.clipped_sum_(out, loss, rows)
    assert bool((out == 1).all())


class Scaled(nn.Linear):
    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return 2.0 * super().forward(rows)


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


@pytest.mark.parametrize(
    "layer",
    [
        nn.LSTM(3, 3),
        nn.MultiheadAttention(4, 2),
        nn.Conv3d(1, 1, 2),
        nn.PReLU(),
        nn.Bilinear(2, 2, 2),
        nn.EmbeddingBag(3, 2),
        Scaled(3, 3),
        Bare(),
        nn.utils.parametrizations.weight_norm(nn.Linear(3, 3)),
        nn.utils.parametrizations.spectral_norm(nn.Linear(3, 3)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_without_a_rule(layer):
    with pytest.raises(ConfigError, match="no clipping rule"):
        fused(nn.Sequential(nn.Linear(2, 2), layer))


@pytest.mark.parametrize(
    "layer",
    [
        nn.BatchNorm1d(3),
        nn.BatchNorm2d(3, affine=False, track_running_stats=False),
        nn.InstanceNorm1d(3, track_running_stats=True),
    ],
    ids=["affine", "plain", "running"],
)
def test_layers_that_mix_rows(layer):
    with pytest.raises(ConfigError, match="mixes the rows"):
        fused(nn.Sequential(nn.Linear(2, 2), layer))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(1, 1, 3, padding="same"),
        nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular"),
        nn.Embedding(3, 2, max_norm=1.0),
        nn.Embedding(3, 2, scale_grad_by_freq=True),
        nn.Embedding(3, 2, sparse=True),
        nn.ConvTranspose2d(1, 1, 3, stride=2, output_padding=2, dilation=3),
    ],
    ids=lambda layer: repr(layer)[:40],
)
def test_options_without_a_rule(layer):
    with pytest.raises(ConfigError, match="layer '0'"):
        fused(nn.Sequential(layer))


def test_a_forward_patched_from_outside():
    layer = nn.Linear(2, 2)
    layer.forward = lambda rows: rows
    with pytest.raises(ConfigError, match="no clipping rule"):
        fused(nn.Sequential(layer))


def test_parameters_of_another_module():
    flat = FlatParameters(nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="not those of the flat vector"):
        make_engine("fused", flat, nn.Linear(2, 2), 1.0)


@pytest.mark.parametrize("engine", ["fused", "opacus"])
@pytest.mark.parametrize("clip", [0.0, -1.0, float("nan"), float("inf"), 1e-13, 1e13])
def test_bounds_that_are_none(engine, clip):
    module = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="clip"):
        make_engine(engine, FlatParameters(module), module, clip)


@pytest.fixture(params=["fused", "opacus"])
def engine(request, filled):
    module = filled(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)))
    return make_engine(request.param, FlatParameters(module), module, 1.0)


@pytest.mark.parametrize(
    "shape",
    [
        lambda out: out,  # (B, 1): the shape that broadcasts coefficients into (B, B)
        lambda out: out.sum(),
        lambda out: out.squeeze(1)[:-1],
        lambda out: out.expand(-1, 3),
    ],
    ids=["column", "scalar", "short", "matrix"],
)
def test_losses_that_are_not_one_per_row(engine, shape):
    refused(engine, lambda rows: shape(engine.module(rows)), normal(5, 4), "one value per row")


def test_losses_that_reach_no_parameter(engine):
    refused(engine, lambda rows: rows.sum(1), normal(5, 4), "reaches no parameter")


@pytest.mark.parametrize(
    "out",
    [torch.zeros(3), torch.zeros(49, dtype=torch.float64), torch.zeros(98)[::2], torch.zeros(49, 1)],
    ids=["short", "double", "strided", "matrix"],
)
def test_buffers_that_do_not_fit(engine, out):
    with pytest.raises(ValueError, match="out must"):
        engine.clipped_sum_(out, lambda rows: engine.module(rows).squeeze(1), normal(5, 4))


def test_buffers_that_take_gradients(engine):
    out = torch.zeros(engine.flat.size, requires_grad=True)
    with pytest.raises(ValueError, match="take no gradient"):
        engine.clipped_sum_(out, lambda rows: engine.module(rows).squeeze(1), normal(5, 4))


def test_a_module_that_was_moved_after(engine):
    engine.module.double().float()
    refused(engine, lambda rows: engine.module(rows).squeeze(1), normal(5, 4), "were moved")


def test_errors_of_the_loss_leave_the_next_call_intact(engine):
    def broken(rows: torch.Tensor) -> torch.Tensor:
        engine.module(rows)
        raise KeyError("loss")

    with pytest.raises(KeyError):
        engine.clipped_sum_(torch.zeros(engine.flat.size), broken, normal(5, 4))
    out = torch.zeros(engine.flat.size)
    engine.clipped_sum_(out, lambda rows: engine.module(rows).squeeze(1), normal(5, 4))
    assert 0 < float(out.norm()) <= 5.0


def test_a_layer_used_twice(filled):
    engine = fused(filled(nn.Sequential(nn.Linear(3, 3), nn.Tanh())))
    refused(engine, lambda rows: engine.module(engine.module(rows)).sum(1), normal(4, 3), "used twice")


def test_a_critic_that_sees_rows_and_fakes_in_one_loss(filled):
    engine = fused(filled(nn.Linear(3, 1)))
    loss = lambda rows: (engine.module(rows) - engine.module(rows.neg())).squeeze(1)  # noqa: E731
    refused(engine, loss, normal(4, 3), "used twice")


def test_a_weight_used_outside_of_its_layer(filled):
    module = filled(nn.ModuleDict({"encoder": nn.Linear(3, 2), "other": nn.Linear(2, 3)}))
    engine = fused(module)

    def tied_by_hand(rows: torch.Tensor) -> torch.Tensor:
        hidden = module["other"](module["encoder"](rows))
        return functional.linear(hidden, module["encoder"].weight).sum(1)

    refused(engine, tied_by_hand, normal(4, 3), "'encoder.weight' is used outside")


def test_a_penalty_on_parameters(filled):
    engine = fused(filled(nn.Linear(3, 1)))
    loss = lambda rows: engine.module(rows).squeeze(1) + engine.module.weight.square().sum()  # noqa: E731
    refused(engine, loss, normal(4, 3), "'weight' is used outside")


def test_a_gradient_penalty(filled):
    module = filled(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)))
    engine = fused(module)

    def penalised(rows: torch.Tensor) -> torch.Tensor:
        rows = rows.clone().requires_grad_()
        out = module(rows)
        (slope,) = torch.autograd.grad(out.sum(), rows, create_graph=True)
        return out.squeeze(1) + (slope.norm(dim=1) - 1).square()

    refused(engine, penalised, normal(4, 3), "takes gradients itself")


@pytest.mark.parametrize(
    "mix",
    [
        lambda hidden: hidden - hidden.mean(0),
        lambda hidden: functional.batch_norm(hidden, None, None, training=True),
        lambda hidden: torch.cat([hidden, torch.cdist(hidden, hidden).sum(1, keepdim=True)], 1),
        lambda hidden: hidden.flip(0),
        lambda hidden: hidden.cumsum(0),
        lambda hidden: hidden.flip(0).cumsum(0).flip(0),
    ],
    ids=["centred", "batch-norm", "minibatch-discrimination", "shuffled", "earlier-rows", "later-rows"],
)
def test_rows_that_depend_on_each_other(filled, mix):
    module = filled(nn.Linear(3, 4))
    engine = fused(module)
    loss = lambda rows: mix(module(rows)).square().sum(1)  # noqa: E731
    refused(engine, loss, normal(6, 3), "depend on another")
    refused(engine, loss, normal(6, 3), "depend on another")  # a refusal is not forgotten


def test_mixing_is_found_at_the_first_batch_of_two(filled):
    module = filled(nn.Linear(3, 4))
    engine = fused(module)
    loss = lambda rows: (module(rows) - module(rows).detach().mean(0) * 0).square().sum(1)  # noqa: E731
    refused(engine, loss, normal(2, 3), "used twice")
    mixing = lambda rows: module(rows).mean(0, keepdim=True).square().sum(1).expand(len(rows))  # noqa: E731
    engine.clipped_sum_(torch.zeros(engine.flat.size), mixing, normal(1, 3))
    refused(engine, mixing, normal(2, 3), "depend on another")


def test_rows_that_leave_the_first_dimension(filled):
    module = filled(nn.Linear(2, 2))
    engine = fused(module)
    loss = lambda rows: module(rows.view(-1, 2)).view(len(rows), -1).sum(1)  # noqa: E731
    refused(engine, loss, normal(4, 6), "sees 12 rows of a batch of 4")


def test_an_input_changed_in_place(filled):
    module = filled(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)))
    engine = fused(module)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        hidden = module[0](rows).tanh()
        out = module[1](hidden)
        hidden.mul_(2.0)
        return out.squeeze(1)

    refused(engine, loss, normal(4, 3), "'1' .* input changed in place")


def test_layer_norm_over_rows(filled):
    engine = fused(filled(nn.LayerNorm(4)))
    refused(engine, engine.module, normal(4), "normalise across rows")


def test_opacus_in_eval_mode(filled):
    module = filled(nn.Linear(3, 1)).eval()
    engine = make_engine("opacus", FlatParameters(module), module, 1.0)
    refused(engine, lambda rows: module(rows).squeeze(1), normal(4, 3), "eval mode")


@pytest.mark.parametrize(
    ("layer", "match"),
    [
        (nn.BatchNorm1d(3), "buffers"),
        (nn.Embedding(3, 2, padding_idx=0), "padding_idx"),
        (nn.LayerNorm(3, bias=False), "no bias"),
    ],
    ids=["batch-norm", "padding", "no-bias"],
)
def test_opacus_where_it_is_known_to_differ(layer, match):
    with pytest.raises(ConfigError, match=match):
        make_engine("opacus", FlatParameters(layer), layer, 1.0)
