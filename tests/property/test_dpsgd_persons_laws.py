"""Laws of contribution bounding, for any table, any sample, any k and C."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgen.dpsgd.noise import NoiseSource
from fedgen.dpsgd.persons import PersonIndex, bounded_rows

tables = st.lists(st.integers(0, 12), max_size=80).map(lambda xs: np.array(xs, np.int64))
samples = st.sets(st.integers(0, 12)).map(lambda xs: np.array(sorted(xs), np.int64))


@settings(max_examples=150, deadline=None)
@given(
    person=tables,
    drawn=samples,
    k=st.integers(1, 20),
    clip=st.floats(1e-12, 1e12),
    seed=st.integers(0, 2**31),
)
def test_no_person_exceeds_her_rows_or_her_bound(person, drawn, k, clip, seed):
    index = PersonIndex.of(person, persons=13)
    used = bounded_rows(index, drawn, k=k, clip=clip, stream=NoiseSource.insecure(seed))
    whose = person[used.rows]
    assert len(set(used.rows.tolist())) == len(used.rows) == len(used.bounds)
    assert set(whose.tolist()) == set(drawn.tolist()) & set(person.tolist())
    for one in set(whose.tolist()):
        hers = used.bounds[whose == one]
        assert len(hers) == min(k, int((person == one).sum()))
        total = sum(Fraction(float(bound)) for bound in hers)
        assert total <= Fraction(clip)
        assert total >= Fraction(clip) * (1 - Fraction(1, 2**22))  # rounded down, and no further
        assert len(set(hers.tolist())) == 1


@settings(max_examples=100, deadline=None)
@given(person=tables)
def test_an_index_and_its_table_say_the_same(person):
    index = PersonIndex.of(person)
    again = np.empty_like(person)
    again[index.order] = np.repeat(np.arange(index.persons), np.diff(index.offsets))
    assert again.tolist() == person.tolist()


@settings(max_examples=60, deadline=None)
@given(person=tables, drawn=samples, k=st.integers(1, 20), seed=st.integers(0, 2**31))
def test_a_person_leaving_changes_no_bound_of_the_others(person, drawn, k, seed):
    index = PersonIndex.of(person, persons=13)
    full = bounded_rows(index, drawn, k=k, clip=1.0, stream=NoiseSource.insecure(seed))
    rest = bounded_rows(index, drawn[1:], k=k, clip=1.0, stream=NoiseSource.insecure(seed))
    kept = full.bounds[person[full.rows] != (drawn[0] if len(drawn) else -1)]
    assert kept.tolist() == rest.bounds.tolist()
