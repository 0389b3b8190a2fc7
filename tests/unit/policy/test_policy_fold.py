"""Each rule of the fold by example; the laws over all logs are in tests/property/test_policy_fold_laws.py."""

from typing import Any

import numpy as np
import pytest

from fedgen.policy.fold import CONSENTED, NEVER, OTHER_PURPOSE, SILENT, Events, Status, standing

G, W, O, R, X = Status.GRANTED, Status.WITHDRAWN, Status.OBJECTED, Status.REFUSED, Status.EXPIRED


def log(*rows: Any) -> Any:
    """Rows of one person: (status, recorded, effective[, expires[, purpose]])."""
    full = [(*row, *(NEVER, "train")[len(row) - 3 :]) for row in rows]
    purposes = tuple(sorted({row[4] for row in full}))
    return Events(
        people=np.array([b"p"]),
        purposes=purposes,
        subject=np.zeros(len(full), dtype=np.int64),
        purpose=np.array([purposes.index(row[4]) for row in full], dtype=np.int64),
        status=np.array([row[0] for row in full], dtype=np.uint8),
        recorded=np.array([row[1] for row in full], dtype=np.int64),
        effective=np.array([row[2] for row in full], dtype=np.int64),
        expires=np.array([row[3] for row in full], dtype=np.int64),
    )


def at(instant: Any, *rows: Any, purpose: Any = "train") -> Any:
    return int(standing(log(*rows), purpose, instant)[0])


@pytest.mark.parametrize(("instant", "want"), [(4, SILENT), (5, CONSENTED), (6, CONSENTED)])
@pytest.mark.parametrize("clocks", [(5, 2), (2, 5)])
def test_a_grant_acts_when_both_clocks_have_come(instant: Any, want: Any, clocks: Any) -> None:
    assert at(instant, (G, *clocks)) == want


@pytest.mark.parametrize(("instant", "want"), [(4, CONSENTED), (5, W)])
@pytest.mark.parametrize("effective", [2, 5, 99])
def test_a_restriction_acts_as_soon_as_it_is_known(instant: Any, want: Any, effective: Any) -> None:
    assert at(instant, (G, 1, 1), (W, 5, effective)) == want


@pytest.mark.parametrize(
    ("grant", "want"),
    [
        ((6, 6), CONSENTED),
        ((6, 5), W),  # same effective instant: a tie is a no
        ((5, 6), W),  # same record instant
        ((6, 4), W),  # recorded later, effective earlier: arrived late
        ((4, 6), W),  # effective later, recorded earlier: a fast clock
        ((4, 4), W),
    ],
)
def test_only_a_grant_later_in_both_clocks_revives(grant: Any, want: Any) -> None:
    assert at(10, (W, 5, 5), (G, *grant)) == want


def test_a_grant_must_be_later_than_every_restriction_not_only_the_newest() -> None:
    assert at(10, (W, 5, 8), (W, 6, 6), (G, 7, 7)) == W
    assert at(10, (W, 5, 8), (W, 6, 6), (G, 9, 9)) == CONSENTED


@pytest.mark.parametrize(("instant", "want"), [(6, CONSENTED), (7, X), (8, X)])
def test_at_its_end_a_grant_is_over(instant: Any, want: Any) -> None:
    assert at(instant, (G, 1, 1, 7)) == want


def test_a_newer_grant_replaces_an_older_one_both_ways() -> None:
    assert at(8, (G, 1, 1, 5), (G, 2, 2)) == CONSENTED  # renewed for ever
    assert at(8, (G, 1, 1), (G, 2, 2, 5)) == X  # renewed for a time that is over


def test_of_two_grants_at_one_instant_the_sooner_end_holds() -> None:
    assert at(8, (G, 1, 1), (G, 1, 1, 5)) == X


def test_a_grant_that_acts_later_may_replace_an_expired_one_when_it_does() -> None:
    rows = ((G, 1, 1, 5), (G, 2, 9))
    assert [at(t, *rows) for t in (4, 5, 8, 9)] == [CONSENTED, X, X, CONSENTED]


def test_a_restriction_does_not_uncover_an_older_grant() -> None:
    """The newest grant is expired; a restriction that removes it must not let the older one speak."""
    rows = ((G, 5, 5), (G, 7, 3, 8))
    assert at(9, *rows) == X
    assert at(9, *rows, (W, 1, 4)) != CONSENTED


def test_expired_after_a_lifted_withdrawal_is_expired_not_withdrawn() -> None:
    assert at(8, (W, 1, 1), (G, 2, 2, 5)) == X


def test_the_latest_restriction_names_the_reason_and_of_a_tie_the_gravest() -> None:
    assert at(9, (O, 2, 2), (W, 5, 5)) == W
    assert at(9, (W, 5, 5), (O, 5, 5)) == O
    assert at(9, (R, 5, 5), (X, 5, 5)) == R


def test_purposes_do_not_mix() -> None:
    assert at(9, (G, 1, 1, NEVER, "care")) == OTHER_PURPOSE
    assert at(9, (G, 1, 1), (W, 5, 5, NEVER, "care")) == CONSENTED
    assert at(9, (W, 5, 5, NEVER, "care")) == SILENT
    assert at(0, (G, 1, 1, NEVER, "care")) == SILENT


def test_a_restriction_of_every_purpose_reaches_each() -> None:
    assert at(9, (G, 1, 1), (O, 5, 5, NEVER, "*")) == O
    assert at(9, (O, 5, 5, NEVER, "*"), purpose="unheard-of") == O


def test_a_grant_of_every_purpose_would_grant_none() -> None:
    """Files with one are refused; should one get here all the same, it grants nothing."""
    assert at(9, (G, 1, 1, NEVER, "*")) == OTHER_PURPOSE


def test_an_empty_log_has_nobody_and_no_instant() -> None:
    empty = log()
    assert standing(empty, "train", 5).tolist() == [SILENT]
    assert empty.instants().tolist() == []


def test_instants_are_every_clock_once() -> None:
    assert log((G, 5, 3, 9), (W, 3, 4)).instants().tolist() == [3, 4, 5, 9]
