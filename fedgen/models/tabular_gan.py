"""A GAN for mixed-type rows: the generator draws by Gumbel-softmax, the critic judges one-hot rows.

Source: Jang, Gu and Poole (2017), Categorical Reparameterization with Gumbel-Softmax, straight-through
variant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from fedgen.models.adversarial import AdversarialModel, Critic
from fedgen.models.layers import Columns, Mlp, blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedgen.models.options import ModelName
    from fedgen.schema.layout import TableLayout


class TabularGan(AdversarialModel):
    """A conditional GAN over integer-coded rows.

    Args:
        layout: Of the rows.
        latent: Dimension of the generator's noise.
        hidden: Widths of the critic's hidden layers.
        generator: Widths of the generator's hidden layers.
        temperature: Of the Gumbel-softmax relaxation.
    """

    name: ClassVar[ModelName] = "tabular-gan"

    def __init__(
        self,
        layout: TableLayout,
        *,
        latent: int,
        hidden: Sequence[int],
        generator: Sequence[int],
        temperature: float,
    ) -> None:
        super().__init__()
        self.layout = layout
        self.columns = columns = Columns(layout)
        self.latent = latent
        self.classes = columns.classes
        self.temperature = temperature
        judge = Mlp([columns.total, *hidden, 1], active=len(columns.sizes), leaky=True)
        self.private = Critic(judge, columns.classes)
        outputs = columns.total - columns.classes
        self.public = Mlp([latent + columns.classes, *generator, outputs], gain=0.1)
        self._predicted = columns.sizes[1:] if columns.classes else columns.sizes

    def relax(self, rows: Tensor) -> Tensor:
        """Return one-hot rows, shape ``(B, codes)``."""
        return self.columns.one_hot(self.columns.places(rows))

    def labels_of(self, rows: Tensor) -> Tensor:
        """Return the label column, shape ``(B,)``."""
        return self.columns.places(rows)[:, 0]

    def fakes(self, n: int, generator: torch.Generator) -> Tensor:
        """Return one-hot rows ``(n, codes)`` that carry the gradient of their Gumbel-softmax."""
        inputs, hot = self.draw_inputs(n, generator)
        logits: Tensor = self.public(inputs)
        noisy = (logits + _gumbel(logits, generator)) / self.temperature
        parts = [_straight_through(part.softmax(1)) for part in blocks(noisy, self._predicted)]
        return torch.cat((hot, *parts), 1)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` rows: label from its prior, each other column from the generator's softmax."""
        relaxed = self.fakes(n, generator)
        codes = [part.argmax(1) for part in blocks(relaxed, self.columns.sizes)]
        return torch.stack(codes, 1)[:, self.columns.inverse]


def _gumbel(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return standard Gumbel noise of the shape of ``like``."""
    uniform = torch.rand(like.shape, generator=generator).clamp_(1e-12, 1 - 1e-7)
    return -torch.log(-torch.log(uniform))


def _straight_through(soft: Tensor) -> Tensor:
    """Return one-hot rows at the maxima of ``soft`` whose gradient is that of ``soft``."""
    hard = torch.zeros_like(soft).scatter_(1, soft.argmax(1, keepdim=True), 1.0)
    return hard + soft - soft.detach()
