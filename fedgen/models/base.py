"""What a site and a coordinator may rely on in any generative model.

A model splits its parameters by who may see rows. Gradients of ``private`` come from rows and are clipped and
noised; ``public`` learns from ``private`` alone, which is post-processing (Dwork and Roth 2014, Proposition
2.1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from fedgen.models.options import ModelName, ModelOptions
    from fedgen.schema.layout import ImageLayout, TableLayout


class GenerativeModel(nn.Module, ABC):
    """A generator of integer-coded rows, trainable row by row.

    Guarantees:
        - ``private_loss(rows)[i]`` depends on ``rows[i]`` and the generator's noise only, never on another
          row.
        - Every module of ``private`` that has parameters is used at most once in a forward of
          ``private_loss``.
        - ``public`` sees no row: its loss is a function of weights and noise.
        - All randomness comes from the generator that is passed.

    Attributes:
        name: The model's name in a study.
        layout: Widths and cardinalities of the rows.
        options: The complete options it was built with.
        private: The only module whose gradient touches rows (VAE: everything; GAN: the critic).
        public: The module trained by post-processing (GAN: the generator), or None.
    """

    name: ClassVar[ModelName]
    layout: TableLayout | ImageLayout
    options: ModelOptions
    private: nn.Module
    public: nn.Module | None

    @abstractmethod
    def private_loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return the loss of each row.

        Edge cases:
            An empty batch gives an empty tensor.

        Args:
            rows: Integer codes of any integer dtype, shape ``(B, width)``, each below its column's
                cardinality.
            generator: Source of reparametrisation noise.

        Returns:
            Float32, shape ``(B,)``, in nats (critics: in their own units).
        """

    def public_loss_of_private(self, n: int, generator: torch.Generator) -> Tensor | None:
        """Return the part of the private module's objective that sees no row, a scalar, or None.

        Args:
            n: Size of the fake batch; fixed by the study, never by how many rows were drawn.
            generator: Source of latent noise.
        """
        del n, generator
        return None

    def public_loss(self, n: int, generator: torch.Generator) -> Tensor | None:
        """Return the public module's loss, a scalar, or None.

        Args:
            n: Size of the fake batch.
            generator: Source of latent noise.
        """
        del n, generator
        return None

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` synthetic rows; costs no budget.

        Guarantees:
            - Every code is at least zero and below its column's cardinality.
            - The same weights, ``n`` and generator state give the same rows.

        Returns:
            Int64 codes, shape ``(n, width)``, the label included.
        """


def parameter_count(module: nn.Module | None) -> int:
    """Return the number of scalars in ``module``'s parameters; zero for None."""
    return 0 if module is None else sum(parameter.numel() for parameter in module.parameters())


def init_(model: GenerativeModel, seed: int) -> None:
    """Set all weights from a public seed, in place.

    Guarantees:
        - The result depends on the model's shape and ``seed`` only; the global generator is not read.
        - Weights are uniform with variance gain² ÷ fan-in, where ``gain`` is the layer's own (1 unless it
          says); biases are zero.

    Args:
        model: Any model.
        seed: Public; weights before round 1 hold no secret.

    Source: LeCun et al. (1998), Efficient BackProp, section 4.6, for the scaling by fan-in.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            weight = getattr(module, "weight", None)
            if not isinstance(weight, Tensor):
                continue
            bound = float(getattr(module, "gain", 1.0)) * (3.0 / _fan_in(module, weight)) ** 0.5
            weight.uniform_(-bound, bound, generator=generator)
            bias = getattr(module, "bias", None)
            if isinstance(bias, Tensor):
                bias.zero_()


def _fan_in(module: nn.Module, weight: Tensor) -> int:
    """Return how many inputs feed one output of a layer."""
    if isinstance(module, nn.ConvTranspose2d):
        return max(1, weight.numel() // weight.shape[1])
    return max(1, weight[0].numel())
