"""The section on quality: likeness, usefulness, and nearness to people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedgen.report import words
from fedgen.report.charts import meter
from fedgen.report.svg import element
from fedgen.report.views import Section, Table, Text

if TYPE_CHECKING:
    from fedgen.audit.copies import Copies, Distances
    from fedgen.audit.evaluation import Evaluation
    from fedgen.audit.utility import Utility
    from fedgen.report.model import ReportModel
    from fedgen.report.views import Block


def scores(model: ReportModel) -> Section | None:
    """Return the quality scores in plain words, or None if the data were not evaluated."""
    quality = model.quality
    if quality is None:
        return None
    lead = (
        "Three questions: do synthetic rows look like real ones, are they of use, and does any of them come "
        "too near to a person? Where real rows could be compared with other real rows, that figure stands "
        "beside: no generator can be asked to do better."
    )
    blocks: list[Block] = [_likeness(quality)]
    if quality.tstr is not None:
        blocks += _usefulness(quality.tstr)
    blocks += _nearness(quality.dcr)
    if quality.notes:
        blocks.append(Text(" ".join(quality.notes)))
    return Section("quality", "How good the synthetic data are", lead, tuple(blocks), quality.basis.sentence)


def _likeness(quality: Evaluation) -> Table:
    """Return the table of fidelity scores."""
    rows = []
    if quality.tvd_1way is not None:
        floor = None if quality.tvd_1way_floor is None else 1 - quality.tvd_1way_floor
        rows.append(_scored("Column shapes", "each column by itself, averaged", 1 - quality.tvd_1way, floor))
    places = [fit.distance for fit in quality.columns if fit.distance is not None]
    if places:
        said = "for columns with an order: how far values are out of place"
        rows.append(_scored("Value positions", said, sum(places) / len(places), None))
    if quality.pairs is not None and quality.pair_trends is not None:
        floor = None if quality.pairs.floor is None else 1 - quality.pairs.floor
        rows.append(
            _scored("Pair trends", "each pair of columns together, averaged", quality.pair_trends, floor)
        )
    if quality.images is not None:
        floor = None if quality.images.floor is None else 1 - quality.images.floor
        rows.append(
            _scored("Pixels", "brightness of each pixel, averaged", 1 - quality.images.pixel_distance, floor)
        )
        rows += [_scored("Classes", "share of each class", fit.shape, fit.floor) for fit in quality.columns]
    head = ("Likeness", "Score", "", "Real against real")
    return Table(
        "Do synthetic rows look like real ones? 100\u00a0% is a perfect likeness", head, tuple(rows), (1, 3)
    )


def _scored(name: str, said: str, value: float, floor: float | None) -> tuple[str, ...]:
    """Return one line: name and explanation, score, meter, floor."""
    label = element("span", name) + element("small", said)
    return (
        label,
        words.percent(value),
        meter(value, floor=floor, desc=f"{name}: {words.percent(value)}"),
        words.percent(floor),
    )


def _usefulness(tstr: Utility) -> list[Block]:
    """Return the table of classifiers and a sentence about it."""
    rows = [
        (s.model, f"{s.trained_on} rows", words.percent(s.accuracy), _area(s.macro_auc)) for s in tstr.scores
    ]
    rows.append(("always the commonest class", words.NOTHING, words.percent(tstr.majority_accuracy), "0.500"))
    head = ("Predictor", "Taught by", "Right answers", "AUC")
    caption = f"Are they of use? Predicting {tstr.target}, examined on {tstr.test_rows:,} held-out rows"
    said = (
        f"Each predictor learnt from {tstr.train_rows:,} rows, synthetic or real. The difference between the "
        "two is what the synthetic data cost."
    )
    return [Table(caption, head, tuple(rows), (2, 3)), Text(said)]


def _area(value: float | None) -> str:
    """Return an area under the curve."""
    return words.NOTHING if value is None else f"{value:.3f}"


def _nearness(dcr: Copies) -> list[Block]:
    """Return the distances to the closest record and a verdict in words."""
    lines = [d for d in (dcr.synthetic_to_training, dcr.holdout_to_training, dcr.synthetic_to_holdout) if d]
    table = Table(
        "Does any row come too near to a person? Distance to the closest record",
        ("From whom to whom", "Median", "Nearest 5 %", "Rows looked at", "Among"),
        tuple(_near(d) for d in lines),
        (1, 2, 3, 4),
    )
    calm, said = verdict(dcr)
    return [table, Text(said, tone="plain" if calm else "warn"), Text(f"Distance: {dcr.measure}.")]


def _near(d: Distances) -> tuple[str, ...]:
    """Return one line of the table of distances."""
    return d.compared, f"{d.median:.4f}", f"{d.p05:.4f}", f"{d.queries:,}", f"{d.reference:,}"


def verdict(dcr: Copies) -> tuple[bool, str]:
    """Return whether the distances look harmless, and what they say in words.

    Guarantees:
        - Alarming only beyond what chance explains: outside the 99 % intervals.
        - Never called a proof.
    """
    equal, chance, nearer = dcr.equal_to_training, dcr.holdout_equal_to_training, dcr.nearer_training
    said = [f"{words.percent(equal.value)} of synthetic rows are equal to a training row in every column."]
    alarming = False
    if chance is not None:
        said.append(
            f"Among held-out rows, which the generator never saw, it is {words.percent(chance.value)}."
        )
        alarming = equal.low > chance.high
    if nearer is not None:
        said.append(
            f"{words.percent(nearer.value)} lie nearer to a training row than to a held-out row; chance alone "
            f"gives {words.percent(nearer.chance_low)} to {words.percent(nearer.chance_high)}."
        )
        alarming = alarming or nearer.value > nearer.chance_high
    if chance is None:
        said.append("Without held-out rows there is nothing to compare this with.")
    elif alarming:
        said.append("That is more than chance explains: look closer before releasing anything.")
        if nearer is not None and not nearer.people:
            said.append(
                "It was not known whose rows these are: several rows of one person can have this effect."
            )
    else:
        said.append("That is what chance alone would give.")
    said.append("This is a check, not a proof; what is promised stands above.")
    return not alarming, " ".join(said)
