"""Nearer to the people trained on: by hand, fair to ties, and by person where people are known."""

from __future__ import annotations

import numpy as np
import pytest

from fedgen.audit import nearer as module
from fedgen.audit.nearer import Nearer, People, nearer
from fedgen.audit.neighbours import euclidean

SEARCH = euclidean(255)


def column(*codes: int) -> np.ndarray:
    return np.array(codes, dtype=np.uint8)[:, None]


def judge(
    queries: np.ndarray, real: np.ndarray, holdout: np.ndarray, people: People | None = None, seed: int = 0
) -> Nearer:
    return nearer(queries, real, holdout, SEARCH, np.random.default_rng(seed), people=people)


def people(training: list[object], holdout: list[object]) -> People:
    return People(np.array(training), np.array(holdout))


def test_all_near_training_and_all_near_held_out() -> None:
    real, holdout = column(*range(40)), column(*range(200, 240))
    assert judge(real, real, holdout).value == 1
    assert judge(holdout, real, holdout).value == 0


def test_the_band_by_hand() -> None:
    """Four rows, each nearest to one query: every half has the share one half, so the band has no width."""
    even = judge(column(0, 10, 200, 210), column(0, 10), column(200, 210))
    assert (even.value, even.chance_low, even.chance_high) == (0.5, 0.5, 0.5)
    # All queries nearest to one row of four: half of all halves hold it, the variance is one quarter.
    lone = judge(column(0, 0, 0, 0), column(0, 10), column(200, 210))
    assert (lone.value, lone.chance_low, lone.chance_high) == (1, 0, 1)


def test_ties_are_fair() -> None:
    same = column(*range(60))
    values = [judge(same, same, same, seed=seed).value for seed in range(60)]
    assert abs(np.mean(values) - 0.5) < 0.05  # standard error 0.5 / sqrt(60 * 60) = 0.008


def test_one_row_each_says_nothing() -> None:
    found = judge(column(0), column(0), column(9))
    assert (found.chance_low, found.chance_high, found.of) == (0, 1, 1)


def test_sides_have_as_many_people_whatever_their_rows() -> None:
    real, holdout = column(*range(30)), column(*range(100, 130))
    known = people([i // 10 for i in range(30)], [f"p{i // 3}" for i in range(30)])
    found = judge(np.concatenate([real, holdout]), real, holdout, known)
    assert found.people
    assert not judge(real, real, holdout).people
    assert found.value == pytest.approx(0.5, abs=0.06)
    # Three people of training and three of ten held out: the band is that of six people.
    assert found.chance_high - found.chance_low > 0.2


def test_rows_of_one_person_do_not_look_like_memorising() -> None:
    """600 people trained on and 120 held out, 8 rows each; the negative control forgets whose rows they are."""
    rng = np.random.default_rng(3)
    size = 8

    def cohort(n: int) -> np.ndarray:
        return np.repeat(rng.integers(0, 256, (n, 6)), size, axis=0).astype(np.uint8)

    real, holdout, fresh = cohort(600), cohort(120), cohort(250)[::size]
    known = people([i // size for i in range(len(real))], [i // size for i in range(len(holdout))])
    honest = judge(fresh, real, holdout, known)
    assert honest.chance_low < honest.value < honest.chance_high
    forgotten = judge(fresh, real, holdout)
    assert forgotten.value > forgotten.chance_high


def test_copies_are_seen_by_person_too() -> None:
    rng = np.random.default_rng(4)
    real, holdout = (np.repeat(rng.integers(0, 256, (n, 6)), 4, axis=0).astype(np.uint8) for n in (300, 100))
    known = people([i // 4 for i in range(1200)], [i // 4 for i in range(400)])
    found = judge(real[::4], real, holdout, known)
    assert found.value > found.chance_high


def test_people_must_match_the_rows() -> None:
    with pytest.raises(ValueError, match="one person for each"):
        judge(column(0), column(0, 1), column(2), people(["a"], ["b"]))


def test_many_rows_are_cut_by_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_REFERENCE", 20)
    seen: list[int] = []

    def search(queries: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append(len(reference))
        return SEARCH(queries, reference)

    real, holdout = column(*range(100)), column(*range(100, 200))
    known = people([i // 5 for i in range(100)], [i // 5 for i in range(100)])
    nearer(real, real, holdout, search, np.random.default_rng(0), people=known)
    assert seen == [40]  # four people of five rows on each side
