"""The three nets of the DP-SGD benchmarks, plain PyTorch, with a loss for each row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable


class Vae(nn.Module):
    """An MLP VAE; the noise of the latent code is fixed, so that every method computes the same thing."""

    def __init__(self, width: int, hidden: tuple[int, ...], latent: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        last = width
        for size in hidden:
            layers += [nn.Linear(last, size), nn.ReLU()]
            last = size
        self.encoder = nn.Sequential(*layers, nn.Linear(last, 2 * latent))
        layers, last = [], latent
        for size in reversed(hidden):
            layers += [nn.Linear(last, size), nn.ReLU()]
            last = size
        self.decoder = nn.Sequential(*layers, nn.Linear(last, width))

    def forward(self, rows: Tensor) -> Tensor:
        """Return the negative bound of each row, shape ``(B,)``."""
        mean, log_variance = self.encoder(rows).chunk(2, dim=1)
        code = mean + torch.exp(0.5 * log_variance) * 0.1
        logits = self.decoder(code)
        fit = functional.binary_cross_entropy_with_logits(logits, rows, reduction="none").sum(1)
        loss: Tensor = fit - 0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1)
        return loss


class Critic(nn.Module):
    """A DCGAN critic for 28 x 28 images."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 64, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, 128, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(128 * 49, 1),
            nn.Flatten(0),
        )

    def forward(self, rows: Tensor) -> Tensor:
        """Return the loss of each image judged real, shape ``(B,)``."""
        return functional.softplus(-self.net(rows))


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "MLP VAE 784-400-20": (lambda: Vae(784, (400,), 20), (784,)),
    "tabular VAE 110-256-256-64": (lambda: Vae(110, (256, 256), 64), (110,)),
    "conv critic 1x28x28": (Critic, (1, 28, 28)),
}


def rows_of(shape: tuple[int, ...], batch: int) -> Tensor:
    """Return a batch of rows in [0, 1]."""
    return torch.rand((batch, *shape), generator=torch.Generator().manual_seed(0))
