import math
from decimal import Decimal
from typing import Any

import pytest

from fedgen.errors import ConfigError
from fedgen.privacy import _frontier, _loss, accountant, calibrate
from fedgen.privacy.accountant import epsilon
from fedgen.privacy.calibrate import allowed_steps, noise_multiplier
from fedgen.privacy.events import Event, Gaussian, Laplace, PoissonGaussian
from fedgen.privacy.units import Relation

CASES = [
    (0.05, 200, 3.0, 1e-5),
    (0.1, 100, 8.0, 1e-5),
    (0.3, 10, 20.0, 1e-5),
    (1.0, 50, 3.0, 1e-5),
    (0.02, 2000, 0.5, 1e-6),
    (0.05, 200, 0.01, 1e-5),
    (0.2, 1, 0.7, 1e-6),
    (0.01, 60, 1.0, 1e-7),
]


@pytest.mark.parametrize(("q", "steps", "target", "delta"), CASES)
def test_calibrated_noise_is_tight_from_above(q: float, steps: int, target: float, delta: float) -> None:
    sigma = noise_multiplier(q, steps, target, delta)
    spent = epsilon([(PoissonGaussian(q, sigma), steps)], delta).epsilon
    assert 0.995 * target <= spent <= target
    assert len(Decimal(repr(sigma)).normalize().as_tuple().digits) <= 5


def test_calibration_under_replacement_asks_for_more_noise() -> None:
    sigma = noise_multiplier(0.05, 100, 2.0, 1e-5, relation=Relation.REPLACE_ONE)
    spent = epsilon([(PoissonGaussian(0.05, sigma), 100)], 1e-5, relation=Relation.REPLACE_ONE).epsilon
    assert 0.995 * 2.0 <= spent <= 2.0
    assert sigma > noise_multiplier(0.05, 100, 2.0, 1e-5)


def test_noise_is_rounded_up_and_never_down() -> None:
    assert calibrate._rounded_up(1.23456001) == 1.2346
    assert calibrate._rounded_up(1.2345) == 1.2345
    assert calibrate._rounded_up(99999.1) == 100000.0


@pytest.mark.parametrize(
    ("q", "steps", "target", "delta", "word"),
    [
        (0.0, 10, 1.0, 1e-5, "q"),
        (1.5, 10, 1.0, 1e-5, "q"),
        (math.nan, 10, 1.0, 1e-5, "q"),
        (0.1, 0, 1.0, 1e-5, "steps"),
        (0.1, -3, 1.0, 1e-5, "steps"),
        (0.1, 10, 0.0, 1e-5, "epsilon"),
        (0.1, 10, -1.0, 1e-5, "epsilon"),
        (0.1, 10, math.inf, 1e-5, "epsilon"),
        (0.1, 10, 1.0, 0.0, "delta"),
        (0.1, 10, 1.0, 1.0, "delta"),
        (0.1, 10, 1.0, math.nan, "delta"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(
    q: float, steps: int, target: float, delta: float, word: str
) -> None:
    with pytest.raises(ValueError, match=f"^{word} must be"):
        noise_multiplier(q, steps, target, delta)


def test_a_target_that_needs_no_noise_is_refused() -> None:
    with pytest.raises(ConfigError, match="stays below the target"):
        noise_multiplier(0.1, 1, 1e5, 1e-5)
    with pytest.raises(ConfigError, match="stays below the target"):
        noise_multiplier(1e-7, 10, 1.0, 1e-5)  # δ alone covers every draw
    for next_to_never in (1e-12, 1e-160, 1e-170, 1e-300):  # the square of the rate underflows on the way
        with pytest.raises(ConfigError, match="stays below the target"):
            noise_multiplier(next_to_never, 10, 1.0, 1e-5)


def test_a_target_that_no_noise_meets_is_refused() -> None:
    with pytest.raises(ConfigError, match="is enough"):
        noise_multiplier(1.0, 10**6, 1e-6, 1e-9)


def test_calibration_asks_the_accountant_a_few_times_only(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = _loss.pld_epsilon
    monkeypatch.setattr(_loss, "pld_epsilon", lambda *args: calls.append(1) or real(*args))
    noise_multiplier(0.0417, 210, 3.0, 1e-5)
    assert 2 <= len(calls) <= 12
    before = len(calls)
    noise_multiplier(0.0417, 210, 3.0, 1e-5)
    assert len(calls) == before


@pytest.mark.parametrize(
    ("history", "event", "ceiling", "delta"),
    [
        ((), PoissonGaussian(0.05, 1.2901), 3.0, 1e-5),
        ((), PoissonGaussian(0.01, 1.0), 1.0, 1e-6),
        ((), Gaussian(10.0), 2.0, 1e-5),
        ((), Laplace(10.0), 1.0, 1e-6),
        (((Gaussian(8.0), 1), (PoissonGaussian(0.02, 1.1), 300)), PoissonGaussian(0.05, 1.4), 3.0, 1e-5),
    ],
)
def test_allowed_steps_fit_and_one_more_does_not(
    history: tuple[tuple[Event, int], ...], event: Event, ceiling: float, delta: float
) -> None:
    steps = allowed_steps(history, event, ceiling, delta)
    assert steps > 0
    assert epsilon([*history, (event, steps)], delta).epsilon <= ceiling
    assert epsilon([*history, (event, steps + 1)], delta).epsilon > ceiling


def test_steps_are_allowed_back_up_to_what_was_calibrated() -> None:
    sigma = noise_multiplier(0.05, 200, 3.0, 1e-5)
    assert 200 <= allowed_steps((), PoissonGaussian(0.05, sigma), 3.0, 1e-5) <= 204


def test_no_step_is_allowed_where_the_history_is_over_or_one_step_is_too_much() -> None:
    assert allowed_steps([(Gaussian(1.0), 1)], PoissonGaussian(0.01, 5.0), 0.5, 1e-5) == 0
    assert allowed_steps((), Gaussian(1.0), 0.5, 1e-5) == 0


def test_an_event_that_costs_nothing_at_this_delta_stops_at_ten_million(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_frontier, "epsilon_of", lambda *_, **__: accountant.Figure(0.0, 1e-5, "pld"))
    assert allowed_steps((), PoissonGaussian(1e-4, 77.0), 1.0, 1e-5) == 10**7


class Scripted:
    """An accountant whose figures a test writes; counts the questions."""

    def __init__(self, figure: Any) -> None:
        self.figure, self.asked = figure, []

    def __call__(self, work: Any, delta: float, *, relation: Relation) -> accountant.Figure:
        steps = sum(count for _, count in work)
        self.asked.append(steps)
        return accountant.Figure(self.figure(steps), delta, "pld")


def scripted_frontier(monkeypatch: pytest.MonkeyPatch, figure: Any, ceiling: float) -> tuple[Any, Scripted]:
    script = Scripted(figure)
    monkeypatch.setattr(_frontier, "epsilon_of", script)
    search = _frontier.Frontier((), PoissonGaussian(0.05, 1.0), ceiling, 1e-5, Relation.ADD_OR_REMOVE)
    return search, script


def test_a_run_that_fits_whole_costs_one_figure_however_many_rounds_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search, script = scripted_frontier(monkeypatch, lambda n: 0.1 * math.sqrt(n), 3.0)
    assert search.fits(800)
    assert all(search.fits(n) for n in range(1, 801))
    assert script.asked == [800]


def test_rounds_that_ask_one_by_one_cost_few_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    search, script = scripted_frontier(monkeypatch, lambda n: 0.1 * n**0.7, 3.0)
    answers = [search.fits(n) for n in range(1, 400)]
    assert answers == [0.1 * n**0.7 <= 3.0 for n in range(1, 400)]
    assert len(script.asked) <= 12


@pytest.mark.parametrize("power", [0.3, 0.5, 0.7, 1.0, 3.0])
def test_the_search_finds_the_last_step_in_few_figures(monkeypatch: pytest.MonkeyPatch, power: float) -> None:
    for most in (1, 2, 17, 1234, 98_765):
        search, script = scripted_frontier(monkeypatch, lambda n, m=most: (n / (m + 0.5)) ** power, 1.0)
        assert search.most() == most
        assert len(script.asked) <= 14


def test_a_step_like_figure_is_still_searched_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    search, script = scripted_frontier(monkeypatch, lambda n: 0.0 if n <= 4321 else math.inf, 1.0)
    assert search.most() == 4321
    assert len(script.asked) <= 60


def test_a_wobbling_figure_never_makes_a_search_contradict_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    search, _ = scripted_frontier(monkeypatch, lambda n: 0.1 * math.sqrt(n) * (1 + 0.002 * (n % 2)), 3.0)
    answers = [search.fits(n) for n in (898, 899, 900, 897, 901, 899)]
    most = search.most()
    assert answers == [n <= most for n in (898, 899, 900, 897, 901, 899)]
