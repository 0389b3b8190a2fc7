"""What both VAEs share: the Gaussian latent, drawn by reparametrisation.

Source: Kingma and Welling (2014), Auto-Encoding Variational Bayes, appendix B for the KL term.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

# Noised weights can ask for absurd variances in early rounds; both ends are far outside what a fitted model
# uses.
_LOG_VARIANCE: Final = (-8.0, 4.0)


def split_moments(moments: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and log-variance, each ``(B, latent)``, from an encoder's ``(B, 2 latent)`` output."""
    mean, log_variance = moments.chunk(2, 1)
    return mean, log_variance.clamp(*_LOG_VARIANCE)


def reparametrise(mean: Tensor, log_variance: Tensor, generator: torch.Generator) -> Tensor:
    """Return a draw of N(mean, exp(log_variance)) through which gradients flow."""
    noise = torch.randn(mean.shape, generator=generator)
    return mean + torch.exp(0.5 * log_variance) * noise


def kl_to_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, exp(log_variance)) ‖ N(0, I)) of each row, shape ``(B,)``, in nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(1)
