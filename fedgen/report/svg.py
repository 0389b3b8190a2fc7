"""Primitives of inline SVG: escaped elements, scales and ticks. No style attribute, so a strict CSP holds."""

from __future__ import annotations

from itertools import pairwise
from math import ceil, floor, isfinite, log10
from typing import TYPE_CHECKING, Final

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_TINY: Final = 1e-290  # below, steps would vanish


def element(name: str, *children: str, **attributes: str | float | None) -> Markup:
    """Return one XML element.

    Guarantees:
        - Text and attribute values are escaped; ``Markup`` children are kept as they are.
        - Attributes keep their order, so equal calls give equal bytes.

    Edge cases:
        ==================  ===============================================
        attribute is None   left out
        ``class_``          becomes ``class``
        ``stroke_width``    becomes ``stroke-width``
        ==================  ===============================================

    Args:
        name: Tag name; trusted.
        *children: Text, or Markup.
        **attributes: Names are trusted, values are not.
    """
    opened = Markup("").join(
        Markup(' {}="{}"').format(
            _attribute(key), number(value) if isinstance(value, (int, float)) else value
        )
        for key, value in attributes.items()
        if value is not None
    )
    if not children:
        return Markup("<{}{}/>").format(name, opened)
    inside = Markup("").join(escape(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(name, opened, inside)


def drawing(
    width: float,
    height: float,
    children: Iterable[Markup],
    *,
    ident: str,
    title: str,
    desc: str,
    kind: str,
    fixed: bool = False,
) -> Markup:
    """Return an ``svg`` element that a screen reader announces by ``title`` and ``desc``.

    Args:
        width: Of the view box.
        height: Of the view box.
        children: What is drawn.
        ident: Unique on the page; letters, digits and hyphens.
        title: Short name.
        desc: What the chart shows, in a sentence.
        kind: CSS class.
        fixed: Whether one unit is one pixel; otherwise the drawing fills its place.
    """
    return element(
        "svg",
        element("title", title, id=f"{ident}-title"),
        element("desc", desc, id=f"{ident}-desc"),
        *children,
        class_=f"chart {kind}",
        viewBox=f"0 0 {number(width)} {number(height)}",
        width=width if fixed else None,
        height=height if fixed else None,
        role="img",
        aria_labelledby=f"{ident}-title {ident}-desc",
    )


def number(value: float) -> str:
    """Return a coordinate with at most two decimals and no trailing zeros.

    Raises:
        ValueError: ``value`` is not finite.
    """
    if not isfinite(value):
        raise ValueError("a coordinate must be finite")
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def scale(low: float, high: float, start: float, end: float, value: float) -> float:
    """Return where ``value`` of ``[low, high]`` lies in ``[start, end]``; the middle when ``low == high``."""
    if high == low:
        return (start + end) / 2
    return start + (value - low) / (high - low) * (end - start)


def ticks(low: float, high: float, at_most: int = 5) -> tuple[float, ...]:
    """Return round numbers inside ``[low, high]``, ascending.

    Guarantees:
        - At least one and at most ``at_most + 1`` ticks; steps are 1, 2 or 5 times a power of ten.

    Edge cases:
        ============  =================
        low == high   that one number
        ============  =================

    Raises:
        ValueError: ``high < low`` or a bound is not finite.
    """
    if not (isfinite(low) and isfinite(high)) or high < low:
        raise ValueError("ticks need finite bounds in order")
    if high - low < _TINY:
        return (low,)
    raw = (high - low) / max(1, at_most)
    power = 10.0 ** floor(log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * (1 - 1e-9))
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    digits = 1 - floor(log10(step))  # takes away what multiplication left behind the last digit
    found = tuple(round(i * step, digits) for i in range(first, last + 1))
    return found or (low,)


def tick_text(value: float, marks: Sequence[float]) -> str:
    """Return a tick label with as many decimals as its neighbours need; very small or great ones in powers of ten."""
    step = min((b - a for a, b in pairwise(marks)), default=abs(value) or 1.0)
    decimals = max(0, -floor(log10(step) + 1e-9))
    if decimals > 6 or max(abs(mark) for mark in marks) >= 1e7:  # noqa: PLR2004 - longer labels would not fit
        return f"{value:.3g}"
    return f"{value:,.{decimals}f}"


def shortened(text: str, at_most: int) -> str:
    """Return ``text`` cut to ``at_most`` characters with an ellipsis."""
    return text if len(text) <= at_most else text[: at_most - 1].rstrip() + "…"


def room(texts: Iterable[str], at_most: int) -> float:
    """Return the width that the longest of some 12-unit labels needs, cut to ``at_most`` characters."""
    return 12 + 7.2 * max((len(shortened(text, at_most)) for text in texts), default=0)


def _attribute(key: str) -> str:
    """Return the XML spelling of a Python keyword."""
    return key.rstrip("_").replace("_", "-")
