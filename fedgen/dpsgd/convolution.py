"""Rules for convolutions: at every position a dense layer on the patch under the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional

from fedgen.dpsgd.layers import Layer
from fedgen.dpsgd.terms import over_positions, scratch_over_positions

if TYPE_CHECKING:
    from fedgen.dpsgd.terms import Term


class Convolution(Layer):
    """Conv1d and Conv2d, with strides, dilation, groups and zero padding."""

    def __init__(self, name: str, module: Any) -> None:
        super().__init__(name, module)
        if module.padding_mode != "zeros" or isinstance(module.padding, str):
            raise self.refusal("pads in a way that has no rule", "give padding as a number, of zeros")
        self._call = functional.conv2d if isinstance(module, nn.Conv2d) else functional.conv1d
        self._how = _patches(module)

    def run(self, x: Tensor) -> Tensor:
        """See :class:`~fedgen.dpsgd.layers.Layer`."""
        m = self.module
        return self._call(x, self.weight, self.bias, m.stride, m.padding, m.dilation, m.groups)

    def measure(self, x: Tensor, g: Tensor) -> tuple[Tensor, Term]:
        """See :class:`~fedgen.dpsgd.layers.Layer`."""
        image = x if x.dim() == 4 else x.unsqueeze(2)  # noqa: PLR2004 - a line is an image of height one
        g = g.flatten(2)
        bias = None if self.bias is None else g.sum(2)
        return over_positions(g, functional.unfold(image, **self._how), bias=bias, groups=self.module.groups)

    def scratch(self, x: Tensor, g: Tensor) -> int:  # noqa: ARG002 - the signature is the base's
        """See :class:`~fedgen.dpsgd.layers.Layer`."""
        width, positions = self.weight[0].numel(), g[0, 0].numel()
        return scratch_over_positions(len(self.weight), width, positions, groups=self.module.groups)


class TransposedConvolution(Layer):
    """ConvTranspose2d: the gradient of its weight is that of a convolution with input and output exchanged."""

    def __init__(self, name: str, module: Any) -> None:
        super().__init__(name, module)
        if any(extra >= step for extra, step in zip(module.output_padding, module.stride, strict=True)):
            raise self.refusal("pads its output by a whole stride", "use an output_padding below the stride")
        self._how = _patches(module)

    def run(self, x: Tensor) -> Tensor:
        """See :class:`~fedgen.dpsgd.layers.Layer`."""
        m = self.module
        how = (m.stride, m.padding, m.output_padding, m.groups, m.dilation)
        return functional.conv_transpose2d(x, self.weight, self.bias, *how)

    def measure(self, x: Tensor, g: Tensor) -> tuple[Tensor, Term]:
        """See :class:`~fedgen.dpsgd.layers.Layer`."""
        bias = None if self.bias is None else g.flatten(2).sum(2)
        return over_positions(
            x.flatten(2), functional.unfold(g, **self._how), bias=bias, groups=self.module.groups
        )

    def scratch(self, x: Tensor, g: Tensor) -> int:  # noqa: ARG002 - the signature is the base's
        """See :class:`~fedgen.dpsgd.layers.Layer`."""
        width, positions = self.weight[0].numel(), x[0, 0].numel()
        return scratch_over_positions(len(self.weight), width, positions, groups=self.module.groups)


def _patches(module: Any) -> dict[str, tuple[int, int]]:
    """Return the arguments of ``unfold`` that cut an input into what the kernel sees."""
    options = {name: getattr(module, name) for name in ("kernel_size", "dilation", "padding", "stride")}
    if isinstance(module, nn.Conv1d):
        neutral = {"kernel_size": 1, "dilation": 1, "padding": 0, "stride": 1}
        return {name: (neutral[name], value[0]) for name, value in options.items()}
    return options
