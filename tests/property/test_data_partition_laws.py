"""The laws of every cut: exact cover, no overlap, no empty site, one answer."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgen.data.partition import declared_size, partition, split_holdout
from fedgen.schema.columns import Categorical
from fedgen.schema.table import TableSchema

SCHEMA = TableSchema(columns=(Categorical(name="kind", categories=tuple("abcdefgh")),), label="kind")


@dataclass(frozen=True)
class Spec:
    count: int
    split: str
    by: str | None = None
    alpha: float | None = None


@st.composite
def cuts(draw: Any) -> Any:
    values = draw(st.lists(st.integers(0, 7), min_size=1, max_size=80))
    persons = draw(st.one_of(st.none(), st.integers(1, len(values))))
    subjects = None
    units = len(values)
    if persons is not None:
        subjects = np.array([b"%d" % (i * 7 % persons) for i in range(len(values))])
        units = len(np.unique(subjects))
    split = draw(st.sampled_from(["iid", "dirichlet", "by"]))
    codes = np.array(values, np.uint8)[:, None]
    most = units
    if split == "by":
        first = np.unique(subjects, return_index=True)[1] if subjects is not None else np.arange(units)
        most = len(np.unique(codes[first]))
    alpha = draw(st.floats(1e-3, 1e3)) if split == "dirichlet" else None
    return codes, Spec(draw(st.integers(1, most)), split, None, alpha), draw(st.integers(0, 2**40)), subjects


@given(cuts())
@settings(max_examples=300, deadline=None)
def test_every_row_is_at_exactly_one_site_and_no_site_is_empty(cut: Any) -> None:
    codes, spec, seed, subjects = cut
    parts = partition(codes, SCHEMA, spec, seed, subjects=subjects)
    assert len(parts) == spec.count
    assert all(len(part) for part in parts)
    assert all((np.diff(part) > 0).all() for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(codes)))
    again = partition(codes, SCHEMA, spec, seed, subjects=subjects)
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))


@given(cuts())
@settings(max_examples=200, deadline=None)
def test_no_person_is_at_two_sites(cut: Any) -> None:
    codes, spec, seed, subjects = cut
    if subjects is None:
        subjects = np.array([b"%d" % i for i in range(len(codes))])
    owners = [
        set(subjects[part].tolist()) for part in partition(codes, SCHEMA, spec, seed, subjects=subjects)
    ]
    assert sum(map(len, owners)) == len(set().union(*owners))


@given(st.lists(st.integers(0, 20), max_size=60), st.floats(0, 0.999), st.integers(0, 2**40))
@settings(max_examples=300, deadline=None)
def test_holding_out_is_a_cut_between_persons(people: Any, fraction: Any, seed: int) -> None:
    subjects = np.array([b"%d" % p for p in people], dtype="S4")
    training, holdout = split_holdout(len(people), fraction, seed, subjects=subjects)
    assert sorted([*training.tolist(), *holdout.tolist()]) == list(range(len(people)))
    assert not set(subjects[training]) & set(subjects[holdout])
    assert len(training) > 0 or not people


@given(st.integers(0, 10**12))
def test_a_declared_size_is_near_stable_and_short(n: Any) -> None:
    public = declared_size(n)
    assert abs(public - n) <= 0.05 * n
    assert declared_size(public) == public
    assert len(str(public).rstrip("0")) <= 2
