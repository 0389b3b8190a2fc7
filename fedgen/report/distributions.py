"""Real beside synthetic: the distribution of one column as inline SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fedgen.report.svg import drawing, element, number, room, scale, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

MAX_BINS: Final = 48


def histogram(
    labels: Sequence[str],
    reference: Sequence[float],
    synthetic: Sequence[float],
    *,
    ident: str,
    title: str,
    desc: str,
) -> Markup:
    """Return the shares of ordered codes: real as a filled shape, synthetic as a stepped line over it.

    Edge cases:
        =======================  ==============================================
        ``reference`` is empty   only the synthetic line
        more than ``MAX_BINS``   neighbours are merged, drawing only
        =======================  ==============================================

    Args:
        labels: One per code, in order; the first, middle and last are written under the axis.
        reference: Shares, as many as ``labels``, or empty.
        synthetic: Shares, as many as ``labels``.
        ident: Unique on the page.
        title: Short name.
        desc: What is shown, in a sentence.
    """
    width, height, left, right, top, bottom = 320.0, 150.0, 8.0, 8.0, 20.0, 24.0
    real, made = _merged(reference), _merged(synthetic)
    high = max((*real, *made), default=0.0) or 1.0

    def steps(shares: Sequence[float]) -> str:
        points = []
        for i, share in enumerate(shares):
            y = scale(0, high, height - bottom, top, share)
            points += [(scale(0, len(shares), left, width - right, i + k), y) for k in (0, 1)]
        return " ".join(f"{number(x)},{number(y)}" for x, y in points)

    base = height - bottom
    drawn = [element("line", x1=left, x2=width - right, y1=base, y2=base, class_="axis")]
    if real:
        outline = f"{number(left)},{number(base)} {steps(real)} {number(width - right)},{number(base)}"
        drawn.append(element("polygon", points=outline, class_="real"))
    drawn.append(element("polyline", points=steps(made), class_="synthetic-line"))
    drawn.append(element("text", f"{high:.1%}", x=left, y=13, class_="tick"))
    places = {
        0: (left, ""),
        len(labels) // 2: (width / 2, " middle"),
        len(labels) - 1: (width - right, " end"),
    }
    for i, (x, anchor) in places.items():
        text = shortened(labels[i], 16)
        drawn.append(element("text", text, x=x, y=height - 7, class_=f"tick{anchor}"))
    return drawing(width, height, drawn, ident=ident, title=title, desc=desc, kind="histogram")


def paired_bars(
    labels: Sequence[str],
    reference: Sequence[float],
    synthetic: Sequence[float],
    *,
    ident: str,
    title: str,
    desc: str,
    at_most: int = 10,
) -> Markup:
    """Return the shares of unordered categories as pairs of horizontal bars, real above synthetic.

    Edge cases:
        ========================  =======================================================
        more than ``at_most``     the commonest are drawn, the rest summed as "n others"
        ``reference`` is empty    only synthetic bars
        ========================  =======================================================

    Args:
        labels: One per category.
        reference: Shares, as many as ``labels``, or empty.
        synthetic: Shares, as many as ``labels``.
        ident: Unique on the page.
        title: Short name.
        desc: What is shown, in a sentence.
        at_most: Bars to draw.
    """
    rows = _commonest(labels, reference, synthetic, at_most)
    width, left, step = 320.0, room((label for label, _, _ in rows), 18), 25.0
    high = max((max(real, made) for _, real, made in rows), default=0.0) or 1.0
    drawn = []
    for i, (label, real, made) in enumerate(rows):
        y = 6 + i * step
        drawn.append(element("text", shortened(label, 18), x=0, y=y + 13, class_="tick"))
        for share, kind, offset in ((real, "real", 0), (made, "synthetic", 9)):
            if kind == "synthetic" or reference:
                length = max(1.0, share / high * (width - left - 44))
                drawn.append(element("rect", x=left, y=y + offset, width=length, height=8, class_=kind))
        end = left + max(real, made) / high * (width - left - 44)
        drawn.append(element("text", f"{made:.0%}", x=end + 6, y=y + 14, class_="tick"))
    return drawing(width, 10 + len(rows) * step, drawn, ident=ident, title=title, desc=desc, kind="bars")


def _merged(shares: Sequence[float]) -> list[float]:
    """Return shares with neighbours summed, to at most ``MAX_BINS`` bins."""
    group = max(1, -(-len(shares) // MAX_BINS))
    return [sum(shares[i : i + group]) for i in range(0, len(shares), group)]


def _commonest(
    labels: Sequence[str], reference: Sequence[float], synthetic: Sequence[float], at_most: int
) -> list[tuple[str, float, float]]:
    """Return the commonest categories in declared order and the sum of the others last."""
    real = reference or [0.0] * len(labels)
    rank = sorted(range(len(labels)), key=lambda i: (-max(real[i], synthetic[i]), i))
    if len(labels) <= at_most:
        return [(labels[i], real[i], synthetic[i]) for i in range(len(labels))]
    kept, rest = sorted(rank[: at_most - 1]), rank[at_most - 1 :]
    rows = [(labels[i], real[i], synthetic[i]) for i in kept]
    others = (f"{len(rest)} others", sum(real[i] for i in rest), sum(synthetic[i] for i in rest))
    return [*rows, others]
