"""A finished run: sample from it, read its record, write its report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fedgen.coordinator.progress import ProgressStore
from fedgen.errors import ConfigError
from fedgen.runs.folder import RunFolder, open_run
from fedgen.runs.journal import RunRecord, read_run
from fedgen.schema.codec import Codec

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    from fedgen.config.resolve import ResolvedStudy
    from fedgen.models.base import GenerativeModel


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder with its study.

    Attributes:
        folder: Paths of the run.
        study: The resolved study.
    """

    folder: RunFolder
    study: ResolvedStudy

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder.root

    @property
    def record(self) -> RunRecord:
        """What run.json says."""
        return read_run(self.folder.record)

    @property
    def privacy(self) -> tuple[dict[str, Any], ...]:
        """The privacy statements of the run, as JSON values."""
        return self.record.privacy

    def model(self) -> GenerativeModel:
        """Return the generator with the last good weights (their moving average where the study keeps one).

        Raises:
            ConfigError: No round was ever finished.
        """
        from fedgen.api.bench import new_learner

        progress = ProgressStore(self.folder, progress_header(self.study)).latest()
        if progress is None:
            raise ConfigError(
                "no round was finished, there is no model", where=self.path, hint="--resume the run"
            )
        learner = new_learner(self.study)
        learner.load_all_(progress.released)
        return learner.model

    def sample_codes(self, rows: int, generator: torch.Generator | None = None) -> np.ndarray:
        """Draw ``rows`` synthetic rows as codes; post-processing, costs no budget."""
        drawn = sample_codes(self.model(), rows, generator)
        return drawn.astype(Codec(self.study.data_schema).dtype)

    def sample(self, rows: int) -> pd.DataFrame | np.ndarray:
        """Draw synthetic rows: a data frame, or ``uint8`` images of shape ``(rows, height, width[, channels])``."""
        from fedgen.api.tables import to_images

        codes = self.sample_codes(rows)
        schema = self.study.data_schema
        if schema.kind == "image":
            return to_images(codes, schema)
        frame: pd.DataFrame = self.decode(codes).to_pandas()
        return frame

    def decode(self, codes: np.ndarray) -> pa.Table:
        """Return codes as a table with the schema's columns."""
        import numpy as np

        return Codec(self.study.data_schema).decode(codes, np.random.default_rng())


def progress_header(study: ResolvedStudy) -> dict[str, str]:
    """Return what a checkpoint of this study must say about itself."""
    return {"study_hash": study.study_hash, "model": study.study.model.name}


def sample_codes(model: GenerativeModel, rows: int, generator: torch.Generator | None = None) -> np.ndarray:
    """Draw rows in blocks, so that memory does not grow with their number."""
    import numpy as np

    from fedgen.dpsgd.noise import NoiseSource

    source = generator if generator is not None else NoiseSource.secure().generator()
    block = 8192
    with torch.no_grad():
        parts = [
            model.sample(min(block, rows - start), source).numpy() for start in range(0, max(rows, 0), block)
        ]
    return np.concatenate(parts) if parts else np.empty((0, model.layout.row_width), dtype=np.int64)


def load_run(path: str | Path) -> Run:
    """Return the run in a folder.

    Raises:
        ConfigError: It is not a run folder.
    """
    folder, study = open_run(Path(path))
    return Run(folder=folder, study=study)
