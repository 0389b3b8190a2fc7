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
    from_json,
    merge,
    to_json,
)

SIGMA = st.floats(0.01, 1e6)
RATE = st.floats(0.0, 1.0, exclude_min=True)
SIMPLE = st.one_of(
    st.builds(PoissonGaussian, RATE, SIGMA), st.builds(Gaussian, SIGMA), st.builds(Laplace, SIGMA)
)


def composed(events: Any) -> Any:
    parts = st.lists(st.tuples(events, st.integers(1, 2**53)), min_size=1, max_size=3)
    return parts.map(lambda found: Composed(tuple(found)))


EVENT = st.one_of(SIMPLE, composed(SIMPLE), composed(composed(SIMPLE)))

# Figures are asked for moderate work only, so that each costs milliseconds.
STEP = st.builds(PoissonGaussian, st.floats(0.005, 0.9), st.floats(0.5, 20.0))
QUERY = st.one_of(STEP, st.builds(Gaussian, st.floats(0.7, 50.0)), st.builds(Laplace, st.floats(0.5, 50.0)))
WORK = st.lists(st.tuples(QUERY, st.integers(1, 50)), min_size=1, max_size=3)
DELTA = st.sampled_from([1e-3, 1e-5, 1e-8])
GRID = 1.006  # two figures may stand on grids that settled differently
FEW = settings(max_examples=12, deadline=None)


@given(EVENT)
def test_events_survive_json(event: Event) -> None:
    text = canonical(to_json(event))
    assert from_json(json.loads(text)) == event
    assert canonical(to_json(from_json(json.loads(text)))) == text


KEYS = st.sampled_from(["kind", "parts", "q", "sigma", "scale"]) | st.text()
LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["gaussian", "composed"])
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


@FEW
@given(WORK, DELTA)
def test_the_bound_is_at_most_the_renyi_bound(work: list[Any], delta: float) -> None:
    assert epsilon(work, delta).epsilon <= epsilon_rdp(work, delta).epsilon * GRID
