"""Laws of the decision: order never matters, a restriction never helps, late news never revives, half-open bounds."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgen.policy.calendar import (
    CutOff,
    Period,
    add,
    birthdays,
    day_number,
    microseconds_of,
    moment_of,
    zone,
)
from fedgen.policy.cases import decide_cases, read_case
from fedgen.policy.packs import load_packs
from tests.support.policy_cases import AT, case, consent, right
from tests.support.policy_worlds import LAWS, World, stamp

PACKS = load_packs(LAWS)
SEEDS = st.integers(0, 10**6)
RESTRICTIVE = [
    "erasure_request", "legal_hold", "restriction", "objection", "opt_out_sale_share", "gpc", "limit_sensitive",
    "admt_opt_out",
]  # fmt: skip


def answers(cases):
    return decide_cases(cases, PACKS)


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_order_identifiers_and_repetition_never_matter(seed):
    world = World(seed, 4)
    dice = random.Random(seed)
    for number in range(4):
        one = world.case(number)
        for key in ("consent_events", "rights_events"):
            mixed = [event | {"event_id": str(dice.random())} for event in one[key]] + one[key][:1]
            dice.shuffle(mixed)
            assert answers([one]) == answers([one | {key: mixed}])


@settings(max_examples=25, deadline=None)
@given(SEEDS)
def test_a_restriction_more_never_allows(seed):
    world = World(seed, 4)
    for number in range(4):
        one = world.case(number)
        if one["request"]["operation"] == "retain":
            continue  # a hold keeps what would be erased: its purpose
        said = world.consent(one["subject"]) | {
            "action": world.random.choice(["refused", "withdrawn", "invalidated", "expired"])
        }
        event = world.right(one["subject"], RESTRICTIVE)
        more = one | {
            "consent_events": [*one["consent_events"], said],
            "rights_events": [*one["rights_events"], event],
        }
        before, after = answers([one])[0], answers([more])[0]
        assert not (before["decision"] != "allow" and after["decision"] == "allow")


@settings(max_examples=25, deadline=None)
@given(SEEDS, st.integers(1, 10**12))
def test_what_was_recorded_after_k_never_matters(seed, later):
    world = World(seed, 4)
    for number in range(4):
        one = world.case(number)
        known = datetime.fromisoformat(one["request"]["as_known_at"] or one["request"]["time"])
        late = {"recorded_at": stamp(known + timedelta(microseconds=later))}
        more = one | {
            "consent_events": [*one["consent_events"], world.consent(one["subject"]) | late],
            "rights_events": [*one["rights_events"], world.right(one["subject"]) | late],
        }
        assert answers([one]) == answers([more])


@settings(max_examples=15, deadline=None)
@given(SEEDS)
def test_nothing_changes_before_valid_until(seed):
    world = World(seed, 3)
    world.request["as_known_at"] = None
    for number in range(3):
        one = world.case(number)
        read = read_case(one)
        until = min(read.decide(PACKS).valid_until, microseconds_of(datetime(2100, 1, 1, tzinfo=UTC)))
        assert until > read.request.time
        for at in (until - 1, (until + read.request.time) // 2):
            later = one | {"request": one["request"] | {"time": stamp(moment_of(at))}}
            assert answers([one])[0]["reason_code"] == answers([later])[0]["reason_code"]


MICRO = timedelta(microseconds=1)


@given(st.sampled_from([-1, 0, 1]))
def test_bounds_are_half_open(shift):
    at = datetime.fromisoformat(AT)
    moved = stamp(at + shift * MICRO)
    over = shift <= 0
    [got] = answers([case(consent_events=[consent(valid_until=moved)])])
    assert got["reason_code"] == ("CONSENT_EXPIRED" if over else "ALLOW")
    began = datetime(2024, 5, 4, 11, tzinfo=ZoneInfo("Europe/Berlin")) + shift * MICRO
    [got] = answers([case(record={"collected_at": stamp(began)})])
    assert got["reason_code"] == ("RETENTION_EXPIRED" if over else "ALLOW")
    [got] = answers([case(consent_events=[consent(at=moved)])])
    assert got["reason_code"] == ("ALLOW" if over else "CONSENT_MISSING")
    [got] = answers([case(consent_events=[consent(), consent("withdrawn", moved)])])
    assert got["reason_code"] == ("CONSENT_WITHDRAWN" if over else "ALLOW")
    [got] = answers(
        [case(rights_events=[right("erasure_request"), right("erasure_request_cancelled", moved)])]
    )
    assert got["reason_code"] == ("ALLOW" if over else "ERASURE_REQUESTED")


@given(st.sampled_from([-1, 0, 1]), st.sampled_from([-1, 0, 1]))
def test_a_permission_must_be_later_in_both_clocks(effective, recorded):
    bar = datetime.fromisoformat("2026-02-01T00:00:00+00:00")
    again = consent(
        "renewed", effective_at=stamp(bar + effective * MICRO), recorded_at=stamp(bar + recorded * MICRO)
    )
    events = [consent(), consent("withdrawn", stamp(bar)), again]
    [got] = answers([case(consent_events=events)])
    assert got["reason_code"] == ("ALLOW" if effective > 0 and recorded > 0 else "CONSENT_WITHDRAWN")


ZONES = st.sampled_from(
    ["Europe/Berlin", "America/Los_Angeles", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu", "UTC"]
)
PERIODS = st.sampled_from(["P2Y", "P1M", "P12M", "P30D", "P1Y6M", "P3Y", "P1M15D", "P4W"])
INSTANTS = st.integers(
    microseconds_of(datetime(1995, 1, 1, tzinfo=UTC)), microseconds_of(datetime(2035, 1, 1, tzinfo=UTC))
)


@settings(max_examples=25, deadline=None)
@given(ZONES, PERIODS, INSTANTS, st.integers(0, 2**32))
def test_a_cut_off_is_the_calendar_row_by_row(name, period, at, seed):
    cut = CutOff.at_instant(Period.parse(period), zone(name), at)
    rng = np.random.default_rng(seed)
    near = rng.integers(cut.sure - 10**11, cut.later + 10**11, 700)
    edge = np.array([cut.sure, cut.sure - 1, cut.later, cut.later - 1])
    began = np.concatenate((near, edge))
    want = [add(int(start), Period.parse(period), zone(name)) <= at for start in began]
    assert cut.over(began).tolist() == want  # by quarters of an hour
    assert cut.over(began[-100:]).tolist() == want[-100:]  # one by one


@settings(max_examples=25, deadline=None)
@given(ZONES, PERIODS, INSTANTS)
def test_the_very_microsecond_of_an_end(name, period, began):
    end = add(began, Period.parse(period), zone(name))
    for shift, over in ((-1, False), (0, True), (1, True)):
        cut = CutOff.at_instant(Period.parse(period), zone(name), end + shift)
        assert cut.over(np.array([began])).tolist() == [over]
        assert cut.over(np.full(600, began)).tolist() == [over] * 600


@given(st.dates(date(1930, 1, 1), date(2020, 1, 1)), st.integers(0, 18))
def test_birthdays(born, age):
    turned = date(1970, 1, 1) + timedelta(days=int(birthdays(np.array([day_number(born)]), age)[0]))
    leapling = (born.month, born.day) == (2, 29) and turned.month == 3
    assert turned == (date(born.year + age, 3, 1) if leapling else born.replace(year=born.year + age))
    if leapling:
        assert (date(born.year + age, 3, 1) - timedelta(days=1)).day == 28
