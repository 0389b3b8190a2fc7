"""Promises, spending and loss: word for word, never understated, readable with a thousand sites."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from fedgen.report import run_sections as run
from fedgen.report.model import Promise, ReportModel, Series
from fedgen.report.render import render
from fedgen.report.views import Promises, Section, Split, Text


def _split(section: Section | None) -> Split:
    assert section is not None
    found = section.blocks[0]
    assert isinstance(found, Split)
    return found


def test_promises_are_given_word_for_word(model: ReportModel) -> None:
    assert run.promises(model).blocks == (Promises(model.promises),)


@pytest.mark.parametrize(
    ("unit", "who"),
    [
        ("record", "whose one record was used"),
        ("person", "whose records were used"),
        ("site", "a site whose"),
    ],
)
def test_the_lead_speaks_of_the_unit_that_is_protected(bare: ReportModel, unit: str, who: str) -> None:
    about = replace(bare.about, unit=unit)
    assert who in run.promises(replace(bare, about=about)).lead


def test_central_trust_bounds_nothing_that_the_coordinator_learns(model: ReportModel) -> None:
    section = run.spending(replace(model, about=replace(model.about, trust="central")))
    assert section is not None
    assert "anybody but the coordinator" in section.lead


def test_where_nothing_is_promised_nothing_is_called_measured(bare: ReportModel) -> None:
    nothing = Promise("Coordinator: nothing is promised.", "coordinator", proved=False)
    page = render(replace(bare, promises=(nothing,)))
    assert "nothing promised" in page
    assert "measured, not proved" not in page


def test_a_run_without_promises_says_so(bare: ReportModel) -> None:
    found = run.promises(bare).blocks[0]
    assert isinstance(found, Text)
    assert found.tone == "warn"


def test_spending_lists_each_site_and_rounds_up(model: ReportModel) -> None:
    table = _split(run.spending(model)).right
    assert [row[0] for row in table.rows] == ["ash", "birch", "cedar", "elm"]
    assert table.head == ("Site", "Round 2", "Round 3", "Round 5", "Round 6")
    assert table.rows[0][-1] == "2.000"  # 1.9999


def test_spending_never_shows_an_earlier_figure_for_a_later_round(bare: ReportModel) -> None:
    sparse = Series("a", "a's records", (1, 10), (0.1, 1.0))
    dense = Series("b", "b's records", (1, 5, 10), (0.1, 0.5, 1.0))
    rows = _split(run.spending(replace(bare, epsilon=(sparse, dense)))).right
    column = rows.head.index("Round 5")
    assert rows.rows[0][column] == "1.000"  # not 0.100, which was true of round 1
    assert rows.rows[1][column] == "0.500"


def test_equal_curves_share_a_line_and_the_limit_is_in_the_key(model: ReportModel) -> None:
    figure = _split(run.spending(model)).left
    assert str(figure.drawing).count("<polyline") == 1
    assert "ash, birch, cedar and 1 more" in figure.key
    assert "may be spent" in figure.key
    for absent in (None, math.inf):
        assert "may be spent" not in _split(run.spending(replace(model, epsilon_allowed=absent))).left.key


def test_a_thousand_sites_stay_readable(bare: ReportModel) -> None:
    many = tuple(Series(f"s{i}", f"s{i}'s records", (1, 2), (0.0, i / 1000)) for i in range(1000))
    section = run.spending(replace(bare, epsilon=many))
    split = _split(section)
    assert len(split.right.rows) == run.MAX_ROWS
    assert split.right.rows[0][0] == "s999"
    assert str(split.left.drawing).count("<polyline") <= run.MAX_FAINT + 2
    assert "highest: s999" in split.left.key
    assert section is not None
    assert "997 more" in section.basis
    assert any(isinstance(b, Text) and "of 1,000" in b.text for b in section.blocks)


def test_nothing_accounted_is_nothing_shown(bare: ReportModel) -> None:
    assert run.spending(bare) is None
    assert run.spending(replace(bare, epsilon=(Series("a", "b", (), ()),))) is None


def test_loss_says_on_whose_data(model: ReportModel, bare: ReportModel) -> None:
    section = run.loss(model)
    assert section is not None
    assert section.basis == "Computed on held-out rows."
    assert _split(section).right.rows == (("held-out loss", "9", "7.5", "7"),)
    assert run.loss(bare) is None
    unsaid = run.loss(replace(model, loss_basis=""))
    assert unsaid is not None
    assert unsaid.basis == "held-out rows"


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_short_runs_fit(bare: ReportModel, rounds: int) -> None:
    series = Series("a", "w", tuple(range(1, rounds + 1)), tuple(float(i) for i in range(rounds)))
    section = run.loss(replace(bare, loss=(series,)))
    assert len(_split(section).right.head) == rounds + 1


def test_a_series_that_starts_late_has_a_gap(bare: ReportModel) -> None:
    late, early = Series("late", "w", (4,), (2.0,)), Series("early", "w", (1, 2, 3, 4), (4.0, 3.0, 2.0, 1.0))
    rows = _split(run.loss(replace(bare, loss=(late, early)))).right.rows
    assert rows[0] == ("late", "—", "—", "—", "2")
