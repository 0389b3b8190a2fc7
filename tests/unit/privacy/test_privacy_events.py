import json
import math
from typing import Any

import pytest

from fedgen.messages import canonical
from fedgen.privacy.events import (
    Composed,
    Event,
    Gaussian,
    Laplace,
    PoissonGaussian,
    PoissonSkellam,
    from_json,
    merge,
    to_dp_event,
    to_json,
)

STEP = PoissonGaussian(0.05, 1.25)


@pytest.mark.parametrize(
    "event",
    [
        STEP,
        PoissonGaussian(1, 2),
        Gaussian(8.0),
        Laplace(20),
        PoissonSkellam(0.05, 2**40, 65536, 2.5e6),
        Composed(((STEP, 3), (PoissonSkellam(1, 9.5, 3, 4.5), 2), (Composed(((Gaussian(4.0), 2),)), 5))),
    ],
)
def test_json_and_back_is_the_same_event(event: Event) -> None:
    text = canonical(to_json(event))
    assert from_json(json.loads(text)) == event
    assert canonical(to_json(from_json(json.loads(text)))) == text


def test_an_integer_and_its_float_are_one_event() -> None:
    assert PoissonGaussian(1, 2) == PoissonGaussian(1.0, 2.0)
    assert canonical(to_json(Gaussian(3))) == canonical(to_json(Gaussian(3.0)))


@pytest.mark.parametrize("sigma", [0.0, -1.0, 0.009, 1.1e6, math.nan, math.inf])
def test_noise_that_no_accountant_can_work_with_is_refused(sigma: float) -> None:
    for make in (Gaussian, Laplace, lambda value: PoissonGaussian(0.1, value)):
        with pytest.raises(ValueError, match=r"sigma|scale"):
            make(sigma)


@pytest.mark.parametrize("q", [0.0, -0.1, 1.0000001, math.nan, math.inf])
def test_a_rate_outside_its_range_is_refused(q: float) -> None:
    with pytest.raises(ValueError, match="q must be"):
        PoissonGaussian(q, 1.0)


@pytest.mark.parametrize(
    ("q", "variance", "l2", "l1"),
    [
        (0.0, 100.0, 2.0, 4.0),
        (0.1, 0.0, 2.0, 4.0),
        (0.1, math.nan, 2.0, 4.0),
        (0.1, 2.0**125, 2.0**70, 2.0**70),
        (0.1, 100.0, 0.9, 4.0),
        (0.1, 100.0, 4.0, 2.0),
        (0.1, 100.0, 4.0, math.inf),
        (0.1, 1e-4, 2.0, 4.0),
        (0.1, 1e13, 1.0, 1.0),
    ],
)
def test_integer_noise_outside_its_ranges_is_refused(q: float, variance: float, l2: float, l1: float) -> None:
    with pytest.raises(ValueError, match=r"q must|variance must|l2 must|l1 must|noise over l2 must"):
        PoissonSkellam(q, variance, l2, l1)


def test_the_bytes_of_events_do_not_change() -> None:
    # A ledger keeps them for decades, and its hashes cover them.
    assert [
        canonical(to_json(event)).decode()
        for event in (STEP, Gaussian(8.0), Laplace(20.0), PoissonSkellam(0.05, 100.0, 2.0, 4.0))
    ] == [
        '{"kind":"poisson-gaussian","q":0.05,"sigma":1.25}',
        '{"kind":"gaussian","sigma":8.0}',
        '{"kind":"laplace","scale":20.0}',
        '{"kind":"poisson-skellam","l1":4.0,"l2":2.0,"q":0.05,"variance":100.0}',
    ]


@pytest.mark.parametrize("count", [0, -1, 1.5, True, 2**53 + 1])
def test_a_count_that_is_no_number_of_times_is_refused(count: Any) -> None:
    with pytest.raises(ValueError, match="count"):
        merge([(STEP, count)])
    with pytest.raises(ValueError, match="count"):
        Composed(((STEP, count),))


def test_compositions_are_bounded() -> None:
    with pytest.raises(ValueError, match="1 to 1024 parts"):
        Composed(())
    with pytest.raises(ValueError, match="1 to 1024 parts"):
        Composed(((STEP, 1),) * 1025)
    deep: Event = STEP
    for _ in range(4):
        deep = Composed(((deep, 1),))
    with pytest.raises(ValueError, match="4 deep"):
        Composed(((deep, 1),))


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "gaussian",
        {},
        {"kind": "gaussian"},
        {"kind": "gaussian", "sigma": "1"},
        {"kind": "gaussian", "sigma": True},
        {"kind": "gaussian", "sigma": math.nan},
        {"kind": "gaussian", "sigma": 10**400},
        {"kind": "gaussian", "sigma": 1.0, "more": 1},
        {"kind": "poisson-gaussian", "sigma": 1.0},
        {"kind": "laplacian", "scale": 1.0},
        {"kind": "poisson-skellam", "q": 0.1, "variance": 100.0, "l2": 2.0},
        {"kind": "poisson-skellam", "q": 0.1, "variance": 100.0, "l2": 4.0, "l1": 2.0},
        {"kind": ["gaussian"], "sigma": 1.0},
        {"kind": "composed", "parts": []},
        {"kind": "composed", "parts": {}},
        {"kind": "composed", "parts": [[{"kind": "gaussian", "sigma": 1.0}]]},
        {"kind": "composed", "parts": [[{"kind": "gaussian", "sigma": 1.0}, 0]]},
        {"kind": "composed", "parts": [[{"kind": "gaussian", "sigma": 1.0}, 1]] * 1025},
    ],
)
def test_what_is_not_exactly_an_event_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"event|sigma|q|count|finite|l1 at least"):
        from_json(value)


def test_hostile_nesting_is_refused_before_it_is_followed() -> None:
    value: dict[str, Any] = to_json(STEP)
    for _ in range(500):
        value = {"kind": "composed", "parts": [[value, 1]]}
    with pytest.raises(ValueError, match="4 deep"):
        from_json(value)


def test_merging_adds_equal_events_and_flattens_the_rest() -> None:
    nested = Composed(((STEP, 2), (Composed(((Gaussian(3.0), 1), (STEP, 1))), 4)))
    assert merge([(STEP, 5), (nested, 10), (STEP, 1)]) == ((Gaussian(3.0), 40), (STEP, 66))


def test_a_rate_of_one_is_the_plain_gaussian() -> None:
    assert merge([(PoissonGaussian(1.0, 2.0), 3), (Gaussian(2.0), 1)]) == ((Gaussian(2.0), 4),)


def test_dp_accounting_sees_the_same_event() -> None:
    import dp_accounting as dpa

    skellam = PoissonSkellam(1.0, 100.0, 2.0, 4.0)
    nested = Composed(((STEP, 3), (Laplace(20.0), 1), (PoissonGaussian(1.0, 2.0), 2), (skellam, 5)))
    assert to_dp_event(nested) == dpa.ComposedDpEvent(
        [
            dpa.SelfComposedDpEvent(dpa.PoissonSampledDpEvent(0.05, dpa.GaussianDpEvent(1.25)), 3),
            dpa.SelfComposedDpEvent(dpa.LaplaceDpEvent(20.0), 1),
            dpa.SelfComposedDpEvent(dpa.GaussianDpEvent(2.0), 2),
            dpa.SelfComposedDpEvent(dpa.ZCDpEvent(rho=0.0202, xi=0.0005), 5),
        ]
    )


def test_dp_accounting_bounds_integer_noise_no_lower_and_says_where_it_cannot() -> None:
    import dp_accounting as dpa

    from fedgen.privacy.accountant import epsilon

    whole = PoissonSkellam(1.0, 40_000.0, 20.0, 100.0)
    theirs = dpa.rdp.RdpAccountant(range(2, 64)).compose(to_dp_event(whole), 10).get_epsilon(1e-5)
    ours = epsilon([(whole, 10)], 1e-5).epsilon
    assert 0.999 * theirs <= ours <= theirs * (1 + 1e-12)
    sampled = to_dp_event(PoissonSkellam(0.1, 40_000.0, 20.0, 100.0))
    assert not dpa.rdp.RdpAccountant().supports(sampled)
    assert not dpa.pld.PLDAccountant().supports(sampled)
