"""How often the copy alarm rings by chance, and what it sees.

The band of ``nearer_training`` is of 99 %, two-sided: a generator that memorises nothing is called near in about
1 case of 200. Over 300 honest draws the alarm count is then about Binomial(300, 0.005): seeing 10 or more has
probability 5e-6. The seeds are fixed, so the test gives one answer.
"""

from __future__ import annotations

import numpy as np
import pytest

from fedgen.audit.axes import Axis
from fedgen.audit.copies import copies
from fedgen.audit.nearer import Nearer, People
from fedgen.audit.neighbours import euclidean, gower

DRAWS = 300
AXES = tuple(Axis(f"x{i}", 12, ordered=i % 2 == 0, missing=False, labels=()) for i in range(5))


def _nearer(synthetic: np.ndarray, real: np.ndarray, holdout: np.ndarray, seed: int) -> Nearer:
    found = copies(real, synthetic, holdout, nearest=gower(AXES), measure="", seed=seed).nearer_training
    assert found is not None
    return found


def _rows(n: int, rng: np.random.Generator) -> np.ndarray:
    """Rows with repeats and a heavy middle, as in real tables."""
    return np.clip(rng.normal(6, 2, (n, 5)).round(), 0, 11).astype(np.uint8)


@pytest.mark.statistical
def test_honest_rows_seldom_ring_and_the_band_is_not_loose() -> None:
    rng = np.random.default_rng(20)
    found = [_nearer(_rows(200, rng), _rows(150, rng), _rows(80, rng), seed) for seed in range(DRAWS)]
    alarms = sum(f.value > f.chance_high for f in found)
    assert alarms < 10
    # A band twice too wide would leave the standard score at one half; its 99 % interval over 300 draws is ±0.11.
    scores = [(f.value - 0.5) / ((f.chance_high - 0.5) / 2.5758) for f in found]
    assert 0.85 < float(np.std(scores)) < 1.15
    assert abs(float(np.mean(scores))) < 0.25


@pytest.mark.statistical
def test_copied_rows_ring() -> None:
    """Negative control: one in five of 2,000 rows copied rings in each of 10 draws."""
    rng = np.random.default_rng(21)
    for seed in range(10):
        real, holdout, synthetic = _rows(1500, rng), _rows(1500, rng), _rows(2000, rng)
        pixels = euclidean(11)
        synthetic[:400] = real[:400]
        found = copies(real, synthetic, holdout, nearest=pixels, measure="", seed=seed).nearer_training
        assert found is not None
        assert found.value > found.chance_high


@pytest.mark.statistical
def test_people_with_several_rows_seldom_ring() -> None:
    """As the first test, with one to six rows a person: 10 or more alarms in 300 draws have probability 5e-6."""
    rng = np.random.default_rng(22)

    def cohort(people: int) -> tuple[np.ndarray, np.ndarray]:
        sizes = rng.integers(1, 7, people)
        return np.repeat(_rows(people, rng), sizes, axis=0), np.repeat(np.arange(people), sizes)

    alarms = 0
    for seed in range(DRAWS):
        (real, whose), (holdout, others) = cohort(80), cohort(40)
        found = copies(
            real,
            _rows(150, rng),
            holdout,
            nearest=gower(AXES),
            measure="",
            people=People(whose, others),
            seed=seed,
        )
        assert found.nearer_training is not None
        alarms += found.nearer_training.value > found.nearer_training.chance_high
    assert alarms < 10
