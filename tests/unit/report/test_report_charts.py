"""Lines, legends and meters say what they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fedgen.report.charts import MAX_POINTS, Line, legend, line_chart, meter

if TYPE_CHECKING:
    from collections.abc import Callable

NASTY = "<script>x</script>"


def _chart(*lines: Line, **options: object) -> str:
    named = {"ident": "c", "title": "T", "desc": "D", "y_label": "ε"} | options
    return line_chart(lines, **named)


def _points(tree: Any, kind: str) -> list[tuple[float, float]]:
    found = next(e for e in tree.iter("polyline") if kind in (e.get("class") or "").split())
    return [tuple(float(v) for v in p.split(",")) for p in found.get("points").split()]


def test_a_rising_line_rises(parse: Callable[..., Any]) -> None:
    tree = parse(_chart(Line("a", (1, 2, 3), (0.0, 1.0, 2.0))))
    points = _points(tree, "s0")
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert [y for _, y in points] == sorted((y for _, y in points), reverse=True)
    gaps = [points[i][1] - points[i + 1][1] for i in (0, 1)]
    assert gaps[0] == pytest.approx(gaps[1], abs=0.02)


def test_lines_differ_by_class_and_faint_ones_take_none(parse: Callable[..., Any]) -> None:
    lines = (Line("f", (1, 2), (1, 1), faint=True), Line("a", (1, 2), (1, 2)), Line("b", (1, 2), (2, 1)))
    tree = parse(_chart(*lines))
    assert [e.get("class") for e in tree.iter("polyline")] == ["line faint", "line s0", "line s1"]


def test_the_limit_lies_at_its_height_and_is_named(parse: Callable[..., Any]) -> None:
    tree = parse(_chart(Line("a", (1, 2), (0.0, 3.0)), limit=(3.0, "allowed")))
    limit = next(e for e in tree.iter("line") if e.get("class") == "limit")
    assert float(limit.get("y1")) == pytest.approx(_points(tree, "s0")[-1][1], abs=0.02)
    assert "allowed" in [e.text for e in tree.iter("text")]


def test_one_round_is_a_dot_and_no_line_is_nothing(parse: Callable[..., Any]) -> None:
    tree = parse(_chart(Line("a", (4,), (1.0,))))
    assert [e.get("class") for e in tree.iter("circle")] == ["dot s0"]
    assert "4" in [e.text for e in tree.iter("text")]
    assert _chart() == ""


def test_constant_and_negative_values_fit(parse: Callable[..., Any]) -> None:
    for values in ((0.0, 0.0), (-3.0, -1.0), (5.0, 5.0)):
        for from_zero in (True, False):
            tree = parse(_chart(Line("a", (1, 2), values), from_zero=from_zero))
            assert all(0 <= y <= 270 for _, y in _points(tree, "s0"))


def test_many_points_are_thinned_and_the_last_is_kept(parse: Callable[..., Any]) -> None:
    n = 10_000
    line = Line("a", tuple(range(1, n + 1)), tuple(float(i) for i in range(n)))
    points = _points(parse(_chart(line)), "s0")
    assert len(points) <= MAX_POINTS + 2
    last = _points(parse(_chart(Line("a", (1, n), (0.0, n - 1.0)))), "s0")[-1]
    assert points[-1] == last


def test_axis_names_first_and_last_round(parse: Callable[..., Any]) -> None:
    tree = parse(_chart(Line("a", (1, 37), (0.0, 1.0))))
    texts = [e.text for e in tree.iter("text")]
    assert {"1", "37", "round", "ε"} <= set(texts)


def test_names_are_escaped(parse: Callable[..., Any]) -> None:
    chart = _chart(Line(NASTY, (1, 2), (0, 1)), title=NASTY, desc=NASTY, y_label=NASTY, limit=(1, NASTY))
    assert "<script" not in chart
    parse(chart)
    assert "<script" not in legend([NASTY], swatches=["s0"])


def test_legend_pairs_names_with_swatches(parse: Callable[..., Any]) -> None:
    tree = parse(legend(["a", "b", "c"], swatches=["s0", "limit", "synthetic"]))
    assert [e.text for e in tree.iter("span")] == ["a", "b", "c"]
    assert [len(list(tree.iter(kind))) for kind in ("line", "rect")] == [2, 1]
    assert legend([], swatches=[]) == ""
    with pytest.raises(ValueError, match="zip"):
        legend(["a"], swatches=[])


@pytest.mark.parametrize(("value", "width"), [(0.0, 0), (0.5, 60), (1.0, 120), (1.2, 120), (-1.0, 0)])
def test_meter_shows_its_share(parse: Callable[..., Any], value: float, width: float) -> None:
    tree = parse(meter(value, floor=None, desc="d"))
    assert tree.get("aria-label") == "d"
    level = next(e for e in tree.iter("rect") if e.get("class") == "level")
    assert float(level.get("width")) == width
    assert not [e for e in tree.iter("rect") if e.get("class") == "floor"]


def test_meter_marks_the_floor(parse: Callable[..., Any]) -> None:
    tree = parse(meter(0.5, floor=0.75, desc="d"))
    mark = next(e for e in tree.iter("rect") if e.get("class") == "floor")
    assert float(mark.get("x")) == 89
