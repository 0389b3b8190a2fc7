"""``evaluate``: what a synthetic file is worth, beside the real one it imitates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fedgen.audit.evaluate import evaluate_codes
from fedgen.data.encoded import read_encoded
from fedgen.data.sources import open_source
from fedgen.schema.table import load_schema

if TYPE_CHECKING:
    import numpy as np

    from fedgen.audit.evaluation import Evaluation
    from fedgen.schema.table import Schema


def evaluate(
    *,
    real: str | Path,
    synthetic: str | Path,
    schema: str | Path,
    holdout: str | Path | None = None,
    seed: int = 0,
) -> Evaluation:
    """Judge a synthetic file: column shapes, pairs, train-on-synthetic, distance to the closest record.

    Args:
        real: The rows the generator was trained on; a path or a source address.
        synthetic: The rows it wrote.
        schema: The schema file both must fit.
        holdout: Real rows the generator never saw; without them there is no utility.
        seed: For the choice of rows; no privacy rests on it.

    Raises:
        ConfigError: A file is missing or the schema is wrong.
        DataError: A row does not fit the schema.
        MissingExtra: scikit-learn is not installed.
    """
    declared = load_schema(Path(schema))

    def codes(source: str | Path) -> np.ndarray:
        return _codes(source, declared)

    return evaluate_codes(
        codes(real), codes(synthetic), declared, None if holdout is None else codes(holdout), seed=seed
    )


def _codes(source: str | Path, schema: Schema) -> np.ndarray:
    """Return a file's rows as codes; people are not needed, so a subject column may be absent."""
    if schema.kind == "table" and schema.subject is not None:
        schema = schema.model_copy(update={"subject": None})
    return read_encoded(open_source(str(source), base=Path.cwd()), schema).codes
