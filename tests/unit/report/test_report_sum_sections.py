"""The section about sums: who sees what, and rounds that were not plain."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fedgen.report.model import Observer, ReportModel, SumRound, Sums
from fedgen.report.render import render
from fedgen.report.sum_sections import MAX_ROUNDS, sums
from fedgen.report.views import Table, Text

if TYPE_CHECKING:
    from fedgen.report.views import Section

SHARED = Sums(
    masked=True,
    sites=5,
    observers=(
        Observer("the coordinator", "a sum", "ε at most 1.5", "about 1.4"),
        Observer("the network", "sizes", "", ""),
    ),
    rounds=(
        SumRound(1, 1, 5),
        SumRound(2, 1, 4, ("site-03",)),
        SumRound(3, 2, 5),
        SumRound(4, 3, 0, ("site-01", "site-02")),
    ),
    settings=(("threshold", "4 sites must agree"), ("ring", "32 bits")),
)


def section(model: ReportModel, found: Sums | None) -> Section | None:
    return sums(replace(model, sums=found))


def tables(found: Section | None) -> list[Table]:
    assert found is not None
    return [block for block in found.blocks if isinstance(block, Table)]


def test_only_distributed_trust_has_the_section(model: ReportModel) -> None:
    assert section(model, None) is None


def test_every_observer_is_shown_with_what_they_see(model: ReportModel) -> None:
    who, *_ = tables(section(model, SHARED))
    assert who.rows == (
        ("the coordinator", "a sum", "ε at most 1.5", "about 1.4"),
        ("the network", "sizes", "", ""),
    )
    assert "estimate" in who.head[-1]


def test_rounds_that_were_not_plain_are_told_one_by_one(model: ReportModel) -> None:
    found = section(model, SHARED)
    rounds = tables(found)[1]
    assert rounds.rows == (
        ("2", "4", "1: site-03", "1"),
        ("3", "5", "—", "2"),
        ("4", "lost: no sum was opened, the model stayed as it was", "2: site-01, site-02", "3"),
    )
    assert found is not None
    said = [block.text for block in found.blocks if isinstance(block, Text)]
    assert said == ["In 1 of 4 rounds all 5 sites were in the sum."]


def test_where_nobody_was_missing_one_sentence_is_enough(model: ReportModel) -> None:
    found = section(model, replace(SHARED, rounds=tuple(SumRound(n, 1, 5) for n in range(1, 201))))
    assert [table.caption for table in tables(found)] == [
        "Who sees what, with upper bounds on ε against them",
        "How sums were set up",
    ]


def test_a_long_list_is_cut_and_says_so(model: ReportModel) -> None:
    many = tuple(SumRound(n, 1, 4, ("site-03",)) for n in range(1, MAX_ROUNDS + 8))
    found = section(model, replace(SHARED, rounds=many))
    assert len(tables(found)[1].rows) == MAX_ROUNDS
    assert found is not None
    assert any(isinstance(it, Text) and it.text == "7 more rounds are not shown." for it in found.blocks)


@pytest.mark.parametrize("masked", [True, False])
def test_a_rehearsal_is_called_one(model: ReportModel, *, masked: bool) -> None:
    page = render(replace(model, sums=replace(SHARED, masked=masked)))
    assert ("This was a rehearsal" in page) is not masked
    assert "How sums were taken" in page


def test_the_json_form_is_exact(model: ReportModel) -> None:
    shown = replace(model, sums=SHARED)
    assert ReportModel.from_json(shown.to_json()) == shown
