"""Row encodings and likelihoods against plain loops over columns."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from fedgen.models.layers import Columns, LabelPrior, Mlp, draw, linear, one_hot
from fedgen.models.pixels import Pixels
from fedgen.models.variational import kl_to_normal, reparametrise, split_moments
from fedgen.schema.layout import ImageLayout, TableLayout

LAYOUT = TableLayout((3, 2, 5), (True, False, True), 1)
ROWS = torch.tensor([[0, 1, 4], [2, 0, 3]])


def test_places_put_the_label_first_and_codes_undo_them() -> None:
    columns = Columns(LAYOUT)
    places = columns.places(ROWS.to(torch.uint8))
    assert columns.sizes == [2, 3, 5]
    assert places.tolist() == [[1, 2 + 0, 5 + 4], [0, 2 + 2, 5 + 3]]
    assert torch.equal(columns.codes(places), ROWS)


def test_one_hot_rows_have_one_one_in_each_column() -> None:
    columns = Columns(LAYOUT)
    hot = columns.one_hot(columns.places(ROWS))
    expected = torch.cat(
        [functional.one_hot(ROWS[:, j], size) for j, size in ((1, 2), (0, 3), (2, 5))], 1
    ).float()
    assert torch.equal(hot, expected)


def looped(logits: torch.Tensor) -> torch.Tensor:
    parts = logits.split([2, 3, 5], 1)
    return sum(
        -functional.cross_entropy(part, ROWS[:, j], reduction="none")
        for part, j in zip(parts, (1, 0, 2), strict=True)
    )


def test_log_likelihood_and_its_gradient_equal_a_softmax_for_each_column() -> None:
    columns = Columns(LAYOUT)
    logits = (4 * torch.randn(2, 10, generator=torch.Generator().manual_seed(1))).requires_grad_()
    ours, theirs = columns.log_likelihood(logits, columns.places(ROWS)), looped(logits)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours.sum(), logits)[0], torch.autograd.grad(theirs.sum(), logits)[0]
    )


def test_log_likelihood_is_exact_while_columns_are_within_eighty() -> None:
    columns = Columns(LAYOUT)
    logits = torch.zeros(2, 10)
    logits[:, 5:] += 70
    torch.testing.assert_close(columns.log_likelihood(logits, columns.places(ROWS)), looped(logits))


@pytest.mark.parametrize("size", [1e3, 1e6])
def test_log_likelihood_stays_finite_for_absurd_logits(size: float) -> None:
    columns = Columns(LAYOUT)
    logits = size * torch.randn(2, 10, generator=torch.Generator().manual_seed(1))
    logits.requires_grad_()
    value = columns.log_likelihood(logits, columns.places(ROWS))
    assert bool(torch.isfinite(value).all())
    assert bool(torch.isfinite(torch.autograd.grad(value.sum(), logits)[0]).all())


def test_label_prior_draws_what_its_logits_say() -> None:
    prior = LabelPrior(3)
    with torch.no_grad():
        prior.logits.weight.copy_(torch.tensor([[0.0], [-50.0], [math.log(3.0)]]))
    counts = torch.bincount(prior.draw(40_000, torch.Generator().manual_seed(0)), minlength=3)
    # Binomial standard deviation 87 at n = 40,000, p = 3/4; 5 of them: two-sided error 6e-7, seed fixed.
    assert counts[1] == 0
    assert abs(int(counts[2]) - 30_000) < 5 * 87
    torch.testing.assert_close(
        prior.loss(torch.tensor([0, 2])), torch.tensor([math.log(4.0), math.log(4.0 / 3.0)])
    )


def test_label_prior_learns_the_label_frequencies() -> None:
    prior = LabelPrior(2)
    torch.nn.init.zeros_(prior.logits.weight)
    labels = torch.tensor([0] * 9 + [1])
    for _ in range(400):
        (step,) = torch.autograd.grad(prior.loss(labels).mean(), prior.logits.weight)
        with torch.no_grad():
            prior.logits.weight.sub_(step)
    torch.testing.assert_close(
        prior.logits.weight.softmax(0).reshape(-1), torch.tensor([0.9, 0.1]), atol=1e-2, rtol=0
    )


def test_draw_follows_certain_logits_and_accepts_an_empty_batch() -> None:
    logits = torch.tensor([[0.0, 200.0], [200.0, 0.0]])
    assert draw(logits, torch.Generator()).tolist() == [1, 0]
    assert draw(logits[:0], torch.Generator()).shape == (0,)


def test_one_hot_of_no_classes_has_no_columns() -> None:
    assert one_hot(torch.tensor([0, 1]), 0).shape == (2, 0)
    assert one_hot(torch.tensor([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_mlp_is_linear_layers_with_a_nonlinearity_between() -> None:
    net = Mlp([2, 3, 1], leaky=True)
    first, last = net.layers
    with torch.no_grad():
        for layer in (first, last):
            layer.weight.uniform_(-1, 1, generator=torch.Generator().manual_seed(2))
            layer.bias.fill_(-0.1)
    x = torch.tensor([[0.3, -2.0], [1.0, 1.0]])
    torch.testing.assert_close(net(x), last(functional.leaky_relu(first(x), 0.2)))


def test_linear_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    layer = linear(3, 2, gain=0.5)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert layer.weight.shape == (2, 3)


def test_reparametrise_draws_from_the_generator_and_lets_gradients_through() -> None:
    mean = torch.zeros(3, 2, requires_grad=True)
    spread = torch.full((3, 2), math.log(4.0))
    noise = torch.randn(3, 2, generator=torch.Generator().manual_seed(8))
    value = reparametrise(mean, spread, torch.Generator().manual_seed(8))
    torch.testing.assert_close(value, 2 * noise)
    assert torch.equal(torch.autograd.grad(value.sum(), mean)[0], torch.ones(3, 2))


def test_kl_equals_the_library_s() -> None:
    generator = torch.Generator().manual_seed(3)
    mean, spread = split_moments(torch.randn(4, 6, generator=generator))
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, torch.exp(0.5 * spread)), torch.distributions.Normal(0.0, 1.0)
    ).sum(1)
    torch.testing.assert_close(kl_to_normal(mean, spread), expected)
    assert float(kl_to_normal(torch.zeros(1, 2), torch.zeros(1, 2))) == 0.0


def test_log_variances_are_bounded_however_noisy_the_weights() -> None:
    _, spread = split_moments(torch.tensor([[0.0, 1e9], [0.0, -1e9]]))
    assert spread.tolist() == [[4.0], [-8.0]]


@pytest.mark.parametrize("top", [1, 16, 255])
def test_pixels_split_and_codes_are_inverse_for_every_value(top: int) -> None:
    pixels = Pixels(ImageLayout(height=1, width=1, channels=1, max_value=top, classes=3))
    rows = torch.stack((torch.arange(top + 1), torch.arange(top + 1) % 3), 1)
    intensity, hot = pixels.split(rows.to(torch.uint8))
    assert float(intensity.max()) == 1.0
    assert torch.equal(pixels.codes(intensity, hot.argmax(1)), rows)


def test_pixels_clip_intensities_to_the_declared_range() -> None:
    pixels = Pixels(ImageLayout(height=1, width=2, channels=1, max_value=16))
    assert pixels.codes(torch.tensor([[-0.5, 1.5]]), None).tolist() == [[0, 16]]
