"""Integer noise: each bound against the divergence itself, summed over the integers from the probabilities."""

import math
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from scipy.special import gammaln, logsumexp

from fedgen.errors import ConfigError
from fedgen.privacy import _rdp, accountant
from fedgen.privacy.accountant import EpsilonCurve, Figure, epsilon, epsilon_rdp
from fedgen.privacy.budget import Ceiling, Request, Spent, decide, rounds_left
from fedgen.privacy.calibrate import allowed_steps, skellam_variance
from fedgen.privacy.estimate import Estimate, gaussian_estimate
from fedgen.privacy.events import Composed, Event, Gaussian, Laplace, PoissonGaussian, PoissonSkellam
from fedgen.privacy.integers import after_rounding, skellam_divergence
from fedgen.privacy.units import Relation

ADD, REPLACE = Relation.ADD_OR_REMOVE, Relation.REPLACE_ONE
WIDE = 2.0**16  # grid units to a clip norm
FINE = (0.02, (1.1 * WIDE) ** 2, WIDE, 808 * WIDE)  # as fine as a study's grid, 652,864 coordinates


@lru_cache(maxsize=64)
def log_pmf(variance: float, most: int) -> Any:
    """Log probabilities of 0, 1, ..., most: the sum over both Poisson numbers, no Bessel function to trust."""
    k = np.arange(most + 1)[:, None]
    j = np.arange(int(variance + 12 * math.sqrt(variance)) + 80)[None, :]
    return (
        logsumexp((2 * j + k) * math.log(variance / 2) - gammaln(j + 1) - gammaln(j + k + 1), axis=1)
        - variance
    )


def on_the_line(variance: float, shift: int, most: int) -> tuple[Any, Any]:
    """Log probabilities of the moved and of the plain noise on -most, ..., most."""
    log_p, k = log_pmf(variance, most + shift), np.arange(-most, most + 1)
    return log_p[np.abs(k - shift)], log_p[np.abs(k)]


def divergence(order: float, left: Any, right: Any) -> float:
    return float(logsumexp(order * left + (1 - order) * right) / (order - 1))


def mixed(q: float, with_it: Any, without: Any) -> Any:
    return np.logaddexp(math.log(q) + with_it, math.log1p(-q) + without)


def bound(variance: float, shift: float, order: float) -> float:
    return float(skellam_divergence(np.array([float(order)]), variance, shift, shift)[0])


@pytest.mark.parametrize("variance", [0.05, 0.5, 2.0, 10.0, 200.0])
@pytest.mark.parametrize("shift", [1, 2, 5])
def test_the_bound_lies_above_the_divergence_itself(variance: float, shift: int) -> None:
    for order in (2, 3, 8, 32):
        most = int(80 + 12 * math.sqrt(variance) + 6 * order * shift)
        exact = divergence(order, *on_the_line(variance, shift, most))
        assert exact <= bound(variance, shift, order)
        if variance == 200.0:
            assert bound(variance, shift, order) <= 1.2 * exact


def test_noise_that_is_too_small_does_not_pass_for_more() -> None:
    # Negative control: the bound of 2 % more noise lies below the divergence of what was drawn.
    exact = divergence(4, *on_the_line(200.0, 5, 600))
    assert bound(200.0, 5, 4) >= exact
    assert bound(204.0, 5, 4) < exact


def test_coordinates_add_up_within_the_l2_and_the_l1_norm() -> None:
    move = (3, 1, 1, 2)
    exact = sum(divergence(5, *on_the_line(20.0, step, 300)) for step in move)
    l2, l1 = math.sqrt(sum(step**2 for step in move)), float(sum(move))
    found = float(skellam_divergence(np.array([5.0]), 20.0, l2, l1)[0])
    assert exact <= found <= 1.2 * exact
    assert float(skellam_divergence(np.array([5.0]), 0.3, 1.0, 1e6)[0]) == bound(
        0.3, 1.0, 5.0
    )  # l1 <= l2² here


def curve_at(event: Event, order: int, relation: Relation = ADD) -> float:
    assert not isinstance(event, Composed)
    return float(_rdp.curve(event, relation)[_rdp.ORDERS.index(order)])


@pytest.mark.parametrize("q", [0.01, 0.3, 0.9])
@pytest.mark.parametrize(("variance", "shift"), [(0.5, 1), (4.0, 1), (60.0, 5), (900.0, 20)])
def test_a_sampled_step_is_bounded_in_both_directions(q: float, variance: float, shift: int) -> None:
    event = PoissonSkellam(q, variance, shift, shift)
    for order in (2, 3, 7, 16):
        with_it, without = on_the_line(
            variance, shift, int(80 + 12 * math.sqrt(variance) + 6 * order * shift)
        )
        mixture = mixed(q, with_it, without)
        worse, other = divergence(order, mixture, without), divergence(order, without, mixture)
        assert other <= worse * (1 + 1e-9)  # why one direction is enough
        assert worse <= curve_at(event, order)
        if variance == 900.0 and order <= 7:
            assert curve_at(event, order) <= 1.03 * worse


def test_the_worse_direction_is_the_worse_at_every_pair_of_points() -> None:
    # With a reflection that swaps both distributions, points come in pairs of probabilities (1, t) and (t, 1), and the
    # theorem is this inequality. Drawn over all rates, ratios and orders.
    draw = np.random.default_rng(5)
    order = 1 + np.exp(draw.uniform(-7, 7, 200_000))
    q, t = draw.uniform(0, 1, 200_000), np.exp(draw.uniform(-6, 6, 200_000))
    near, far = np.log1p(q * (t - 1)), np.log(q + (1 - q) * t)
    worse = np.logaddexp(order * near, order * far + (1 - order) * np.log(t))
    other = np.logaddexp((1 - order) * near, order * np.log(t) + (1 - order) * far)
    assert np.all(other <= worse + 1e-9)


@pytest.mark.parametrize(("q", "sigma"), [(0.01, 0.7), (0.2, 1.5), (1.0, 3.0), (0.5, 20.0)])
def test_a_fine_grid_costs_what_the_gaussian_costs_at_whole_orders(q: float, sigma: float) -> None:
    skellam = PoissonSkellam(q, (sigma * 2**20) ** 2, 2.0**20, 2.0**20)
    for order in (2, 5, 30):
        gaussian = curve_at(PoissonGaussian(q, sigma), order)
        assert gaussian * (1 - 1e-9) <= curve_at(skellam, order) <= gaussian * 1.0001


def test_symmetry_saves_the_factor_of_three_of_the_general_bound() -> None:
    found = epsilon([(PoissonSkellam(*FINE), 200)], 1e-5)
    assert found.accountant == "rdp"
    assert found.epsilon == pytest.approx(
        epsilon_rdp([(PoissonGaussian(0.02, 1.1), 200)], 1e-5).epsilon, rel=0.005
    )
    assert found.epsilon < 0.85 * 2.172  # what Zhu and Wang (2019), Theorem 5 gives for it


def test_whole_orders_agree_with_dp_accounting() -> None:
    import dp_accounting as dpa

    for q, sigma in ((0.01, 0.8), (0.3, 2.0)):
        accountant_ = dpa.rdp.RdpAccountant([2, 11, 63, 1024])
        accountant_.compose(dpa.PoissonSampledDpEvent(q, dpa.GaussianDpEvent(sigma)))
        found = [curve_at(PoissonGaussian(q, sigma), order) for order in (2, 11, 63, 1024)]
        assert found == pytest.approx(list(accountant_.rdp), rel=1e-8)


def test_replacing_a_record_is_bounded_and_never_below_the_truth() -> None:
    q, variance, shift = 0.2, 60.0, 5
    event = PoissonSkellam(q, variance, shift, shift)
    for order in (2, 4, 8):
        most = int(200 + 12 * order * shift)
        up, plain = on_the_line(variance, shift, most)
        exact = divergence(order, mixed(q, up, plain), mixed(q, up[::-1], plain))  # moved to either side
        assert curve_at(event, order) < exact <= curve_at(event, order, REPLACE)
        assert order > 2 or curve_at(event, order, REPLACE) <= 2 * exact
    whole = PoissonSkellam(1.0, variance, shift, shift)
    exact = divergence(3, *on_the_line(variance, 2 * shift, 400))
    assert exact <= curve_at(whole, 3, REPLACE) <= 1.2 * exact
    assert math.isfinite(
        epsilon_rdp([(PoissonGaussian(0.05, 2.0), 10), (event, 2)], 1e-5, relation=REPLACE).epsilon
    )


def test_mixed_work_has_one_figure_by_renyi() -> None:
    skellam = PoissonSkellam(*FINE)
    smooth: list[tuple[Event, int]] = [
        (PoissonGaussian(0.05, 1.4), 100),
        (Gaussian(8.0), 1),
        (Laplace(20.0), 1),
    ]
    alone, both = epsilon([(skellam, 200)], 1e-5), epsilon([*smooth, (skellam, 200)], 1e-5)
    assert epsilon(smooth, 1e-5).accountant == "pld"
    assert both.accountant == "rdp"
    assert both.interval is None
    assert both == epsilon_rdp([*smooth, (skellam, 200)], 1e-5)
    assert max(alone.epsilon, epsilon(smooth, 1e-5).epsilon) < both.epsilon
    assert both.epsilon < alone.epsilon + epsilon_rdp(smooth, 1e-5).epsilon
    total = sum(count * _rdp.curve(event, ADD) for event, count in [*smooth, (skellam, 200)])  # type: ignore[arg-type]
    best = min(
        value + math.log1p(-1 / order) - math.log(1e-5 * order) / (order - 1)
        for order, value in zip(_rdp.ORDERS, total, strict=True)
    )
    assert both.epsilon == pytest.approx(best, rel=1e-12)


def test_a_curve_of_integer_steps_ends_at_the_figure() -> None:
    curve = EpsilonCurve(PoissonSkellam(*FINE), 100, 1e-5, each=2)
    values = [curve.at(n) for n in range(0, 101, 5)]
    assert values == sorted(values)
    assert values[-1] == epsilon([(PoissonSkellam(*FINE), 200)], 1e-5).epsilon


def test_a_budget_search_computes_the_curve_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = _rdp._sampled
    monkeypatch.setattr(_rdp, "_sampled", lambda *args: made.append(1) or real(*args))
    for cached in (_rdp.curve, accountant._renyi, accountant._epsilon):
        cached.cache_clear()
    event = PoissonSkellam(0.031, 5e9, WIDE, 100 * WIDE)
    ceiling = Ceiling(3.0, 1e-5, "data")
    spent = Spent(((PoissonGaussian(0.05, 1.4), 50), (event, 3)))
    left = rounds_left(spent, Request(event, 2), [ceiling])
    decide(spent, Request(event, 2, left), [ceiling])
    for n in range(1, 200):
        epsilon([(event, n)], 1e-5)
    assert left > 10
    assert len(made) == 2  # one for each kind of event, whatever was asked


@pytest.mark.parametrize("relation", Relation)
@pytest.mark.parametrize(
    ("q", "steps", "target", "delta"),
    [(0.02, 200, 2.0, 1e-5), (1.0, 30, 1.0, 1e-6), (0.1, 1000, 8.0, 1e-5), (0.3, 1, 0.5, 1e-9)],
)
@pytest.mark.parametrize(("l2", "l1"), [(3.7, 8.0), (WIDE, 808 * WIDE)])
def test_calibrated_variance_is_tight_from_above(
    q: float, steps: int, target: float, delta: float, l2: float, l1: float, relation: Relation
) -> None:
    variance = skellam_variance(q, steps, target, delta, l2=l2, l1=l1, relation=relation)
    event = PoissonSkellam(q, variance, l2, l1)
    assert 0.995 * target <= epsilon([(event, steps)], delta, relation=relation).epsilon <= target
    assert steps <= allowed_steps((), event, target, delta, relation=relation) <= steps * 1.02 + 1


@pytest.mark.parametrize(
    ("l2", "l1", "q", "epsilon_", "word"),
    [
        (0.5, 2.0, 0.1, 1.0, "l2 must be"),
        (4.0, 2.0, 0.1, 1.0, "l2 must be"),
        (math.nan, 2.0, 0.1, 1.0, "finite"),
        (4.0, 8.0, 0.0, 1.0, "q must be"),
        (4.0, 8.0, 0.1, -1.0, "epsilon must be"),
    ],
)
def test_what_cannot_be_calibrated_on_the_integers_is_refused(
    l2: float, l1: float, q: float, epsilon_: float, word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        skellam_variance(q, 10, epsilon_, 1e-5, l2=l2, l1=l1)
    with pytest.raises(ConfigError, match="stays below the target"):
        skellam_variance(0.1, 1, 1e7, 1e-5, l2=4.0, l1=8.0)


def test_rounding_a_sum_moves_it_by_no_more_than_is_charged() -> None:
    draw = np.random.default_rng(3)
    for dimension in (1, 7, 400):
        worst = [0.0, 0.0]
        l2, l1 = after_rounding(12.0, dimension)
        for _ in range(200):
            before = draw.normal(size=dimension) * 50
            unit = draw.normal(size=dimension)
            unit *= 12.0 / np.linalg.norm(unit)
            same = draw.random(dimension)
            moved = np.floor(before + unit + same) - np.floor(before + same)
            worst = [max(worst[0], float(np.linalg.norm(moved))), max(worst[1], float(np.abs(moved).sum()))]
        assert worst[0] <= l2
        assert worst[1] <= l1
        assert dimension != 400 or worst[0] > 12.0  # negative control: without the allowance it is not true
    with pytest.raises(ValueError, match="dimension must be positive"):
        after_rounding(1.0, 0)


def test_an_estimate_cannot_be_taken_for_a_figure() -> None:
    work = [(Composed(((PoissonSkellam(*FINE), 100),)), 2)]
    found = gaussian_estimate(work, 1e-5)
    assert found.about == epsilon([(PoissonGaussian(0.02, 1.1), 200)], 1e-5).epsilon
    assert found.about < epsilon(work, 1e-5).epsilon
    assert "Gaussian" in found.basis
    assert not isinstance(found, Figure)
    assert not {"epsilon", "accountant", "interval"} & set(dir(found))
    for compared in (lambda: found < Estimate(9.0, 1e-5), lambda: found <= 3.0, lambda: float(found)):  # type: ignore[operator, arg-type]
        with pytest.raises(TypeError):
            compared()
    assert gaussian_estimate([(Gaussian(3.0), 2)], 1e-5).about == epsilon([(Gaussian(3.0), 2)], 1e-5).epsilon


def exact_epsilon(event: PoissonSkellam, steps: int, delta: float) -> float:
    """ε of one or two steps on the line by the hockey stick itself, the worse of both directions."""
    with_it, without = on_the_line(event.variance, int(event.l2), int(14 * math.sqrt(event.variance)) + 60)
    mixture = mixed(event.q, with_it, without) if event.q < 1 else with_it
    found = []
    for left, right in ((mixture, without), (without, mixture)):
        log_p, loss = left, left - right
        for _ in range(steps - 1):
            log_p, loss = np.add.outer(log_p, left).ravel(), np.add.outer(loss, left - right).ravel()
        low, high = 0.0, 40.0
        for _ in range(50):
            middle = (low + high) / 2
            above = loss > middle
            spent = float(np.sum(np.exp(log_p[above]) * -np.expm1(middle - loss[above])))
            low, high = (middle, high) if spent > delta else (low, middle)
        found.append(high)
    return max(found)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize(
    ("q", "variance", "shift"), [(1.0, 400.0, 10), (0.3, 100.0, 5), (0.1, 25.0, 5), (0.5, 30.0, 2)]
)
def test_the_figure_is_an_upper_bound_on_the_hockey_stick(
    q: float, variance: float, shift: int, steps: int
) -> None:
    event = PoissonSkellam(q, variance, shift, shift)
    exact = exact_epsilon(event, steps, 1e-5)
    assert exact <= epsilon([(event, steps)], 1e-5).epsilon <= 1.6 * exact
    assert gaussian_estimate([(event, steps)], 1e-5).about == pytest.approx(exact, rel=0.2)
    # Negative control: a figure for twice the noise that was drawn is no bound.
    assert epsilon([(PoissonSkellam(q, 4 * variance, shift, shift), steps)], 1e-5).epsilon < exact


def test_the_estimate_tends_to_the_truth_and_lies_on_either_side_of_it() -> None:
    gaps = []
    for shift in (1, 4, 16):
        event = PoissonSkellam(0.3, 4.0 * shift**2, shift, shift)
        gaps.append(gaussian_estimate([(event, 1)], 1e-5).about / exact_epsilon(event, 1, 1e-5) - 1)
    assert gaps[0] > 0.1
    assert abs(gaps[2]) < 0.01
    coarse = PoissonSkellam(1.0, 2.0, 1, 1)
    truth = exact_epsilon(coarse, 1, 0.1)
    assert gaussian_estimate([(coarse, 1)], 0.1).about < 0.97 * truth  # so it is no bound
    assert truth <= epsilon([(coarse, 1)], 0.1).epsilon


def test_noise_too_small_for_its_sensitivity_costs_more() -> None:
    enough = skellam_variance(0.05, 100, 2.0, 1e-5, l2=WIDE, l1=100 * WIDE)
    assert epsilon([(PoissonSkellam(0.05, 0.98 * enough, WIDE, 100 * WIDE), 100)], 1e-5).epsilon > 2.0
    assert epsilon([(PoissonSkellam(0.05, enough, 1.02 * WIDE, 102 * WIDE), 100)], 1e-5).epsilon > 2.0
