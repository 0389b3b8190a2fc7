"""The optimizer step: one fused update of a flat vector, with a state that can be saved and restored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor, nn

from fedgen._validate import non_negative, positive

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedgen.dpsgd.flat import FlatParameters
    from fedgen.training.learner import Learner


class Settings(Protocol):
    """The ``training.optimizer`` section of a study, whatever class holds it."""

    @property
    def name(self) -> Literal["adam", "sgd"]: ...  # noqa: D102 - as in the study
    @property
    def lr(self) -> float: ...  # noqa: D102 - positive
    @property
    def lr_public(self) -> float | None: ...  # noqa: D102 - of a GAN's generator; None means lr
    @property
    def momentum(self) -> float | None: ...  # noqa: D102 - sgd only
    @property
    def betas(self) -> tuple[float, float] | None: ...  # noqa: D102 - adam only


class FlatOptimizer:
    """Adam or SGD over one flat vector.

    Guarantees:
        - ``restore(state())`` continues exactly where the state was taken.

    Args:
        flat: The parameters; the step writes through to the module.
        name: ``adam`` or ``sgd``.
        lr: Learning rate, positive.
        momentum: SGD momentum, in [0, 1).
        betas: Adam's decay rates.
    """

    def __init__(
        self,
        flat: FlatParameters,
        *,
        name: Literal["adam", "sgd"],
        lr: float,
        momentum: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        positive(lr=lr)
        non_negative(momentum=momentum)
        self._parameter = nn.Parameter(flat.vector.detach(), requires_grad=False)
        if self._parameter.data_ptr() != flat.vector.data_ptr():
            raise ValueError("the optimizer must share memory with the flat vector")
        self._optimizer: torch.optim.Optimizer
        if name == "adam":
            self._optimizer = torch.optim.Adam([self._parameter], lr=lr, betas=betas, fused=True)
        else:
            self._optimizer = torch.optim.SGD([self._parameter], lr=lr, momentum=momentum)

    def step_(self, gradient: Tensor) -> None:
        """Take one step along ``-gradient``, shape of the flat vector."""
        self._parameter.grad = gradient
        self._optimizer.step()
        self._parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """Return the optimizer's tensors by name; empty before the first step or without momentum."""
        inner = self._optimizer.state.get(self._parameter, {})
        return {name: value.clone() for name, value in inner.items() if isinstance(value, Tensor)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from :meth:`state`.

        Raises:
            ValueError: A tensor has another shape than the parameters.
        """
        for name, value in tensors.items():
            if value.numel() not in {1, self._parameter.numel()}:
                raise ValueError(f"optimizer state {name} does not fit these parameters")
        if tensors:
            self._optimizer.state[self._parameter] = {name: value.clone() for name, value in tensors.items()}


class LearnerOptimizer:
    """Steps a learner: the private vector with a given gradient, then the public one by post-processing.

    Args:
        learner: What is stepped.
        name: ``adam`` or ``sgd``.
        lr: Learning rate of the private parameters.
        lr_public: Learning rate of the public parameters.
        momentum: SGD momentum.
        betas: Adam's decay rates.
        public_steps: Steps of the public parameters for each private one.
    """

    def __init__(
        self,
        learner: Learner,
        *,
        name: Literal["adam", "sgd"],
        lr: float,
        lr_public: float | None = None,
        momentum: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        public_steps: int = 1,
    ) -> None:
        self._learner = learner
        self._public_steps = public_steps
        self._private = FlatOptimizer(learner.private, name=name, lr=lr, momentum=momentum, betas=betas)
        self._public = None
        if learner.public is not None:
            self._public = FlatOptimizer(
                learner.public, name=name, lr=lr_public or lr, momentum=momentum, betas=betas
            )

    @classmethod
    def of(cls, learner: Learner, settings: Settings, *, public_steps: int | None = None) -> LearnerOptimizer:
        """Return the optimizer a study's ``training.optimizer`` section names."""
        return cls(
            learner,
            name=settings.name,
            lr=settings.lr,
            lr_public=settings.lr_public,
            momentum=settings.momentum or 0.0,
            betas=settings.betas or (0.9, 0.999),
            public_steps=public_steps or 1,
        )

    def step_(self, noised_mean: Tensor, generator: torch.Generator) -> None:
        """Step with a noised mean gradient; everything after it is post-processing.

        Args:
            noised_mean: The protected gradient, divided by the expected batch; overwritten.
            generator: Randomness for fake batches.
        """
        fakes = self._learner.public_gradient(generator)
        if fakes is not None:
            noised_mean.add_(fakes)
        self._private.step_(noised_mean)
        if self._public is None:
            return
        for _ in range(self._public_steps):
            gradient = self._learner.generator_gradient(generator)
            if gradient is not None:
                self._public.step_(gradient)

    def state(self) -> dict[str, Tensor]:
        """Return all optimizer tensors, keyed ``private.*`` and ``public.*``."""
        tensors = {f"private.{name}": value for name, value in self._private.state().items()}
        if self._public is not None:
            tensors |= {f"public.{name}": value for name, value in self._public.state().items()}
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from :meth:`state`."""
        self._private.restore(_under("private.", tensors))
        if self._public is not None:
            self._public.restore(_under("public.", tensors))


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors below a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
