"""Persons are Poisson-sampled, by the learner itself: each with probability q, whatever rows she has and others do.

alpha is 1e-6 for every test. The controls are what people do instead: sampling rows, and a fixed number of persons.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch
from scipy import stats

from fedgen.dpsgd.noise import NoiseSource
from fedgen.dpsgd.persons import PersonIndex
from fedgen.models.options import ModelOptions
from fedgen.models.registry import build
from fedgen.privacy.units import Unit
from fedgen.schema.layout import TableLayout
from fedgen.training.learner import Learner, Persons

pytestmark = pytest.mark.statistical

ALPHA = 1e-6
PEOPLE, STEPS, RATE, MOST = 200, 600, 0.3, 8
LAYOUT = TableLayout(cardinalities=(256, 8, 2), ordered=(False, False, False), label=2)
EACH = 1 + np.arange(PEOPLE) % 6  # from one row to six
PERSON = np.repeat(np.arange(PEOPLE), EACH)
ROW = np.concatenate([np.arange(n) for n in EACH])
CODES = np.stack([PERSON, ROW, np.zeros_like(ROW)], axis=1).astype(np.uint8)


@lru_cache
def samples(unit: Unit, most: int = MOST) -> tuple[np.ndarray, ...]:
    """Return for each step how many rows of each person the model saw, shape ``(PEOPLE,)``."""
    model = build("tabular-vae", LAYOUT, ModelOptions(latent=1, hidden=(2,)), seed=1)
    learner = Learner(model, clip=1.0, engine="fused", fake_batch=1, unit=unit)
    seen: list[np.ndarray] = []
    real = model.private_loss

    def loss(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if len(seen) < done:
            seen.append(np.bincount(rows[:, 0].numpy(), minlength=PEOPLE))
        return real(rows, generator)

    model.private_loss = loss  # type: ignore[method-assign]
    noise, generator = NoiseSource.insecure(7), torch.Generator().manual_seed(0)
    persons = Persons(PersonIndex.of(PERSON), rows_each=most) if unit is Unit.PERSON else None
    for done in range(1, STEPS + 1):  # noqa: B007 - the loss reads it: one batch a step, the engine's proof aside
        learner.add_noised_sum_(
            torch.zeros(learner.parameters),
            CODES,
            rate=RATE,
            noise_std=1.0,
            noise=noise,
            generator=generator,
            persons=persons,
        )
    assert len(seen) == STEPS
    return tuple(seen)


def _two_sided(statistic: float, freedom: int) -> float:
    return 2 * min(float(stats.chi2.cdf(statistic, freedom)), float(stats.chi2.sf(statistic, freedom)))


def by_person(drawn: np.ndarray) -> float:
    """Whether every person is drawn with probability q: chi-square over persons; shape ``(STEPS, PEOPLE)``."""
    times = drawn.sum(axis=0)
    return _two_sided(float(((times - STEPS * RATE) ** 2).sum()) / (STEPS * RATE * (1 - RATE)), PEOPLE)


def by_step(drawn: np.ndarray) -> float:
    """Whether the number drawn has the spread of independent draws: chi-square over steps."""
    sizes = drawn.sum(axis=1)
    return _two_sided(float(((sizes - PEOPLE * RATE) ** 2).sum()) / (PEOPLE * RATE * (1 - RATE)), STEPS)


def test_every_person_is_drawn_with_the_same_probability_whatever_rows_she_has() -> None:
    drawn = np.array(samples(Unit.PERSON)) > 0
    assert by_person(drawn) > ALPHA
    for rows in range(1, 7):
        times = int(drawn[:, rows == EACH].sum())
        n = STEPS * int((rows == EACH).sum())
        assert stats.binomtest(times, n, RATE).pvalue > ALPHA


def test_persons_are_drawn_independently_of_one_another_and_of_the_step_before() -> None:
    drawn = np.array(samples(Unit.PERSON)) > 0
    assert by_step(drawn) > ALPHA
    both = int((drawn[:, ::2] & drawn[:, 1::2]).sum())
    assert stats.binomtest(both, drawn.size // 2, RATE**2).pvalue > ALPHA
    twice = int((drawn[1::2] & drawn[::2]).sum())
    assert stats.binomtest(twice, drawn.size // 2, RATE**2).pvalue > ALPHA


def test_a_person_who_is_drawn_comes_with_all_her_rows_up_to_the_limit() -> None:
    for most in (MOST, 3):
        for seen in samples(Unit.PERSON, most):
            assert set(seen[seen > 0] - np.minimum(EACH, most)[seen > 0]) <= {0}


def test_control_sampling_rows_is_seen() -> None:
    drawn = np.array(samples(Unit.RECORD)) > 0
    assert by_person(drawn) < ALPHA


def test_control_a_fixed_number_of_persons_is_seen() -> None:
    rng = np.random.default_rng(1)
    drawn = np.zeros((STEPS, PEOPLE), dtype=bool)
    for step in drawn:
        step[rng.permutation(PEOPLE)[: round(PEOPLE * RATE)]] = True
    assert by_person(drawn) > ALPHA, "each person alone is fine"
    assert by_step(drawn) < ALPHA


def test_control_persons_that_come_in_pairs_are_seen() -> None:
    drawn = np.random.default_rng(1).random((STEPS, PEOPLE // 2)).repeat(2, axis=1) < RATE
    assert by_step(drawn) < ALPHA
