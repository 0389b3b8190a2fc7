"""Terms under which somebody's update could be seen are refused before anything is sent."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.secagg import Recovery, terms_for

from fedgen.errors import Code, ConfigError, IntegrityError
from fedgen.secagg.graph import degree
from fedgen.secagg.terms import default_threshold


@pytest.mark.parametrize(("n", "threshold"), [(3, 2), (4, 3), (5, 4), (6, 4), (10, 7), (100, 67)])
def test_the_default_threshold_is_two_thirds_rounded_up(n: int, threshold: int) -> None:
    assert default_threshold(n) == threshold
    terms_for(n)


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"threshold": 5}, "secagg.threshold"),  # half of ten
        ({"threshold": 11}, "secagg.threshold"),
        ({"threshold": 6, "colluders": 2}, "secagg.threshold"),  # 12 is not above 12
        ({"dropouts": 4}, "secagg.dropouts"),
        ({"dropouts": -1}, "secagg.dropouts"),
        ({"colluders": -1}, "secagg.colluders"),
        ({"cohort": 2}, "secagg.cohort"),
        ({"cohort": 9, "dropouts": 2}, "secagg.dropouts"),
        ({"ring": 16}, "secagg.ring"),
        ({"dimension": 0}, "secagg.model"),
    ],
)
def test_terms_that_do_not_fit_together_are_refused(more: dict[str, int], key: str) -> None:
    with pytest.raises(ConfigError) as error:
        terms_for(10, **more)
    assert error.value.key == key
    assert "\n" not in str(error.value)


def test_a_sum_needs_two_honest_sites() -> None:
    terms_for(3, threshold=3, colluders=1)
    with pytest.raises(ConfigError, match="honest"):
        terms_for(3, threshold=3, colluders=2)
    with pytest.raises(ConfigError):
        terms_for(2, threshold=2)


def test_the_least_sum_is_what_threshold_cohort_and_noise_all_allow() -> None:
    assert terms_for(10).least == 10
    assert terms_for(10, dropouts=2).least == 8
    assert terms_for(10, dropouts=3).least == 7
    assert terms_for(10, threshold=6, dropouts=3, cohort=7).least == 7


def test_every_choice_is_in_the_digest() -> None:
    terms = terms_for(10, dropouts=1)
    others = [
        replace(terms, **change)
        for change in (
            {"study": "99" * 32},
            {"run": "99" * 32},
            {"dimension": 33},
            {"threshold": 8},
            {"dropouts": 2},
            {"colluders": 1},
            {"cohort": 4},
            {"ring": 64},
            {"recovery": Recovery.RESTART},
            {"sites": terms.sites[:-1]},
        )
    ]
    assert len({each.digest for each in (terms, *others)}) == 11


def test_the_roster_is_sorted_and_names_its_sites_once() -> None:
    terms = terms_for(4)
    for sites in (terms.sites[::-1], (*terms.sites, terms.sites[-1])):
        with pytest.raises(ConfigError, match="sorted"):
            replace(terms, sites=sites)
    assert terms.index("site-002") == 2
    with pytest.raises(IntegrityError) as error:
        terms.index("nobody")
    assert error.value.code is Code.UNKNOWN_SENDER


def test_beyond_a_hundred_sites_the_graph_is_regular_and_its_bound_is_checked() -> None:
    few = terms_for(200, threshold=134, dropouts=5, colluders=1)
    k, holders = few.graph(200)
    assert k < 199
    assert 2 * holders > k + 1
    assert terms_for(100).graph(100) == (99, 67)


@pytest.mark.parametrize(("n", "threshold", "dropouts"), [(102, 68, 34), (150, 100, 50), (120, 61, 59)])
def test_there_is_a_graph_for_every_number_of_members_that_a_setup_may_have(
    n: int, threshold: int, dropouts: int
) -> None:
    """Who is no member has dropped out already: as many fewer may follow."""
    terms = terms_for(n, threshold=threshold, dropouts=dropouts)
    for members in range(terms.least, n + 1):
        k, holders = terms.graph(members)
        assert 0 < k < members
        assert (k + 1) // 2 < holders <= k + 1


def test_members_that_are_missing_are_not_missing_twice() -> None:
    terms = terms_for(200, dropouts=60)
    assert terms.graph(140) == degree(140, 0, 0)
    assert terms.graph(200) == degree(200, 0, 60)
    assert terms.graph(200) != degree(200, 0, 0), "the control"
