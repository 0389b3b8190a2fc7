"""Until when an artefact may stay: to the microsecond, by a zone's clocks, never longer than what went into it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fedgen.policy.calendar import Period, microseconds_of
from fedgen.policy.codes import Code
from fedgen.policy.retention import artefact_code, retain_until


def _at(text: str) -> int:
    return microseconds_of(datetime.fromisoformat(text))


BORN = _at("2026-01-31T12:00:00+00:00")


def test_two_years_is_the_rule_where_nothing_else_is_said() -> None:
    assert retain_until(BORN) == _at("2028-01-31T12:00:00+00:00")


def test_29_february_and_month_ends_and_zones() -> None:
    leap = _at("2024-02-29T10:00:00+00:00")
    assert retain_until(leap, own=Period(12, 0)) == _at("2025-02-28T10:00:00+00:00")
    assert retain_until(BORN, own=Period(1, 0)) == _at("2026-02-28T12:00:00+00:00")
    # In Berlin the clock has gone forward by then: the same wall clock is an hour less.
    assert retain_until(BORN, own=Period(2, 0), zone="Europe/Berlin") == _at("2026-03-31T11:00:00+00:00")


def test_the_earliest_of_what_went_into_it_counts_unless_it_is_anonymous() -> None:
    early, late = _at("2026-06-01T00:00:00+00:00"), _at("2040-01-01T00:00:00+00:00")
    assert retain_until(BORN, contributing=[late, early]) == early
    assert retain_until(BORN, contributing=[late]) == retain_until(BORN)
    assert retain_until(BORN, contributing=[early], anonymous=True) == retain_until(BORN)


@pytest.mark.parametrize(
    ("late", "wanted"),
    [(-1, Code.ALLOW), (0, Code.ARTEFACT_RETENTION_EXPIRED), (1, Code.ARTEFACT_RETENTION_EXPIRED)],
)
def test_at_the_bound_it_is_over(late: int, wanted: Code) -> None:
    until = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1_000_000)
    assert artefact_code(until, until + late, held=False) is wanted


def test_a_hold_comes_first_then_time_then_lineage() -> None:
    assert artefact_code(0, 1, held=True, revoked=True) is Code.LEGAL_HOLD_RETAIN
    assert artefact_code(0, 1, held=False, revoked=True) is Code.ARTEFACT_RETENTION_EXPIRED
    assert artefact_code(2, 1, held=False, revoked=True) is Code.ARTEFACT_LINEAGE_REVOKED
    assert artefact_code(2, 1, held=False, revoked=True, anonymous=True) is Code.ALLOW
