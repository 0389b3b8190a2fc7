"""Cuts by example; the laws over all cuts are in tests/property/test_data_partition_laws.py."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from fedgen.data.partition import declared_size, partition, split_holdout
from fedgen.errors import ConfigError
from fedgen.schema.columns import Boolean, Categorical
from fedgen.schema.table import ImageSchema, TableSchema

SCHEMA = TableSchema(
    columns=(Categorical(name="kind", categories=tuple("abcdef")), Boolean(name="flag")), label="flag"
)


@dataclass(frozen=True)
class Spec:
    count: int
    split: str = "iid"
    by: str | None = None
    alpha: float | None = None


def codes(n: Any = 600, seed: Any = 0) -> Any:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, 6, n), rng.integers(0, 2, n)], axis=1).astype(np.uint8)


def sizes(parts: Any) -> Any:
    return [len(part) for part in parts]


@pytest.mark.parametrize(("rows", "count", "want"), [(9, 3, [3, 3, 3]), (10, 3, [4, 3, 3]), (5, 5, [1] * 5)])
def test_iid_is_even(rows: Any, count: Any, want: Any) -> None:
    assert sizes(partition(codes(rows), SCHEMA, Spec(count), 1)) == want


def test_another_seed_is_another_cut_and_the_same_seed_the_same() -> None:
    first, again, other = (partition(codes(), SCHEMA, Spec(4), seed) for seed in (1, 1, 2))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert not all((a == b).all() for a, b in zip(first, other, strict=True))


def test_a_golden_cut_so_that_a_study_stays_cut_as_it_was() -> None:
    assert [p.tolist() for p in partition(codes(7), SCHEMA, Spec(2), 5)] == [[1, 4, 5, 6], [0, 2, 3]]


def test_by_gives_each_value_its_site() -> None:
    table = codes()
    parts = partition(table, SCHEMA, Spec(6, "by", "kind"), 0)
    assert [np.unique(table[p, 0]).tolist() for p in parts] == [[v] for v in range(6)]


def test_by_with_fewer_sites_joins_neighbours_about_evenly() -> None:
    table = np.repeat(np.arange(6), [10, 10, 10, 10, 10, 50])[:, None].astype(np.uint8)
    schema = TableSchema(columns=SCHEMA.columns[:1], label="kind")
    parts = partition(table, schema, Spec(3, "by"), 0)
    assert [np.unique(table[p, 0]).tolist() for p in parts] == [[0, 1, 2, 3], [4], [5]]


def test_by_leaves_a_value_for_each_site_to_come() -> None:
    table = np.repeat(np.arange(4), [1, 1, 1, 97])[:, None].astype(np.uint8)
    parts = partition(table, TableSchema(columns=SCHEMA.columns[:1]), Spec(4, "by", "kind"), 0)
    assert sizes(parts) == [1, 1, 1, 97]


def test_small_alpha_is_uneven_and_large_alpha_is_even() -> Any:
    table = codes(6000)

    def spread(alpha: Any) -> Any:
        parts = partition(table, SCHEMA, Spec(4, "dirichlet", "kind", alpha), 3)
        shares = np.array([np.bincount(table[p, 0], minlength=6) for p in parts]) / 1000
        return abs(shares - 0.25).mean()

    assert spread(0.05) > 0.25
    assert 0.25 > spread(1.0) > 0.05
    assert spread(1000.0) < 0.05


@pytest.mark.parametrize("alpha", [5e-324, 1e-4])
def test_the_smallest_alphas_give_each_value_to_one_site(alpha: Any) -> None:
    table = codes()
    parts = partition(table, SCHEMA, Spec(2, "dirichlet", "kind", alpha), 0)
    homes = [set(np.unique(table[p, 0]).tolist()) for p in parts]
    assert len(homes[0] & homes[1]) <= 1  # one row may have moved to fill a site


@pytest.mark.parametrize("alpha", [1e6, 1e308])
def test_the_largest_alphas_are_even(alpha: Any) -> None:
    parts = partition(codes(), SCHEMA, Spec(5, "dirichlet", "kind", alpha), 0)
    assert max(sizes(parts)) - min(sizes(parts)) <= 6  # a row for each value


def test_a_site_left_empty_gets_a_row_of_the_largest() -> None:
    table = np.zeros((50, 2), np.uint8)
    parts = partition(table, SCHEMA, Spec(10, "dirichlet", "kind", 1e-4), 0)
    assert sorted(sizes(parts)) == [1] * 9 + [41]


def test_the_label_is_the_column_when_none_is_named() -> None:
    table = codes()
    parts = partition(table, SCHEMA, Spec(2, "by"), 0)
    assert [np.unique(table[p, 1]).tolist() for p in parts] == [[0], [1]]


def test_images_are_cut_by_their_class() -> None:
    schema = ImageSchema(height=1, width=1, classes=("a", "b"))
    table = np.array([[7, 0], [7, 1], [7, 0]], np.uint8)
    assert [p.tolist() for p in partition(table, schema, Spec(2, "by", "label"), 0)] == [[0, 2], [1]]


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        (Spec(601), "601 sites but only 600 rows"),
        (Spec(7, "by", "kind"), "7 sites but only 6 values to cut by"),
        (Spec(0), "at least one site"),
        (Spec(2, "dirichlet", "kind"), "needs alpha"),
        (Spec(2, "by", "Kind"), "did you mean 'kind'?"),
        (Spec(2, "by", "zzz"), "name a column of the schema"),
        (Spec(2, "stratified"), "unknown split"),
    ],
)
def test_cuts_that_cannot_be_are_refused_with_the_key(spec: Any, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        partition(codes(), SCHEMA, spec, 0)
    assert what in str(caught.value)
    assert caught.value.key.startswith("data.sites.")
    assert caught.value.hint


def test_no_label_and_no_column_to_cut_by() -> None:
    schema = TableSchema(columns=SCHEMA.columns)
    with pytest.raises(ConfigError, match="no column to cut by"):
        partition(codes(), schema, Spec(2, "by"), 0)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_alpha_must_be_positive(alpha: Any) -> None:
    with pytest.raises(ValueError, match="alpha"):
        partition(codes(), SCHEMA, Spec(2, "dirichlet", "kind", alpha), 0)


def test_persons_stay_together_and_are_counted() -> None:
    subjects = np.array([b"%d" % (i // 3) for i in range(600)])
    parts = partition(codes(), SCHEMA, Spec(7), 1, subjects=subjects)
    owners = [set(subjects[p].tolist()) for p in parts]
    assert sum(map(len, owners)) == len(set().union(*owners)) == 200
    with pytest.raises(ConfigError, match="201 sites but only 200 persons"):
        partition(codes(), SCHEMA, Spec(201), 1, subjects=subjects)


def test_subjects_of_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="600 rows but 1 subjects"):
        partition(codes(), SCHEMA, Spec(2), 1, subjects=np.array([b"a"]))


@pytest.mark.parametrize(
    ("n", "fraction", "held"),
    [(100, 0.2, 20), (100, 0.0, 0), (100, 0.001, 1), (1, 0.5, 0), (2, 0.99, 1), (0, 0.5, 0), (10, 0.999, 9)],
)
def test_how_many_rows_are_held_out(n: Any, fraction: Any, held: Any) -> None:
    training, holdout = split_holdout(n, fraction, 0)
    assert len(holdout) == held
    assert sorted([*training, *holdout]) == list(range(n))


def test_nobody_is_both_trained_on_and_held_out() -> None:
    subjects = np.array([b"%d" % (i % 40) for i in range(200)])
    training, holdout = split_holdout(200, 0.25, 0, subjects=subjects)
    assert len(holdout) == 50
    assert not set(subjects[training]) & set(subjects[holdout])


def test_holding_out_and_cutting_have_nothing_to_do_with_each_other() -> None:
    """With one stream of random numbers for both, the held-out rows would be those of one site."""
    holdout = split_holdout(1000, 0.5, 7)[1]
    site = partition(codes(1000), SCHEMA, Spec(2), 7)[0]
    shared = len(np.intersect1d(holdout, site))
    assert 200 < shared < 300  # 250 expected; a fifth of the rows off is beyond six standard deviations


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan")])
def test_a_share_is_a_share(fraction: Any) -> None:
    with pytest.raises(ValueError, match="fraction must be in"):
        split_holdout(10, fraction, 0)


@pytest.mark.parametrize(
    ("n", "want"),
    [
        (0, 0),
        (7, 7),
        (99, 99),
        (100, 100),
        (104, 100),
        (105, 110),
        (2019, 2000),
        (2050, 2100),
        (99_500, 100_000),
    ],
)
def test_declared_sizes_have_two_significant_digits(n: Any, want: Any) -> None:
    assert declared_size(n) == want


def test_a_declared_size_is_not_negative() -> None:
    with pytest.raises(ValueError, match="at least zero"):
        declared_size(-1)
