"""A VAE for small images: dense layers, a Bernoulli likelihood on intensities.

Source: Kingma and Welling (2014), appendix C.1, for the architecture and likelihood; Sohn, Lee and Yan (2015)
for conditioning on a label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedgen.models.base import GenerativeModel
from fedgen.models.layers import LabelPrior, Mlp, one_hot
from fedgen.models.pixels import Pixels
from fedgen.models.variational import kl_to_normal, reparametrise, split_moments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedgen.models.options import ModelName
    from fedgen.schema.layout import ImageLayout


class _ImageNet(nn.Module):
    """Encoder, decoder and label prior: everything an image touches."""

    def __init__(self, pixels: int, classes: int, latent: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.encoder = Mlp([pixels + classes, *hidden, 2 * latent])
        self.decoder = Mlp([latent + classes, *hidden[::-1], pixels])
        self.prior = LabelPrior(classes) if classes else None


class ImageVae(GenerativeModel):
    """A VAE over coded images, conditional on the declared classes where there are any.

    The loss of an image is the cross-entropy of each pixel's intensity in [0, 1] under a Bernoulli decoder,
    summed over pixels, plus ``beta`` times the KL term, plus the label's cross-entropy under the learnt
    prior. A sample shows the decoder's mean intensity, rounded to a code: a Bernoulli draw would turn every
    grey into black or white.

    Args:
        layout: Of the images.
        latent: Dimension of the latent.
        hidden: Widths of the encoder's hidden layers; the decoder uses them in reverse.
        beta: Weight of the KL term.
    """

    name: ClassVar[ModelName] = "image-vae"
    private: _ImageNet

    def __init__(self, layout: ImageLayout, *, latent: int, hidden: Sequence[int], beta: float) -> None:
        super().__init__()
        self.layout = layout
        self.pixels = Pixels(layout)
        self.latent = latent
        self.beta = beta
        self.private = _ImageNet(layout.pixels, self.pixels.classes, latent, hidden)
        self.public = None

    def private_loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return each image's negative evidence bound, KL weighted by ``beta``: ``(B,)``, in nats."""
        net = self.private
        intensity, hot = self.pixels.split(rows)
        mean, log_variance = split_moments(net.encoder(torch.cat((intensity, hot), 1)))
        latent = reparametrise(mean, log_variance, generator)
        logits = net.decoder(torch.cat((latent, hot), 1))
        loss = functional.binary_cross_entropy_with_logits(logits, intensity, reduction="none").sum(1)
        loss = loss + self.beta * kl_to_normal(mean, log_variance)
        return loss if net.prior is None else loss + net.prior.loss(self.pixels.labels(rows))

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` images: label from its prior, latent from N(0, I), each pixel its mean intensity."""
        prior = self.private.prior
        labels = None if prior is None else prior.draw(n, generator)
        inputs = torch.randn(n, self.latent, generator=generator)
        if labels is not None:
            inputs = torch.cat((inputs, one_hot(labels, self.pixels.classes)), 1)
        return self.pixels.codes(torch.sigmoid(self.private.decoder(inputs)), labels)
