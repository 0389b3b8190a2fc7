"""What every model promises a site and a coordinator, whatever its kind."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from fedgen.errors import ConfigError
from fedgen.models.base import GenerativeModel, init_, parameter_count
from fedgen.models.options import ModelOptions
from fedgen.models.registry import build
from fedgen.schema.layout import ImageLayout, TableLayout

SIZES = (4, 1, 7, 3, 2)
TABLES = [TableLayout(SIZES, (True,) * 5, label) for label in (None, 0, 3)]
IMAGES = [
    ImageLayout(height=8, width=8, channels=1, max_value=16, classes=10),
    ImageLayout(height=8, width=8, channels=1, max_value=16),
    ImageLayout(height=5, width=7, channels=3, max_value=255, classes=2),
]
FACTORISED = ModelOptions(decoder="factorised", hidden=(12, 9))
CASES = [
    *((name, layout, None) for name, layout in product(("tabular-vae", "tabular-gan"), TABLES)),
    *(("tabular-vae", layout, FACTORISED) for layout in TABLES),
    ("tabular-vae", TABLES[1], ModelOptions(hidden=(6, 5, 4), latent=1)),
    ("tabular-vae", TableLayout((5,), (True,), None), None),
    *((name, layout, None) for name, layout in product(("image-vae", "image-gan"), IMAGES)),
]
IDS = [f"{name}-{i}" for i, (name, _, _) in enumerate(CASES)]
Case = tuple[str, TableLayout | ImageLayout, ModelOptions | None]


def fresh(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def any_rows(layout: TableLayout | ImageLayout, n: int, seed: int = 3) -> Tensor:
    columns = [
        torch.randint(size, (n,), generator=fresh(seed + j)) for j, size in enumerate(layout.cardinalities)
    ]
    return torch.stack(columns, 1)


def shaken(case: Case, seed: int = 1) -> GenerativeModel:
    """A model away from its first weights, of which some are zero by design."""
    model = build(*case, seed=seed)
    generator = fresh(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    return model


def gradient(model: GenerativeModel, loss: Tensor) -> Tensor:
    parameters = list(model.private.parameters())
    parts = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).reshape(-1)
            for p, g in zip(parameters, parts, strict=True)
        ]
    )


@pytest.mark.parametrize("case", CASES, ids=IDS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int64])
def test_private_loss_is_one_finite_float_for_each_row(case: Case, dtype: torch.dtype) -> None:
    model = shaken(case)
    loss = model.private_loss(any_rows(case[1], 6).to(dtype), fresh())
    assert loss.shape == (6,)
    assert loss.dtype == torch.float32
    assert bool(torch.isfinite(loss).all())


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_an_empty_batch_gives_an_empty_loss_with_zero_gradient(case: Case) -> None:
    model = shaken(case)
    loss = model.private_loss(any_rows(case[1], 4)[:0], fresh())
    assert loss.shape == (0,)
    assert not gradient(model, loss.sum()).any()


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_row_s_loss_depends_on_no_other_row(case: Case) -> None:
    model = shaken(case)
    rows, others = any_rows(case[1], 6), any_rows(case[1], 6, seed=91)
    mixed = others.clone()
    mixed[2] = rows[2]
    alone, among = model.private_loss(rows, fresh()), model.private_loss(mixed, fresh())
    torch.testing.assert_close(alone[2], among[2], rtol=1e-5, atol=1e-5)
    if max(case[1].cardinalities) > 1:
        assert not torch.allclose(alone, among)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_row_s_gradient_depends_on_no_other_row(case: Case) -> None:
    model = shaken(case)
    rows, mixed = any_rows(case[1], 5), any_rows(case[1], 5, seed=91)
    mixed[4] = rows[4]
    one = gradient(model, model.private_loss(rows, fresh())[4])
    two = gradient(model, model.private_loss(mixed, fresh())[4])
    assert one.any()
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_each_module_with_parameters_is_used_exactly_once(case: Case) -> None:
    model = shaken(case)
    uses: Counter[str] = Counter()
    owners = {
        name: module
        for name, module in model.private.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    }
    for name, module in owners.items():
        module.register_forward_pre_hook(lambda *_, name=name: uses.update([name]))
    loss = model.private_loss(any_rows(case[1], 3), fresh())
    assert uses == dict.fromkeys(owners, 1)
    parts = torch.autograd.grad(loss.sum(), list(model.private.parameters()), allow_unused=True)
    assert all(part is not None for part in parts)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_every_parameter_is_private_or_public_and_sits_in_a_supported_layer(case: Case) -> None:
    model = build(*case)
    assert parameter_count(model) == parameter_count(model.private) + parameter_count(model.public)
    for module in model.modules():
        if any(True for _ in module.parameters(recurse=False)):
            assert type(module) in {nn.Linear, nn.Conv2d, nn.ConvTranspose2d}
    assert all(p.dtype == torch.float32 and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_samples_are_codes_inside_their_columns(case: Case) -> None:
    model = shaken(case)
    rows = model.sample(50, fresh())
    assert rows.shape == (50, len(case[1].cardinalities))
    assert rows.dtype == torch.int64
    assert bool((rows >= 0).all())
    assert bool((rows < torch.tensor(case[1].cardinalities)).all())
    assert torch.equal(rows, model.sample(50, fresh()))
    assert not rows.requires_grad


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_sampling_nothing_gives_no_rows(case: Case) -> None:
    assert build(*case).sample(0, fresh()).shape == (0, len(case[1].cardinalities))


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_first_weights_are_set_by_the_seed_alone(case: Case) -> None:
    before = torch.random.get_rng_state()
    one, two, other = build(*case, seed=4), build(*case), build(*case, seed=5)
    init_(two, 4)
    assert torch.equal(torch.random.get_rng_state(), before)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name])
        assert bool(torch.isfinite(value).all())
    assert any(not torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_all_randomness_comes_from_the_passed_generator(case: Case) -> None:
    model = shaken(case)
    rows = any_rows(case[1], 4)
    before = torch.random.get_rng_state()
    first = model.private_loss(rows, fresh())
    model.sample(3, fresh())
    model.public_loss(3, fresh())
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first, model.private_loss(rows, fresh()))


@pytest.mark.parametrize(("name", "layout"), [("tabular-vae", IMAGES[0]), ("image-gan", TABLES[0])])
def test_a_layout_of_the_other_kind_is_refused(name: str, layout: TableLayout | ImageLayout) -> None:
    with pytest.raises(ConfigError, match="kind"):
        build(name, layout)


def test_a_table_of_its_label_alone_is_refused() -> None:
    with pytest.raises(ConfigError, match="besides its label"):
        build("tabular-vae", TableLayout((3,), (False,), 0))


def test_the_image_vae_of_the_research_note_has_its_size() -> None:
    model = build("image-vae", IMAGES[1])
    assert parameter_count(model.private) == 22_880
