"""Calendar arithmetic by example: month ends, leap days, clock changes, periods."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from fedgen.policy.calendar import CutOff, Period, add, microseconds_of, moment_of, zone
from fedgen.policy.columns import NEVER


def ends(began, period, name="Europe/Berlin"):
    instant = microseconds_of(datetime.fromisoformat(began))
    return moment_of(add(instant, Period.parse(period), zone(name))).astimezone(zone(name)).isoformat()


@pytest.mark.parametrize(
    ("began", "period", "end"),
    [
        ("2026-01-31T12:00:00+01:00", "P1M", "2026-02-28T12:00:00+01:00"),
        ("2024-01-31T12:00:00+01:00", "P1M", "2024-02-29T12:00:00+01:00"),
        ("2024-02-29T12:00:00+01:00", "P2Y", "2026-02-28T12:00:00+01:00"),
        ("2026-02-28T02:30:00+01:00", "P29D", "2026-03-29T03:30:00+02:00"),  # a time the spring change skips
        (
            "2026-09-25T02:30:00+02:00",
            "P1M",
            "2026-10-25T02:30:00+02:00",
        ),  # a time the autumn change repeats: the first
        ("2026-03-01T23:30:00+00:00", "P1M", "2026-04-02T00:30:00+02:00"),  # the day is the zone's, not UTC's
        ("2025-12-31T23:59:59.999999+01:00", "P1Y6M", "2027-06-30T23:59:59.999999+02:00"),
    ],
)
def test_ends(began, period, end):
    assert ends(began, period) == end


@pytest.mark.parametrize("text", ["", "P", "P0D", "2Y", "PT1H", "P1.5Y", "P-1Y", "P1D1M", "p1y"])
def test_what_is_no_period(text):
    with pytest.raises(ValueError, match="period"):
        Period.parse(text)


def test_no_such_zone():
    with pytest.raises(ValueError, match="no such time zone"):
        zone("Europe/Atlantis")


def test_beyond_the_calendar_nothing_ends():
    assert add(microseconds_of(datetime(9999, 1, 1, tzinfo=UTC)), Period.parse("P2Y"), zone("UTC")) == NEVER


def test_a_period_longer_than_the_calendar_is_never_over():
    cut = CutOff.at_instant(Period.parse("P9999Y"), zone("UTC"), 0)
    assert not cut.over(np.array([-(10**15), 0])).any()


def test_the_next_end_is_the_least_of_those_to_come():
    at = microseconds_of(datetime(2026, 5, 4, tzinfo=UTC))
    cut = CutOff.at_instant(Period.parse("P30D"), zone("UTC"), at)
    day = 86_400_000_000
    assert cut.next_end(np.array([at - 40 * day, at - 29 * day, at - 28 * day])) == at + day
    assert cut.next_end(np.array([at - 40 * day, NEVER])) == NEVER
    assert at < cut.next_end(np.array([at])) <= at + 30 * day
