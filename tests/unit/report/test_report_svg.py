"""Elements escape, numbers are short, ticks are round."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from markupsafe import Markup

from fedgen.report.svg import drawing, element, number, room, scale, shortened, tick_text, ticks

if TYPE_CHECKING:
    from collections.abc import Callable

NASTY = "<script>alert('x')</script> & \"quoted\""


def test_text_and_attributes_are_escaped(parse: Callable[..., Any]) -> None:
    found = element("text", NASTY, element("tspan", NASTY), class_="a", data_x=NASTY)
    assert "<script" not in found
    tree = parse(found)
    assert tree.text == NASTY
    assert tree[0].text == NASTY
    assert tree.attrib == {"class": "a", "data-x": NASTY}


def test_absent_attributes_and_empty_elements() -> None:
    assert element("rect", x=1.0, rx=None) == Markup('<rect x="1"/>')
    assert element("g") == "<g/>"


def test_a_drawing_is_named_and_described(parse: Callable[..., Any]) -> None:
    tree = parse(drawing(10, 5.5, [element("g")], ident="d", title="T", desc="D", kind="k"))
    assert tree.get("role") == "img"
    assert tree.get("viewBox") == "0 0 10 5.5"
    assert tree.get("width") is None
    named = {child.get("id"): child.text for child in tree if child.get("id")}
    assert [named[i] for i in (tree.get("aria-labelledby") or "").split()] == ["T", "D"]
    fixed = parse(drawing(10, 5, [], ident="d", title="T", desc="D", kind="k", fixed=True))
    assert (fixed.get("width"), fixed.get("height")) == ("10", "5")


@pytest.mark.parametrize(
    ("value", "text"), [(1, "1"), (1.5, "1.5"), (1 / 3, "0.33"), (-0.001, "0"), (100, "100"), (2.0, "2")]
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_are_finite(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        number(value)


def test_scale_is_linear_and_takes_a_point_to_the_middle() -> None:
    assert scale(0, 10, 100, 200, 2.5) == 125
    assert scale(3, 3, 0, 10, 3) == 5


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 0.037), (-5, 5), (3, 3), (0, 123456), (1e-9, 2e-9), (2, 2.1), (0, 5e-324)]
)
def test_ticks_lie_inside_and_ascend(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 1 <= len(found) <= 6
    assert list(found) == sorted(set(found))
    assert all(low - 1e-9 <= t <= high + 1e-9 for t in found)


@pytest.mark.parametrize(("low", "high"), [(1, 0), (0, math.inf), (math.nan, 1)])
def test_ticks_need_bounds(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="bounds"):
        ticks(low, high)


def test_tick_labels_have_the_decimals_they_need() -> None:
    assert [tick_text(t, (0, 0.5, 1)) for t in (0, 0.5, 1)] == ["0.0", "0.5", "1.0"]
    assert tick_text(2000, (0, 1000, 2000)) == "2,000"
    assert tick_text(7, (7,)) == "7"
    assert tick_text(0, (0,)) == "0"
    assert [tick_text(t, (0, 1e-9, 2e-9)) for t in (0, 1e-9, 2e-9)] == ["0", "1e-09", "2e-09"]
    assert tick_text(2e299, (0, 2e299)) == "2e+299"


def test_long_labels_are_cut_with_a_mark() -> None:
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdefg", 6) == "abcde…"
    assert room(["a", "a" * 50], 10) == room(["a" * 10], 10) > room([], 10)
