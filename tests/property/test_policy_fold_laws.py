"""The laws of consent over all logs, and an oracle that says the rules again, one person at a time."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fedgen.policy.fold import CONSENTED, NEVER, OTHER_PURPOSE, SILENT, Events, Status, standing

PURPOSES = ("care", "train", "*")
PEOPLE = np.array([b"a", b"b", b"c"])

clock = st.integers(0, 7)
event = st.tuples(
    st.integers(0, len(PEOPLE) - 1),
    st.integers(0, len(PURPOSES) - 1),
    st.sampled_from([Status.GRANTED, Status.GRANTED, *Status]),
    clock,
    clock,
    st.one_of(st.just(NEVER), clock),
).filter(lambda e: not (e[2] == Status.GRANTED and PURPOSES[e[1]] == "*"))
logs = st.lists(event, max_size=10)


def as_events(rows: Any, people: Any = PEOPLE) -> Any:
    columns = list(zip(*rows, strict=True)) or [()] * 6
    subject, purpose, status, recorded, effective, expires = columns
    return Events(
        people=people,
        purposes=PURPOSES,
        subject=np.array(subject, dtype=np.int64),
        purpose=np.array(purpose, dtype=np.int64),
        status=np.array(status, dtype=np.uint8),
        recorded=np.array(recorded, dtype=np.int64),
        effective=np.array(effective, dtype=np.int64),
        expires=np.array(expires, dtype=np.int64),
    )


def said(rows: Any, at: Any, purpose: Any = "train") -> Any:
    return standing(as_events(rows), purpose, at).tolist()


def oracle(rows: Any, person: Any, purpose: Any, at: Any) -> Any:
    """Say the four rules again: plain loops over one person's events."""
    known = [e for e in rows if e[0] == person and e[3] <= at]
    bars = [e for e in known if e[2] != Status.GRANTED and PURPOSES[e[1]] in {purpose, "*"}]
    acting = [e for e in known if e[2] == Status.GRANTED and max(e[3], e[4]) <= at]
    grants = [e for e in acting if PURPOSES[e[1]] == purpose]
    later = [g for g in grants if all(g[3] > b[3] and g[4] > b[4] for b in bars)]
    for g in later:
        newer = [h for h in grants if max(h[3], h[4]) >= max(g[3], g[4])]
        if all(h[5] > at for h in newer):
            return CONSENTED
    if later:
        return Status.EXPIRED
    if bars:
        return max((min(b[3], b[4]), b[2]) for b in bars)[1]
    return OTHER_PURPOSE if acting else SILENT


@given(logs, clock)
@settings(max_examples=400, deadline=None)
def test_engine_agrees_with_the_oracle(rows: Any, at: int) -> None:
    for purpose in ("train", "care", "never-mentioned"):
        assert said(rows, at, purpose) == [oracle(rows, p, purpose, at) for p in range(len(PEOPLE))]


@pytest.mark.parametrize("seed", range(3))
def test_engine_agrees_with_the_oracle_on_thousands_of_people(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, m = 2000, 6000
    status = rng.choice(np.array([0, 0, 0, 0, 1, 2, 3, 4, 5]), m)
    purpose = np.where(status == 0, rng.integers(0, 2, m), rng.integers(0, 3, m))
    expires = np.where(rng.random(m) < 0.5, NEVER, rng.integers(0, 12, m))
    columns = (rng.integers(0, n, m), purpose, status, rng.integers(0, 9, m), rng.integers(0, 9, m), expires)
    rows = [tuple(int(v) for v in row) for row in zip(*columns, strict=True)]
    people = np.array([b"%05d" % i for i in range(n)])
    by_person = {p: [] for p in range(n)}
    for row in rows:
        by_person[row[0]].append(row)
    seen = set()
    for at in (0, 4, 8, 11):
        got = standing(as_events(rows, people), "train", at).tolist()
        assert got == [oracle(by_person[p], p, "train", at) for p in range(n)]
        seen |= set(got)
    assert seen == set(range(8))  # every outcome was met


@given(logs, clock, st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_order_and_repetition_never_matter(rows: Any, at: int, random: Any) -> None:
    shuffled = rows + rows[:2]
    random.shuffle(shuffled)
    assert said(shuffled, at) == said(rows, at)


@given(logs, clock, event)
@settings(max_examples=400, deadline=None)
def test_a_restriction_never_turns_no_into_yes(rows: Any, at: int, extra: Any) -> None:
    assume(extra[2] != Status.GRANTED)
    before, after = said(rows, at), said([*rows, extra], at)
    assert all(b == CONSENTED for b, a in zip(before, after, strict=True) if a == CONSENTED)


@given(logs, clock, event)
@settings(max_examples=200, deadline=None)
def test_what_is_recorded_later_never_matters(rows: Any, at: int, extra: Any) -> None:
    later = (*extra[:3], at + 1 + extra[3], *extra[4:])
    assert said([*rows, later], at) == said(rows, at)


@given(logs, clock, event)
@settings(max_examples=200, deadline=None)
def test_one_person_never_touches_another(rows: Any, at: int, extra: Any) -> None:
    before, after = said(rows, at), said([*rows, extra], at)
    assert all(b == a for p, (b, a) in enumerate(zip(before, after, strict=True)) if p != extra[0])


@given(logs, clock)
@settings(max_examples=200, deadline=None)
def test_nothing_changes_between_two_instants(rows: Any, at: int) -> None:
    """Times four leaves room between the clocks; ``instants`` must hold every place of change."""
    wide = [(*e[:3], e[3] * 4, e[4] * 4, e[5] if e[5] == NEVER else e[5] * 4) for e in rows]
    events = as_events(wide)
    instants = set(events.instants().tolist())
    for t in range(at * 4, at * 4 + 4):
        if t + 1 not in instants:
            assert said(wide, t) == said(wide, t + 1)


@given(logs, clock)
@settings(max_examples=100, deadline=None)
def test_the_ends_of_restrictions_never_matter(rows: Any, at: int) -> None:
    events = as_events(rows)
    endless = replace(events, expires=np.where(events.status == Status.GRANTED, events.expires, NEVER))
    assert standing(endless, "train", at).tolist() == standing(events, "train", at).tolist()
