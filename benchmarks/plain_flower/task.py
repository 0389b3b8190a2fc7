"""The task: a small VAE on the digits that come with scikit-learn, trained with Opacus."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from opacus import PrivacyEngine
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

IMAGES_PER_SITE = 150
BATCH = 32
NOISE_MULTIPLIER = 1.0
CLIP = 1.0
LEARNING_RATE = 1e-3
DELTA = 1e-4
PARTITIONS = 10


class VAE(nn.Module):
    """64-128-16-128-64, with a Bernoulli likelihood on each pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU())
        self.mean = nn.Linear(128, 16)
        self.log_variance = nn.Linear(128, 16)
        self.decoder = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits of the pixels, and the mean and log variance of the code."""
        hidden = self.encoder(x)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        code = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        logits: Tensor = self.decoder(code)
        return logits, mean, log_variance


def negative_elbo(model: nn.Module, x: Tensor) -> Tensor:
    """Return the mean negative evidence lower bound of a batch, in nats."""
    logits, mean, log_variance = model(x)
    pixels = nn.functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
    loss: Tensor = (pixels + divergence).mean()
    return loss


def _images() -> Tensor:
    """Return all 1,797 images, shape (1797, 64), scaled to [0, 1]."""
    pixels: np.ndarray[Any, np.dtype[Any]] = load_digits().data / 16.0
    return torch.as_tensor(pixels, dtype=torch.float32)


def load_site(partition: int) -> DataLoader[tuple[Tensor, ...]]:
    """Return one site's 150 images in batches of 32; more than ten sites share the ten partitions."""
    images = _images()[partition % PARTITIONS :: PARTITIONS][:IMAGES_PER_SITE]
    return DataLoader(TensorDataset(images), batch_size=BATCH, shuffle=True)


def load_held_out() -> Tensor:
    """Return the images that no site trains on."""
    images = _images()
    return torch.cat([images[p::PARTITIONS][IMAGES_PER_SITE:] for p in range(PARTITIONS)])


def train(model: VAE, loader: DataLoader[tuple[Tensor, ...]]) -> tuple[float, float]:
    """Train one epoch under differential privacy; return the mean loss and this round's ε."""
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    engine = PrivacyEngine(accountant="prv")
    private, optimizer, loader = engine.make_private(
        module=model,
        optimizer=optimizer,
        data_loader=loader,
        noise_multiplier=NOISE_MULTIPLIER,
        max_grad_norm=CLIP,
    )
    private.train()
    losses = []
    for (x,) in loader:
        if len(x) == 0:
            continue
        optimizer.zero_grad()
        loss = negative_elbo(private, x)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses)), float(engine.get_epsilon(delta=DELTA))


@torch.no_grad()
def test(model: VAE, images: Tensor) -> float:
    """Return the loss on held-out images."""
    model.eval()
    return float(negative_elbo(model, images))
