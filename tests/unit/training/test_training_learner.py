"""The learner: clipped sums with the noise that is charged, and nothing else that depends on a row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from fedgen.dpsgd.noise import NoiseSource
from fedgen.models.options import ModelOptions
from fedgen.models.registry import build
from fedgen.schema.layout import ImageLayout, TableLayout
from fedgen.training.learner import Learner, as_rows

TABLE = TableLayout(cardinalities=(10, 3, 2), ordered=(True, False, False), label=2)
IMAGE = ImageLayout(height=8, width=8, channels=1, max_value=4, classes=2)
MODELS: dict[str, tuple[Any, ModelOptions]] = {
    "tabular-vae": (TABLE, ModelOptions(latent=2, hidden=(4,))),
    "tabular-gan": (TABLE, ModelOptions(latent=2, hidden=(4,), generator=(4,))),
    "image-vae": (IMAGE, ModelOptions(latent=2, hidden=(4,))),
    "image-gan": (IMAGE, ModelOptions(latent=2, hidden=(2, 3), generator=(3, 2))),
}
NAMES = list(MODELS)
GANS = [name for name in NAMES if name.endswith("gan")]
ENGINES = ["fused", "opacus"]
CLIP = 0.3


def _learner(name: str = "tabular-vae", engine: str = "fused", clip: float = CLIP) -> Learner:
    layout, options = MODELS[name]
    return Learner(build(name, layout, options, seed=1), clip=clip, engine=engine, fake_batch=6)


def _rows(name: str, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    sizes = MODELS[name][0].cardinalities
    return np.stack([rng.integers(0, k, n) for k in sizes], axis=1).astype(np.uint8)


def _sum(learner: Learner, codes: np.ndarray, **changes: Any) -> Tensor:
    """Return one sum at rate one and without noise, unless told otherwise; repeatable."""
    out = torch.zeros(learner.parameters)
    settings: dict[str, Any] = {
        "rate": 1.0,
        "noise_std": 0.0,
        "noise": NoiseSource.insecure(7),
        "generator": torch.Generator().manual_seed(0),
    }
    learner.add_noised_sum_(out, codes, **{**settings, **changes})
    return out


# -- clipping ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NAMES)
def test_one_row_moves_the_clear_sum_by_at_most_the_clip(name: str, engine: str) -> None:
    learner = _learner(name, engine)
    with torch.no_grad():  # weights far from their start make gradients far above the clip
        for module in (learner.private, learner.public):
            if module is not None:
                module.vector.mul_(20)
    for seed in range(5):
        moved = float(_sum(learner, _rows(name, 1, seed)).norm())
        assert moved <= CLIP * (1 + 1e-6)
        assert moved > 0.9 * CLIP, "an unclipped gradient of this row is larger, so the bound is met"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NAMES)
def test_an_outlier_among_others_moves_the_sum_by_at_most_the_clip(
    name: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch draws other numbers for other batch sizes, so the latent stands still while a row comes and goes.
    for module in ("tabular_vae", "image_vae"):
        monkeypatch.setattr(f"fedgen.models.{module}.reparametrise", lambda mean, _spread, _generator: mean)
    learner = _learner(name, engine)
    common = _rows(name, 12, seed=3)
    real = learner.model.private_loss

    def loss(rows: Tensor, generator: torch.Generator) -> Tensor:
        scale = torch.ones(len(rows))
        scale[12:] = 1e6  # whatever comes after the common rows is a monster
        return real(rows, generator) * scale

    learner.model.private_loss = loss  # type: ignore[method-assign]
    without = _sum(learner, common)
    outlier = _rows(name, 1, seed=9)
    with_it = _sum(learner, np.concatenate([common, outlier]))
    moved = float((with_it - without).norm())
    assert moved <= CLIP * (1 + 1e-4)
    assert moved > 0.9 * CLIP
    assert float(without.norm()) > 0


@pytest.mark.parametrize("name", NAMES)
def test_both_engines_make_the_same_sum(name: str) -> None:
    codes = _rows(name, 9)
    fused, reference = (_sum(_learner(name, engine), codes) for engine in ENGINES)
    torch.testing.assert_close(fused, reference, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_rows_that_are_not_finite_are_dropped_and_counted(engine: str) -> None:
    learner = _learner("tabular-vae", engine)
    codes = _rows("tabular-vae", 8)
    real = learner.model.private_loss
    learner.model.private_loss = lambda rows, generator: (  # type: ignore[method-assign]
        real(rows, generator) * torch.where(torch.arange(len(rows)) < 3, torch.inf, 1.0)
    )
    out = torch.zeros(learner.parameters)
    step = learner.add_noised_sum_(
        out, codes, rate=1.0, noise_std=0.0, noise=NoiseSource.insecure(1), generator=torch.Generator()
    )
    assert (step.rows, step.dropped) == (8, 3)
    assert 0 < float(out.norm()) <= 5 * CLIP * (1 + 1e-6)
    assert bool(torch.isfinite(out).all())


# -- noise ------------------------------------------------------------------------------------------

ALPHA = 1e-6


def _p_value(noise: np.ndarray, std: float) -> float:
    statistic = float((noise.astype(np.float64) ** 2).sum()) / std**2
    return 2 * min(stats.chi2.cdf(statistic, len(noise)), stats.chi2.sf(statistic, len(noise)))


def _noise(std: float, steps: int) -> np.ndarray:
    """Return noised sums minus the same sums without noise, for the same sample."""
    learner = _learner()
    codes = _rows("tabular-vae", 40)
    parts = []
    for seed in range(steps):
        noised = _sum(learner, codes, noise_std=std, noise=NoiseSource.insecure(seed), rate=1.0)
        parts.append((noised - _sum(learner, codes)).numpy())
    return np.concatenate(parts)


@pytest.mark.statistical
def test_a_noised_sum_is_the_clipped_sum_and_noise_of_the_right_scale() -> None:
    """Chi-square test of variance, both errors 1e-6: 21,100 draws see a scale 5 % too small or too large."""
    noise = _noise(std=0.7, steps=100)
    assert len(noise) == 21_100
    assert _p_value(noise, 0.7) > ALPHA
    assert stats.kstest(noise / 0.7, "norm").pvalue > ALPHA
    for wrong in (0.95, 1.05):
        assert _p_value(noise * wrong, 0.7) < ALPHA, "the test sees noise that is 5 % off"
    assert stats.kstest(np.sign(noise) * np.sqrt(np.abs(noise)), "norm").pvalue < ALPHA, "and another shape"


def test_an_empty_sample_is_noise_only_and_the_step_still_counts() -> None:
    learner = _learner()
    nobody = _rows("tabular-vae", 0)
    one, two = (
        _sum(learner, rows, noise_std=1.0, rate=0.5, noise=NoiseSource.insecure(3))
        for rows in (nobody, nobody)
    )
    expected = torch.zeros(learner.parameters)
    NoiseSource.insecure(3).add_normal_(expected, 1.0)
    assert torch.equal(one, two)
    assert torch.equal(one, expected)


def test_a_sample_may_be_empty_though_there_are_rows() -> None:
    learner = _learner()
    out = torch.zeros(learner.parameters)
    seen = [
        learner.add_noised_sum_(
            out,
            _rows("tabular-vae", 5),
            rate=1e-9,
            noise_std=0.0,
            noise=NoiseSource.insecure(seed),
            generator=torch.Generator(),
        ).rows
        for seed in range(20)
    ]
    assert sum(seen) == 0
    assert float(out.abs().sum()) == 0


def test_noise_adds_to_what_is_there_already() -> None:
    learner = _learner()
    codes = _rows("tabular-vae", 3)
    out = torch.full((learner.parameters,), 5.0)
    learner.add_noised_sum_(
        out,
        codes,
        rate=1.0,
        noise_std=0.0,
        noise=NoiseSource.insecure(7),
        generator=torch.Generator().manual_seed(0),
    )
    torch.testing.assert_close(out - 5, _sum(learner, codes), atol=1e-5, rtol=0)


def test_under_central_trust_the_sum_of_the_sites_sums_is_the_sum_over_all_rows() -> None:
    codes = _rows("tabular-gan", 30)  # a critic's loss draws nothing, so its rows may be cut anywhere
    learner = _learner("tabular-gan")
    parts = sum(_sum(learner, part) for part in np.array_split(codes, 4))
    torch.testing.assert_close(parts, _sum(learner, codes), atol=1e-5, rtol=1e-5)


@pytest.mark.statistical
def test_every_row_is_drawn_at_the_rate() -> None:
    """Binomial, two-sided at 1e-6: 40,000 draws at rate 0.3 see a rate off by 0.023."""
    learner = _learner()
    codes = _rows("tabular-vae", 400)
    noise = NoiseSource.insecure(5)
    drawn = 0
    for _ in range(100):
        step = learner.add_noised_sum_(
            torch.zeros(learner.parameters),
            codes,
            rate=0.3,
            noise_std=0.0,
            noise=noise,
            generator=torch.Generator(),
        )
        drawn += step.rows
    assert stats.binomtest(drawn, 40_000, 0.3).pvalue > ALPHA
    assert stats.binomtest(drawn, 40_000, 0.323).pvalue < ALPHA


@pytest.mark.parametrize("wrong", [{"rate": 0.0}, {"rate": 1.1}, {"rate": float("nan")}, {"noise_std": -1.0}])
def test_settings_out_of_range_are_refused_and_nothing_is_added(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        _sum(_learner(), _rows("tabular-vae", 3), **wrong)


@pytest.mark.parametrize("clip", [0.0, -1.0, float("inf")])
def test_the_clip_is_positive(clip: float) -> None:
    with pytest.raises(ValueError, match="clip"):
        _learner(clip=clip)


# -- what no row touches ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", GANS)
def test_public_gradients_do_not_depend_on_any_row(name: str) -> None:
    fresh, used = _learner(name), _learner(name)
    for seed in range(3):
        _sum(used, _rows(name, 20, seed))
    for one in ("public_gradient", "generator_gradient"):
        parts = [getattr(learner, one)(torch.Generator().manual_seed(4)) for learner in (fresh, used)]
        assert torch.equal(*parts)
        assert float(parts[0].norm()) > 0


@pytest.mark.parametrize("name", GANS)
def test_public_gradients_move_nothing_but_what_they_are_of(name: str) -> None:
    learner = _learner(name)
    before = learner.all_values()
    critic = learner.public_gradient(torch.Generator().manual_seed(0))
    generator = learner.generator_gradient(torch.Generator().manual_seed(0))
    assert critic is not None
    assert generator is not None
    assert len(critic) == learner.parameters
    assert len(generator) == learner.all_parameters - learner.parameters
    assert torch.equal(learner.all_values(), before)
    assert all(parameter.grad is None for parameter in learner.model.parameters())


@pytest.mark.parametrize("name", [name for name in NAMES if name not in GANS])
def test_a_vae_has_nothing_public(name: str) -> None:
    learner = _learner(name)
    assert learner.public is None
    assert learner.public_gradient(torch.Generator()) is None
    assert learner.generator_gradient(torch.Generator()) is None
    assert learner.parameters == learner.all_parameters


# -- loading ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_loading_and_reading_all_weights_are_inverse(name: str) -> None:
    learner = _learner(name)
    values = torch.linspace(-1, 1, learner.all_parameters)
    learner.load_all_(values)
    assert torch.equal(learner.all_values(), values)
    assert torch.equal(learner.private.vector, values[: learner.parameters])
    flat = torch.cat([p.detach().reshape(-1) for p in learner.model.private.parameters()])
    assert torch.equal(flat, values[: learner.parameters]), "the module's own parameters moved"


@pytest.mark.parametrize("name", GANS)
def test_loading_the_private_weights_leaves_the_public_ones(name: str) -> None:
    learner = _learner(name)
    public = learner.all_values()[learner.parameters :]
    learner.load_private_(torch.zeros(learner.parameters))
    assert torch.equal(learner.all_values()[learner.parameters :], public)
    assert float(learner.private.vector.abs().sum()) == 0


def test_what_was_read_is_a_copy() -> None:
    learner = _learner()
    learner.all_values().zero_()
    assert float(learner.all_values().abs().sum()) > 0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, -1])
def test_weights_that_are_not_finite_are_refused_whole(value: float, place: int) -> None:
    learner = _learner("tabular-gan")
    before = learner.all_values()
    values = torch.zeros(learner.all_parameters)
    values[place] = value
    with pytest.raises(ValueError, match="finite"):
        learner.load_all_(values)
    assert torch.equal(learner.all_values(), before)


@pytest.mark.parametrize("size", [-1, 1])
def test_weights_of_another_length_are_refused(size: int) -> None:
    learner = _learner()
    before = learner.all_values()
    with pytest.raises(ValueError, match="shape"):
        learner.load_all_(torch.zeros(learner.all_parameters + size))
    assert torch.equal(learner.all_values(), before)


@pytest.mark.parametrize(
    ("kind", "wanted"), [(np.uint8, torch.uint8), (np.uint16, torch.int32), (np.int64, torch.int32)]
)
def test_codes_become_indices_without_change(kind: type, wanted: torch.dtype) -> None:
    codes = np.array([[0, 255], [7, 3]], dtype=kind)[:, ::-1]
    rows = as_rows(codes)
    assert rows.dtype == wanted
    np.testing.assert_array_equal(rows.numpy(), codes)
