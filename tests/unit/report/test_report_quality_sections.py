"""Quality in plain words: floors beside scores, and an alarm that rings only beyond chance."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fedgen.audit.basis import share
from fedgen.audit.nearer import Nearer
from fedgen.report import quality_sections, words
from fedgen.report.views import Table, Text

if TYPE_CHECKING:
    from fedgen.audit.evaluation import Evaluation
    from fedgen.report.model import ReportModel


def _tables(model: ReportModel) -> list[Table]:
    section = quality_sections.scores(model)
    assert section is not None
    return [b for b in section.blocks if isinstance(b, Table)]


def test_three_questions_have_three_tables(model: ReportModel) -> None:
    assert len(_tables(model)) == 3


def test_scores_stand_beside_their_floor(model: ReportModel, quality: Evaluation) -> None:
    rows = {row[0]: row for row in _tables(model)[0].rows}
    shapes = next(row for name, row in rows.items() if "Column shapes" in name)
    assert quality.tvd_1way is not None
    assert quality.tvd_1way_floor is not None
    assert shapes[1] == words.percent(1 - quality.tvd_1way)
    assert shapes[3] == words.percent(1 - quality.tvd_1way_floor)
    assert "aria-label" in shapes[2]
    assert len(rows) == 3


def test_classifiers_stand_beside_the_guess(model: ReportModel) -> None:
    rows = _tables(model)[1].rows
    assert [row[1] for row in rows] == [
        "synthetic rows",
        "real rows",
        "synthetic rows",
        "real rows",
        words.NOTHING,
    ]
    assert rows[-1][3] == "0.500"


def test_the_section_says_whose_rows_it_shows(model: ReportModel) -> None:
    section = quality_sections.scores(model)
    assert section is not None
    assert "not covered by ε" in section.basis


def test_images_have_pixels_and_classes(images: ReportModel) -> None:
    names = [row[0] for row in _tables(images)[0].rows]
    assert "Pixels" in names[0]
    assert "Classes" in names[1]


def test_nothing_evaluated_nothing_shown(bare: ReportModel) -> None:
    assert quality_sections.scores(bare) is None


def test_without_utility_or_holdout(model: ReportModel, quality: Evaluation) -> None:
    dcr = replace(quality.dcr, holdout_to_training=None, synthetic_to_holdout=None)
    lone = replace(quality, tstr=None, tvd_1way_floor=None, dcr=dcr, notes=("No held-out rows.",))
    found = replace(model, quality=lone)
    tables = _tables(found)
    assert len(tables) == 2
    assert len(tables[1].rows) == 1
    section = quality_sections.scores(found)
    assert section is not None
    assert section.blocks[-1] == Text("No held-out rows.")


@pytest.mark.parametrize(
    ("equal", "chance", "nearer", "calm"),
    [
        (share(50, 1000), share(52, 1000), Nearer(0.51, 0.45, 0.55, 1000, people=True), True),
        (share(300, 1000), share(52, 1000), Nearer(0.51, 0.45, 0.55, 1000, people=True), False),
        (share(50, 1000), share(52, 1000), Nearer(0.58, 0.45, 0.55, 1000, people=True), False),
        (share(0, 1000), share(52, 1000), Nearer(0.40, 0.45, 0.55, 1000, people=True), True),
        (share(999, 1000), None, None, True),
    ],
)
def test_verdict(quality: Evaluation, equal: Any, chance: Any, nearer: Any, *, calm: bool) -> None:
    dcr = replace(
        quality.dcr,
        equal_to_training=equal,
        holdout_equal_to_training=chance,
        nearer_training=nearer,
    )
    found, said = quality_sections.verdict(dcr)
    assert found is calm
    assert ("more than chance explains" in said) is not calm
    assert ("nothing to compare" in said) is (chance is None)
    assert "not a proof" in said


def test_an_alarm_by_rows_says_what_else_it_could_be(quality: Evaluation) -> None:
    near = Nearer(0.58, 0.45, 0.55, 1000, people=False)
    _, said = quality_sections.verdict(replace(quality.dcr, nearer_training=near))
    assert "rows of one person" in said
    _, said = quality_sections.verdict(replace(quality.dcr, nearer_training=replace(near, people=True)))
    assert "rows of one person" not in said
