"""Both engines against a loop over rows, layer by layer, and against each other."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

from fedgen.dpsgd.engine import Clipped, make_engine
from fedgen.dpsgd.flat import FlatParameters
from fedgen.errors import ConfigError

ENGINES = ("fused", "opacus")
EXACT = 2e-5


def normal(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def indices(high: int, *shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


CASES = {
    "dense": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3, bias=False)), normal(9, 6)),
    "dense-wide": (lambda: nn.Sequential(nn.Linear(1500, 3), nn.Tanh(), nn.Linear(3, 2)), normal(5, 1500)),
    "positions-gram": (lambda: nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 30)), normal(9, 4, 6)),
    "positions-formed": (
        lambda: nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2)),
        normal(9, 4, 5, 3),
    ),
    "conv2d": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=1),
            nn.Tanh(),
            nn.Conv2d(4, 32, 3, bias=False),  # 4 positions: by Gram matrices
            nn.Flatten(),
            nn.Linear(128, 1),
        ),
        normal(9, 2, 8, 8),
    ),
    "conv2d-groups": (
        lambda: nn.Sequential(nn.Conv2d(4, 8, (3, 2), padding=(1, 0), dilation=2, groups=2), nn.Tanh()),
        normal(5, 4, 7, 6),
    ),
    "conv1d": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3, 2, 1), nn.Tanh(), nn.Conv1d(4, 16, 2, dilation=2)),
        normal(9, 2, 16),
    ),
    "conv-transposed": (
        lambda: nn.Sequential(
            nn.ConvTranspose2d(3, 4, 4, 2, 1),
            nn.Tanh(),
            nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1, groups=2, bias=False),
        ),
        normal(5, 3, 4, 4),
    ),
    "norms": (
        lambda: nn.Sequential(
            nn.Linear(6, 8),
            nn.LayerNorm(8),
            nn.Unflatten(1, (4, 2)),
            nn.GroupNorm(2, 4),
            nn.Tanh(),
            nn.LayerNorm((4, 2)),
        ),
        normal(9, 6),
    ),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(4, 3), nn.Flatten(), nn.Linear(15, 2)),  # repeats are certain
        indices(4, 9, 5),
    ),
    "embedding-single": (lambda: nn.Sequential(nn.Embedding(7, 3), nn.Linear(3, 2)), indices(7, 9)),
}
FUSED_ONLY = {
    "padding-index": (
        lambda: nn.Sequential(nn.Embedding(5, 3, padding_idx=2), nn.Flatten(), nn.Linear(12, 2)),
        indices(5, 9, 4),
    ),
    "in-place": (
        lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 4), nn.ELU(inplace=True)),
        normal(9, 6),
    ),
    "norm-without-bias": (lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8, bias=False)), normal(9, 6)),
}


def loss_of(module: nn.Module):
    def loss(rows: torch.Tensor) -> torch.Tensor:
        out = module(rows).flatten(1)
        weights = normal(out.shape[1], seed=7)
        return 3.0 * (out * weights).sum(1).sin() + out.square().sum(1)

    return loss


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found.double() - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("clip", [1e-4, 2.0, 1e6])
@pytest.mark.parametrize("name", [*CASES, *FUSED_ONLY])
def test_equal_to_a_loop_over_rows(name, clip, filled, looped):
    make, rows = {**CASES, **FUSED_ONLY}[name]
    module = filled(make())
    loss = loss_of(module)
    wanted = looped(module, loss, rows, clip)
    flat = FlatParameters(module)
    for engine in ENGINES if name in CASES else ENGINES[:1]:
        out = torch.zeros(flat.size)
        seen = make_engine(engine, flat, module, clip).clipped_sum_(out, loss, rows)
        assert seen == Clipped(len(rows), 0)
        assert relative(out, wanted) < EXACT, engine


@pytest.mark.parametrize("name", CASES)
def test_the_two_engines_agree(name, filled):
    make, rows = CASES[name]
    module = filled(make(), seed=3)
    flat = FlatParameters(module)
    sums = []
    for engine in ENGINES:
        out = torch.zeros(flat.size)
        make_engine(engine, flat, module, 0.7).clipped_sum_(out, loss_of(module), rows)
        sums.append(out)
    assert relative(sums[0], sums[1].double()) < EXACT


@pytest.mark.parametrize("name", CASES)
def test_no_clipped_row_is_longer_than_the_bound(name, filled):
    make, rows = CASES[name]
    module = filled(make())
    flat = FlatParameters(module)
    engine = make_engine("fused", flat, module, 1e-3)
    for row in rows.split(1):
        out = torch.zeros(flat.size)
        engine.clipped_sum_(out, loss_of(module), row)
        assert 1e-3 * (1 - 1e-5) < float(out.double().norm()) <= 1e-3 * (1 + 1e-6)


@pytest.fixture(params=ENGINES)
def critic(request, filled):
    module = filled(nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)))
    flat = FlatParameters(module)
    return make_engine(request.param, flat, module, 1.0), (lambda rows: module(rows).squeeze(1).square())


def test_the_sum_is_added_to_what_is_there(critic):
    engine, loss = critic
    rows = normal(6, 4)
    alone, on_top = torch.zeros(engine.flat.size), torch.ones(engine.flat.size)
    engine.clipped_sum_(alone, loss, rows)
    engine.clipped_sum_(on_top, loss, rows)
    assert torch.allclose(on_top, alone + 1.0, atol=1e-6)


def test_sums_of_parts_are_the_sum(critic):
    engine, loss = critic
    rows = normal(7, 4)
    whole, parts = torch.zeros(engine.flat.size), torch.zeros(engine.flat.size)
    engine.clipped_sum_(whole, loss, rows)
    for part in rows.split(3):
        engine.clipped_sum_(parts, loss, part)
    assert torch.allclose(whole, parts, atol=1e-6)


def test_no_rows_add_nothing_and_do_not_call_the_loss(critic):
    engine, _ = critic
    out = torch.ones(engine.flat.size)
    assert engine.clipped_sum_(out, None, normal(0, 4)) == Clipped(0, 0)
    assert bool((out == 1).all())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_row_that_is_not_finite_contributes_zero_and_is_counted(critic, bad):
    engine, loss = critic
    rows = normal(6, 4)
    good, all_rows = torch.zeros(engine.flat.size), torch.zeros(engine.flat.size)
    engine.clipped_sum_(good, loss, rows[1:])
    rows[0, 2] = bad
    assert engine.clipped_sum_(all_rows, loss, rows) == Clipped(6, 1)
    assert torch.allclose(good, all_rows, atol=1e-6)


@pytest.mark.parametrize("name", ENGINES)
def test_a_row_beyond_float32_squares_is_dropped(name, filled):
    module = filled(nn.Linear(4, 1))
    flat = FlatParameters(module)
    out = torch.zeros(flat.size)
    rows = normal(3, 4)
    rows[1] *= 1e25
    engine = make_engine(name, flat, module, 1.0)
    assert engine.clipped_sum_(out, lambda r: module(r).squeeze(1), rows) == Clipped(3, 1)
    assert bool(out.isfinite().all())


def test_a_loss_of_nan_alone_drops_its_row(critic):
    engine, loss = critic
    rows = normal(6, 4)
    poison = torch.tensor([0.0, 0, float("nan"), 0, 0, 0])
    good, all_rows = torch.zeros(engine.flat.size), torch.zeros(engine.flat.size)
    engine.clipped_sum_(good, loss, rows[[0, 1, 3, 4, 5]])
    assert engine.clipped_sum_(all_rows, lambda r: loss(r) + poison, rows) == Clipped(6, 1)
    assert torch.allclose(good, all_rows, atol=1e-6)


def test_nan_weights_drop_every_row_and_leave_the_noise(critic):
    engine, loss = critic
    engine.flat.vector[0] = float("nan")
    out = torch.ones(engine.flat.size)
    assert engine.clipped_sum_(out, loss, normal(6, 4)) == Clipped(6, 6)
    assert bool((out == 1).all())


def test_a_row_without_gradient_adds_zero_and_is_not_dropped(critic):
    engine, loss = critic
    out = torch.zeros(engine.flat.size)
    keep = torch.tensor([1.0, 0.0])
    rows = normal(2, 4)
    assert engine.clipped_sum_(out, lambda r: loss(r) * keep, rows) == Clipped(2, 0)
    alone = torch.zeros(engine.flat.size)
    engine.clipped_sum_(alone, loss, rows[:1])
    assert torch.allclose(out, alone, atol=1e-6)


@pytest.mark.parametrize("name", ENGINES)
def test_a_parameter_without_gradient_gets_zero(name, filled):
    module = filled(nn.ModuleDict({"used": nn.Linear(3, 2), "idle": nn.Linear(3, 2)}))
    flat = FlatParameters(module)
    out = torch.zeros(flat.size)
    make_engine(name, flat, module, 1.0).clipped_sum_(out, lambda r: module["used"](r).sum(1), normal(4, 3))
    views = dict(zip(flat.names, flat.views(out), strict=True))
    assert bool((views["idle.weight"] == 0).all())
    assert bool((views["used.weight"] != 0).any())


@pytest.mark.parametrize("name", ENGINES)
def test_a_layer_cut_off_by_detach_gets_zero(name, filled):
    module = filled(nn.ModuleDict({"first": nn.Linear(3, 2), "last": nn.Linear(2, 1)}))
    flat = FlatParameters(module)
    out = torch.zeros(flat.size)
    loss = lambda r: module["last"](module["first"](r).detach()).squeeze(1)  # noqa: E731
    make_engine(name, flat, module, 1.0).clipped_sum_(out, loss, normal(4, 3))
    assert bool((out[:8] == 0).all())
    assert float(out.norm()) > 0


def test_the_module_is_ordinary_between_calls(critic):
    engine, loss = critic
    before = [set(part.__dict__) for part in engine.module.modules()]
    engine.clipped_sum_(torch.zeros(engine.flat.size), loss, normal(6, 4))
    assert [set(part.__dict__) for part in engine.module.modules()] == before
    assert all(not part._forward_hooks and not part._backward_hooks for part in engine.module.modules())
    assert all(p.grad is None and not hasattr(p, "grad_sample") for p in engine.flat.parameters)
    loss(normal(2, 4)).sum().backward()
    assert all(p.grad is not None for p in engine.flat.parameters)


def test_gradients_held_by_parameters_survive(critic):
    engine, loss = critic
    for parameter in engine.flat.parameters:
        parameter.grad = torch.full_like(parameter, 5.0)
    engine.clipped_sum_(torch.zeros(engine.flat.size), loss, normal(6, 4))
    assert all(bool((p.grad == 5.0).all()) for p in engine.flat.parameters)


def test_it_runs_where_gradients_are_off(critic):
    engine, loss = critic
    out = torch.zeros(engine.flat.size)
    with torch.no_grad():
        engine.clipped_sum_(out, loss, normal(6, 4))
    assert float(out.norm()) > 0


def test_many_rows_in_little_scratch_are_the_same_sum(filled, looped, monkeypatch):
    make, rows = CASES["conv2d"]
    module = filled(make())
    wanted = looped(module, loss_of(module), rows, 1.0)
    flat = FlatParameters(module)
    out = torch.zeros(flat.size)
    monkeypatch.setattr("fedgen.dpsgd.summing._SCRATCH", 4000)  # two rows at a time
    rows = torch.cat([rows, torch.full_like(rows[:1], float("nan"))])
    seen = make_engine("fused", flat, module, 1.0).clipped_sum_(out, loss_of(module), rows)
    assert seen == Clipped(10, 1)
    assert relative(out, wanted) < EXACT


def test_engines_on_two_modules_run_in_two_threads(filled):
    def work(seed: int, sums: dict[int, torch.Tensor]) -> None:
        module = filled(nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 1)), seed=seed)
        flat = FlatParameters(module)
        engine = make_engine("fused", flat, module, 1.0)
        total = torch.zeros(flat.size)
        for step in range(20):
            engine.clipped_sum_(total, lambda r: module(r).squeeze(1).square(), normal(8, 16, seed=step))
        sums[seed] = total

    together: dict[int, torch.Tensor] = {}
    threads = [threading.Thread(target=work, args=(seed, together)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone: dict[int, torch.Tensor] = {}
    work(1, alone)
    work(2, alone)
    assert all(torch.equal(together[seed], alone[seed]) for seed in (1, 2))


def test_unknown_engines_are_named(filled):
    module = filled(nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="unknown engine 'ghost'"):
        make_engine("ghost", FlatParameters(module), module, 1.0)
