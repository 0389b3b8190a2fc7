"""Participation, refusals and consent: every cell accounted for, a withdrawal visible in its round."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fedgen.report import site_sections as sites
from fedgen.report.model import Exclusion, ReportModel, SiteBudget, SiteRounds
from fedgen.report.views import Figure, Section, Table, Text

if TYPE_CHECKING:
    from collections.abc import Callable


def _tables(section: Section | None) -> list[Table]:
    assert section is not None
    return [b for b in section.blocks if isinstance(b, Table)]


def _figures(section: Section | None) -> list[Figure]:
    assert section is not None
    return [b for b in section.blocks if isinstance(b, Figure)]


def _classes(figure: Figure, parse: Callable[..., Any]) -> list[str]:
    tree = parse(figure.drawing)
    return [e.get("class").removeprefix("status ") for e in tree.iter("rect")]


def test_budgets_over_all_studies_are_shown_word_for_word(model: ReportModel) -> None:
    assert sites.budgets(replace(model, budgets=())) is None
    row = SiteBudget(
        site="ash", studies=2, others="at most 2", total="at most 3.4", ceilings="4 for the life of the data"
    )
    many = replace(model, budgets=(row, *(replace(row, site=f"site-{n}") for n in range(40))))
    (table,) = _tables(sites.budgets(many))
    assert table.rows[0] == ("ash", "2", "at most 2", "at most 3.4", "4 for the life of the data")
    assert len(table.rows) == sites.MAX_SITES
    assert ReportModel.from_json(many.to_json()) == many


def test_participation_counts_every_round(model: ReportModel) -> None:
    rows = _tables(sites.participation(model))[0].rows
    assert rows[0] == ("ash", "250", "6", "0", "0")
    assert rows[1] == ("birch", "250", "5", "0", "1")
    assert rows[2] == ("cedar", "250", "3", "2", "1")  # late is silence, not a no


def test_participation_grid_has_a_cell_per_site_and_round(
    model: ReportModel, parse: Callable[..., Any]
) -> None:
    kinds = _classes(_figures(sites.participation(model))[0], parse)
    assert len(kinds) == 24
    assert kinds.count("refused") == 2
    assert kinds.count("absent") == 2


def test_many_rounds_share_a_column_and_a_refusal_still_shows(
    bare: ReportModel, parse: Callable[..., Any]
) -> None:
    cells = ["took-part"] * 300
    cells[151] = "consent"
    cells[10] = "absent"
    found = replace(bare, rounds_done=300, participation=(SiteRounds("a", None, tuple(cells)),))
    figure = _figures(sites.participation(found))[0]
    kinds = _classes(figure, parse)
    assert len(kinds) == sites.MAX_COLUMNS
    assert (kinds.count("refused"), kinds.count("absent")) == (1, 1)
    assert "took part x4, consent x1" in figure.drawing
    assert "5 rounds" in figure.caption


def test_before_the_first_round_nobody_took_part_and_nobody_refused(bare: ReportModel) -> None:
    found = replace(bare, participation=(SiteRounds("a", None, ()), SiteRounds("b", None, ())))
    assert sites.participation(found) is None
    assert sites.refusals(found) is None
    tried = replace(bare, participation=(SiteRounds("a", None, ("late",)),))  # asked, and not saved
    assert sites.participation(tried) is not None
    assert sites.refusals(tried) is not None


def test_many_sites_show_those_that_took_part_least(bare: ReportModel) -> None:
    roster = tuple(SiteRounds(f"s{i:03d}", None, ("late" if i == 77 else "took-part",)) for i in range(100))
    section = sites.participation(replace(bare, rounds_done=1, participation=roster))
    table = _tables(section)[0]
    assert len(table.rows) == sites.MAX_SITES
    assert table.rows[0][0] == "s077"
    assert table.folded
    assert section is not None
    assert any(isinstance(b, Text) and "of 100" in b.text for b in section.blocks)


def test_rounds_that_were_tried_and_not_saved_are_drawn(bare: ReportModel, parse: Callable[..., Any]) -> None:
    found = replace(bare, rounds_done=1, participation=(SiteRounds("a", None, ("took-part", "dropped")),))
    assert _classes(_figures(sites.participation(found))[0], parse) == ["took-part", "absent"]


def test_refusals_are_grouped_by_reason(model: ReportModel) -> None:
    no, silent = _tables(sites.refusals(model))
    assert (no.caption, silent.caption) == ("Refusals", "No answer")
    assert [row[0].split("</span>")[0] for row in no.rows] == ["<span>cohort-too-small"]
    assert (no.rows[0][1], no.rows[0][3:]) == ("2", ("cedar", "5 to 6"))
    assert [row[0].split("</span>")[0] for row in silent.rows] == ["<span>late"]
    assert silent.rows[0][3:] == ("cedar", "2")


def test_a_site_that_was_only_late_is_not_said_to_have_refused(bare: ReportModel) -> None:
    section = sites.refusals(replace(bare, participation=(SiteRounds("a", None, ("late", "absent")),)))
    assert section is not None
    assert section.blocks[0] == Text("No site refused in any round.")
    assert [table.caption for table in _tables(section)] == ["No answer"]


def test_no_refusal_is_said(bare: ReportModel) -> None:
    section = sites.refusals(replace(bare, participation=(SiteRounds("a", None, ("took-part",)),)))
    assert section is not None
    assert section.blocks == (Text("No site refused in any round."),)
    assert sites.refusals(bare) is None
    assert sites.participation(bare) is None


def test_a_withdrawal_shows_in_the_round_it_takes_effect(model: ReportModel) -> None:
    rows = _tables(sites.consent(model))[0].rows
    assert rows == (
        ("4", "ash", "Consent withdrawn", "<10", "10-99"),
        ("4", "elm", "Consent withdrawn", "none", "<10"),  # silent while it took part: none
    )


def test_consent_grid_is_dark_where_more_is_left_out(model: ReportModel, parse: Callable[..., Any]) -> None:
    figures = _figures(sites.consent(model))
    assert [figure.heading for figure in figures] == [
        "Consent withdrawn"
    ]  # a reason that is always none is not drawn
    assert (
        _classes(figures[0], parse) == ["level-1"] * 3 + ["level-2"] * 3 + ["level-0"] * 3 + ["level-1"] * 3
    )


def test_a_site_that_did_not_answer_is_not_said_to_have_none(
    bare: ReportModel, parse: Callable[..., Any]
) -> None:
    found = replace(
        bare,
        rounds_done=3,
        participation=(SiteRounds("a", None, ("took-part", "absent", "took-part")),),
        exclusions=(Exclusion("a", 1, "objected", "<10"), Exclusion("a", 3, "objected", "<10")),
    )
    section = sites.consent(found)
    assert _classes(_figures(section)[0], parse) == ["level-1", "absent", "level-1"]
    assert not _tables(section)  # no change: nothing is known of round 2


def test_a_reason_that_vanishes_is_a_change(bare: ReportModel) -> None:
    found = replace(
        bare,
        rounds_done=2,
        participation=(SiteRounds("a", None, ("took-part", "took-part")),),
        exclusions=(Exclusion("a", 1, "consent-expired", "10-99"),),
    )
    assert _tables(sites.consent(found))[0].rows == (("2", "a", "Consent expired", "10-99", "none"),)


def test_many_buckets_keep_their_order(bare: ReportModel, parse: Callable[..., Any]) -> None:
    buckets = ("100-999", "<10", ">=100000", "10-99", "0", "1000-9999")
    found = replace(
        bare,
        rounds_done=6,
        exclusions=tuple(Exclusion("a", i + 1, "objected", b) for i, b in enumerate(buckets)),
    )
    kinds = _classes(_figures(sites.consent(found))[0], parse)
    assert kinds == ["level-3", "level-1", "level-4", "level-2", "level-0", "level-4"]


def test_no_exclusion_reported_or_all_consented(bare: ReportModel) -> None:
    assert sites.consent(bare) is None
    section = sites.consent(replace(bare, rounds_done=1, exclusions=(Exclusion("a", 1, "objected", "0"),)))
    assert section is not None
    assert section.blocks == (Text("Every record had consent in every round."),)
