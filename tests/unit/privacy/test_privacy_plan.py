import dataclasses
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from fedgen.errors import Code, ConfigError, IntegrityError
from fedgen.privacy.accountant import epsilon
from fedgen.privacy.events import PoissonGaussian
from fedgen.privacy.plan import Evidence, NoisedUpdate, PrivacyPlan, sampling_rate
from fedgen.privacy.units import Relation, Trust, Unit


@dataclass(frozen=True)
class Spec:
    """The ``privacy`` section of a study."""

    unit: Unit = Unit.RECORD
    trust: Trust = Trust.LOCAL
    relation: Relation = Relation.ADD_OR_REMOVE
    epsilon: float | None = 3.0
    noise_multiplier: float | None = None
    delta: float = 1e-5
    clip: float = 0.5


def resolve(spec: Spec = Spec(), **changed: Any) -> PrivacyPlan:
    given: dict[str, Any] = {"q": 0.05, "rounds": 50, "steps_per_round": 4, "expected_batch": 32.0}
    return PrivacyPlan.resolve(spec, **{**given, **changed})


def test_a_plan_calibrates_its_noise_to_the_whole_study() -> None:
    plan = resolve()
    assert plan.epsilon_allowed == 3.0
    assert 0.995 * 3.0 <= plan.epsilon_of(50) <= 3.0
    assert plan.noise_std == plan.sigma * 0.5


def test_a_plan_takes_the_noise_it_is_given() -> None:
    plan = resolve(Spec(epsilon=None, noise_multiplier=1.1))
    assert plan.sigma == 1.1
    assert plan.epsilon_allowed is None


def test_the_charged_event_describes_the_sampler_and_the_noise_handed_out() -> None:
    plan = resolve()
    assert plan.event == PoissonGaussian(plan.q, plan.sigma)
    assert plan.event_per_round() == (plan.event, 4)
    assert plan.epsilon_of(7) == epsilon([(plan.event, 28)], plan.delta).epsilon


def test_epsilon_rises_from_nothing_and_goes_on_after_the_plan() -> None:
    plan = resolve()
    figures = [plan.epsilon_of(rounds) for rounds in (0, 1, 10, 49, 50, 60)]
    assert figures[0] == 0.0
    assert figures == sorted(figures)
    assert figures[-1] > figures[-2]
    with pytest.raises(ValueError, match="rounds must be at least zero"):
        plan.epsilon_of(-1)


def test_the_curve_of_a_plan_counts_in_rounds() -> None:
    plan = resolve()
    assert plan.curve().at(50) == plan.epsilon_of(50)
    assert plan.curve().at(10) >= plan.epsilon_of(10) * 0.995


@pytest.mark.parametrize(
    ("spec", "changed", "key"),
    [
        (Spec(epsilon=None), {}, "privacy.epsilon"),
        (Spec(noise_multiplier=1.0), {}, "privacy.epsilon"),
        (Spec(epsilon=0.0), {}, "privacy.epsilon"),
        (Spec(epsilon=-3.0), {}, "privacy.epsilon"),
        (Spec(epsilon=math.nan), {}, "privacy.epsilon"),
        (Spec(epsilon=1e9), {}, "privacy.epsilon"),
        (Spec(epsilon=None, noise_multiplier=0.0), {}, "privacy.noise_multiplier"),
        (Spec(epsilon=None, noise_multiplier=1e-9), {}, "privacy.noise_multiplier"),
        (Spec(epsilon=None, noise_multiplier=1e9), {}, "privacy.noise_multiplier"),
        (Spec(epsilon=None, noise_multiplier=math.nan), {}, "privacy.noise_multiplier"),
        (Spec(delta=0.0), {}, "privacy.delta"),
        (Spec(delta=1.0), {}, "privacy.delta"),
        (Spec(clip=0.0), {}, "privacy.clip"),
        (Spec(clip=math.inf), {}, "privacy.clip"),
        (Spec(), {"q": 1.5}, "privacy.epsilon"),
        (Spec(), {"rounds": 0}, "privacy.epsilon"),
        (Spec(trust=Trust.CENTRAL), {}, "training.local_steps"),
    ],
)
def test_an_impossible_study_is_refused_by_key(spec: Spec, changed: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(spec, **changed)
    assert caught.value.key == key


def test_central_trust_takes_one_step_a_round() -> None:
    assert resolve(Spec(trust=Trust.CENTRAL), steps_per_round=1).trust is Trust.CENTRAL


@pytest.mark.parametrize(
    "change",
    [
        {"delta": 0.0},
        {"clip": -1.0},
        {"q": 1.1},
        {"sigma": math.nan},
        {"steps_per_round": 0},
        {"rounds": 0},
        {"expected_batch": 0.0},
        {"epsilon_allowed": -1.0},
    ],
)
def test_a_plan_with_a_figure_out_of_range_cannot_be_made(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change)).removesuffix("_allowed")):
        replace(resolve(), **change)


def test_a_plan_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        resolve().sigma = 0.1  # type: ignore[misc]


def evidence(plan: PrivacyPlan, **changed: Any) -> Evidence:
    honest = Evidence(
        unit=plan.unit, steps=4, q=plan.q, clip=plan.clip, noise_std=plan.noise_std, private=True
    )
    return replace(honest, **changed)


def test_only_a_plan_makes_a_noised_update() -> None:
    plan = resolve()
    vector = np.zeros(3, np.float32)
    update = plan.noised(vector, evidence(plan))
    assert (update.event, update.count, update.private) == (plan.event, 4, True)
    assert update.vector is vector
    assert "mint" not in repr(update)
    with pytest.raises(TypeError, match=r"PrivacyPlan\.noised"):
        NoisedUpdate(vector, plan.event, 4, True, object())


def test_an_update_of_seeded_noise_says_so() -> None:
    plan = resolve()
    assert not plan.noised(None, evidence(plan, private=False)).private


@pytest.mark.parametrize(
    "change",
    [
        {"unit": Unit.PERSON},
        {"unit": Unit.SITE},
        {"steps": 5},
        {"steps": 3},
        {"q": 0.051},
        {"clip": 0.6},
        {"noise_std": 0.0},
        {"noise_std": math.nan},
        {"noise_std": math.inf},
    ],
)
def test_an_engine_that_did_something_else_is_refused(change: dict[str, Any]) -> None:
    plan = resolve()
    with pytest.raises(IntegrityError, match="what the plan charges") as caught:
        plan.noised(None, evidence(plan, **change))
    assert caught.value.code is Code.FAULT


def test_where_the_noise_comes_later_the_bound_is_checked_all_the_same() -> None:
    plan = resolve()
    plan.check_bounded(evidence(plan, noise_std=0.0))
    changes: list[dict[str, Any]] = [{"unit": Unit.SITE}, {"steps": 5}, {"q": 0.051}, {"clip": 0.6}]
    for change in changes:
        with pytest.raises(IntegrityError):
            plan.check_bounded(evidence(plan, **change))


def test_more_noise_than_charged_is_accepted_and_less_is_not() -> None:
    plan = resolve()
    assert plan.noised(None, evidence(plan, noise_std=plan.noise_std * 1.01))
    with pytest.raises(IntegrityError):
        plan.noised(None, evidence(plan, noise_std=plan.noise_std * 0.999))


def test_the_sampling_rate_is_batch_over_declared_size_and_at_most_one() -> None:
    assert sampling_rate(32, 640) == 0.05
    assert sampling_rate(32, 10) == 1.0
    for batch, declared in ((0, 10), (10, 0), (math.nan, 10), (10, math.inf)):
        with pytest.raises(ValueError, match=r"batch|declared"):
            sampling_rate(batch, declared)
