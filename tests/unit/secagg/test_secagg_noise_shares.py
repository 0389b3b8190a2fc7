"""Each site's share of the noise: enough when some drop out and some collude."""

from __future__ import annotations

import pytest

from fedgen.errors import Code, ConfigError, Refused
from fedgen.secagg.noise_shares import NoiseShares


def shares(**more) -> NoiseShares:
    return NoiseShares(
        **{"sites": 10, "dropouts": 1, "colluders": 2, "multiplier": 1.5, "sensitivity": 1000.0} | more
    )


def test_what_is_left_at_the_worst_is_what_is_charged() -> None:
    found = shares()
    assert found.least == 9
    assert found.needed == 1500.0**2
    assert found.hidden(9, 2) == pytest.approx(found.needed)
    assert found.effective_multiplier(2) == pytest.approx(1.5)
    for survivors in (9, 10):
        for colluders in range(3):
            assert found.hidden(survivors, colluders) >= found.needed * (1 - 1e-12)


def test_more_colluders_than_assumed_leave_less_and_the_figure_says_so() -> None:
    found = shares()
    assert found.effective_multiplier(3) < 1.5 < found.effective_multiplier(1) < found.effective_multiplier()
    assert found.effective_multiplier(9) == 0.0
    assert found.effective_multiplier(50) == 0.0


def test_a_sum_with_fewer_shares_than_assumed_is_never_opened() -> None:
    found = shares()
    for survivors in (8, 0):
        for call in (found.check, found.hidden, found.excess):
            with pytest.raises(Refused) as error:
                call(survivors)
            assert error.value.code is Code.COHORT_TOO_SMALL
    with pytest.raises(ValueError, match="colluders"):
        found.hidden(9, 10)


def test_the_price_of_tolerance_is_stated() -> None:
    assert shares(dropouts=0, colluders=0).excess(10) == pytest.approx(1.0)
    assert shares().excess(10) == pytest.approx(10 / 7)
    assert shares().excess(9) == pytest.approx(9 / 7)


def test_nobody_left_or_noise_beyond_the_sampler_is_refused() -> None:
    for more in ({"dropouts": 8}, {"dropouts": -1}, {"colluders": -1}, {"multiplier": 1e9}):
        with pytest.raises(ConfigError) as error:
            shares(**more)
        assert error.value.key is not None
    with pytest.raises(ValueError, match="positive"):
        shares(multiplier=0.0)
