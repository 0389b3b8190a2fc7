"""What both GANs share: a critic that alone touches rows, and a generator trained by post-processing.

The critic's per-row loss has two public companions that see no row: the critic on a fake batch of fixed size,
and the generator's loss. Were the fake batch as large as the drawn one, a record would change two terms.

Source: Goodfellow et al. (2014) for the non-saturating loss; Xie et al. (2018), Differentially Private GAN,
for privatising the critic only; Bie, Kamath and Zhang (2023), Private GANs, Revisited, for many critic steps
per generator step.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedgen.models.base import GenerativeModel
from fedgen.models.layers import LabelPrior, one_hot

if TYPE_CHECKING:
    from torch import Generator


class Critic(nn.Module):
    """Scores relaxed rows, and learns the label prior beside it: everything a row touches.

    Args:
        judge: Maps ``(B, features)`` to ``(B, 1)``.
        classes: Number of labels, or 0.
    """

    def __init__(self, judge: nn.Module, classes: int) -> None:
        super().__init__()
        self.judge = judge
        self.prior = LabelPrior(classes) if classes else None

    def forward(self, relaxed: Tensor) -> Tensor:
        """Return one score per row, shape ``(B,)``; high means real."""
        score: Tensor = self.judge(relaxed)
        return score.squeeze(1)


class AdversarialModel(GenerativeModel):
    """A GAN over relaxed rows: real-valued vectors of which coded rows are the corners.

    Attributes:
        classes: Number of labels, or 0.
        latent: Dimension of the generator's noise.
    """

    private: Critic
    public: nn.Module
    classes: int
    latent: int

    @abstractmethod
    def relax(self, rows: Tensor) -> Tensor:
        """Return ``(B, features)`` float32 rows for ``(B, width)`` codes."""

    @abstractmethod
    def labels_of(self, rows: Tensor) -> Tensor:
        """Return the ``(B,)`` int64 labels of coded rows; called only where there is a label."""

    @abstractmethod
    def fakes(self, n: int, generator: Generator) -> Tensor:
        """Return ``(n, features)`` relaxed fake rows through which gradients reach the generator."""

    def private_loss(self, rows: Tensor, generator: Generator) -> Tensor:
        """Return each real row's critic loss plus its label's cross-entropy, shape ``(B,)``."""
        del generator
        loss = functional.softplus(-self.private(self.relax(rows)))
        prior = self.private.prior
        return loss if prior is None else loss + prior.loss(self.labels_of(rows))

    def public_loss_of_private(self, n: int, generator: Generator) -> Tensor:
        """Return the critic's mean loss on ``n`` fakes, a scalar; no gradient reaches the generator."""
        with torch.no_grad():
            fakes = self.fakes(n, generator)
        return self.fake_loss(fakes).mean()

    def fake_loss(self, fakes: Tensor) -> Tensor:
        """Return the critic's loss on each fake, shape ``(n,)``, so that fakes can be clipped like rows.

        Clipping bounds the real half of the critic's gradient; left unclipped, the fake half outweighs it.

        Args:
            fakes: From :meth:`fakes`, detached, shape ``(n, features)``.
        """
        return functional.softplus(self.private(fakes))

    def public_loss(self, n: int, generator: Generator) -> Tensor:
        """Return the generator's non-saturating loss on ``n`` fakes, a scalar."""
        return functional.softplus(-self.private(self.fakes(n, generator))).mean()

    def draw_inputs(self, n: int, generator: Generator) -> tuple[Tensor, Tensor]:
        """Return the generator's input ``(n, latent + classes)`` and its one-hot labels ``(n, classes)``."""
        noise = torch.randn(n, self.latent, generator=generator)
        prior = self.private.prior
        if prior is None:
            return noise, noise[:, :0]
        hot = one_hot(prior.draw(n, generator), self.classes)
        return torch.cat((noise, hot), 1), hot
