"""The sections about the run as a whole: promises, spending, loss."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Final

from fedgen.report import words
from fedgen.report.charts import Line, legend, line_chart
from fedgen.report.views import Figure, Promises, Section, Split, Table, Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fedgen.report.model import ReportModel, Series
    from fedgen.report.views import Block

MAX_ROWS: Final = 14  # of a table beside a chart
MAX_LINES: Final = 6  # drawn apart; more are drawn faint, the highest apart
MAX_FAINT: Final = 60


def promises(model: ReportModel) -> Section:
    """Return the privacy statements, word for word as they were given."""
    lead = (
        f"What {words.RELIES.get(model.about.unit, words.RELIES['record'])} can rely on. These sentences were written "
        "by the program that keeps the account, and are repeated here word for word."
    )
    blocks: tuple[Block, ...] = (Promises(model.promises),)
    if not model.promises:
        blocks = (Text("No privacy statement was made for this run.", tone="warn"),)
    return Section("privacy", "What is promised", lead, blocks)


def spending(model: ReportModel) -> Section | None:
    """Return what was spent over rounds, or None if nothing was accounted."""
    if not model.epsilon or not any(series.values for series in model.epsilon):
        return None
    series = [s for s in model.epsilon if s.values]
    lines, names, swatches = _lines(series)
    allowed = model.epsilon_allowed
    limit = None if allowed is None or not isfinite(allowed) else (allowed, "may be spent")
    if limit:
        names, swatches = [*names, "may be spent"], [*swatches, "limit"]
    chart = line_chart(
        lines,
        ident="spending-chart",
        title="ε spent over rounds",
        desc=f"Upper bounds on ε over the rounds for {len(series)} data sets. The table gives the figures.",
        y_label="ε, upper bound",
        limit=limit,
    )
    marks = _knots(series)
    shown = sorted(series, key=lambda s: -s.values[-1])[:MAX_ROWS] if len(series) > MAX_ROWS else series
    table = Table(
        "ε spent by each site, upper bounds, rounded up",
        ("Site", *(f"Round {r}" for r in marks)),
        tuple((s.label, *(_at_most(s, r) for r in marks)) for s in shown),
        numeric=tuple(range(1, len(marks) + 1)),
    )
    blocks: list[Block] = [Split(Figure(chart, key=legend(names, swatches=swatches)), table)]
    if len(shown) < len(series):
        blocks.append(Text(f"The table shows the {len(shown)} sites that spent most, of {len(series):,}."))
    anybody = words.LEARNS.get(model.about.trust, words.LEARNS["local"])
    lead = (
        "Every round spends a part of what may be spent, and what is spent never comes back. Each line is "
        f"the most that {anybody} can have learnt, so far, about what the run protects."
    )
    return Section("spending", "What was spent, round by round", lead, tuple(blocks), _whose(series))


def loss(model: ReportModel) -> Section | None:
    """Return losses over rounds, or None if none was recorded."""
    series = [s for s in model.loss if s.values]
    if not series:
        return None
    lines, names, swatches = _lines(series)
    chart = line_chart(
        lines,
        ident="loss-chart",
        title="Loss over rounds",
        desc=f"The training loss over the rounds, {len(series)} series. The table gives the figures.",
        y_label="loss",
        from_zero=False,
    )
    marks = _knots(series)
    table = Table(
        "Loss",
        ("Series", *(f"Round {r}" for r in marks)),
        tuple((s.label, *(_value(s, r) for r in marks)) for s in series[:MAX_ROWS]),
        numeric=tuple(range(1, len(marks) + 1)),
    )
    lead = "A falling line means that the model still learns; a flat one, that it has learnt what it can."
    figure = Figure(chart, key=legend(names, swatches=swatches))
    return Section(
        "loss", "How training went", lead, (Split(figure, table),), model.loss_basis or _whose(series)
    )


def _lines(series: Sequence[Series]) -> tuple[list[Line], list[str], list[str]]:
    """Return lines, their names and swatches; equal curves are one line, many curves are faint."""
    groups: dict[tuple[tuple[int, ...], tuple[float, ...]], list[str]] = {}
    for s in series:
        groups.setdefault((s.rounds, s.values), []).append(s.label)
    if len(groups) <= MAX_LINES:
        names = [words.some(labels) for labels in groups.values()]
        lines = [Line(name, *curve) for name, curve in zip(names, groups, strict=True)]
        return lines, names, [f"s{i}" for i in range(len(lines))]
    ranked = sorted(groups.items(), key=lambda item: item[0][1][-1])
    every = max(1, -(-len(ranked) // MAX_FAINT))
    faint = [Line(words.some(labels), *curve, faint=True) for curve, labels in ranked[:-1:every]]
    top = Line(words.some(ranked[-1][1]), *ranked[-1][0])
    return [*faint, top], [f"highest: {top.label}", "other sites"], ["s0", "faint"]


def _whose(series: Sequence[Series]) -> str:
    """Return whose data some series are about, each once, and how many more if there are many."""
    return words.some(list(dict.fromkeys(s.whose for s in series)))


def _knots(series: Sequence[Series]) -> tuple[int, ...]:
    """Return about four recorded rounds for a table, the last among them."""
    rounds = sorted({r for s in series for r in s.rounds})
    return tuple(sorted({rounds[max(0, -(-len(rounds) * part // 4) - 1)] for part in (1, 2, 3, 4)}))


def _at_most(series: Series, at: int) -> str:
    """Return an upper bound on what had been spent after round ``at``: never an earlier, smaller figure."""
    later = [v for r, v in zip(series.rounds, series.values, strict=True) if r >= at]
    return words.rounded_up(later[0] if later else series.values[-1])


def _value(series: Series, at: int) -> str:
    """Return the value at round ``at``, or the last one before it."""
    upto = [v for r, v in zip(series.rounds, series.values, strict=True) if r <= at]
    return f"{upto[-1]:.4g}" if upto else words.NOTHING
