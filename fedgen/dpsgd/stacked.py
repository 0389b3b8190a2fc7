"""Many small sites of one process in one step: one forward, one backward, one clipped sum for each site.

For small models and batches the price of a step is that of its few dozen calls, not of their arithmetic. Rows of all
sites pass through the module together; a row's gradient norm needs no site, and the sums are one weighted product for
each site and layer. In gradient exchange all sites are at the same weights, and nothing else changes; where each site
has weights of its own, the layers take them site by site.
"""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from fedgen.dpsgd.engine import Clipped, check_bounds, check_clip, check_losses, check_owner
from fedgen.dpsgd.fused import passed_through
from fedgen.dpsgd.layers import Dense
from fedgen.dpsgd.proof import Proof
from fedgen.dpsgd.summing import ClippedSums
from fedgen.dpsgd.tape import Tape
from fedgen.dpsgd.terms import Outer
from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from fedgen.dpsgd.flat import FlatParameters
    from fedgen.dpsgd.summing import Passed


class StackedEngine:
    """Clipped sums of several sites at once, for modules whose only layers with parameters are Linear.

    Guarantees:
        - For every site, those of :class:`~fedgen.dpsgd.engine.Engine`, and the sum of the fused engine on that
          site's rows alone, within 2e-5.
        - No row of one site reaches the sum of another.
        - Between calls the module is an ordinary module.

    Edge cases:
        - The first call with a site of two rows or more takes two backward passes more, as in the fused engine;
          so does the first such call with weights of the sites' own.

    Args:
        flat: The parameters.
        module: The module that holds exactly these parameters.
        clip: The norm bound C, the same for all sites.

    Raises:
        ConfigError: A layer with parameters that is not Linear.
        ValueError: ``clip`` is out of range.
    """

    def __init__(self, flat: FlatParameters, module: nn.Module, clip: float) -> None:
        check_clip(clip)
        check_owner(flat, module)
        _keep_freed_memory()
        self.flat = flat
        self.module = module
        self.clip = clip
        self._shared = _Pass(flat, Tape(flat, module, {nn.Linear: Dense}))
        self._apart = _Pass(flat, Tape(flat, module, {nn.Linear: DenseApart}))
        ends = list(accumulate((shape.numel() for shape in flat.shapes), initial=0))
        self._spans = [slice(a, b) for a, b in pairwise(ends)]

    def clipped_sums_(
        self,
        out: Tensor,
        loss: Callable[[Tensor], Tensor],
        rows: Tensor,
        sizes: Sequence[int],
        *,
        weights: Tensor | None = None,
        bounds: Tensor | None = None,
        fill: Callable[[int, Tensor], object] | None = None,
    ) -> list[Clipped]:
        """Add the clipped gradients of every site's rows to that site's row of ``out``.

        Edge cases:
            =========================  =======================================================================
            a site without rows        nothing is added for it; ``fill`` is called all the same
            no rows at all             the loss is not called
            more than 1,000 rows       some sites at a time are faster: what is worked on leaves the cache
            the call raises            ``out`` is as it was, unless ``fill`` raised: then sites before it are done
            =========================  =======================================================================

        Args:
            out: Shape ``(S, flat.size)``, float32, contiguous.
            loss: Returns one loss per row; called once, with the rows of all sites.
            rows: The rows of the first site, then those of the second and so on, shape ``(B, ...)``.
            sizes: How many rows each site has, ``S`` numbers that add up to ``B``.
            weights: Parameters of each site, shape ``(S, flat.size)``; None if all are at ``flat.vector``.
            bounds: Norm bound of each row, shape ``(B,)``, each in [0, ``clip``]; None for ``clip``.
            fill: Called with every site's number and row of ``out`` just before its sum is added, while the row is
                about to be in cache: the place for its noise, as in ``sources[s].fill_normal_(row, std)``.

        Returns:
            What was seen of each site.

        Raises:
            ConfigError: The loss cannot be clipped exactly.
            ValueError: ``out``, ``sizes``, ``weights`` or ``bounds`` does not fit.
        """
        self._check(out, rows, sizes, weights)
        check_bounds(bounds, out, len(rows), self.clip)
        own = self.clip if bounds is None else bounds
        way = self._shared if weights is None else self._apart
        if weights is not None:
            self._aim_apart(weights, sizes)
        try:
            if len(rows):
                sums, c, good = way.weigh(loss, rows, sizes, own)
            else:
                sums, c, good = [], out.new_zeros(0), None
        finally:
            way.clear()
            self._release()
        with torch.no_grad():
            self._add_(out, [(way.tape.places[k], term) for k, term in sums], c, sizes, fill)
        lost = [0] * len(sizes) if good is None else [int((~part).sum()) for part in _parts(good, sizes)]
        return [Clipped(size, dropped) for size, dropped in zip(sizes, lost, strict=True)]

    def _add_(
        self,
        out: Tensor,
        terms: list[tuple[tuple[int, int | None], Outer]],
        c: Tensor,
        sizes: Sequence[int],
        fill: Callable[[int, Tensor], object] | None,
    ) -> None:
        """Add the weighted sums of all layers, site by site, so that a site's vector is touched while it is near."""
        parts: list[tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]] = []
        biases: list[tuple[slice, Tensor]] = []
        site_of_row = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)).to(out.device)
        for (weight, bias), term in terms:
            scaled = term.g * c.unsqueeze(1)
            parts.append((self._cut(out, weight), _parts(scaled, sizes), _parts(term.x, sizes)))
            if bias is not None:
                added = scaled.new_zeros(len(sizes), scaled.shape[1]).index_add_(0, site_of_row, scaled)
                biases.append((self._spans[bias], added))
        for site, size in enumerate(sizes):
            if fill is not None:
                fill(site, out[site])
            if size:
                for targets, left, right in parts:
                    targets[site].addmm_(left[site].t(), right[site])
        for span, added in biases:
            out[:, span].add_(added)

    def _check(self, out: Tensor, rows: Tensor, sizes: Sequence[int], weights: Tensor | None) -> None:
        """Raise unless everything has the shape it says."""
        self.flat.check()
        for name, stack in (("out", out), ("weights", weights)):
            if stack is None:
                continue
            like = self.flat.vector
            if stack.shape != (len(sizes), self.flat.size) or stack.dtype != like.dtype:
                raise ValueError(f"{name} must be float32 of shape ({len(sizes)}, {self.flat.size})")
            if not stack.is_contiguous() or stack.requires_grad or stack.device != like.device:
                raise ValueError(
                    f"{name} must be contiguous, lie where the parameters do and take no gradient"
                )
        if any(size < 0 for size in sizes) or sum(sizes) != len(rows):
            raise ValueError(f"sizes must be at least zero and add up to the {len(rows)} rows")

    def _release(self) -> None:
        """Let go of the sites' parameters."""
        for layer in self._apart.tape.layers:
            if isinstance(layer, DenseApart):
                layer.sites = ()

    def _cut(self, stack: Tensor, k: int) -> Sequence[Tensor]:
        """Return every site's view of parameter ``k``."""
        return stack[:, self._spans[k]].view(len(stack), *self.flat.shapes[k]).unbind()

    def _aim_apart(self, weights: Tensor, sizes: Sequence[int]) -> None:
        """Hand every layer the sites' own parameters."""
        tape = self._apart.tape
        for layer, (weight, bias) in zip(tape.layers, tape.places, strict=True):
            if isinstance(layer, DenseApart):
                biases = [None] * len(sizes) if bias is None else self._cut(weights, bias)
                layer.sites = list(zip(sizes, self._cut(weights, weight), biases, strict=True))


class DenseApart(Dense):
    """Linear where each site has a weight of its own, on the rows of all sites one after the other."""

    sites: Sequence[tuple[int, Tensor, Tensor | None]] = ()

    def run(self, x: Tensor) -> Tensor:
        """See :class:`~fedgen.dpsgd.layers.Layer`."""
        if x.dim() != 2 or len(x) != sum(size for size, _, _ in self.sites):  # noqa: PLR2004 - (B, features)
            raise self.refusal(
                "does not see exactly the rows of the sites", "give it one vector for each row"
            )
        y: Tensor = _Products.apply(x, self.sites)  # type: ignore[no-untyped-call] # torch leaves it untyped
        return y


class _Products(torch.autograd.Function):
    """``x_s W_sᵀ + b_s`` for the rows of every site, and back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sites: Sequence[tuple[int, Tensor, Tensor | None]]) -> Tensor:
        """Return the outputs of all rows."""
        ctx.sites = sites
        parts = _parts(x, [size for size, _, _ in sites])
        return torch.cat(
            [
                nn.functional.linear(part, weight, bias)
                for part, (_, weight, bias) in zip(parts, sites, strict=True)
            ]
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the gradient at the inputs of all rows."""
        parts = _parts(gradients[0], [size for size, _, _ in ctx.sites])
        products = [part @ weight for part, (_, weight, _) in zip(parts, ctx.sites, strict=True)]
        return torch.cat(products), None


class _Pass:
    """One way through the module: its tape, what is proved about it, and how its rows are weighed."""

    def __init__(self, flat: FlatParameters, tape: Tape) -> None:
        self.tape = tape
        self._sums = ClippedSums(flat, tape)
        self._proof = Proof(flat, tape)

    def weigh(
        self, loss: Callable[[Tensor], Tensor], rows: Tensor, sizes: Sequence[int], bounds: float | Tensor
    ) -> tuple[list[tuple[int, Outer]], Tensor, Tensor | None]:
        """Return each layer's term, every row's coefficient, and which rows are finite, or None for all."""
        with torch.enable_grad():
            losses = self.tape.run(loss, rows)
            check_losses(losses, len(rows))
            used = self.tape.used(len(rows))
            if self._proof.pending:
                # Half of each site against the other half: sites must not mix, and neither must rows within one.
                some = torch.cat([torch.arange(size) < size // 2 for size in sizes])
                self._proof.check(losses, used, some.to(losses.device))
            passed = passed_through(losses, used)
        self._refuse_positions(passed)
        with torch.no_grad():
            losses = losses.detach()
            if not passed:
                return [], losses, losses.isfinite()
            indices = [k for k, _, _ in passed]
            terms, c, good = self._sums.weigh(losses, passed, bounds)
        outer = [(k, term) for k, term in zip(indices, terms, strict=True) if isinstance(term, Outer)]
        return outer, c, good

    def clear(self) -> None:
        """Forget the run."""
        self.tape.clear()
        self._proof.forget()

    def _refuse_positions(self, passed: Sequence[Passed]) -> None:
        """Raise ``ConfigError`` for a layer that sees more than one vector per row."""
        for k, x, _ in passed:
            if x.dim() != 2:  # noqa: PLR2004 - (B, features)
                raise ConfigError(
                    f"layer {self.tape.layers[k].name!r} sees more than one vector per row",
                    hint="run the sites one by one",
                )


def _keep_freed_memory() -> None:
    """Let the C library keep what a step frees, or each step maps and clears thousands of pages again.

    glibc returns memory to the system above a threshold that rises to twice the largest block ever freed, up to 64 MB.
    The block is never touched; elsewhere nothing happens. A tenth of a step's time for a few dozen sites.
    """
    torch.empty(2**24, dtype=torch.uint8)


def _parts(rows: Tensor, sizes: Sequence[int]) -> Sequence[Tensor]:
    """Return the rows of each site."""
    parts: Sequence[Tensor] = rows.split(list(sizes))  # type: ignore[no-untyped-call] # torch leaves it untyped
    return parts
