"""What a site's data had spent by a round, when rounds come twice."""

from __future__ import annotations

import pytest

from fedgen.api.reporting import _charged_by


@pytest.mark.parametrize(
    ("rounds", "marks", "wanted"),
    [
        ((), [1, 2], (0, 0)),
        ((1, 2, 3), [1, 2, 3], (1, 2, 3)),
        ((1, 2, 2, 3), [1, 2, 3], (1, 3, 4)),  # a crashed attempt
        ((2, 3), [1, 2, 3], (0, 1, 2)),  # the site sat round 1 out
        ((1, 2, 3, 4), [1, 2, 3], (1, 2, 4)),  # charged for a round that was never finished
        ((1, 2, 3, 4, 3, 4), [1, 2, 3, 4], (1, 2, 5, 6)),  # rolled back to 2, and asked again
        ((1, 2, 3, 4), [1, 2], (1, 4)),  # rolled back to 2, and not yet gone on
        ((1, 2, 1), [1], (3,)),  # began anew
    ],
)
def test_everything_charged_before_counts(
    rounds: tuple[int, ...], marks: list[int], wanted: tuple[int, ...]
) -> None:
    assert _charged_by(rounds, marks) == wanted
