"""Another accountant, another grid: dp_accounting's own accountants on the events as a stranger would replay them."""

import math

import pytest

from fedgen.privacy.accountant import epsilon, epsilon_rdp
from fedgen.privacy.events import Composed, Counts, Gaussian, Laplace, PoissonGaussian, to_dp_event

HISTORIES: list[Counts] = [
    ((PoissonGaussian(0.03, 1.3), 40),),
    ((PoissonGaussian(0.2, 3.0), 20), (Gaussian(9.0), 2)),
    ((Laplace(5.0), 1), (Laplace(30.0), 4)),
    ((Composed(((PoissonGaussian(0.1, 2.0), 5), (Laplace(15.0), 1))), 6),),
]


@pytest.mark.parametrize("history", HISTORIES, ids=range(len(HISTORIES)))
def test_a_fixed_fine_grid_agrees_to_one_percent(history: Counts) -> None:
    import dp_accounting as dpa

    accountant = dpa.pld.PLDAccountant(value_discretization_interval=5e-4)
    for event, count in history:
        accountant.compose(to_dp_event(event), count)
    assert epsilon(history, 1e-6).epsilon == pytest.approx(accountant.get_epsilon(1e-6), rel=0.01)


@pytest.mark.parametrize("history", HISTORIES, ids=range(len(HISTORIES)))
def test_an_optimistic_grid_lies_below_the_bound(history: Counts) -> None:
    from dp_accounting.pld import privacy_loss_distribution as pld

    total = None
    for event, count in history:
        for simple, times in event.parts if isinstance(event, Composed) else ((event, 1),):
            if isinstance(simple, Laplace):
                one = pld.from_laplace_mechanism(
                    simple.scale,
                    pessimistic_estimate=False,
                    value_discretization_interval=1e-3,
                    use_connect_dots=False,
                )
            else:
                assert isinstance(simple, (Gaussian, PoissonGaussian))
                one = pld.from_gaussian_mechanism(
                    simple.sigma,
                    sampling_prob=getattr(simple, "q", 1.0),
                    pessimistic_estimate=False,
                    value_discretization_interval=1e-3,
                    use_connect_dots=False,
                )
            part = one.self_compose(count * times)
            total = part if total is None else total.compose(part)
    assert total is not None
    lower, upper = total.get_epsilon_for_delta(1e-6), epsilon(history, 1e-6).epsilon
    assert 0 < lower <= upper


@pytest.mark.parametrize("history", HISTORIES, ids=range(len(HISTORIES)))
def test_renyi_orders_replayed_in_other_portions_give_the_same_figure(history: Counts) -> None:
    import dp_accounting as dpa

    accountant = dpa.rdp.RdpAccountant()
    for event, count in history:
        accountant.compose(to_dp_event(event))
        if count > 1:
            accountant.compose(to_dp_event(event), count - 1)
    assert epsilon_rdp(history, 1e-6).epsilon == pytest.approx(accountant.get_epsilon(1e-6), rel=1e-9)


def test_the_central_limit_is_no_bound_and_only_begins_a_search() -> None:
    # The measured trap: at little noise a Gaussian-DP figure understates ε by a quarter.
    from fedgen.privacy import _limit
    from fedgen.privacy.units import Relation

    work = (PoissonGaussian(0.01, 0.6), 1000)
    mu = math.sqrt(_limit.mu_squared((work,), Relation.ADD_OR_REMOVE))
    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _limit._delta_of(mu, middle) > 1e-5 else (low, middle)
    assert low == pytest.approx(5.563, rel=0.01)
    assert epsilon([work], 1e-5).epsilon == pytest.approx(7.434, rel=0.01)


@pytest.mark.parametrize(("target", "delta"), [(0.1, 1e-9), (1.0, 1e-5), (8.0, 1e-3), (200.0, 1e-6)])
def test_the_central_limit_inverts(target: float, delta: float) -> None:
    from fedgen.privacy import _limit

    assert _limit._delta_of(_limit.mu_of(target, delta), target) == pytest.approx(delta, rel=1e-6)
