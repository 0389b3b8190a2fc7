"""One round at one site: what is computed is what the plan charges."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from support.federation import Desk, small_rows, small_study

from fedgen.api.bench import new_learner
from fedgen.dpsgd.noise import NoiseSource
from fedgen.errors import Code, IntegrityError
from fedgen.site.admit import Admission, admit
from fedgen.site.rules import SiteRules
from fedgen.site.train import LocalUpdate, compute_update

if TYPE_CHECKING:
    from fedgen.training.learner import Learner

CODES = small_rows(200).codes


def _admission(**sections: Any) -> Admission:
    rules = SiteRules(name="site-01", min_cohort=1, consent_required=False, simulated=True)
    return admit(Desk(small_study(**sections)).invitation(), rules)


def _compute(admission: Admission, learner: Learner, seed: int = 5, codes: Any = CODES) -> LocalUpdate:
    gradient = admission.study.exchange == "gradient"
    first = new_learner(admission.study)
    weights = first.private.vector.detach().clone() if gradient else first.all_values()
    return compute_update(
        learner, admission, codes, weights, NoiseSource.insecure(seed), torch.Generator().manual_seed(0)
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
