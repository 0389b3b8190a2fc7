import math
from functools import lru_cache

import pytest
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr

from fedgen.privacy import _loss, accountant
from fedgen.privacy.accountant import EpsilonCurve, epsilon, epsilon_rdp
from fedgen.privacy.events import Composed, Event, Gaussian, Laplace, PoissonGaussian, merge
from fedgen.privacy.units import Relation

ADD, REPLACE = Relation.ADD_OR_REMOVE, Relation.REPLACE_ONE
STEP = PoissonGaussian(0.05, 1.0)

# Measured with dp_accounting 0.6 at δ = 1e-5 on a grid of 1e-3 (sigma, q, steps, PLD, RDP).
TABLE = [
    (0.6, 0.01, 1000, 7.434, 8.680),
    (0.8, 0.01, 1000, 3.141, 3.696),
    (1.0, 0.01, 1000, 1.829, 2.101),
    (1.5, 0.01, 1000, 0.919, 1.013),
    (2.0, 0.01, 1000, 0.624, 0.686),
    (0.6, 0.01, 5000, 15.626, 17.368),
    (1.0, 0.01, 5000, 4.204, 4.589),
    (2.0, 0.01, 5000, 1.482, 1.613),
    (0.6, 0.05, 200, 15.462, 17.530),
    (1.0, 0.05, 200, 4.766, 5.368),
    (2.0, 0.05, 200, 1.561, 1.721),
    (0.6, 0.05, 1000, 35.971, 40.969),
    (1.0, 0.05, 1000, 10.987, 12.017),
    (2.0, 0.05, 1000, 3.700, 4.024),
    (0.6, 0.10, 100, 20.574, 23.354),
    (1.0, 0.10, 100, 7.047, 7.904),
    (1.5, 0.10, 100, 3.536, 3.924),
    (2.0, 0.10, 100, 2.337, 2.581),
    (1.0, 0.10, 500, 16.562, 18.159),
    (2.0, 0.10, 500, 5.556, 6.035),
]


def exact_gaussian(mu: float, delta: float) -> float:
    """ε(δ) of a Gaussian mechanism of signal to noise mu: Balle and Wang (2018), Theorem 8."""

    def log_delta(value: float) -> float:
        left = float(log_ndtr(mu / 2 - value / mu))
        right = value + float(log_ndtr(-mu / 2 - value / mu))
        return left + math.log1p(-math.exp(min(right - left, -1e-300)))

    if float(ndtr(mu / 2) - ndtr(-mu / 2)) <= delta:
        return 0.0
    high = 1.0
    while log_delta(high) > math.log(delta):
        high *= 2
    return float(brentq(lambda value: log_delta(value) - math.log(delta), 1e-12, high, xtol=1e-12))


@pytest.mark.parametrize(("sigma", "q", "steps", "pld", "rdp"), TABLE)
def test_the_measured_table_is_met_to_one_percent(
    sigma: float, q: float, steps: int, pld: float, rdp: float
) -> None:
    work = [(PoissonGaussian(q, sigma), steps)]
    figure = epsilon(work, 1e-5)
    assert figure.accountant == "pld"
    assert figure.epsilon == pytest.approx(pld, rel=0.01)
    assert epsilon_rdp(work, 1e-5).epsilon == pytest.approx(rdp, rel=0.01)


@pytest.mark.parametrize(("sigma", "steps"), [(1.0, 1), (5.0, 100), (0.5, 1), (40.0, 10_000), (100.0, 1)])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-9])
def test_gaussian_steps_meet_the_closed_form_from_above(sigma: float, steps: int, delta: float) -> None:
    exact = exact_gaussian(math.sqrt(steps) / sigma, delta)
    for event in (Gaussian(sigma), PoissonGaussian(1.0, sigma)):
        assert exact * (1 - 1e-9) <= epsilon([(event, steps)], delta).epsilon <= exact * 1.01


def test_gaussians_of_different_noise_add_up_in_squares() -> None:
    exact = exact_gaussian(math.sqrt(3 / 2.0**2 + 10 / 7.0**2), 1e-6)
    assert exact <= epsilon([(Gaussian(2.0), 3), (Gaussian(7.0), 10)], 1e-6).epsilon <= exact * 1.01


def test_a_grid_composition_meets_the_closed_form_from_above() -> None:
    # A rate just under one takes the grid through 1,000 convolutions, and costs what a rate of one does.
    exact = exact_gaussian(math.sqrt(1000) / 30.0, 1e-5)
    assert exact <= epsilon([(PoissonGaussian(1 - 1e-12, 30.0), 1000)], 1e-5).epsilon <= exact * 1.01


def test_chunks_of_a_long_composition_meet_the_closed_form_from_above() -> None:
    exact = exact_gaussian(math.sqrt(100_000) / 300.0, 1e-6)
    assert exact <= epsilon([(PoissonGaussian(1 - 1e-12, 300.0), 100_000)], 1e-6).epsilon <= exact * 1.01


@pytest.mark.parametrize("scale", [0.5, 1.0, 20.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-6])
def test_one_laplace_query_meets_the_closed_form_from_above(scale: float, delta: float) -> None:
    exact = max(0.0, 1 / scale + 2 * math.log1p(-delta))
    assert exact * (1 - 1e-9) <= epsilon([(Laplace(scale), 1)], delta).epsilon <= exact * 1.01


@pytest.mark.parametrize(("q", "sigma"), [(0.1, 1.0), (0.01, 0.5), (0.5, 3.0)])
def test_one_subsampled_step_meets_the_closed_form_from_above(q: float, sigma: float) -> None:
    # Removing the record is the worse direction: δ(ε) = q·δ_G(log(1 + (e^ε - 1)/q)); Balle, Barthe, Gaboardi (2018).
    delta = 1e-5
    exact = math.log1p(q * math.expm1(exact_gaussian(1 / sigma, delta / q)))
    assert exact * (1 - 1e-9) <= epsilon([(PoissonGaussian(q, sigma), 1)], delta).epsilon <= exact * 1.01


def test_mixed_work_is_composed_in_one_account() -> None:
    work: list[tuple[Event, int]] = [
        (Gaussian(8.0), 1),
        (Laplace(20.0), 1),
        (PoissonGaussian(0.02, 1.1), 500),
        (PoissonGaussian(0.05, 1.4), 100),
    ]
    assert epsilon(work, 1e-5).epsilon == pytest.approx(3.001, rel=0.01)
    assert epsilon_rdp(work, 1e-5).epsilon == pytest.approx(3.323, rel=0.01)


def test_replacing_a_record_costs_a_gaussian_of_half_the_noise() -> None:
    exact = exact_gaussian(math.sqrt(50) / 10.0, 1e-5)
    assert exact <= epsilon([(Gaussian(20.0), 50)], 1e-5, relation=REPLACE).epsilon <= exact * 1.01
    assert epsilon_rdp([(Gaussian(20.0), 50)], 1e-5, relation=REPLACE) == epsilon_rdp(
        [(Gaussian(10.0), 50)], 1e-5
    )
    sampled = [(PoissonGaussian(0.05, 2.0), 100)]
    assert epsilon(sampled, 1e-5, relation=REPLACE).epsilon > epsilon(sampled, 1e-5).epsilon
    loose = epsilon_rdp(sampled, 1e-5, relation=REPLACE).epsilon
    assert epsilon(sampled, 1e-5, relation=REPLACE).epsilon < loose < math.inf
    laplace = epsilon([(Laplace(2.0), 1)], 1e-9, relation=REPLACE).epsilon
    assert laplace == pytest.approx(1.0, rel=0.01)


def test_no_work_costs_nothing() -> None:
    assert epsilon((), 1e-5).epsilon == 0.0
    assert epsilon_rdp((), 1e-5).epsilon == 0.0


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, 2.0, math.nan])
def test_a_delta_outside_its_range_is_refused(delta: float) -> None:
    for bound in (epsilon, epsilon_rdp):
        with pytest.raises(ValueError, match="delta must be"):
            bound([(STEP, 1)], delta)
    with pytest.raises(ValueError, match="delta must be"):
        EpsilonCurve(STEP, 10, delta)


def test_a_delta_below_fft_rounding_is_answered_by_renyi() -> None:
    figure = epsilon([(STEP, 10_000)], 1e-14)
    assert figure.accountant == "rdp"
    assert figure == epsilon_rdp([(STEP, 10_000)], 1e-14)


@pytest.mark.parametrize(
    ("event", "steps"),
    [
        (PoissonGaussian(0.1, 0.01), 100),
        (PoissonGaussian(1.0, 0.01), 3),
        (PoissonGaussian(1e-6, 0.05), 10),
        (PoissonGaussian(0.5, 1e6), 10),
        (Gaussian(1e6), 1),
        (Laplace(0.01), 3),
    ],
)
def test_extreme_noise_gives_a_bound_and_no_crash(event: Event, steps: int) -> None:
    figure = epsilon([(event, steps)], 1e-5).epsilon
    assert figure >= 0.0
    assert not math.isnan(figure)


@pytest.mark.parametrize("steps", [10**7, 10**9, 2**53])
def test_a_history_no_grid_can_hold_is_answered_by_renyi(steps: int) -> None:
    figure = epsilon([(PoissonGaussian(1e-7, 1.0), steps)], 1e-5)
    assert figure.accountant == "rdp"
    assert 0 < figure.epsilon < math.inf or steps == 2**53


@pytest.mark.parametrize(("sigma", "q", "steps"), [(0.3, 0.01, 100), (0.2, 0.1, 50)])
def test_an_order_that_dp_accounting_leaves_out_is_bounded_by_its_neighbours(
    sigma: float, q: float, steps: int
) -> None:
    import dp_accounting as dpa

    alone = dpa.rdp.RdpAccountant([1.5, 1.9]).compose(
        dpa.PoissonSampledDpEvent(q, dpa.GaussianDpEvent(sigma)), steps
    )
    ours = epsilon_rdp([(PoissonGaussian(q, sigma), steps)], 1e-5).epsilon
    assert epsilon([(PoissonGaussian(q, sigma), steps)], 1e-5).epsilon <= ours * 1.006
    assert ours <= alone.get_epsilon(1e-5)


def test_equal_events_are_merged_and_the_figure_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = _loss.pld_epsilon
    monkeypatch.setattr(_loss, "pld_epsilon", lambda *args: calls.append(args) or real(*args))
    event = PoissonGaussian(0.0123, 1.7)
    first = epsilon([(event, 3), (Composed(((event, 2),)), 5)], 1e-5)
    assert calls
    assert all(args[0] == ((event, 13),) for args in calls)
    done = len(calls)
    assert epsilon([(event, 6), (event, 7)], 1e-5) is first
    assert len(calls) == done


def test_the_grid_is_halved_until_the_figure_settles(monkeypatch: pytest.MonkeyPatch) -> None:
    # Negative control: begun on a grid forty times too coarse, the first figure is wrong by far more than 1 %.
    true = epsilon([(STEP, 321)], 1e-5)
    first = _loss.first_interval
    monkeypatch.setattr(_loss, "first_interval", lambda *args: 40 * first(*args))
    coarse = _loss.pld_epsilon(
        merge([(STEP, 321)]), 1e-5, _loss.first_interval(merge([(STEP, 321)]), ADD), ADD
    )
    assert coarse > 1.1 * true.epsilon
    accountant._epsilon.cache_clear()
    settled = epsilon([(STEP, 321)], 1e-5)
    accountant._epsilon.cache_clear()
    assert settled.epsilon == pytest.approx(true.epsilon, rel=0.01)
    assert settled.interval is not None
    assert settled.interval < coarse / 100


def test_the_cap_on_work_loosens_the_bound_and_never_lowers_it(monkeypatch: pytest.MonkeyPatch) -> None:
    work = [(PoissonGaussian(0.03, 1.1), 77)]
    true = epsilon(work, 1e-5).epsilon
    monkeypatch.setattr(_loss, "POINTS_MAX", 20)
    accountant._epsilon.cache_clear()
    capped = epsilon(work, 1e-5)
    accountant._epsilon.cache_clear()
    assert true <= capped.epsilon <= epsilon_rdp(work, 1e-5).epsilon


@lru_cache(maxsize=1)
def curve() -> EpsilonCurve:
    return EpsilonCurve(PoissonGaussian(0.02, 1.1), 200, 1e-5, each=4)


def test_a_curve_never_falls_and_bounds_every_figure_from_above() -> None:
    values = [curve().at(n) for n in range(201)]
    assert values == sorted(values)
    assert values[0] == 0.0
    assert values[-1] == epsilon([(PoissonGaussian(0.02, 1.1), 800)], 1e-5).epsilon
    for n in (1, 7, 60, 133):
        exact = epsilon([(PoissonGaussian(0.02, 1.1), 4 * n)], 1e-5).epsilon
        assert exact * 0.995 <= values[n] <= exact * 1.1
        assert curve()(n) == values[n]


def test_a_curve_is_close_to_exact_at_its_knots() -> None:
    assert len(curve().knots) <= 32
    assert curve().knots[-1] == 200
    for knot in curve().knots[::6]:
        exact = epsilon([(PoissonGaussian(0.02, 1.1), 4 * knot)], 1e-5).epsilon
        assert curve().at(knot) == pytest.approx(exact, rel=0.01)


def test_a_curve_costs_at_most_32_figures_and_none_before_it_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    real = _loss.pld_epsilon
    monkeypatch.setattr(_loss, "pld_epsilon", lambda *args: calls.append(args[0]) or real(*args))
    fresh = EpsilonCurve(PoissonGaussian(0.021, 1.9), 10_000, 1e-5)
    assert not calls
    for n in range(1, 10_001, 37):
        fresh.at(n)
    assert len(set(calls)) <= 32


def test_a_curve_goes_on_where_attempts_were_charged_again() -> None:
    assert curve().at(205) == epsilon([(PoissonGaussian(0.02, 1.1), 820)], 1e-5).epsilon
    with pytest.raises(ValueError, match="n must be at least zero"):
        curve().at(-1)
    with pytest.raises(ValueError, match="total must be positive"):
        EpsilonCurve(STEP, 0, 1e-5)
