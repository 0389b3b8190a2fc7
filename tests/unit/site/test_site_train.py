"""One round at one site: what is computed is what the plan charges."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.federation import Desk, small_rows, small_study

from fedgen.api.bench import new_learner
from fedgen.dpsgd.noise import NoiseSource
from fedgen.dpsgd.persons import PersonIndex
from fedgen.errors import Code, IntegrityError
from fedgen.site.admit import Admission, admit
from fedgen.site.rules import SiteRules
from fedgen.site.train import LocalUpdate, Rows, compute_update
from fedgen.training.learner import Learner, Persons, Step
from fedgen.training.optimizer import LearnerOptimizer

CODES = small_rows(200).codes


def _admission(**sections: Any) -> Admission:
    rules = SiteRules(name="site-01", min_cohort=1, consent_required=False, simulated=True)
    return admit(Desk(small_study(**sections)).invitation(), rules)


def _compute(admission: Admission, learner: Learner, seed: int = 5, codes: Any = CODES) -> LocalUpdate:
    gradient = admission.study.exchange == "gradient"
    first = new_learner(admission.study)
    weights = first.private.vector.detach().clone() if gradient else first.all_values()
    return compute_update(
        learner, admission, Rows(codes), weights, NoiseSource.insecure(seed), torch.Generator().manual_seed(0)
    )


def test_a_gradient_round_is_one_noised_sum_at_the_weights_that_were_sent() -> None:
    admission = _admission()
    learner = new_learner(admission.study)
    learner.load_private_(torch.ones(learner.parameters))
    update = _compute(admission, learner)
    oracle = new_learner(admission.study)
    expected = torch.zeros(oracle.parameters)
    oracle.add_noised_sum_(
        expected,
        CODES,
        rate=0.5,
        noise_std=1.0,
        noise=NoiseSource.insecure(5),
        generator=torch.Generator().manual_seed(0),
    )
    torch.testing.assert_close(update.vector, expected)
    assert update.dropped == 0


def test_a_gradient_round_leaves_the_weights_as_they_were_sent() -> None:
    admission = _admission()
    learner = new_learner(admission.study)
    _compute(admission, learner)
    assert torch.equal(learner.all_values(), new_learner(admission.study).all_values())


def test_an_update_round_is_the_change_after_its_steps() -> None:
    admission = _admission(training={"local_steps": 4})
    learner = new_learner(admission.study)
    before = learner.all_values()
    update = _compute(admission, learner)
    torch.testing.assert_close(before + update.vector, learner.all_values())
    assert 0 < float(update.vector.abs().max()) < 0.1


def test_a_site_carries_nothing_from_one_update_round_to_the_next() -> None:
    admission = _admission(training={"local_steps": 4})
    learner = new_learner(admission.study)
    first, second = _compute(admission, learner), _compute(admission, learner)
    assert torch.equal(first.vector, second.vector), "same seed, same weights, whatever happened before"


@pytest.mark.parametrize("rows", [1, 50, 200])
def test_the_noise_does_not_depend_on_how_many_rows_are_permitted(rows: int) -> None:
    admission = _admission(privacy={"noise_multiplier": 1e6})
    learner = new_learner(admission.study)
    spread = float(_compute(admission, learner, codes=CODES[:rows]).vector.std())
    assert spread == pytest.approx(1e6, rel=0.25), "211 draws: five sigma are 0.24"


def test_under_central_trust_nothing_is_added_to_the_sum() -> None:
    admission = _admission(privacy={"trust": "central", "noise_multiplier": 1e6})
    assert float(_compute(admission, new_learner(admission.study)).vector.norm()) <= 200


@pytest.mark.parametrize("wrong", [{"clip": 0.5}, {"clip": 2.0}, {"q": 0.25}, {"steps_per_round": 2}])
def test_an_engine_that_does_something_else_than_the_plan_sends_nothing(wrong: dict[str, float]) -> None:
    admission = _admission()
    learner = new_learner(admission.study)
    other = replace(admission, plan=replace(admission.plan, **wrong))
    with pytest.raises(IntegrityError) as error:
        _compute(other, learner)
    assert error.value.code is Code.FAULT


def test_rows_without_a_finite_gradient_are_counted_and_add_nothing() -> None:
    admission = _admission(privacy={"trust": "central"}, training={"sample_rate": 1.0})
    learner = new_learner(admission.study)
    whole = _compute(admission, learner)
    real = learner.model.private_loss

    def loss(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return real(rows, generator) * torch.where(rows[:, 0] == 0, torch.nan, 1.0)

    learner.model.private_loss = loss  # type: ignore[method-assign]
    update = _compute(admission, learner)
    assert update.dropped == int((CODES[:, 0] == 0).sum()) > 0
    assert bool(torch.isfinite(update.vector).all())
    assert not torch.equal(update.vector, whole.vector)


# -- persons and sites ------------------------------------------------------------------------------

PEOPLE = small_rows(200, each=4)
PERSON: dict[str, Any] = {"unit": "person", "rows_per_person": 3}


def _people() -> Rows:
    assert PEOPLE.subjects is not None
    person = np.unique(PEOPLE.subjects, return_inverse=True)[1]
    return Rows(PEOPLE.codes, Persons(PersonIndex.of(person), rows_each=3))


def _compute_rows(admission: Admission, learner: Learner, rows: Rows, seed: int = 5) -> LocalUpdate:
    gradient = admission.study.exchange == "gradient"
    first = new_learner(admission.study)
    weights = first.private.vector.detach().clone() if gradient else first.all_values()
    return compute_update(
        learner, admission, rows, weights, NoiseSource.insecure(seed), torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("local_steps", [1, 3])
def test_a_round_of_persons_is_charged_by_declared_persons(local_steps: int) -> None:
    admission = _admission(persons=10, privacy=PERSON, training={"local_steps": local_steps})
    assert admission.expected_batch == 5, "half of ten persons, whatever the rows are"
    update = _compute_rows(admission, new_learner(admission.study), _people())
    assert bool(torch.isfinite(update.vector).all())


def test_the_clear_sum_of_persons_is_at_most_a_clip_for_each() -> None:
    admission = _admission(
        privacy={**PERSON, "trust": "central", "clip": 1e-6}, training={"sample_rate": 1.0}
    )
    moved = float(_compute_rows(admission, new_learner(admission.study), _people()).vector.norm())
    assert moved <= 50 * 1e-6 * (1 + 1e-5), "fifty persons with four rows each"


def test_a_study_of_persons_gets_nothing_from_rows_without_persons() -> None:
    admission = _admission(privacy=PERSON)
    with pytest.raises(ValueError, match="one person"):
        _compute_rows(admission, new_learner(admission.study), Rows(PEOPLE.codes))


@pytest.mark.parametrize("local_steps", [1, 5])
def test_a_sites_whole_change_is_bounded_and_one_step_is_charged(local_steps: int) -> None:
    admission = _admission(
        privacy={"unit": "site", "trust": "central", "clip": 1e-3},
        training={"local_steps": local_steps, "optimizer": {"name": "sgd", "lr": 10.0}},
    )
    assert (admission.plan.q, admission.plan.steps_per_round, admission.study.exchange) == (1.0, 1, "update")
    learner = new_learner(admission.study)
    update = _compute_rows(admission, learner, Rows(CODES))
    assert len(update.vector) == learner.all_parameters
    assert 1e-3 * (1 - 1e-5) < float(update.vector.double().norm()) <= 1e-3
    assert learner.evidence().steps == 1


def test_under_local_trust_a_site_noises_its_whole_change_once() -> None:
    sections = {"training": {"local_steps": 7}}
    admission = _admission(privacy={"unit": "site", "noise_multiplier": 1e6}, **sections)
    spread = float(_compute_rows(admission, new_learner(admission.study), Rows(CODES)).vector.std())
    assert spread == pytest.approx(1e6, rel=0.25), "211 draws: five sigma are 0.24; seven steps add no more"


def test_a_site_that_diverges_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    admission = _admission(privacy={"unit": "site"})
    learner = new_learner(admission.study)
    real = LearnerOptimizer.step_

    def explode(self: LearnerOptimizer, mean: torch.Tensor, generator: torch.Generator) -> None:
        real(self, mean, generator)
        learner.private.vector[0] = torch.inf

    monkeypatch.setattr(LearnerOptimizer, "step_", explode)
    with pytest.raises(IntegrityError) as error:
        _compute_rows(admission, learner, Rows(CODES))
    assert error.value.code is Code.NOT_FINITE


# -- what the learner counted is what is held against the plan ---------------------------------------


class _LessNoise:
    """A source that says one thing and does another: the learner's caller asks for less."""

    def __init__(self, learner: Learner, share: float) -> None:
        real = learner.add_noised_sum_
        learner.add_noised_sum_ = lambda out, codes, *, noise_std, **more: real(  # type: ignore[method-assign]
            out, codes, noise_std=noise_std * share, **more
        )


@pytest.mark.parametrize("sections", [{}, {"privacy": PERSON}, {"training": {"local_steps": 3}}])
def test_a_learner_that_adds_less_noise_is_refused(sections: dict[str, Any]) -> None:
    admission = _admission(**sections)
    rows = _people() if "privacy" in sections else Rows(CODES)
    learner = new_learner(admission.study)
    assert _compute_rows(admission, learner, rows) is not None
    _LessNoise(learner, 0.99)
    with pytest.raises(IntegrityError) as error:
        _compute_rows(admission, learner, rows)
    assert error.value.code is Code.FAULT


@pytest.mark.parametrize("trust", ["local", "central"])
@pytest.mark.parametrize("share", [0.0, 2.0])
def test_a_learner_that_samples_at_another_rate_is_refused(trust: str, share: float) -> None:
    admission = _admission(privacy={"trust": trust}, training={"sample_rate": 0.25})
    learner = new_learner(admission.study)
    real = learner.add_noised_sum_

    def other(out: torch.Tensor, codes: Any, *, rate: float, **more: Any) -> Any:
        return real(out, codes, rate=rate * share or 1.0, **more)

    learner.add_noised_sum_ = other  # type: ignore[method-assign]
    with pytest.raises(IntegrityError):
        _compute_rows(admission, learner, Rows(CODES))


@pytest.mark.parametrize("times", [0, 2])
def test_a_learner_that_skips_or_repeats_a_step_is_refused(times: int) -> None:
    admission = _admission(training={"local_steps": 3})
    learner = new_learner(admission.study)
    real, calls = learner.add_noised_sum_, []

    def skipping(out: torch.Tensor, codes: Any, **more: Any) -> Step:
        calls.append(1)
        step = Step(rows=0, dropped=0)
        for _ in range(times if len(calls) == 2 else 1):
            step = real(out, codes, **more)
        return step

    learner.add_noised_sum_ = skipping  # type: ignore[method-assign]
    with pytest.raises(IntegrityError) as error:
        _compute_rows(admission, learner, Rows(CODES))
    assert error.value.code is Code.FAULT
    assert len(calls) == 3


def test_a_site_that_does_not_noise_its_change_is_refused() -> None:
    admission = _admission(privacy={"unit": "site"})
    learner = new_learner(admission.study)
    real = learner.noised_change
    learner.noised_change = lambda start, *, noise_std, noise: real(  # type: ignore[method-assign]
        start, noise_std=0.5 * noise_std, noise=noise
    )
    with pytest.raises(IntegrityError):
        _compute_rows(admission, learner, Rows(CODES))


def test_a_site_that_sends_its_change_unbounded_is_refused() -> None:
    admission = _admission(privacy={"unit": "site", "trust": "central"})
    learner = new_learner(admission.study)
    learner.noised_change = lambda start, **_more: learner.all_values() - start  # type: ignore[method-assign]
    with pytest.raises(IntegrityError):
        _compute_rows(admission, learner, Rows(CODES))


def test_a_learner_for_another_unit_is_refused() -> None:
    admission = _admission()
    other = new_learner(small_study(privacy={"unit": "site"}))
    with pytest.raises(ValueError, match="one site"):
        _compute_rows(admission, other, Rows(CODES))
