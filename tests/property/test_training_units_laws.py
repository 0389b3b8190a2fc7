"""Laws of the units: whatever her rows hold, a person moves the sum by at most C; and so does a whole site.

For every model and both engines. Latents stand still, for torch draws other numbers for other batch sizes.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgen.coordinator.aggregate import StreamingSum
from fedgen.dpsgd.noise import NoiseSource
from fedgen.dpsgd.persons import PersonIndex
from fedgen.models.options import ModelOptions
from fedgen.models.registry import build
from fedgen.privacy.units import Unit
from fedgen.schema.layout import ImageLayout, TableLayout
from fedgen.training.learner import Learner, Persons

TABLE = TableLayout(cardinalities=(10, 3, 2), ordered=(True, False, False), label=2)
IMAGE = ImageLayout(height=8, width=8, channels=1, max_value=4, classes=2)
MODELS: dict[str, tuple[Any, ModelOptions]] = {
    "tabular-vae": (TABLE, ModelOptions(latent=2, hidden=(4,))),
    "tabular-gan": (TABLE, ModelOptions(latent=2, hidden=(4,), generator=(4,))),
    "image-vae": (IMAGE, ModelOptions(latent=2, hidden=(4,))),
    "image-gan": (IMAGE, ModelOptions(latent=2, hidden=(2, 3), generator=(3, 2))),
}
seeds = st.integers(0, 2**31)


def _learner(name: str, unit: Unit, clip: float, engine: str = "fused") -> Learner:
    layout, options = MODELS[name]
    return Learner(build(name, layout, options, seed=1), clip=clip, engine=engine, fake_batch=4, unit=unit)


def _codes(name: str, n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, k, n) for k in MODELS[name][0].cardinalities], axis=1).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["fused", "opacus"])
@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=20, deadline=None)
@given(
    others=st.lists(st.integers(1, 3), max_size=5),
    hers=st.integers(1, 12),
    k=st.integers(3, 6),
    clip=st.floats(1e-3, 1e3),
    scale=st.sampled_from([1e-3, 1.0, 1e4]),
    alike=st.booleans(),
    seed=seeds,
)
def test_a_person_with_any_rows_moves_the_sum_by_at_most_the_clip(
    name: str,
    engine: str,
    others: list[int],
    hers: int,
    k: int,
    clip: float,
    scale: float,
    alike: bool,  # noqa: FBT001 - drawn by hypothesis
    seed: int,
) -> None:
    people = np.repeat(np.arange(len(others) + 1), [*others, hers])
    codes = _codes(name, len(people), seed)
    if alike:
        codes[-hers:] = codes[-1]
    learner = _learner(name, Unit.PERSON, clip, engine)
    with torch.no_grad():
        learner.private.vector.mul_(5.0)
    real = learner.model.private_loss
    learner.model.private_loss = lambda rows, generator: real(rows, generator) * scale  # type: ignore[method-assign]

    def total(rows: int) -> torch.Tensor:
        out = torch.zeros(learner.parameters)
        learner.add_noised_sum_(
            out,
            codes[:rows],
            rate=1.0,
            noise_std=0.0,
            noise=NoiseSource.insecure(seed),
            generator=torch.Generator(),
            persons=Persons(PersonIndex.of(people[:rows]), rows_each=k),
        )
        return out.double()

    with pytest.MonkeyPatch.context() as patch:
        for module in ("tabular_vae", "image_vae"):
            patch.setattr(f"fedgen.models.{module}.reparametrise", lambda mean, _spread, _generator: mean)
        moved = float((total(len(people)) - total(len(people) - hers)).norm())
    assert moved <= clip * (1 + 1e-5 * (1 + len(people))), "float32 rounding of the sum aside"


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=60, deadline=None)
@given(
    clip=st.floats(1e-6, 1e6),
    scale=st.sampled_from([0.0, 1e-9, 1e-3, 1.0, 1e6, 1e30]),
    spikes=st.integers(0, 3),
    sites=st.integers(1, 5),
    seed=seeds,
)
def test_a_site_moves_the_sum_by_at_most_the_clip(
    name: str, clip: float, scale: float, spikes: int, sites: int, seed: int
) -> None:
    learner = _learner(name, Unit.SITE, clip)
    start, rng = learner.all_values(), torch.Generator().manual_seed(seed)
    with_it, without = StreamingSum(len(start)), StreamingSum(len(start))
    for number in range(sites):
        far = torch.randn(len(start), generator=rng) * scale
        far[:spikes] = 3e37
        learner.load_all_(start + far)
        change = learner.noised_change(start, noise_std=0.0, noise=NoiseSource.insecure(seed))
        assert sum(Fraction(float(v)) ** 2 for v in change) <= Fraction(clip) ** 2, "exactly, in float32"
        for total in (with_it, without) if number else (with_it,):
            total.add(f"site-{number}", change.numpy().tobytes(), 1.0)
    moved = np.linalg.norm(with_it.finish().total - without.finish().total)
    assert moved <= clip * (1 + 1e-12 * sites)
