"""What a learner bounds as a whole, and what it says it did: persons, sites, and its own count."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from fedgen.dpsgd.noise import NoiseSource
from fedgen.dpsgd.persons import PersonIndex
from fedgen.errors import Code, IntegrityError
from fedgen.models.options import ModelOptions
from fedgen.models.registry import build
from fedgen.privacy.units import Unit
from fedgen.schema.layout import ImageLayout, TableLayout
from fedgen.training.learner import Learner, Persons
from fedgen.training.tally import Tally

TABLE = TableLayout(cardinalities=(10, 3, 2), ordered=(True, False, False), label=2)
IMAGE = ImageLayout(height=8, width=8, channels=1, max_value=4, classes=2)
MODELS: dict[str, tuple[Any, ModelOptions]] = {
    "tabular-vae": (TABLE, ModelOptions(latent=2, hidden=(4,))),
    "tabular-gan": (TABLE, ModelOptions(latent=2, hidden=(4,), generator=(4,))),
    "image-vae": (IMAGE, ModelOptions(latent=2, hidden=(4,))),
    "image-gan": (IMAGE, ModelOptions(latent=2, hidden=(2, 3), generator=(3, 2))),
}
ENGINES = ["fused", "opacus"]
CLIP = 0.3


def _learner(unit: Unit, name: str = "tabular-vae", engine: str = "fused") -> Learner:
    layout, options = MODELS[name]
    model = build(name, layout, options, seed=1)
    return Learner(model, clip=CLIP, engine=engine, fake_batch=6, unit=unit)


def _rows(name: str, n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, k, n) for k in MODELS[name][0].cardinalities], axis=1).astype(np.uint8)


def _persons(people: list[int], k: int) -> Persons:
    return Persons(PersonIndex.of(np.array(people)), rows_each=k)


def _sum(learner: Learner, codes: np.ndarray, persons: Persons | None, **changes: Any) -> torch.Tensor:
    out = torch.zeros(learner.parameters)
    settings: dict[str, Any] = {
        "rate": 1.0,
        "noise_std": 0.0,
        "noise": NoiseSource.insecure(7),
        "generator": torch.Generator().manual_seed(0),
    }
    learner.add_noised_sum_(out, codes, persons=persons, **{**settings, **changes})
    return out


def _far(learner: Learner) -> None:
    """Move weights far from their start, so that gradients are far above the clip."""
    with torch.no_grad():
        for module in (learner.private, learner.public):
            if module is not None:
                module.vector.mul_(20)


# -- persons ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("rows", "k"), [(1, 4), (4, 4), (30, 4), (30, 30), (3, 1)])
def test_a_person_moves_the_sum_by_at_most_the_clip(name: str, engine: str, rows: int, k: int) -> None:
    learner = _learner(Unit.PERSON, name, engine)
    _far(learner)
    same = np.repeat(_rows(name, 1), rows, axis=0)  # rows that pull in one direction, as far as they can
    moved = float(_sum(learner, same, _persons([0] * rows, k)).double().norm())
    assert moved <= CLIP * (1 + 1e-6)
    assert moved > 0.5 * CLIP


def test_the_control_is_clipping_row_by_row() -> None:
    rows = np.repeat(_rows("tabular-vae", 1), 30, axis=0)
    by_row = _learner(Unit.RECORD)
    _far(by_row)
    assert float(_sum(by_row, rows, None).norm()) > 10 * CLIP


def test_a_person_with_one_row_counts_as_much_as_one_with_many() -> None:
    learner = _learner(Unit.PERSON)
    _far(learner)
    one = _rows("tabular-vae", 1)
    many = np.repeat(one, 5, axis=0)
    first = float(_sum(learner, one, _persons([0], 5)).norm())
    second = float(_sum(learner, many, _persons([0] * 5, 5)).norm())
    assert second == pytest.approx(first, rel=0.2), "latents differ, the weight of her voice does not"


def test_everybody_with_one_row_is_as_if_rows_were_protected() -> None:
    codes = _rows("tabular-vae", 12)
    persons = _sum(_learner(Unit.PERSON), codes, _persons(list(range(12)), 3), rate=0.5)
    records = _sum(_learner(Unit.RECORD), codes, None, rate=0.5)
    torch.testing.assert_close(persons, records)


def test_a_person_withdrawn_from_the_index_leaves_rate_and_noise_alone() -> None:
    codes = _rows("tabular-vae", 12)
    for people, rows in (([0] * 6 + [1] * 6, codes), ([0] * 6, codes[:6])):
        learner = _learner(Unit.PERSON)
        learner.load_all_(learner.all_values())
        _sum(learner, rows, _persons(people, 3), rate=0.25, noise_std=0.7)
        done = learner.evidence()
        assert (done.steps, done.q, done.noise_std, done.clip) == (1, 0.25, 0.7, CLIP)


def test_a_sum_that_does_not_bound_its_unit_is_refused() -> None:
    codes = _rows("tabular-vae", 4)
    with pytest.raises(ValueError, match="one person"):
        _sum(_learner(Unit.PERSON), codes, None)
    with pytest.raises(ValueError, match="one record"):
        _sum(_learner(Unit.RECORD), codes, _persons([0, 1, 2, 3], 2))
    with pytest.raises(ValueError, match="one site"):
        _sum(_learner(Unit.SITE), codes, None)
    for unit in (Unit.RECORD, Unit.PERSON):
        learner = _learner(unit)
        with pytest.raises(ValueError, match=f"one {unit.value}"):
            learner.noised_change(learner.all_values(), noise_std=1.0, noise=NoiseSource.insecure(1))
        with pytest.raises(ValueError, match=f"one {unit.value}"):
            learner.add_clear_sum_(
                torch.zeros(learner.parameters),
                codes,
                rate=1.0,
                noise=NoiseSource.insecure(1),
                generator=torch.Generator(),
            )


def test_an_index_of_other_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="index"):
        _sum(_learner(Unit.PERSON), _rows("tabular-vae", 4), _persons([0, 0, 1], 2))


# -- sites ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_site_moves_the_sum_by_at_most_the_clip_in_all_its_parameters_together(name: str) -> None:
    learner = _learner(Unit.SITE, name)
    start = learner.all_values()
    for far in (1.0, 1e6, 1e30):
        learner.load_all_(start + far)
        change = learner.noised_change(start, noise_std=0.0, noise=NoiseSource.insecure(1))
        assert change.shape == (learner.all_parameters,)
        assert CLIP * (1 - 1e-5) < float(change.double().norm()) <= CLIP


def test_a_change_that_is_not_finite_is_refused_and_not_counted() -> None:
    learner = _learner(Unit.SITE)
    start = learner.all_values()
    with torch.no_grad():
        learner.private.vector[0] = torch.nan
    with pytest.raises(IntegrityError) as caught:
        learner.noised_change(start, noise_std=1.0, noise=NoiseSource.insecure(1))
    assert caught.value.code is Code.NOT_FINITE
    assert learner.evidence().steps == 0


@pytest.mark.parametrize("engine", ENGINES)
def test_local_steps_of_a_site_are_plain_sums_without_the_rows_that_are_not_finite(engine: str) -> None:
    learner = _learner(Unit.SITE, engine=engine)
    _far(learner)
    codes = _rows("tabular-vae", 9)
    real = learner.model.private_loss
    learner.model.private_loss = lambda rows, generator: (  # type: ignore[method-assign]
        real(rows, generator) * torch.where(torch.arange(len(rows)) == 4, torch.nan, 1.0)
    )
    out = torch.zeros(learner.parameters)
    step = learner.add_clear_sum_(
        out, codes, rate=1.0, noise=NoiseSource.insecure(1), generator=torch.Generator().manual_seed(0)
    )
    assert (step.rows, step.dropped) == (9, 1)
    plain = torch.zeros(learner.parameters)
    losses = real(torch.from_numpy(codes.astype(np.int32)), torch.Generator().manual_seed(0))
    learner.private.add_gradient_(plain, losses[torch.arange(9) != 4].sum())
    torch.testing.assert_close(out, plain, rtol=1e-3, atol=1e-3 * float(plain.norm()))
    assert float(out.norm()) > 9 * CLIP, "no row is bounded"
    assert learner.evidence().steps == 0, "nothing that a plan charges was done yet"


# -- the count --------------------------------------------------------------------------------------


def test_the_count_is_of_what_was_done_since_weights_were_loaded() -> None:
    learner, codes = _learner(Unit.RECORD), _rows("tabular-vae", 5)
    assert learner.evidence().steps == 0
    for _ in range(3):
        _sum(learner, codes, None, rate=0.5, noise_std=2.0)
    done = learner.evidence()
    assert (done.unit, done.steps, done.q, done.clip, done.noise_std) == (Unit.RECORD, 3, 0.5, CLIP, 2.0)
    assert not done.private, "the noise came from a seed"
    learner.load_private_(learner.private.vector.detach().clone())
    assert learner.evidence().steps == 0
    _sum(learner, codes, None, noise=NoiseSource.secure())
    assert learner.evidence().private
    learner.load_all_(learner.all_values())
    assert learner.evidence().steps == 0


def test_of_settings_that_differ_the_evidence_has_the_one_that_reveals_most() -> None:
    tally = Tally(Unit.RECORD)
    tally.add(rate=0.1, clip=1.0, noise_std=3.0, private=True)
    tally.add(rate=0.3, clip=2.0, noise_std=1.0, private=False)
    tally.add(rate=0.2, clip=0.5, noise_std=2.0, private=True)
    done = tally.evidence()
    assert (done.steps, done.q, done.clip, done.noise_std, done.private) == (3, 0.3, 2.0, 1.0, False)
    assert math.isfinite(Tally(Unit.SITE).evidence().noise_std)


def test_an_empty_sample_is_a_step() -> None:
    learner = _learner(Unit.RECORD)
    _sum(learner, _rows("tabular-vae", 5)[:0], None, noise_std=1.0)
    assert learner.evidence().steps == 1


def test_a_sum_that_failed_is_no_step() -> None:
    learner = _learner(Unit.RECORD)
    learner.model.private_loss = lambda rows, _generator: rows.float()  # type: ignore[method-assign]
    with pytest.raises(Exception, match="shape"):
        _sum(learner, _rows("tabular-vae", 5), None)
    assert learner.evidence().steps == 0
