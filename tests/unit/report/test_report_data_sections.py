"""Columns, pairs, samples and comparison."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fedgen.report import data_sections as data
from fedgen.report.model import Comparison, Measure, ReportModel, Rival
from fedgen.report.views import Gallery, Pictures, Split, Table, Text

if TYPE_CHECKING:
    from fedgen.audit.evaluation import Evaluation


def _gallery(model: ReportModel) -> Gallery:
    section = data.columns(model)
    assert section is not None
    return next(b for b in section.blocks if isinstance(b, Gallery))


def test_each_column_has_chart_score_and_figures(model: ReportModel, quality: Evaluation) -> None:
    figures = _gallery(model).figures
    assert [f.heading for f in figures] == ["age", "ward", "sick"]
    for figure, fit in zip(figures, quality.columns, strict=True):
        assert figure.table is not None
        assert figure.table.folded
        assert figure.table.head == ("Value", "Real", "Synthetic")
        assert len(figure.table.rows) == len(fit.labels)
        assert figure.figure.endswith("%")


def test_fine_ordered_columns_are_histograms_and_missing_is_said(model: ReportModel) -> None:
    age, ward, _ = _gallery(model).figures
    assert "histogram" in age.drawing
    assert age.caption.startswith("Missing: real")
    assert "bars" in ward.drawing
    assert ward.caption == ""


def test_training_rows_are_never_drawn(model: ReportModel, quality: Evaluation) -> None:
    hidden = tuple(replace(fit, reference=(), floor=None) for fit in quality.columns)
    found = replace(model, quality=replace(quality, reference="training", columns=hidden))
    section = data.columns(found)
    assert section is not None
    assert any(isinstance(b, Text) and "never drawn" in b.text for b in section.blocks)
    gallery = _gallery(found)
    assert all('class="real"' not in f.drawing for f in gallery.figures)
    assert "real" not in gallery.key
    assert all(f.table is not None and f.table.head == ("Value", "Synthetic") for f in gallery.figures)
    assert gallery.figures[0].caption.startswith("Missing: synthetic")


def test_many_columns_are_capped(model: ReportModel, quality: Evaluation) -> None:
    many = replace(quality, columns=quality.columns * 30)
    section = data.columns(replace(model, quality=many))
    assert section is not None
    assert len(_gallery(replace(model, quality=many)).figures) == data.MAX_DRAWN
    assert any(isinstance(b, Text) and "of 90" in b.text for b in section.blocks)


def test_pairs_list_the_worst_first(model: ReportModel, quality: Evaluation) -> None:
    section = data.pairs(model)
    assert section is not None
    split = section.blocks[0]
    assert isinstance(split, Split)
    values = [float(row[1]) for row in split.right.rows]
    assert values == sorted(values, reverse=True)
    assert len(values) == 3
    assert quality.pairs is not None
    assert f"{quality.pairs.mean:.3f}" in split.right.caption
    assert "real against real" in split.right.caption


def test_nothing_evaluated_nothing_shown(bare: ReportModel, images: ReportModel) -> None:
    assert data.columns(bare) is None
    assert data.pairs(bare) is None
    assert data.samples(bare) is None
    assert data.comparison(bare) is None
    assert data.pairs(images) is None


def test_sample_rows_show_missing_cells(model: ReportModel) -> None:
    section = data.samples(model)
    assert section is not None
    table = section.blocks[0]
    assert isinstance(table, Table)
    assert table.rows == (("41", "north"), ("—", "south"))
    assert "bounded by what is promised" in section.lead


def test_samples_of_an_unprotected_run_promise_nothing(model: ReportModel) -> None:
    for found in (
        replace(model, about=replace(model.about, private=False)),
        replace(model, promises=()),
    ):
        section = data.samples(found)
        assert section is not None
        assert "Nothing is promised" in section.lead


def test_sample_images_are_grouped_by_class(images: ReportModel) -> None:
    section = data.samples(images)
    assert section is not None
    block = section.blocks[0]
    assert isinstance(block, Pictures)
    assert [(label, len(row)) for label, row in block.rows] == [("bright", 2), ("dark", 1)]


def test_mean_images_show_gaps(images: ReportModel) -> None:
    section = data.columns(images)
    assert section is not None
    assert section.title == "Class by class"
    block = next(b for b in section.blocks if isinstance(b, Pictures))
    (real_name, real), (made_name, made) = block.rows
    assert (real_name, made_name) == ("real, held-out", "synthetic")
    assert all("<img" in image for image in real)
    assert "<img" in made[0]
    assert "no-image" in made[1]


def test_comparison_marks_the_best(model: ReportModel) -> None:
    section = data.comparison(model)
    assert section is not None
    table = section.blocks[0]
    assert isinstance(table, Table)
    this, pooled = table.rows
    assert (this[1], pooled[1]) == ("0.200", "<strong>0.100</strong>")
    assert (this[2], pooled[2]) == ("<strong>0.700</strong>", "—")
    assert section.basis == "Held-out rows."


def test_a_measure_nobody_has_is_all_dashes(model: ReportModel) -> None:
    empty = Comparison((Measure("m", "higher"),), (Rival("a", "", (None,)),), "")
    section = data.comparison(replace(model, comparison=empty))
    assert section is not None
    table = section.blocks[0]
    assert isinstance(table, Table)
    assert table.rows[0][1] == "—"
