"""``Synthesizer``: fit and sample in one process, over the real protocol, from tables in memory."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import weakref
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fedgen.config.study import Study
from fedgen.errors import ConfigError, DataError
from fedgen.events import silent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    import pyarrow as pa

    from fedgen.api.prepare import Prepared
    from fedgen.api.run import Run
    from fedgen.events import Listener
    from fedgen.schema.table import Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class Privacy:
    """What may be spent; unit, ε and δ have no default.

    Attributes:
        epsilon: What the whole fit may spend, positive.
        delta: In (0, 1); keep it below one over the number of records.
        unit: ``record``; ``person``, where the schema names the column that says whose a row is; or ``site``, one
            table.
        trust: ``local``, ``central``, or ``distributed``, which takes at least three tables.
        clip: Bound on what one unit adds to a sum, positive.
        rows_per_person: Unit ``person`` only: most rows of one person in a step; None means 8.
    """

    epsilon: float
    delta: float
    unit: Literal["record", "person", "site"]
    trust: Literal["local", "central", "distributed"] = "local"
    clip: float = 1.0
    rows_per_person: int | None = None


class Synthesizer:
    """A federated, differentially private generator with the manners of scikit-learn.

    Guarantees:
        - ``fit`` runs real sites, a real coordinator and sealed messages: one table is one site.
        - Nothing is read from rows to set bounds or categories.

    Example:
        ::

            privacy = fedgen.Privacy(epsilon=3, delta=1e-5, unit="record")
            fedgen.Synthesizer("schema.yaml", privacy=privacy).fit([a, b]).sample(1000)

    Args:
        schema: Public knowledge of the rows, or the path of a schema file.
        privacy: What may be spent.
        model: Name of the model.
        rounds: Rounds of training.
        sample_rate: Poisson rate of a round, in (0, 1].
        options: Further keys of the study's ``model`` section.
        training: Further keys of the study's ``training`` section.
        folder: Where the run folder is made; None means a temporary one for each fit, gone with
            this object.
    """

    def __init__(
        self,
        schema: Schema | str | Path,
        *,
        privacy: Privacy,
        model: str | None = None,
        rounds: int = 200,
        sample_rate: float = 0.2,
        options: Mapping[str, Any] | None = None,
        training: Mapping[str, Any] | None = None,
        folder: str | Path | None = None,
    ) -> None:
        self.schema = _schema(schema)
        self.privacy = privacy
        self._model = {
            "name": model or ("tabular-vae" if self.schema.kind == "table" else "image-vae"),
            **(options or {}),
        }
        self._training = {
            "rounds": rounds,
            "sample_rate": sample_rate,
            "optimizer": {"name": "adam", "lr": 5e-3},
            **(training or {}),
        }
        self._folder = None if folder is None else Path(folder)
        self.run_: Run | None = None

    def fit(self, tables: Sequence[pd.DataFrame | pa.Table], *, listener: Listener = silent) -> Synthesizer:
        """Train on tables that stay apart: one for each site.

        Args:
            tables: At least one data frame or Arrow table with the schema's columns.
            listener: Watches events.

        Raises:
            ConfigError: No table, or a setting is wrong.
            DataError: A row does not fit the schema.
        """
        from fedgen.api.simulation import run_prepared

        prepared = self._prepared(tables)
        folder = self._folder
        if folder is None:  # every fit is a study of its own and spends anew
            temporary = tempfile.mkdtemp(prefix="fedgen-")
            weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True)
            folder = Path(temporary) / "run"
        self.run_ = run_prepared(prepared, folder, listener=listener)
        return self

    def sample(self, rows: int) -> pd.DataFrame | np.ndarray:
        """Draw synthetic rows; costs no budget.

        Raises:
            ConfigError: ``fit`` was not called.
        """
        return self._fitted().sample(rows)

    @property
    def statements(self) -> tuple[dict[str, Any], ...]:
        """The privacy statements of the fit.

        Raises:
            ConfigError: ``fit`` was not called.
        """
        return self._fitted().privacy

    def get_params(self) -> dict[str, Any]:
        """Return the settings, as scikit-learn's estimators do."""
        return {"privacy": asdict(self.privacy), "model": dict(self._model), "training": dict(self._training)}

    def _fitted(self) -> Run:
        if self.run_ is None:
            raise ConfigError("the synthesizer is not fitted", hint="call fit(tables) first")
        return self.run_

    def _prepared(self, tables: Sequence[pd.DataFrame | pa.Table]) -> Prepared:
        """Encode each table by itself and resolve a study over them."""
        from fedgen.api.prepare import Prepared, declared_persons, exchanged
        from fedgen.config.resolve import resolve
        from fedgen.data.encoded import EncodedTable
        from fedgen.data.partition import declared_size
        from fedgen.schema.codec import Codec

        if not tables:
            raise ConfigError("fit needs at least one table", hint="pass a list with one table for each site")
        codec = Codec(self.schema)
        encoded = [codec.encode(_arrow(table)) for table in tables]
        study = self._study(len(tables))
        subjects = self._subjects(tables)
        sizes = [declared_size(len(part.codes)) for part in encoded]
        edges = np.cumsum([0, *(len(part.codes) for part in encoded)])
        parts = tuple(np.arange(low, high) for low, high in itertools.pairwise(edges))
        table = EncodedTable(
            codes=np.concatenate([part.codes for part in encoded]), subjects=subjects, clamped={}
        )
        return Prepared(
            study=study,
            base=Path.cwd(),
            schema=self.schema,
            resolved=resolve(
                study,
                schema=self.schema,
                sizes=sizes,
                persons=declared_persons(study, subjects, parts),
                parameters=exchanged(study, self.schema),
            ),
            table=table,
            parts=parts,
            holdout=np.empty(0, dtype=np.int64),
        )

    def _subjects(self, tables: Sequence[pd.DataFrame | pa.Table]) -> np.ndarray | None:
        """Return whose each row is, where persons are protected; else nobody needs to know."""
        name = self.schema.subject
        if self.privacy.unit != "person" or name is None:
            return None
        from fedgen.policy.subjects import subject_ids

        found = []
        for number, table in enumerate(map(_arrow, tables), 1):
            where = f"table {number}"
            if name not in table.column_names:
                raise DataError("the column that says whose each row is is missing", where=where, key=name)
            found.append(subject_ids(table.column(name), where=where, name=name))
        return np.concatenate(found)

    def _study(self, sites: int) -> Study:
        from pydantic import ValidationError

        values = {
            "study": "synthesizer",
            "data": {
                "source": "memory:tables",
                "schema": "memory",
                "sites": {"count": sites},
                "holdout": 0.0,
            },
            "model": self._model,
            "privacy": asdict(self.privacy),
            "training": self._training,
        }
        try:
            return Study.model_validate(values)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            raise ConfigError(first["msg"].removeprefix("Value error, "), key=key) from None


def _schema(schema: Schema | str | Path) -> Schema:
    """Return a schema, read from its file if a path was given."""
    if isinstance(schema, str | Path):
        from fedgen.schema.table import load_schema

        return load_schema(Path(schema))
    return schema


def _arrow(table: pd.DataFrame | pa.Table) -> pa.Table:
    """Return an Arrow table; a data frame's index is not data."""
    import pyarrow as pa

    return table if isinstance(table, pa.Table) else pa.Table.from_pandas(table, preserve_index=False)
