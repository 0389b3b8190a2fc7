"""Lines over rounds, legends and meters, each a small pure function from figures to inline SVG.

Every chart has a title and a description for screen readers, tells series apart by dash or shape as well as
by colour, and takes its colours from the page's style sheet, so that it follows light, dark and print.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from markupsafe import Markup

from fedgen.report.svg import drawing, element, number, scale, tick_text, ticks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_POINTS: Final = 400
PALETTE: Final = 8
_STROKES: Final = {*(f"s{i}" for i in range(PALETTE)), "faint", "limit"}


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a line chart.

    Attributes:
        label: Shown in the legend.
        x: Ascending.
        y: As many as ``x``; finite.
        faint: Drawn thin and grey, without a legend entry.
    """

    label: str
    x: tuple[int, ...]
    y: tuple[float, ...]
    faint: bool = False


def line_chart(
    lines: Sequence[Line],
    *,
    ident: str,
    title: str,
    desc: str,
    y_label: str,
    limit: tuple[float, str] | None = None,
    from_zero: bool = True,
) -> Markup:
    """Return lines over rounds.

    Edge cases:
        ============  =====================================================
        one round     a dot instead of a line
        no line       an empty string
        many points   thinned to about ``MAX_POINTS``, first and last kept
        ============  =====================================================

    Args:
        lines: At least one point each.
        ident: Unique on the page.
        title: Short name.
        desc: What is shown, in a sentence.
        y_label: Named above the axis.
        limit: A horizontal line and its label.
        from_zero: Whether the axis starts at zero.
    """
    if not lines:
        return Markup("")
    width, height, left, right, top, bottom = 500.0, 260.0, 52.0, 14.0, 30.0, 42.0
    xs = [x for line in lines for x in line.x]
    ys = [y for line in lines for y in line.y] + ([limit[0]] if limit else [])
    low, high = _range(ys, from_zero=from_zero)
    marks = ticks(low, high, 5)

    def at(x: float, y: float) -> tuple[float, float]:
        return scale(min(xs), max(xs), left, width - right, x), scale(low, high, height - bottom, top, y)

    drawn = [element("text", y_label, x=left, y=16, class_="axis-name")]
    for mark in marks:
        y = at(xs[0], mark)[1]
        drawn.append(element("line", x1=left, x2=width - right, y1=y, y2=y, class_="grid"))
        drawn.append(element("text", tick_text(mark, marks), x=left - 8, y=y + 4, class_="tick end"))
    base = height - bottom
    drawn += [
        element("text", str(x), x=at(x, low)[0], y=base + 18, class_="tick middle")
        for x in _round_marks(min(xs), max(xs))
    ]
    drawn.append(
        element("text", "round", x=(left + width - right) / 2, y=height - 5, class_="axis-name middle")
    )
    if limit:
        y = at(xs[0], limit[0])[1]
        drawn.append(element("line", x1=left, x2=width - right, y1=y, y2=y, class_="limit"))
        drawn.append(element("text", limit[1], x=width - right, y=y - 6, class_="limit-name end"))
    index = 0
    for line in lines:
        drawn.append(_stroke(line, at, "faint" if line.faint else f"s{index % PALETTE}"))
        index += not line.faint
    return drawing(width, height, drawn, ident=ident, title=title, desc=desc, kind="line-chart")


def legend(names: Sequence[str], *, swatches: Sequence[str]) -> Markup:
    """Return a list of swatches and names to stand under a chart; an empty string for no name."""
    items = []
    for name, kind in zip(names, swatches, strict=True):
        if kind in _STROKES:
            mark = element("line", x1=0, x2=26, y1=6, y2=6, class_=f"line {kind}")
        else:
            mark = element("rect", x=7, y=0, width=12, height=12, rx=2, class_=kind)
        swatch = element("svg", mark, class_="swatch", viewBox="0 0 26 12", aria_hidden="true")
        items.append(element("li", swatch, element("span", name)))
    return element("ul", *items, class_="legend") if items else Markup("")


def meter(value: float, *, floor: float | None, desc: str) -> Markup:
    """Return a small bar for a share, with a tick where real rows against real rows come.

    Args:
        value: In [0, 1].
        floor: Where the tick stands, in [0, 1], or None.
        desc: The same in words.
    """
    drawn = [
        element("rect", x=0, y=3, width=120, height=8, rx=4, class_="track"),
        element("rect", x=0, y=3, width=120 * min(1.0, max(0.0, value)), height=8, rx=4, class_="level"),
    ]
    if floor is not None:
        drawn.append(element("rect", x=120 * floor - 1, y=0, width=2, height=14, class_="floor"))
    return element("svg", *drawn, class_="meter", viewBox="0 0 120 14", role="img", aria_label=desc)


def _range(values: Sequence[float], *, from_zero: bool) -> tuple[float, float]:
    """Return the bounds of the y axis with a little room."""
    low, high = min(values), max(values)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0
    return (min(0.0, low), high + room) if from_zero else (low - room, high + room)


def _round_marks(first: int, last: int) -> tuple[int, ...]:
    """Return the rounds written under the axis, first and last among them."""
    inner = [int(t) for t in ticks(first, last, 6) if t == int(t)]
    gap = (last - first) / 12
    kept = [t for t in inner if t - first > gap and last - t > gap]
    return tuple(sorted({first, *kept, last}))


def _stroke(line: Line, at: Callable[[float, float], tuple[float, float]], kind: str) -> Markup:
    """Return a polyline, or a dot for a single point."""
    every = max(1, -(-len(line.x) // MAX_POINTS))
    chosen = sorted({*range(0, len(line.x), every), len(line.x) - 1})
    points = [at(line.x[i], line.y[i]) for i in chosen]
    tip = element("title", line.label)
    if len(points) == 1:
        return element("circle", tip, cx=points[0][0], cy=points[0][1], r=4, class_=f"dot {kind}")
    path = " ".join(f"{number(x)},{number(y)}" for x, y in points)
    return element("polyline", tip, points=path, class_=f"line {kind}")
