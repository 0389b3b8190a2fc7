"""GANs: only the critic sees rows, the generator learns from the critic alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fedgen.models.adversarial import AdversarialModel
from fedgen.models.options import ModelOptions
from fedgen.models.registry import build
from fedgen.schema.layout import ImageLayout, TableLayout

TABLE = TableLayout((2, 4, 3), (False, True, True), 0)
BARE = TableLayout((2, 4, 3), (False, True, True), None)
IMAGE = ImageLayout(height=8, width=8, channels=1, max_value=16, classes=3)
LARGE = ImageLayout(height=28, width=28, channels=1, max_value=255, classes=10)
CASES = [("tabular-gan", TABLE), ("tabular-gan", BARE), ("image-gan", IMAGE), ("image-gan", LARGE)]


def gan(name: str, layout: TableLayout | ImageLayout, **options: object) -> AdversarialModel:
    model = build(name, layout, ModelOptions.model_validate(options), seed=2)
    assert isinstance(model, AdversarialModel)
    return model


def moved(loss: Tensor | None, module: torch.nn.Module) -> bool:
    """Whether ``loss`` has a gradient that is not zero in ``module``."""
    assert loss is not None
    parameters = list(module.parameters())
    if not loss.requires_grad:
        return False
    parts = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return any(part is not None and bool(part.any()) for part in parts)


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_the_private_loss_never_reaches_the_generator(name: str, layout: TableLayout | ImageLayout) -> None:
    model = gan(name, layout)
    rows = model.sample(5, torch.Generator().manual_seed(0))
    loss = model.private_loss(rows, torch.Generator().manual_seed(0)).sum()
    assert moved(loss, model.private)
    assert not moved(loss, model.public)


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_the_public_loss_of_the_critic_reaches_the_critic_only(
    name: str, layout: TableLayout | ImageLayout
) -> None:
    model = gan(name, layout)
    loss = model.public_loss_of_private(6, torch.Generator().manual_seed(0))
    assert loss.shape == ()
    assert moved(loss, model.private)
    assert not moved(loss, model.public)


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_the_generator_s_loss_reaches_every_part_of_the_generator(
    name: str, layout: TableLayout | ImageLayout
) -> None:
    model = gan(name, layout)
    loss = model.public_loss(6, torch.Generator().manual_seed(0))
    assert loss.shape == ()
    parts = torch.autograd.grad(loss, list(model.public.parameters()))
    assert all(bool(part.any()) for part in parts)


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_public_losses_depend_on_weights_size_and_generator_only(
    name: str, layout: TableLayout | ImageLayout
) -> None:
    model = gan(name, layout)
    one = model.public_loss_of_private(6, torch.Generator().manual_seed(0))
    model.private_loss(model.sample(9, torch.Generator().manual_seed(1)), torch.Generator().manual_seed(2))
    two = model.public_loss_of_private(6, torch.Generator().manual_seed(0))
    other = model.public_loss_of_private(6, torch.Generator().manual_seed(3))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_losses_are_those_of_the_scores(name: str, layout: TableLayout | ImageLayout) -> None:
    model = gan(name, layout)
    rows = model.sample(5, torch.Generator().manual_seed(0))
    expected = functional.softplus(-model.private(model.relax(rows)))
    if model.private.prior is not None:
        expected = expected + model.private.prior.loss(model.labels_of(rows))
    torch.testing.assert_close(model.private_loss(rows, torch.Generator()), expected)
    fakes = model.fakes(4, torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        model.public_loss(4, torch.Generator().manual_seed(1)),
        functional.softplus(-model.private(fakes)).mean(),
    )


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_the_loss_of_each_fake_has_the_public_loss_as_its_mean(
    name: str, layout: TableLayout | ImageLayout
) -> None:
    model = gan(name, layout)
    fakes = model.fakes(6, torch.Generator().manual_seed(0)).detach()
    each = model.fake_loss(fakes)
    assert each.shape == (6,)
    torch.testing.assert_close(each.mean(), model.public_loss_of_private(6, torch.Generator().manual_seed(0)))
    assert not moved(each.sum(), model.public)


def test_tabular_fakes_are_one_hot_rows_like_real_ones() -> None:
    model = gan("tabular-gan", TABLE)
    fakes = model.fakes(20, torch.Generator().manual_seed(0))
    real = model.relax(model.sample(20, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(fakes.detach(), real)
    sums = [part.sum(1) for part in fakes.detach().split([2, 4, 3], 1)]
    torch.testing.assert_close(torch.stack(sums), torch.ones(3, 20))


@pytest.mark.parametrize("layout", [IMAGE, LARGE, ImageLayout(1, 3, 2, 255, None)])
def test_image_fakes_have_the_shape_and_range_of_real_images(layout: ImageLayout) -> None:
    model = gan("image-gan", layout)
    fakes = model.fakes(4, torch.Generator().manual_seed(0)).detach()
    assert fakes.shape == (4, layout.pixels + (layout.classes or 0))
    assert float(fakes.min()) >= 0.0
    assert float(fakes.max()) <= 1.0


def test_image_critic_reads_height_width_channel() -> None:
    layout = ImageLayout(height=8, width=8, channels=2, max_value=1)
    model = gan("image-gan", layout)
    near = model.private.judge.near
    seen: list[Tensor] = []
    near.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    rows = torch.zeros(1, 128, dtype=torch.int64)
    rows[0, (3 * 8 + 5) * 2 + 1] = 1
    model.private_loss(rows, torch.Generator())
    bright = torch.nonzero(seen[0] > 0)
    assert bright.tolist() == [[0, 1, 3, 5]]


def test_the_label_changes_the_critic_s_score() -> None:
    for name, layout in (("tabular-gan", TABLE), ("image-gan", IMAGE)):
        model = gan(name, layout)
        rows = model.sample(3, torch.Generator().manual_seed(0))
        place = 0 if name == "tabular-gan" else -1
        other = rows.clone()
        other[:, place] = (other[:, place] + 1) % 2
        assert bool((model.private(model.relax(rows)) != model.private(model.relax(other))).all())


def test_tabular_gan_learns_a_marginal_and_the_label_prior() -> None:
    model = gan("tabular-gan", TABLE, hidden=(32,), generator=(32,), latent=4)
    generator = torch.Generator().manual_seed(0)
    label = (torch.rand(512, generator=generator) < 0.2).to(torch.int64)
    rows = torch.stack((label, torch.full((512,), 2), label), 1)
    critic = torch.optim.Adam(model.private.parameters(), lr=0.01, betas=(0.0, 0.99))
    public = torch.optim.Adam(model.public.parameters(), lr=0.01, betas=(0.0, 0.99))
    for _ in range(300):
        loss = model.private_loss(rows, generator).mean() + model.public_loss_of_private(128, generator)
        critic.zero_grad()
        loss.backward()
        critic.step()
        public.zero_grad()
        model.public_loss(128, generator).backward()
        public.step()
    drawn = model.sample(2000, generator)
    assert abs(drawn[:, 0].float().mean().item() - 0.2) < 0.06
    assert (drawn[:, 1] == 2).float().mean().item() > 0.9
    assert (drawn[:, 2] == drawn[:, 0]).float().mean().item() > 0.85
