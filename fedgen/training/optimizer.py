"""The optimizer step: one fused update of a flat vector, with a state that can be saved and restored."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal, Protocol

import torch
from torch import Tensor

from fedgen._validate import non_negative, positive

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fedgen.dpsgd.flat import FlatParameters
    from fedgen.training.learner import Learner


_EPS: Final = 1e-8


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
    """Adam or SGD over one flat vector, in place.

    The arithmetic is that of ``torch.optim`` and is tested against it; it is written here because importing
    ``torch.optim`` starts ``torch._dynamo``, a second of CPU in every process.

    Guarantees:
        - ``restore(state())`` continues exactly where the state was taken.
        - Equal to ``torch.optim.Adam`` and ``torch.optim.SGD`` up to float32 rounding.

    Args:
        flat: The parameters; the step writes through to the module.
        name: ``adam`` or ``sgd``.
        lr: Learning rate, positive.
        momentum: SGD momentum, in [0, 1).
        betas: Adam's decay rates, each in [0, 1).

    Source: Kingma and Ba (2015), Algorithm 1; Sutskever et al. (2013) for momentum as in ``torch.optim.SGD``.
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
        non_negative(momentum=momentum, beta1=betas[0], beta2=betas[1])
        self._vector = flat.vector
        self._name, self._lr, self._momentum, self._betas = name, lr, momentum, betas
        self._steps = 0
        self._first: Tensor | None = None
        self._second: Tensor | None = None

    @torch.no_grad()
    def step_(self, gradient: Tensor) -> None:
        """Take one step along ``-gradient``, shape of the flat vector."""
        self._steps += 1
        if self._name == "adam":
            self._adam_(gradient)
        elif self._momentum:
            self._first = (
                gradient.clone() if self._first is None else self._first.mul_(self._momentum).add_(gradient)
            )
            self._vector.add_(self._first, alpha=-self._lr)
        else:
            self._vector.add_(gradient, alpha=-self._lr)

    def _adam_(self, gradient: Tensor) -> None:
        """Apply Adam's update with bias correction."""
        beta1, beta2 = self._betas
        if self._first is None or self._second is None:
            self._first, self._second = torch.zeros_like(gradient), torch.zeros_like(gradient)
        self._first.lerp_(gradient, 1 - beta1)
        self._second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = self._second.sqrt().div_(math.sqrt(1 - beta2**self._steps)).add_(_EPS)
        self._vector.addcdiv_(self._first, root, value=-self._lr / (1 - beta1**self._steps))

    def state(self) -> dict[str, Tensor]:
        """Return the optimizer's tensors by name; empty before the first step."""
        if not self._steps:
            return {}
        tensors = {"step": torch.tensor([self._steps], dtype=torch.int64)}
        if self._first is not None:
            tensors["first"] = self._first.clone()
        if self._second is not None:
            tensors["second"] = self._second.clone()
        return tensors

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from :meth:`state`.

        Raises:
            ValueError: A tensor has another shape than the parameters.
        """
        moments = {name: value for name, value in tensors.items() if name != "step"}
        for name, value in moments.items():
            if value.shape != self._vector.shape:
                raise ValueError(f"optimizer state {name} does not fit these parameters")
        self._steps = int(tensors["step"]) if "step" in tensors else 0
        self._first = moments["first"].clone() if "first" in moments else None
        self._second = moments["second"].clone() if "second" in moments else None


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
