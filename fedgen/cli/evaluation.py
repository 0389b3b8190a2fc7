"""An evaluation as a few lines a person reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedgen.cli.output import table

if TYPE_CHECKING:
    from fedgen.audit.evaluation import Evaluation
    from fedgen.audit.utility import TrainedOn


def as_text(judged: Evaluation) -> str:
    """Return scores, worst columns, utility and distances, each with whose rows it was computed from."""
    rows: list[tuple[str, ...]] = []
    if judged.tvd_1way is not None:
        rows.append(("mean 1-way distance", f"{judged.tvd_1way:.4f}"))
    if judged.tvd_2way is not None:
        rows.append(("mean 2-way distance", f"{judged.tvd_2way:.4f}"))
    if judged.tstr is not None:
        names: tuple[TrainedOn, ...] = ("synthetic", "real")
        for trained in names:
            best = judged.tstr.best(trained)
            area = "none" if best.macro_auc is None else f"{best.macro_auc:.4f}"
            rows.append((f"train on {trained}, test on real", f"AUC {area}, accuracy {best.accuracy:.4f}"))
        rows.append(("always the commonest class", f"accuracy {judged.tstr.majority_accuracy:.4f}"))
    columns = [("column", "shape (1 is perfect)")]
    columns += [
        (name, f"{shape:.4f}") for name, shape in sorted(judged.column_shapes.items(), key=lambda p: p[1])
    ]
    notes = "\n".join(f"  {note}" for note in (*judged.notes, judged.basis.sentence))
    return "\n\n".join(part for part in (table(rows), table(columns), notes) if part)
