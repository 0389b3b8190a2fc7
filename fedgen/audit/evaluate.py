"""One call that says what synthetic data is worth: fidelity, utility, and nearness to people.

Everything is computed on declared codes. Each part names the rows it was computed from
(:class:`~fedgen.audit.basis.Basis`); none of it is covered by ε, because real rows are read without noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from fedgen.audit.axes import Axis, axes_of
from fedgen.audit.basis import against, subset
from fedgen.audit.copies import copies
from fedgen.audit.evaluation import Evaluation, Rows
from fedgen.audit.fidelity import MAX_PAIR_COLUMNS, PAIR_BINS, column_fits, pair_fit
from fedgen.audit.images import image_fit
from fedgen.audit.nearer import People
from fedgen.audit.neighbours import euclidean, gower
from fedgen.audit.utility import image_utility, table_utility
from fedgen.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

    from fedgen.audit.fidelity import ColumnFit
    from fedgen.schema.table import ImageSchema, Schema, TableSchema

_GOWER: Final = (
    "Gower distance on declared codes: the mean over columns, 0 when equal, 1 when as far apart as declared"
)
_PIXELS: Final = "root-mean-square difference of pixels, 0 when equal, 1 when black against white"


def evaluate(
    real: pa.Table,
    synthetic: pa.Table,
    schema: Schema,
    holdout: pa.Table | None = None,
    *,
    utility: bool = True,
    seed: int = 0,
) -> Evaluation:
    """Return what ``synthetic`` is worth, judged against ``real`` (the training rows) and ``holdout``.

    Guarantees:
        - Same arguments, same result.
        - Bins and categories are the declared ones; none is read from a row.
        - Memory beyond the codes is bounded; large tables are sampled and ``notes`` or the figures say so.

    Edge cases:
        ===================  ==================================================================
        no holdout           fidelity against the training rows, no exact reference histograms,
                             no utility, no baseline for distances
        no label             no utility
        one row              works
        ===================  ==================================================================

    Args:
        real: The rows the generator was trained on.
        synthetic: Rows it wrote.
        schema: What both must fit. Its subject column, where both real tables have it, says which
            rows are one person's.
        holdout: Real rows the generator never saw.
        utility: Whether to train classifiers.
        seed: For the choice of rows; no privacy rests on it.

    Raises:
        DataError: A table is empty or does not fit the schema.
        MissingExtra: Classifiers were asked for and scikit-learn is not installed.
    """
    from fedgen.schema.codec import Codec

    codec = Codec(schema)
    unseen = None if holdout is None else codec.encode(holdout).codes
    return evaluate_codes(
        codec.encode(real).codes,
        codec.encode(synthetic).codes,
        schema,
        unseen,
        people=_people(real, holdout, schema.subject),
        utility=utility,
        seed=seed,
    )


def evaluate_codes(
    real: np.ndarray,
    synthetic: np.ndarray,
    schema: Schema,
    holdout: np.ndarray | None = None,
    *,
    people: People | None = None,
    utility: bool = True,
    seed: int = 0,
) -> Evaluation:
    """Return :func:`evaluate` of rows that are codes already, shape ``(n, width)`` each.

    Args:
        real: Training codes.
        synthetic: Synthetic codes.
        schema: What the codes mean.
        holdout: Held-out codes, or None.
        people: Whose each training and held-out row is. Without it, rows of one person look like memorising.
        utility: See :func:`evaluate`.
        seed: See :func:`evaluate`.

    Raises:
        DataError: A table is empty.
        MissingExtra: Classifiers were asked for and scikit-learn is not installed.
    """
    for name, table in (("real", real), ("synthetic", synthetic), ("held-out", holdout)):
        if table is not None and not len(table):
            raise DataError(f"the {name} table has no row", hint="nothing can be measured without one")
    if schema.kind == "image":
        return _evaluate_images(real, synthetic, schema, holdout, people=people, utility=utility, seed=seed)
    return _evaluate_table(real, synthetic, schema, holdout, people=people, utility=utility, seed=seed)


def _evaluate_table(
    real: np.ndarray,
    synthetic: np.ndarray,
    schema: TableSchema,
    holdout: np.ndarray | None,
    *,
    people: People | None,
    utility: bool,
    seed: int,
) -> Evaluation:
    """Judge codes of a table."""
    axes, label = axes_of(schema), schema.label_index
    reference, other = _reference(real, synthetic, holdout, seed)
    columns = column_fits(synthetic, reference, axes, other=other)
    pairs = pair_fit(synthetic, reference, axes, other=other, label=label)
    useful = None
    if utility and holdout is not None and label is not None:
        useful = table_utility(real, synthetic, holdout, axes, label, seed=seed)
    notes = _missing_parts(holdout=holdout is not None, label=label is not None)
    if pairs is not None and len(pairs.names) < pairs.of:
        notes.append(f"Pairs were compared among {MAX_PAIR_COLUMNS} of {pairs.of} columns.")
    if pairs is not None and any(axis.ordered and axis.levels > PAIR_BINS for axis in axes):
        notes.append(
            f"For pairs, ordered columns with more codes were merged to {PAIR_BINS} groups of neighbours."
        )
    return Evaluation(
        version=1,
        kind="table",
        reference="training" if holdout is None else "held-out",
        rows=_rows(real, synthetic, holdout),
        columns=columns,
        tvd_1way=float(np.mean([1 - fit.shape for fit in columns])),
        tvd_1way_floor=_mean([1 - fit.floor for fit in columns if fit.floor is not None]),
        pairs=pairs,
        tvd_2way=None if pairs is None else pairs.mean,
        tstr=useful,
        dcr=copies(real, synthetic, holdout, nearest=gower(axes), measure=_GOWER, people=people, seed=seed),
        images=None,
        basis=against("training" if holdout is None else "held-out"),
        notes=tuple(notes),
    )


def _evaluate_images(
    real: np.ndarray,
    synthetic: np.ndarray,
    schema: ImageSchema,
    holdout: np.ndarray | None,
    *,
    people: People | None,
    utility: bool,
    seed: int,
) -> Evaluation:
    """Judge codes of images, the class last if one is declared."""
    labels, pixels = schema.classes or (), schema.pixels
    reference, other = _reference(real, synthetic, holdout, seed)
    columns: tuple[ColumnFit, ...] = ()
    if labels:
        axis = Axis("label", len(labels), ordered=False, missing=False, labels=labels)
        last = None if other is None else other[:, -1:]
        columns = column_fits(synthetic[:, -1:], reference[:, -1:], (axis,), other=last)
    useful = None
    if utility and holdout is not None and labels:
        useful = image_utility(
            real, synthetic, holdout, max_value=schema.max_value, classes=len(labels), seed=seed
        )
    held_out = None if holdout is None else holdout[:, :pixels]
    search = euclidean(schema.max_value)
    return Evaluation(
        version=1,
        kind="image",
        reference="training" if holdout is None else "held-out",
        rows=_rows(real, synthetic, holdout),
        columns=columns,
        tvd_1way=None,
        tvd_1way_floor=None,
        pairs=None,
        tvd_2way=None,
        tstr=useful,
        dcr=copies(
            real[:, :pixels],
            synthetic[:, :pixels],
            held_out,
            nearest=search,
            measure=_PIXELS,
            people=people,
            seed=seed,
        ),
        images=image_fit(synthetic, reference, schema, other=other),
        basis=against("training" if holdout is None else "held-out"),
        notes=tuple(_missing_parts(holdout=holdout is not None, label=bool(labels))),
    )


def _people(real: pa.Table, holdout: pa.Table | None, subject: str | None) -> People | None:
    """Return whose each row is, if both tables say so."""
    if holdout is None or subject is None:
        return None
    if subject not in real.column_names or subject not in holdout.column_names:
        return None
    training, unseen = (table.column(subject).to_numpy().astype(str) for table in (real, holdout))
    return People(training, unseen)


def _reference(
    real: np.ndarray, synthetic: np.ndarray, holdout: np.ndarray | None, seed: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the rows to judge against and, for the floor, as many training rows as synthetic ones."""
    if holdout is None:
        return real, None
    return holdout, real[subset(len(real), len(synthetic), np.random.default_rng(seed))]


def _rows(real: np.ndarray, synthetic: np.ndarray, holdout: np.ndarray | None) -> Rows:
    """Return how many rows went in."""
    return Rows(len(real), len(synthetic), 0 if holdout is None else len(holdout))


def _missing_parts(*, holdout: bool, label: bool) -> list[str]:
    """Return a sentence for each part that could not be computed."""
    notes = []
    if not holdout:
        notes.append(
            "No held-out rows were given: synthetic rows were compared with training rows, no classifier was "
            "tested, and distances have no baseline."
        )
    if not label:
        notes.append("The schema declares no label: no classifier was trained.")
    return notes


def _mean(values: list[float]) -> float | None:
    """Return the mean, or None of nothing."""
    return float(np.mean(values)) if values else None
