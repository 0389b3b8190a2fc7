"""A GAN for small images: two strided convolutions judge, two transposed ones draw.

No normalisation layer anywhere: batch statistics would mix rows, and clipping already regularises the critic.

Source: Radford, Metz and Chintala (2016), DCGAN, for strided convolutions and LeakyReLU; Miyato
and Koyama (2018), cGANs with Projection Discriminator, for judging image and label together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedgen.models.adversarial import AdversarialModel, Critic
from fedgen.models.layers import linear, unset
from fedgen.models.pixels import Pixels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedgen.models.options import ModelName
    from fedgen.schema.layout import ImageLayout


class _ConvJudge(nn.Module):
    """Two stride-2 convolutions, then one score for the image and one for the image as its label.

    A relaxed row is ``height x width x channels`` intensities, then the one-hot label.
    """

    def __init__(self, layout: ImageLayout, classes: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.shape = (layout.height, layout.width, layout.channels)
        first, second = channels
        self.near = unset(nn.Conv2d, layout.channels, first, 3, stride=2, padding=1)
        self.far = unset(nn.Conv2d, first, second, 3, stride=2, padding=1)
        flat = second * _quarter(layout.height) * _quarter(layout.width)
        self.head = linear(flat, 1 + classes)

    def forward(self, relaxed: Tensor) -> Tensor:
        """Map ``(B, pixels + classes)`` to ``(B, 1)``."""
        height, width, depth = self.shape
        pixels = height * width * depth
        image = 2.0 * relaxed[:, :pixels].reshape(-1, height, width, depth).permute(0, 3, 1, 2) - 1.0
        image = functional.leaky_relu(self.near(image), 0.2)
        image = functional.leaky_relu(self.far(image), 0.2)
        scores: Tensor = self.head(image.flatten(1))
        return scores[:, :1] + (scores[:, 1:] * relaxed[:, pixels:]).sum(1, keepdim=True)


class _ConvGenerator(nn.Module):
    """A dense layer to a quarter-size map, doubled twice by transposed convolutions and cropped."""

    def __init__(self, inputs: int, layout: ImageLayout, channels: Sequence[int]) -> None:
        super().__init__()
        self.size = (layout.height, layout.width)
        first, second = channels
        self.small = (first, _quarter(layout.height), _quarter(layout.width))
        self.seed = linear(inputs, first * self.small[1] * self.small[2], gain=2.0**0.5)
        self.far = unset(nn.ConvTranspose2d, first, second, 4, stride=2, padding=1)
        self.near = unset(nn.ConvTranspose2d, second, layout.channels, 4, stride=2, padding=1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map ``(B, inputs)`` to intensities ``(B, pixels)`` in (0, 1)."""
        height, width = self.size
        image = functional.relu(self.seed(inputs)).reshape(-1, *self.small)
        image = functional.relu(self.far(image))
        cropped = self.near(image)[:, :, :height, :width]
        return torch.sigmoid(cropped.permute(0, 2, 3, 1)).flatten(1)


class ImageGan(AdversarialModel):
    """A conditional GAN over coded images of any size from 1 x 1; made for 8 x 8 to 32 x 32.

    Args:
        layout: Of the images; pixels in the order height, width, channel.
        latent: Dimension of the generator's noise.
        hidden: Channels of the critic's two convolutions.
        generator: Channels of the generator's two inner maps.
    """

    name: ClassVar[ModelName] = "image-gan"

    def __init__(
        self, layout: ImageLayout, *, latent: int, hidden: Sequence[int], generator: Sequence[int]
    ) -> None:
        super().__init__()
        self.layout = layout
        self.pixels = Pixels(layout)
        self.latent = latent
        self.classes = self.pixels.classes
        self.private = Critic(_ConvJudge(layout, self.classes, hidden), self.classes)
        self.public = _ConvGenerator(latent + self.classes, layout, generator)

    def relax(self, rows: Tensor) -> Tensor:
        """Return intensities and one-hot label, shape ``(B, pixels + classes)``."""
        return torch.cat(self.pixels.split(rows), 1)

    def labels_of(self, rows: Tensor) -> Tensor:
        """Return the label column, shape ``(B,)``."""
        return self.pixels.labels(rows)

    def fakes(self, n: int, generator: torch.Generator) -> Tensor:
        """Return generated intensities and one-hot labels, shape ``(n, pixels + classes)``."""
        inputs, hot = self.draw_inputs(n, generator)
        return torch.cat((self.public(inputs), hot), 1)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` images: label from its prior, pixels from the generator, rounded to codes."""
        relaxed = self.fakes(n, generator)
        labels = relaxed[:, self.pixels.count :].argmax(1) if self.classes else None
        return self.pixels.codes(relaxed[:, : self.pixels.count], labels)


def _quarter(size: int) -> int:
    """Return what two stride-2 layers make of ``size``, rounded up."""
    return -(-size // 4)
