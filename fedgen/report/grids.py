"""Grids of cells as inline SVG: distances of pairs, and what each site did in each round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from fedgen.report.svg import drawing, element, number, room, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a status grid.

    Attributes:
        kind: CSS class: ``took-part``, ``refused``, ``absent``, or ``level-0`` to ``level-4``.
        title: Said on hover and by screen readers.
    """

    kind: str
    title: str


def heat_map(
    names: Sequence[str],
    values: Sequence[Sequence[float]],
    *,
    ident: str,
    title: str,
    desc: str,
    at_most: int = 24,
) -> Markup:
    """Return the lower triangle of a symmetric matrix, darker for greater values.

    Edge cases:
        ======================  ================================
        fewer than two names    an empty string
        more than ``at_most``   the first ones are drawn
        ======================  ================================

    Args:
        names: Of the rows and columns.
        values: Shape ``(d, d)``, in [0, 1].
        ident: Unique on the page.
        title: Short name.
        desc: What is shown, in a sentence.
        at_most: Columns to draw.
    """
    shown = min(len(names), at_most)
    if shown < 2:  # noqa: PLR2004 - a pair
        return Markup("")
    width, left, bottom = 500.0, room(names[:shown], 15), 84.0
    side = min(44.0, (width - left - 10) / (shown - 1))
    top = max((values[a][b] for a in range(shown) for b in range(a)), default=0.0) or 1.0
    drawn = []
    for a in range(1, shown):
        y = 4 + (a - 1) * side
        drawn.append(
            element("text", shortened(names[a], 15), x=left - 8, y=y + side / 2 + 4, class_="tick end")
        )
        for b in range(a):
            value, x = values[a][b], left + b * side
            tip = element("title", f"{names[a]} with {names[b]}: {value:.3f}")
            box = {"x": x + 1, "y": y + 1, "width": side - 2, "height": side - 2, "rx": 2}
            drawn.append(element("rect", tip, class_="heat", fill_opacity=0.06 + 0.94 * value / top, **box))
            if side >= 30:  # noqa: PLR2004 - room for a figure
                tone = "on-dark" if value / top > 0.5 else "on-light"  # noqa: PLR2004 - where contrast flips
                text = f"{value:.2f}".removeprefix("0")
                drawn.append(element("text", text, x=x + side / 2, y=y + side / 2 + 4, class_=f"cell {tone}"))
    base = 4 + (shown - 1) * side
    for b in range(shown - 1):
        x = left + (b + 0.5) * side
        turn = f"rotate(-45 {number(x)} {number(base + 14)})"
        drawn.append(
            element("text", shortened(names[b], 15), x=x, y=base + 14, class_="tick end", transform=turn)
        )
    return drawing(width, base + bottom, drawn, ident=ident, title=title, desc=desc, kind="heat-map")


def status_grid(
    rows: Sequence[tuple[str, Sequence[Cell]]], columns: Sequence[str], *, ident: str, title: str, desc: str
) -> Markup:
    """Return a grid of small cells, one row per site and one column per round or group of rounds.

    Guarantees:
        - A refused cell carries a cross and an absent one is hollow: colour is not the only sign.

    Args:
        rows: Label and cells.
        columns: One label per column; about eight of them are written.
        ident: Unique on the page.
        title: Short name.
        desc: What is shown, in a sentence.
    """
    left = room((label for label, _ in rows), 18)
    side = max(11.0, min(21.0, 850 / max(1, len(columns))))
    tall = max(side, 17.0)
    drawn = []
    for i, (label, cells) in enumerate(rows):
        y = 2 + i * tall
        drawn.append(element("text", shortened(label, 18), x=0, y=y + tall / 2 + 4, class_="tick"))
        for j, cell in enumerate(cells):
            drawn += _status(cell, left + j * side, y, side, tall)
    base = 2 + len(rows) * tall
    every = max(1, -(-len(columns) // 8))
    for j in range(0, len(columns), every):
        drawn.append(
            element("text", columns[j], x=left + (j + 0.5) * side, y=base + 16, class_="tick middle")
        )
    drawn.append(element("text", "round", x=left, y=base + 34, class_="axis-name"))
    width = left + len(columns) * side + 10
    return drawing(
        width, base + 40, drawn, ident=ident, title=title, desc=desc, kind="status-grid", fixed=True
    )


def _status(cell: Cell, x: float, y: float, side: float, tall: float) -> list[Markup]:
    """Return a cell and, for a refusal, its cross."""
    gap = 1.0 if side >= 5 else 0.25  # noqa: PLR2004 - very small cells need their area
    tip = element("title", cell.title)
    box = {
        "x": x + gap,
        "y": y + gap,
        "width": side - 2 * gap,
        "height": tall - 2 * gap,
        "rx": min(3.0, side / 5),
    }
    drawn = [element("rect", tip, class_=f"status {cell.kind}", **box)]
    if cell.kind == "refused" and side >= 8:  # noqa: PLR2004 - room for a cross
        r, cx, cy = min(side, tall) * 0.2, x + side / 2, y + tall / 2
        cross = f"M{number(cx - r)} {number(cy - r)}L{number(cx + r)} {number(cy + r)}"
        cross += f"M{number(cx - r)} {number(cy + r)}L{number(cx + r)} {number(cy - r)}"
        drawn.append(element("path", d=cross, class_="cross"))
    return drawn
