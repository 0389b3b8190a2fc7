"""The sections that show the synthetic data: columns, pairs, samples, and this run beside others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fedgen.report import words
from fedgen.report.charts import legend
from fedgen.report.distributions import histogram, paired_bars
from fedgen.report.grids import heat_map
from fedgen.report.model import SampleRows
from fedgen.report.png import picture
from fedgen.report.svg import element
from fedgen.report.views import Figure, Gallery, Pictures, Section, Split, Table, Text

if TYPE_CHECKING:
    from markupsafe import Markup

    from fedgen.audit.fidelity import ColumnFit, PairFit
    from fedgen.audit.images import ImageFit
    from fedgen.report.model import Comparison, ReportModel, SampleImages
    from fedgen.report.views import Block

MAX_DRAWN: Final = 60  # columns drawn one by one
MAX_PAIRS: Final = 12  # listed beside the map


def columns(model: ReportModel) -> Section | None:
    """Return real beside synthetic, column by column, or None if no held-out histogram is known."""
    quality = model.quality
    if quality is None or not (quality.columns or quality.images):
        return None
    held_out = quality.reference == "held-out"
    names, swatches = ["synthetic"], ["synthetic"]
    if held_out:
        names, swatches = ["real, held-out", "synthetic"], ["real", "synthetic"]
    figures = tuple(_column(fit, i) for i, fit in enumerate(quality.columns[:MAX_DRAWN]))
    blocks: list[Block] = [Gallery(figures, legend(names, swatches=swatches))]
    if not held_out:
        blocks.insert(
            0, Text("No held-out rows were given. Real rows used for training are never drawn here.")
        )
    if len(quality.columns) > MAX_DRAWN:
        blocks.append(Text(f"The first {MAX_DRAWN} of {len(quality.columns)} columns are drawn."))
    lead = (
        "How often each declared value or range occurs. The figure beside a name is its score: 100\u00a0% means "
        "that the two shapes are the same."
    )
    title = "Column by column"
    if quality.images is not None:
        title = "Class by class"
        blocks.append(_mean_images(quality.images))
    return Section("columns", title, lead, tuple(blocks), quality.basis.sentence)


def pairs(model: ReportModel) -> Section | None:
    """Return the heat map of pairs, or None for fewer than two columns."""
    quality = model.quality
    if quality is None or quality.pairs is None:
        return None
    fit = quality.pairs
    lead = (
        "Whether columns go together as they do in real life. Each cell is the share of rows that would have "
        "to change for the two columns, taken together, to agree: light is good."
    )
    drawing = heat_map(
        fit.names,
        fit.tvd,
        ident="pairs-map",
        title="Distance of pairs of columns",
        desc=f"Distances of the pairs of {len(fit.names)} columns; the table lists the greatest.",
    )
    return Section(
        "pairs", "Two columns at a time", lead, (Split(Figure(drawing), _worst(fit)),), quality.basis.sentence
    )


def samples(model: ReportModel) -> Section | None:
    """Return a few synthetic rows or images, or None if there are none."""
    lead = "Written by the generator, not recorded from anybody. "
    if model.about.private and model.promises:
        lead += (
            "What they can reveal about the people in the training data is bounded by what is promised above."
        )
    else:
        lead += "Nothing is promised about what they reveal of the people in the training data."
    if model.samples is None:
        return None
    if isinstance(model.samples, SampleRows):
        rows = tuple(tuple(cell or words.NOTHING for cell in row) for row in model.samples.rows)
        table = Table("Synthetic rows", model.samples.columns, rows)
        return Section("samples", "A few synthetic rows", lead, (table,))
    return Section("samples", "A few synthetic images", lead, (_grid(model.samples),))


def comparison(model: ReportModel) -> Section | None:
    """Return this run beside others, or None if there are none."""
    if model.comparison is None:
        return None
    table = _rivals(model.comparison)
    lead = "The same model trained in other ways, so that the price of privacy and of federation can be seen."
    return Section("comparison", "What privacy and federation cost", lead, (table,), model.comparison.basis)


def _column(fit: ColumnFit, index: int) -> Figure:
    """Return the chart and the figures of one column."""
    keep = len(fit.labels) - fit.missing
    desc = f"Shares of the values of {fit.name}; the table below gives the figures."
    draw = histogram if fit.ordered and keep > 6 else paired_bars  # noqa: PLR2004 - few values read better as bars
    end = keep if draw is histogram else len(fit.labels)
    drawing = draw(
        fit.labels[:end],
        fit.reference[:end],
        fit.synthetic[:end],
        ident=f"column-{index}",
        title=fit.name,
        desc=desc,
    )
    held_out = bool(fit.reference)
    head = ("Value", "Real", "Synthetic") if held_out else ("Value", "Synthetic")
    shares = zip(fit.reference, fit.synthetic, strict=True) if held_out else ((s,) for s in fit.synthetic)
    rows = tuple(
        (label, *(words.percent(x) for x in row)) for label, row in zip(fit.labels, shares, strict=True)
    )
    caption = ""
    if end < len(fit.labels):
        made = f"synthetic {words.percent(fit.synthetic[-1])}"
        caption = (
            f"Missing: real {words.percent(fit.reference[-1])}, {made}" if held_out else f"Missing: {made}"
        )
    table = Table("Figures", head, rows, tuple(range(1, len(head))), folded=True)
    return Figure(drawing, caption=caption, heading=fit.name, figure=words.percent(fit.shape), table=table)


def _worst(fit: PairFit) -> Table:
    """Return the pairs that agree least."""
    d = len(fit.names)
    ranked = sorted(
        ((fit.tvd[a][b], a, b) for a in range(d) for b in range(a)), key=lambda t: (-t[0], t[1], t[2])
    )
    rows = tuple(
        (f"{fit.names[b]} with {fit.names[a]}", f"{value:.3f}") for value, a, b in ranked[:MAX_PAIRS]
    )
    floor = "" if fit.floor is None else f"; real against real: {fit.floor:.3f}"
    caption = f"Pairs that agree least (mean of all {len(ranked)}: {fit.mean:.3f}{floor})"
    return Table(caption, ("Pair", "Distance"), rows, (1,))


def _mean_images(fit: ImageFit) -> Pictures:
    """Return the average image of each class, held-out real ones above synthetic ones."""
    size = {"height": fit.height, "width": fit.width, "channels": fit.channels}
    kinds = [("synthetic", [m.synthetic for m in fit.means])]
    if any(m.reference for m in fit.means):
        kinds.insert(0, ("real, held-out", [m.reference for m in fit.means]))
    rows = tuple(
        (
            kind,
            tuple(
                picture(p, **size, alt=f"average {kind} image of {m.label}")
                for p, m in zip(found, fit.means, strict=True)
            ),
        )
        for kind, found in kinds
    )
    return Pictures("The average image of each class", rows)


def _grid(found: SampleImages) -> Pictures:
    """Return the sample images, one row per class."""
    size = {"height": found.height, "width": found.width, "channels": found.channels}
    rows: dict[str, list[Markup]] = {}
    for i, (label, pixels) in enumerate(zip(found.labels, found.pixels, strict=True), start=1):
        said = f"synthetic image {i}" + (f" of {label}" if label else "")
        rows.setdefault(label, []).append(picture(pixels, **size, alt=said))
    return Pictures("Synthetic images", tuple((label, tuple(row)) for label, row in sorted(rows.items())))


def _rivals(found: Comparison) -> Table:
    """Return the comparison table, the best figure of each column marked."""
    best: list[float | None] = []
    for i, measure in enumerate(found.measures):
        values = [r.values[i] for r in found.rivals if r.values[i] is not None]
        pick = max if measure.better == "higher" else min
        best.append(pick(v for v in values if v is not None) if values else None)
    rows = []
    for rival in found.rivals:
        cells: list[str] = [element("span", rival.label) + element("small", rival.note)]
        for value, top in zip(rival.values, best, strict=True):
            text = words.NOTHING if value is None else f"{value:.3f}"
            cells.append(element("strong", text) if value is not None and value == top else text)
        rows.append(tuple(cells))
    head = ("Trained", *(f"{m.name} ({m.better} is better)" for m in found.measures))
    return Table("This run beside others", head, tuple(rows), tuple(range(1, len(head))))
