"""The grid: sensitivity, headroom, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedgen.crypto.stream import KeyStream
from fedgen.errors import Code, ConfigError, IntegrityError
from fedgen.privacy.integers import after_rounding
from fedgen.secagg.fixed_point import BETA, FixedPoint, Grid, plan
from fedgen.secagg.noise_shares import NoiseShares

STREAM = KeyStream.insecure(3)


def grid(**more) -> Grid:
    return Grid(**{"dimension": 100, "clip": 1.0, "bound": 1.0, "bits": 16, "whole": True} | more)


def test_the_norm_bound_is_the_published_one() -> None:
    """KLS 2021 in steps of the grid; the inflation table of the field: 1.871 at 2^8, 1.076 at 2^10, d = 652,824."""
    for bits, expected in ((8, 1.871), (10, 1.076), (12, 1.005), (14, 1.0003)):
        assert grid(dimension=652_824, bits=bits).inflation + 1 == pytest.approx(expected, abs=6e-4)
    one = grid(dimension=4, bits=0)
    assert one.l2 == min(3.0, math.sqrt(1 + 1 + math.sqrt(2 * math.log(1 / BETA)) * 2))


def test_a_part_of_a_sum_has_the_bound_that_needs_no_condition() -> None:
    part = grid(dimension=10_000, whole=False, bound=50.0)
    assert part.l2 == 2**16 + 100
    assert part.l1 == part.l2 * 100
    assert part.reach == 50 * 2**16 + 1


def test_encoding_whole_contributions_never_passes_the_bound() -> None:
    small = grid(
        dimension=256, bits=3
    )  # half a step each: the squared norm is Binomial(256, 1/2), the bound two deviations up
    update = np.full(256, 0.3, np.float32)
    norms = [float(np.linalg.norm(small.encode(update, STREAM))) for _ in range(300)]
    assert max(norms) <= small.l2
    raw = [small._round(update, 0.5 / 0.3, np.empty(256, np.int64), STREAM) ** 0.5 for _ in range(300)]
    assert max(raw) > small.l2  # the condition does something


def test_neighbouring_sums_round_to_points_within_the_sensitivity_for_the_same_thresholds() -> None:
    rng = np.random.default_rng(6)
    for _ in range(200):
        d = int(rng.integers(1, 60))
        part = grid(dimension=d, whole=False, bound=3.0, bits=int(rng.integers(0, 8)))
        rest = rng.normal(size=d).astype(np.float32) * rng.choice([0.1, 1.0, 30.0])
        unit = rng.normal(size=d)
        unit = (unit / np.linalg.norm(unit)).astype(np.float32) * np.float32(0.999999)
        seed = int(rng.integers(0, 2**31))
        with_, without = (
            part.encode(vector.astype(np.float32), KeyStream.insecure(seed)) for vector in (rest + unit, rest)
        )
        assert np.linalg.norm(with_ - without) <= part.l2
        assert np.abs(with_ - without).sum() <= part.l1
        assert np.abs(with_).max() <= part.reach


def test_a_long_vector_is_shortened_and_a_short_one_is_not() -> None:
    one = grid(dimension=3, bits=20)
    long = np.array([30.0, 40.0, 0.0], np.float32)
    assert np.allclose(one.encode(long, STREAM) / one.scale, [0.6, 0.8, 0.0], atol=2e-6)
    short = np.array([0.03, -0.04, 0.0], np.float32)
    assert np.allclose(one.encode(short, STREAM) / one.scale, short, atol=2e-6)
    assert not one.encode(np.zeros(3, np.float32), STREAM).any()


def test_an_update_that_is_not_finite_or_not_the_studys_is_refused() -> None:
    one = grid(dimension=3)
    for bad, code in (
        (np.array([1, np.nan, 0], np.float32), Code.NOT_FINITE),
        (np.array([1, np.inf, 0], np.float32), Code.NOT_FINITE),
        (np.zeros(4, np.float32), Code.WRONG_SHAPE),
        (np.zeros((3, 1), np.float32), Code.WRONG_SHAPE),
    ):
        with pytest.raises(IntegrityError) as error:
            one.encode(bad, STREAM)
        assert error.value.code is code


def test_a_huge_float_does_not_overflow_the_norm() -> None:
    one = grid(dimension=2, bits=20)
    out = one.encode(np.array([3e38, 3e38], np.float32), STREAM)
    assert np.allclose(out / one.scale, [math.sqrt(0.5)] * 2, atol=2e-6)


@pytest.mark.parametrize("ring", [32, 64])
@pytest.mark.parametrize("bound", [None, 7.0])
def test_the_worst_case_of_all_sites_stays_in_the_ring(ring: int, bound: float | None) -> None:
    planned = plan(dimension=50, clip=0.5, multiplier=1.0, sites=20, dropouts=2, bound=bound, ring=ring)
    worst = planned.noise.sites * planned.grid.reach + planned.tail
    assert worst < 2 ** (ring - 1)
    top = np.full(50, worst, np.int64).astype(f"<u{ring // 8}")
    assert np.allclose(planned.grid.decode(top), worst / planned.grid.scale)
    low = (-np.full(50, worst, np.int64)).astype(f"<u{ring // 8}")
    assert np.allclose(planned.grid.decode(low), -worst / planned.grid.scale)


def test_overflow_is_refused_at_planning_never_wrapped() -> None:
    more = {"dimension": 50, "clip": 1.0, "multiplier": 1.0, "sites": 10}
    assert plan(**more, bound=1000.0).ring == 32
    assert plan(**more, bound=1e6).ring == 64  # the proof needs it
    with pytest.raises(ConfigError, match="bits are missing") as error:
        plan(**more, bound=1e6, ring=32)
    assert error.value.key == "secagg.ring"
    with pytest.raises(ConfigError, match="bits are missing"):
        plan(**more, bound=1e15)
    with pytest.raises(ConfigError, match="32 or 64"):
        plan(**more, ring=16)
    with pytest.raises(ConfigError):
        plan(**more | {"multiplier": 1e6})


def test_the_headroom_is_exactly_what_decides() -> None:
    """The proof is not vacuous: a bound just inside fits, and just outside does not."""
    more = {"dimension": 50, "clip": 1.0, "multiplier": 1.0, "sites": 10, "ring": 32}
    low, high = 100.0, 1e7
    for _ in range(60):
        middle = (low + high) / 2
        try:
            plan(**more, bound=middle)
            low = middle
        except ConfigError:
            high = middle
    inside = plan(**more, bound=low * (1 - 1e-9))
    assert 0 < inside.headroom_bits < 1e-3
    assert 10 * inside.grid.reach + inside.tail < 2**31


def test_a_ring_of_32_bits_is_kept_at_the_price_of_a_coarser_grid() -> None:
    more = {"dimension": 653_000, "clip": 1.0, "multiplier": 1.0, "sites": 10}
    fine, coarse = plan(**more, bound=100.0), plan(**more, bound=3000.0)
    assert (fine.ring, coarse.ring) == (32, 32)
    assert fine.grid.inflation < 1 / 512 < coarse.grid.inflation < 1 / 64
    assert coarse.noise.needed == pytest.approx(coarse.grid.l2**2)  # and the noise is sized for it


def test_the_noise_tail_is_bernsteins() -> None:
    shares = NoiseShares(sites=10, dropouts=0, colluders=0, multiplier=1.0, sensitivity=1000.0)
    point = FixedPoint(grid=grid(dimension=1000), noise=shares, ring=32)
    x, v = point.tail, 1e6
    chance = 2 * 1000 * math.exp(-(x**2) / (2 * (v + x / 3)))
    assert chance <= 2.0**-64
    assert 2 * 1000 * math.exp(-((x - 2) ** 2) / (2 * (v + (x - 2) / 3))) > 2.0**-64


@pytest.mark.parametrize(
    "more", [{"bound": 0.5}, {"bound": 2.0}, {"bits": -1}, {"bits": 27}, {"clip": 0.0}, {"dimension": 0}]
)
def test_grids_that_make_no_sense_are_refused(more: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        grid(**more)


def test_the_event_has_the_noise_that_the_observer_cannot_subtract() -> None:
    planned = plan(dimension=5000, clip=1.0, multiplier=1.2, sites=10, dropouts=1, colluders=2, bound=20.0)
    charged = planned.event(0.1)
    assert charged.q == 0.1
    assert charged.sigma == pytest.approx(1.2)
    assert (charged.l2, charged.l1) == (planned.grid.l2, planned.grid.l1)
    assert planned.event(0.1, colluders=0).sigma == pytest.approx(1.2 * math.sqrt(9 / 7))
    assert planned.event(0.1, colluders=1).sigma > planned.event(0.1, colluders=3).sigma
    with pytest.raises(ValueError, match="positive"):
        planned.event(0.1, colluders=9)


def test_a_part_has_the_sensitivity_that_the_accountant_states_for_rounding() -> None:
    part = grid(dimension=777, whole=False, bound=5.0, bits=18)
    assert (part.l2, part.l1) == after_rounding(2.0**18, 777)
