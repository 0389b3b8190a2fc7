"""Stacked sites against the same engine one site at a time."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedgen.dpsgd.engine import Clipped, make_engine
from fedgen.dpsgd.flat import FlatParameters
from fedgen.dpsgd.noise import NoiseSource
from fedgen.dpsgd.stacked import StackedEngine
from fedgen.errors import ConfigError

SIZES = [5, 1, 0, 7, 2]
CLIP = 0.7


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 8, bias=False), nn.ReLU(), nn.Linear(8, 3))


def loss_of(module: nn.Module):
    return lambda rows: module(rows).square().sum(1)


@pytest.fixture
def stacked(filled) -> StackedEngine:
    module = filled(net())
    return StackedEngine(FlatParameters(module), module, CLIP)


@pytest.fixture(params=["shared", "own"])
def weights(request, stacked):
    if request.param == "shared":
        return None
    return stacked.flat.vector + 0.3 * normal(len(SIZES), stacked.flat.size, seed=9)


def one_by_one(stacked, rows, weights, bounds=None) -> torch.Tensor:
    """Return every site's sum by the fused engine on a module of its own."""
    sums = torch.zeros(len(SIZES), stacked.flat.size)
    first = 0
    for site, size in enumerate(SIZES):
        module = net()
        flat = FlatParameters(module)
        flat.load_(stacked.flat.vector if weights is None else weights[site])
        part = slice(first, first + size)
        engine = make_engine("fused", flat, module, stacked.clip)
        own = None if bounds is None else bounds[part]
        engine.clipped_sum_(sums[site], loss_of(module), rows[part], bounds=own)
        first += size
    return sums


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.mark.parametrize("clip", [1e-4, 2.0, 1e6])
def test_equal_to_the_sites_one_by_one(stacked, weights, clip):
    stacked.clip = clip
    rows, out = normal(sum(SIZES), 6), torch.zeros(len(SIZES), stacked.flat.size)
    wanted = one_by_one(stacked, rows, weights)
    for _ in range(2):  # with the proof, then without it
        out.zero_()
        seen = stacked.clipped_sums_(out, loss_of(stacked.module), rows, SIZES, weights=weights)
        assert seen == [Clipped(size, 0) for size in SIZES]
        for site, size in enumerate(SIZES):
            assert relative(out[site], wanted[site]) < 2e-5 if size else bool((out[site] == 0).all())


def test_bounds_for_each_row(stacked, weights):
    rows, bounds = normal(15, 6), torch.linspace(0, CLIP, 15).clamp(max=CLIP)
    out = torch.zeros(len(SIZES), stacked.flat.size)
    stacked.clipped_sums_(out, loss_of(stacked.module), rows, SIZES, weights=weights, bounds=bounds)
    assert relative(out, one_by_one(stacked, rows, weights, bounds)) < 2e-5


def test_no_row_of_one_site_reaches_another(stacked, weights):
    sums = []
    for factor in (1.0, 100.0):
        rows = normal(15, 6)
        rows[:5] *= factor
        sums.append(torch.zeros(len(SIZES), stacked.flat.size))
        stacked.clipped_sums_(sums[-1], loss_of(stacked.module), rows, SIZES, weights=weights)
    assert not torch.allclose(sums[0][0], sums[1][0])
    assert torch.allclose(sums[0][1:], sums[1][1:], atol=1e-6)


def test_an_extreme_row_moves_its_sites_sum_by_at_most_the_clip(stacked, weights):
    rows = normal(15, 6)
    rows[0] *= 1e6
    with_it, without = (torch.zeros(len(SIZES), stacked.flat.size) for _ in range(2))
    stacked.clipped_sums_(with_it, loss_of(stacked.module), rows, SIZES, weights=weights)
    fewer = [4, *SIZES[1:]]
    stacked.clipped_sums_(without, loss_of(stacked.module), rows[1:], fewer, weights=weights)
    moved = (with_it - without).norm(dim=1)
    assert 0.99 * CLIP < float(moved[0]) <= CLIP * (1 + 1e-5)
    assert float(moved[1:].max()) < 1e-5


def test_every_site_gets_its_own_noise_and_then_its_sum(stacked, weights):
    rows = normal(15, 6)
    alone = torch.zeros(len(SIZES), stacked.flat.size)
    stacked.clipped_sums_(alone, loss_of(stacked.module), rows, SIZES, weights=weights)
    sources = [NoiseSource.insecure(seed) for seed in range(len(SIZES))]
    out = torch.full_like(alone, float("nan"))  # whatever was there is overwritten
    stacked.clipped_sums_(
        out,
        loss_of(stacked.module),
        rows,
        SIZES,
        weights=weights,
        fill=lambda site, row: sources[site].fill_normal_(row, 2.0),
    )
    for site in range(len(SIZES)):
        NoiseSource.insecure(site).add_normal_(alone[site], 2.0)
    assert torch.allclose(out, alone, atol=1e-5)


def test_rows_that_are_not_finite_are_counted_at_their_site(stacked, weights):
    rows = normal(15, 6)
    good = torch.zeros(len(SIZES), stacked.flat.size)
    sizes = [4, 0, *SIZES[2:]]
    stacked.clipped_sums_(
        good, loss_of(stacked.module), rows[[0, 1, 2, 4, *range(6, 15)]], sizes, weights=weights
    )
    rows[[3, 5], 2] = float("nan")
    out = torch.zeros_like(good)
    seen = stacked.clipped_sums_(out, loss_of(stacked.module), rows, SIZES, weights=weights)
    assert [one.dropped for one in seen] == [1, 1, 0, 0, 0]
    assert torch.allclose(out, good, atol=1e-6)


def test_no_rows_at_all_are_noise_only(stacked, weights):
    called = []
    out = torch.ones(len(SIZES), stacked.flat.size)
    seen = stacked.clipped_sums_(
        out, None, normal(0, 6), [0] * 5, weights=weights, fill=lambda site, _: called.append(site)
    )
    assert called == [0, 1, 2, 3, 4]
    assert seen == [Clipped(0, 0)] * 5
    assert bool((out == 1).all())


def test_a_layer_that_is_not_reached_adds_zero(filled, row_gradients):
    module = filled(nn.ModuleDict({"used": nn.Linear(3, 2), "idle": nn.Linear(3, 2)}))
    engine = StackedEngine(FlatParameters(module), module, 1e6)
    out = torch.zeros(2, engine.flat.size)
    loss, rows = (lambda r: module["used"](r).square().sum(1)), normal(4, 3)
    engine.clipped_sums_(out, loss, rows, [3, 1])
    wanted = row_gradients(module, loss, rows)
    assert relative(out[0], wanted[:3].sum(0)) < 2e-5
    assert relative(out[1], wanted[3]) < 2e-5


def test_weights_of_the_sites_own_take_no_gradient_and_do_not_change(stacked):
    weights = stacked.flat.vector.repeat(5, 1)
    before = weights.clone()
    out = torch.zeros(5, stacked.flat.size)
    stacked.clipped_sums_(out, loss_of(stacked.module), normal(15, 6), SIZES, weights=weights)
    assert torch.equal(weights, before)
    shared = torch.zeros_like(out)
    stacked.clipped_sums_(shared, loss_of(stacked.module), normal(15, 6), SIZES)
    assert relative(out, shared) < 2e-5


def test_no_stack_is_held_between_calls(stacked, weights):
    import gc
    import weakref

    weights = torch.zeros(5, stacked.flat.size) if weights is None else weights.clone()
    out = torch.zeros(5, stacked.flat.size)
    stacked.clipped_sums_(out, loss_of(stacked.module), normal(15, 6), SIZES, weights=weights)
    held = [weakref.ref(out.untyped_storage()), weakref.ref(weights.untyped_storage())]
    del out, weights
    gc.collect()
    assert [one() for one in held] == [None, None]


def test_the_module_is_ordinary_between_calls(stacked, weights):
    before = [set(part.__dict__) for part in stacked.module.modules()]
    out = torch.zeros(5, stacked.flat.size)
    stacked.clipped_sums_(out, loss_of(stacked.module), normal(15, 6), SIZES, weights=weights)
    assert [set(part.__dict__) for part in stacked.module.modules()] == before
    assert all(parameter.grad is None for parameter in stacked.flat.parameters)


def refused(engine, loss, match: str, *, rows=None, sizes=SIZES, weights=None) -> None:
    out = torch.ones(len(sizes), engine.flat.size)
    rows = normal(sum(sizes), 6) if rows is None else rows
    for _ in range(2):  # a refusal is not forgotten
        with pytest.raises(ConfigError, match=match):
            engine.clipped_sums_(out, loss, rows, sizes, weights=weights)
    assert bool((out == 1).all())


@pytest.mark.parametrize("layer", [nn.Conv1d(1, 1, 2), nn.LayerNorm(3), nn.Embedding(3, 2)])
def test_layers_other_than_linear(layer):
    module = nn.Sequential(nn.Linear(3, 3), layer)
    with pytest.raises(ConfigError, match="no clipping rule"):
        StackedEngine(FlatParameters(module), module, 1.0)


@pytest.mark.parametrize(
    "mix",
    [
        lambda h: h - h.mean(0),
        lambda h: h.flip(0),
        lambda h: torch.cat([part - part.mean(0) for part in h.split(SIZES)]),
        lambda h: torch.cat([h[:-1], h[-1:] + h[:1]]),
    ],
    ids=["centred", "reversed", "centred-in-each-site", "last-row-takes-the-first"],
)
def test_rows_that_depend_on_each_other(stacked, weights, mix):
    loss = lambda rows: mix(stacked.module(rows)).square().sum(1)  # noqa: E731
    refused(stacked, loss, "depend on another", weights=weights)


def test_losses_that_are_not_one_per_row(stacked, weights):
    refused(stacked, lambda rows: stacked.module(rows)[:, :1], "one value per row", weights=weights)


def test_several_vectors_for_each_row(stacked, weights):
    loss = lambda rows: stacked.module(rows).square().sum((1, 2))  # noqa: E731
    refused(stacked, loss, "one vector|does not see", rows=normal(15, 4, 6), weights=weights)


def test_a_weight_used_outside_of_its_layer(stacked, weights):
    loss = lambda rows: stacked.module(rows).sum(1) + stacked.module[0].weight.sum()  # noqa: E731
    refused(stacked, loss, "is used outside", weights=weights)


def test_a_gradient_penalty(stacked, weights):
    def penalised(rows: torch.Tensor) -> torch.Tensor:
        rows = rows.clone().requires_grad_()
        out = stacked.module(rows)
        (slope,) = torch.autograd.grad(out.sum(), rows, create_graph=True)
        return out.sum(1) + slope.square().sum(1)

    refused(stacked, penalised, "takes gradients itself", weights=weights)


@pytest.mark.parametrize("sizes", [[5, 5], [5, 11], [16, -1], []])
def test_sizes_that_do_not_add_up(stacked, sizes):
    out = torch.zeros(len(sizes), stacked.flat.size)
    with pytest.raises(ValueError, match="add up"):
        stacked.clipped_sums_(out, loss_of(stacked.module), normal(15, 6), sizes)


@pytest.mark.parametrize("name", ["out", "weights"])
@pytest.mark.parametrize(
    "make",
    [
        lambda size: torch.zeros(4, size),
        lambda size: torch.zeros(5, size + 1),
        lambda size: torch.zeros(5, size, dtype=torch.float64),
        lambda size: torch.zeros(5, 2 * size)[:, ::2],
        lambda size: torch.zeros(5, size, requires_grad=True),
    ],
    ids=["sites", "size", "double", "strided", "gradient"],
)
def test_stacks_that_do_not_fit(stacked, name, make):
    stacks = {"out": torch.zeros(5, stacked.flat.size), "weights": None, name: make(stacked.flat.size)}
    with pytest.raises(ValueError, match=f"{name} must"):
        stacked.clipped_sums_(
            stacks["out"], loss_of(stacked.module), normal(15, 6), SIZES, weights=stacks["weights"]
        )


def test_bounds_above_the_clip(stacked):
    out = torch.zeros(5, stacked.flat.size)
    with pytest.raises(ValueError, match="bounds must"):
        stacked.clipped_sums_(
            out, loss_of(stacked.module), normal(15, 6), SIZES, bounds=torch.full((15,), 2 * CLIP)
        )
