"""The fused engine for users of Opacus: a gradient-sample mode for a ``PrivacyEngine`` of their own.

::

    engine = FusedPrivacyEngine(accountant="rdp")
    model, optimizer, loader = engine.make_private(
        module=model,
        optimizer=optimizer,
        data_loader=loader,
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        grad_sample_mode="fused",
    )
    for batch in loader:
        optimizer.zero_grad()
        criterion(model(batch)).backward()
        optimizer.step()

Validators, accountants, data loaders, virtual steps and every other mode are Opacus's own. What changes is where the
clipped sum comes from, and the noise: a key stream of AES-256-CTR, which Opacus's ``secure_mode`` needs a package for
that no longer installs. Nothing else in fedgen imports this module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from opacus import PrivacyEngine
from opacus.grad_sample import AbstractGradSampleModule
from opacus.optimizers import DPOptimizer

from fedgen.dpsgd.engine import check_clip
from fedgen.dpsgd.flat import FlatParameters
from fedgen.dpsgd.noise import NoiseSource
from fedgen.dpsgd.summing import ClippedSums
from fedgen.dpsgd.tape import Tape
from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

MODE = "fused"


class FusedGradSampleModule(AbstractGradSampleModule):  # type: ignore[misc] # Opacus is untyped
    """A module whose backward pass leaves what clipping needs instead of gradients.

    Guarantees:
        - In eval mode, without gradients, or with hooks disabled, it is the module it wraps.
        - Two forward passes before one step are refused, as is every layer without a clipping rule.

    Edge cases:
        - Whether rows depend on each other cannot be seen from here, for the loss is not; run
          :func:`fedgen.dpsgd.selftest.sensitivity` once on a :class:`~fedgen.dpsgd.fused.FusedEngine`.

    Args:
        m: The module; its parameters become views of one vector.
        batch_first: Must be true.
        loss_reduction: ``"mean"`` or ``"sum"``: what the criterion does over rows.

    Raises:
        ConfigError: The module cannot be clipped exactly.
    """

    def __init__(self, m: nn.Module, *, batch_first: bool = True, loss_reduction: str = "mean") -> None:
        if not batch_first:
            raise ConfigError("grad_sample_mode 'fused' needs rows in the first dimension")
        super().__init__(m, batch_first=batch_first, loss_reduction=loss_reduction)
        self.flat = FlatParameters(m)
        self._tape = Tape(self.flat, m)
        self._tape.watch = self._keep
        self._sums = ClippedSums(self.flat, self._tape)
        self._gradients: dict[int, Tensor] = {}
        self._rows: int | None = None
        self._enabled = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the module returns; rows are the first dimension of the first argument."""
        if not (self._enabled and self.training and torch.is_grad_enabled()):
            return self._module(*args, **kwargs)
        if self._rows is not None:
            raise ConfigError(
                "two forward passes before one step",
                hint="call optimizer.step() or optimizer.zero_grad() first",
            )
        self.flat.check()
        try:
            out = self._tape.run(lambda _: self._module(*args, **kwargs), args[0])
        except BaseException:
            self.forget()
            raise
        self._rows = len(args[0])
        return out

    def add_clipped_sum_(self, out: Tensor, clip: float) -> None:
        """Add the clipped sum of the last backward pass to ``out`` and forget it.

        Raises:
            ConfigError: No backward pass since the last step.
        """
        if self._rows is None:
            raise ConfigError(
                "no forward pass since the last step", hint="call loss.backward() before step()"
            )
        try:
            if self._rows:
                scale = self._rows if self.loss_reduction == "mean" else 1
                used = self._tape.used(self._rows)
                passed = [
                    (k, x.detach(), self._gradients[k] * scale) for k, x, _ in used if k in self._gradients
                ]
                self._sums.add_(out, torch.zeros(self._rows, device=out.device), passed, clip)
        finally:
            self.forget()

    def forget(self) -> None:
        """Drop what the last passes left."""
        self._tape.clear()
        self._gradients.clear()
        self._rows = None

    def enable_hooks(self) -> None:
        """Record forward passes again."""
        self._enabled = True

    def disable_hooks(self) -> None:
        """Stop recording, for passes on rows that are not private, such as a generator's."""
        self._enabled = False

    def remove_hooks(self) -> None:
        """Part of Opacus's protocol: nothing is attached between passes."""
        self.forget()

    def _keep(self, k: int, gradient: Tensor) -> None:
        """Take down the gradient at the output of layer ``k``."""
        if k in self._gradients:
            raise ConfigError("two backward passes before one step", hint="sum the losses of a row first")
        self._gradients[k] = gradient.detach()


class FusedDPOptimizer(DPOptimizer):  # type: ignore[misc] # Opacus is untyped
    """Opacus's optimizer, with sums from a :class:`FusedGradSampleModule` and noise from a key stream.

    Args:
        optimizer: The optimizer to be wrapped.
        noise: Where noise comes from when no ``generator`` of torch is given; the operating system by default.
        options: As for Opacus's ``DPOptimizer``.

    Raises:
        ValueError: ``max_grad_norm`` is out of range.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, *, noise: NoiseSource | None = None, **options: Any
    ) -> None:
        super().__init__(optimizer, **options)
        check_clip(self.max_grad_norm)
        self.source: FusedGradSampleModule | None = None
        self._noise = NoiseSource.secure() if noise is None else noise

    @property
    def accumulated_iterations(self) -> int:
        """How many passes a step is made of: always one."""
        return 1

    def pre_step(self, closure: Any = None) -> bool:  # noqa: ARG002 - the signature is Opacus's
        """Clip, sum, add noise and scale; return whether the step is to be taken."""
        self.clip_and_accumulate()
        if self._check_skip_next_step():
            self._is_last_step_skipped = True
            return False
        self.add_noise()
        self.scale_grad()
        if self.step_hook:
            self.step_hook(self)
        self._is_last_step_skipped = False
        return True

    def clip_and_accumulate(self) -> None:
        """Add the clipped sum of the last pass to ``summed_grad``."""
        module = self._module()
        total = torch.zeros_like(module.flat.vector)
        module.add_clipped_sum_(total, self.max_grad_norm)
        parameters: tuple[Any, ...] = module.flat.parameters  # Opacus keeps its sums on them
        for parameter, view in zip(parameters, module.flat.views(total), strict=True):
            parameter.summed_grad = view if parameter.summed_grad is None else parameter.summed_grad + view

    def add_noise(self) -> None:
        """Set ``grad`` to the sum with noise of ``noise_multiplier * max_grad_norm``."""
        if self.generator is not None:
            super().add_noise()
            return
        flat = self._module().flat
        parameters: tuple[Any, ...] = flat.parameters
        total = torch.cat([parameter.summed_grad.reshape(-1) for parameter in parameters])
        self._noise.add_normal_(total, self.noise_multiplier * self.max_grad_norm)
        for parameter, view in zip(parameters, flat.views(total), strict=True):
            parameter.grad = view

    def zero_grad(self, set_to_none: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature is Opacus's
        """Forget gradients, and passes that no step was made of."""
        super().zero_grad(set_to_none)
        if self.source is not None:
            self.source.forget()

    def _module(self) -> FusedGradSampleModule:
        """Return the module whose sums this optimizer takes."""
        if self.source is None:
            raise ConfigError("the optimizer knows no fused module", hint="make both with FusedPrivacyEngine")
        return self.source


class FusedPrivacyEngine(PrivacyEngine):  # type: ignore[misc] # Opacus is untyped
    """Opacus's ``PrivacyEngine`` with one mode more: ``grad_sample_mode="fused"``."""

    def make_private(self, *, grad_sample_mode: str = MODE, **options: Any) -> Any:
        """Return module, optimizer and data loader as Opacus does; see ``opacus.PrivacyEngine.make_private``.

        Raises:
            ConfigError: In mode ``fused``: clipping other than flat, several processes, or no wrapping.
        """
        made = super().make_private(grad_sample_mode=grad_sample_mode, **options)
        if grad_sample_mode == MODE:
            module, optimizer = made[0], made[1]
            if {id(p) for p in optimizer.params} != {id(p) for p in module.flat.parameters}:
                raise ConfigError("the optimizer must step all parameters of the module")
            optimizer.source = module
        return made

    def _prepare_model(self, module: nn.Module, *, grad_sample_mode: str = "hooks", **options: Any) -> Any:
        """Wrap the module."""
        if grad_sample_mode != MODE:
            return super()._prepare_model(module, grad_sample_mode=grad_sample_mode, **options)
        if not options.get("wrap_model", True):
            raise ConfigError("grad_sample_mode 'fused' wraps the module", hint="leave wrap_model out")
        reduction = options.get("loss_reduction", "mean")
        if isinstance(module, FusedGradSampleModule) and module.loss_reduction == reduction:
            return module
        if isinstance(module, AbstractGradSampleModule):
            raise ConfigError(
                "the module is wrapped already, for something else", hint="pass the module itself"
            )
        self.validate(module=module, optimizer=None, data_loader=None)
        batch_first = options.get("batch_first", True)
        return FusedGradSampleModule(module, batch_first=batch_first, loss_reduction=reduction)

    def _prepare_optimizer(self, *, grad_sample_mode: str = "hooks", **options: Any) -> Any:
        """Wrap the optimizer."""
        if grad_sample_mode != MODE:
            return super()._prepare_optimizer(grad_sample_mode=grad_sample_mode, **options)
        if options.pop("clipping", "flat") != "flat" or options.pop("distributed", False):
            raise ConfigError("grad_sample_mode 'fused' clips flat, in one process")
        optimizer = options.pop("optimizer")
        if isinstance(optimizer, DPOptimizer):
            optimizer = optimizer.original_optimizer
        generator = self.secure_rng if self.secure_mode else options.pop("noise_generator", None)
        options.pop("noise_generator", None)
        return FusedDPOptimizer(optimizer, generator=generator, secure_mode=self.secure_mode, **options)
