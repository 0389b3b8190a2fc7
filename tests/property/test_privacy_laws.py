import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fedgen.messages import canonical
from fedgen.privacy.accountant import epsilon, epsilon_rdp
from fedgen.privacy.events import (
    Composed,
    Event,
    Gaussian,
    Laplace,
    PoissonGaussian,
    PoissonSkellam,
    from_json,
    merge,
    to_json,
)
from fedgen.privacy.units import Relation

SIGMA = st.floats(0.01, 1e6)
RATE = st.floats(0.0, 1.0, exclude_min=True)


@st.composite
def integer_steps(draw: Any, rate: Any = RATE, sigma: Any = SIGMA) -> PoissonSkellam:
    l2 = draw(st.floats(1.0, 2.0**20))
    return PoissonSkellam(draw(rate), (draw(sigma) * l2) ** 2, l2, l2 * draw(st.floats(1.0, 1e4)))


SIMPLE = st.one_of(
    st.builds(PoissonGaussian, RATE, SIGMA),
    st.builds(Gaussian, SIGMA),
    st.builds(Laplace, SIGMA),
    integer_steps(sigma=st.floats(0.011, 0.99e6)),
)


def composed(events: Any) -> Any:
    parts = st.lists(st.tuples(events, st.integers(1, 2**53)), min_size=1, max_size=3)
    return parts.map(lambda found: Composed(tuple(found)))


EVENT = st.one_of(SIMPLE, composed(SIMPLE), composed(composed(SIMPLE)))

# Figures are asked for moderate work only, so that each costs milliseconds.
STEP = st.builds(PoissonGaussian, st.floats(0.005, 0.9), st.floats(0.5, 20.0))
INTEGERS = integer_steps(st.floats(0.005, 1.0), st.floats(0.5, 20.0))
SMOOTH = st.one_of(STEP, st.builds(Gaussian, st.floats(0.7, 50.0)), st.builds(Laplace, st.floats(0.5, 50.0)))
QUERY = st.one_of(SMOOTH, INTEGERS)
WORK = st.lists(st.tuples(QUERY, st.integers(1, 50)), min_size=1, max_size=3)
DELTA = st.sampled_from([1e-3, 1e-5, 1e-8])
GRID = 1.006  # two figures may stand on grids that settled differently
FEW = settings(max_examples=12, deadline=None)


@given(EVENT)
def test_events_survive_json(event: Event) -> None:
    text = canonical(to_json(event))
    assert from_json(json.loads(text)) == event
    assert canonical(to_json(from_json(json.loads(text)))) == text


KEYS = st.sampled_from(["kind", "parts", "q", "sigma", "scale", "variance", "l2", "l1"]) | st.text()
KINDS = st.sampled_from(["gaussian", "composed", "poisson-skellam"])
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | KINDS
JSON = st.recursive(LEAF, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=12)


@given(JSON)
def test_reading_an_event_never_crashes(value: object) -> None:
    try:
        event = from_json(value)
    except ValueError:
        return
    assert from_json(json.loads(canonical(to_json(event)))) == event


@given(st.lists(st.tuples(EVENT, st.integers(1, 1000)), max_size=5), st.randoms(use_true_random=False))
def test_merging_forgets_order_and_grouping_and_nothing_else(work: list[Any], random: Any) -> None:
    merged = merge(work)
    shuffled = list(work)
    random.shuffle(shuffled)
    assert merge(shuffled) == merged
    assert sum(count for _, count in merged) == sum(count * _size(event) for event, count in work)
    if work:
        assert merge([(Composed(tuple(work[:2])), 1), *work[2:]]) == merged


def _size(event: Event) -> int:
    """How many simple events one event holds."""
    return sum(_size(part) * count for part, count in event.parts) if isinstance(event, Composed) else 1


@FEW
@given(WORK, DELTA, st.sampled_from(Relation))
def test_order_does_not_matter_and_replacing_never_costs_less(
    work: list[Any], delta: float, relation: Relation
) -> None:
    figure = epsilon(work, delta, relation=relation)
    assert figure == epsilon([*work[1:], work[0]], delta, relation=relation)
    assert epsilon(work, delta).epsilon <= figure.epsilon * GRID
    assert figure.accountant == "rdp" or not any(isinstance(event, PoissonSkellam) for event, _ in work)


@FEW
@given(INTEGERS, st.integers(1, 200), DELTA)
def test_more_integer_noise_a_smaller_rate_or_less_sensitivity_never_costs_more(
    step: PoissonSkellam, steps: int, delta: float
) -> None:
    base = epsilon([(step, steps)], delta).epsilon
    for easier in (
        PoissonSkellam(step.q, step.variance * 1.2, step.l2, step.l1),
        PoissonSkellam(step.q / 1.2, step.variance, step.l2, step.l1),
        PoissonSkellam(step.q, step.variance, max(1.0, step.l2 / 1.2), step.l1),
        PoissonSkellam(step.q, step.variance, step.l2, max(step.l2, step.l1 / 1.2)),
    ):
        assert epsilon([(easier, steps)], delta).epsilon <= base * (1 + 1e-12)
    assert base <= epsilon([(step, steps + 1)], delta).epsilon
    smooth = epsilon_rdp([(PoissonGaussian(step.q, step.sigma), steps)], delta).epsilon
    assert smooth <= base * (1 + 1e-9)


@FEW
@given(WORK, DELTA)
def test_more_work_never_costs_less(work: list[Any], delta: float) -> None:
    part, whole = epsilon(work[:-1], delta).epsilon, epsilon(work, delta).epsilon
    longer = epsilon([*work, work[0]], delta).epsilon
    assert part <= whole * GRID
    assert whole <= longer * GRID


@FEW
@given(WORK, DELTA)
def test_a_smaller_delta_never_costs_less(work: list[Any], delta: float) -> None:
    assert epsilon(work, delta).epsilon <= epsilon(work, delta / 10).epsilon * GRID


@FEW
@given(st.floats(0.005, 0.5), st.floats(0.5, 10.0), st.integers(1, 200), DELTA)
def test_more_noise_or_a_smaller_rate_never_costs_more(
    q: float, sigma: float, steps: int, delta: float
) -> None:
    base = epsilon([(PoissonGaussian(q, sigma), steps)], delta).epsilon
    assert epsilon([(PoissonGaussian(q, sigma * 1.2), steps)], delta).epsilon <= base * GRID
    assert epsilon([(PoissonGaussian(q / 1.2, sigma), steps)], delta).epsilon <= base * GRID


SMOOTH_WORK = st.lists(st.tuples(SMOOTH, st.integers(1, 50)), max_size=2)


@FEW
@given(SMOOTH_WORK, st.tuples(INTEGERS, st.integers(1, 50)), DELTA)
def test_integer_work_added_to_any_other_never_costs_less(work: list[Any], more: Any, delta: float) -> None:
    assert epsilon(work, delta).epsilon <= epsilon([*work, more], delta).epsilon * GRID


@FEW
@given(WORK, DELTA)
def test_the_bound_is_at_most_the_renyi_bound(work: list[Any], delta: float) -> None:
    assert epsilon(work, delta).epsilon <= epsilon_rdp(work, delta).epsilon * GRID
