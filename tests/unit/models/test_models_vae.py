"""VAEs learn what they are shown: marginals, dependence, labels, images."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from fedgen.models.options import ModelOptions
from fedgen.models.registry import build
from fedgen.schema.layout import ImageLayout, TableLayout

if TYPE_CHECKING:
    from fedgen.models.base import GenerativeModel

LAYOUT = TableLayout((2, 4, 4), (False, True, True), 0)


def fit(model: GenerativeModel, rows: Tensor, steps: int, lr: float) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.private.parameters(), lr=lr)
    losses = []
    for _ in range(steps):
        loss = model.private_loss(rows, generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def table(n: int) -> Tensor:
    """One label in four is 1; column 1 is even for label 0 and odd for label 1; column 2 repeats column 1."""
    generator = torch.Generator().manual_seed(1)
    label = (torch.rand(n, generator=generator) < 0.25).to(torch.int64)
    first = 2 * torch.randint(2, (n,), generator=generator) + label
    return torch.stack((label, first, first), 1)


@pytest.mark.parametrize("decoder", ["autoregressive", "factorised"])
def test_tabular_vae_learns_labels_and_how_columns_depend(decoder: str) -> None:
    model = build("tabular-vae", LAYOUT, ModelOptions(hidden=(32,), latent=4, decoder=decoder))
    losses = fit(model, table(512), steps=300, lr=0.02)
    assert losses[-1] < losses[0] - 1.0
    rows = model.sample(4000, torch.Generator().manual_seed(2))
    assert abs(rows[:, 0].float().mean().item() - 0.25) < 0.06
    assert (rows[:, 1] % 2 == rows[:, 0]).float().mean().item() > 0.9
    assert (rows[:, 1] == rows[:, 2]).float().mean().item() > 0.85


def test_tabular_vae_starts_as_independent_uniform_columns() -> None:
    model = build("tabular-vae", LAYOUT)
    blank = model.private.encoder.layers[-1]
    with torch.no_grad():
        blank.weight.zero_()
    loss = model.private_loss(table(5), torch.Generator().manual_seed(0))
    expected = torch.full((5,), math.log(2.0) + 2 * math.log(4.0))
    torch.testing.assert_close(loss, expected)


def test_beta_weighs_the_kl_term_alone() -> None:
    rows = table(6)
    losses = []
    for beta in (1.0, 3.0, 5.0):
        model = build("tabular-vae", LAYOUT, ModelOptions(beta=beta), seed=3)
        losses.append(model.private_loss(rows, torch.Generator().manual_seed(0)))
    torch.testing.assert_close(losses[2] - losses[1], losses[1] - losses[0], rtol=1e-4, atol=1e-4)
    assert bool((losses[1] > losses[0]).all())


def test_autoregressive_columns_never_see_themselves_or_later_ones() -> None:
    model = build("tabular-vae", LAYOUT, ModelOptions(latent=2), seed=1)
    decoder, columns = model.private.decoder, model.columns
    with torch.no_grad():
        for head in decoder.heads:
            head.weight.uniform_(-1, 1, generator=torch.Generator().manual_seed(4))
    hot = columns.one_hot(columns.places(table(1))).requires_grad_()
    logits = decoder(torch.zeros(1, 2), hot)
    for start, stop, visible in ((0, 4, 2), (4, 8, 6)):
        (seen,) = torch.autograd.grad(logits[:, start:stop].sum(), hot, retain_graph=True)
        assert bool((seen[:, :visible] != 0).any())
        assert not seen[:, visible:].any()


def test_drawing_a_column_at_a_time_follows_the_joint_logits() -> None:
    model = build("tabular-vae", LAYOUT, ModelOptions(latent=2), seed=1)
    decoder, columns = model.private.decoder, model.columns
    with torch.no_grad():
        for head in decoder.heads:
            head.weight.uniform_(-60, 60, generator=torch.Generator().manual_seed(4))
    labels = torch.tensor([0, 1, 1])
    latent = torch.randn(3, 2, generator=torch.Generator().manual_seed(5))
    codes = decoder.sample(latent, labels, torch.Generator().manual_seed(6))
    logits = decoder(latent, columns.one_hot(codes + columns.offsets)).detach()
    chances = torch.stack(
        [logits[:, 4 * j : 4 * j + 4].softmax(1).gather(1, codes[:, [j + 1]]) for j in (0, 1)]
    )
    assert torch.equal(codes[:, 0], labels)
    assert float(chances.min()) > 0.02


def images(n: int) -> Tensor:
    """Class 0 is bright on the left half, class 1 on the right."""
    generator = torch.Generator().manual_seed(1)
    label = torch.randint(2, (n, 1), generator=generator)
    left = torch.cat((torch.ones(n, 4, 2), torch.zeros(n, 4, 2)), 2)
    shade = torch.where(label.unsqueeze(2) == 0, left, 1 - left) * 12 + 2
    return torch.cat((shade.reshape(n, 16).to(torch.int64), label), 1)


def test_image_vae_draws_the_images_of_each_class() -> None:
    layout = ImageLayout(height=4, width=4, channels=1, max_value=16, classes=2)
    model = build("image-vae", layout, ModelOptions(hidden=(16,), latent=2))
    fit(model, images(128), steps=200, lr=0.02)
    rows = model.sample(200, torch.Generator().manual_seed(2))
    expected = {int(row[16]): row[:16] for row in images(128)}
    for label, pixels in expected.items():
        drawn = rows[rows[:, 16] == label][:, :16].float()
        assert len(drawn) > 60
        assert (drawn.mean(0) - pixels).abs().max().item() < 1.5


def test_image_vae_likelihood_is_bernoulli_on_intensities() -> None:
    layout = ImageLayout(height=1, width=2, channels=1, max_value=4)
    model = build("image-vae", layout, ModelOptions(hidden=(3,), latent=1))
    net = model.private
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.decoder.layers[-1].bias.copy_(torch.tensor([0.0, math.log(3.0)]))
    loss = model.private_loss(torch.tensor([[1, 4]]), torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss, torch.tensor([math.log(2.0) - math.log(0.75)]))
    assert model.sample(1, torch.Generator().manual_seed(0)).tolist() == [[2, 3]]
