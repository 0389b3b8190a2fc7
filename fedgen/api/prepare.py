"""From a study file to what a run needs: schema, rows, the cut into sites, and the resolved study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedgen.api.policy_home import check_files, pinned
from fedgen.config.implied import misfits
from fedgen.config.load import load_study
from fedgen.config.plan import plan_of
from fedgen.config.resolve import ResolvedStudy, resolve
from fedgen.data.builtin import builtin_schema
from fedgen.data.encoded import EncodedTable, read_encoded
from fedgen.data.partition import declared_size, partition, split_holdout
from fedgen.data.sources import open_source
from fedgen.errors import ConfigError
from fedgen.policy.consent import ConsentLog
from fedgen.privacy.units import Trust, Unit
from fedgen.schema.codec import Codec
from fedgen.schema.layout import layout_of
from fedgen.schema.table import load_schema

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from fedgen.config.study import Study
    from fedgen.schema.layout import Layout
    from fedgen.schema.table import Schema

_HOLDOUT_SEED = 20_190  # public: which rows are held out plays no part in privacy


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything a simulation knows before it starts.

    Attributes:
        study: The study as written.
        base: Folder that relative paths in the study are relative to.
        schema: Public knowledge of the rows.
        resolved: The study with nothing left open.
        table: Every row, encoded.
        parts: Row numbers of each site, in roster order.
        holdout: Row numbers kept out of training.
    """

    study: Study
    base: Path
    schema: Schema
    resolved: ResolvedStudy
    table: EncodedTable
    parts: tuple[np.ndarray, ...]
    holdout: np.ndarray

    @property
    def layout(self) -> Layout:
        """What a model needs to know of the schema."""
        return layout_of(self.schema)

    @property
    def codec(self) -> Codec:
        """Rows to codes and back."""
        return Codec(self.schema)

    @property
    def training_rows(self) -> np.ndarray:
        """Row numbers of all sites together."""
        return np.concatenate(self.parts)

    def site_table(self, number: int) -> EncodedTable:
        """Return the rows of one site; a copy of its own, as a site would hold them."""
        chosen = self.parts[number]
        subjects = None if self.table.subjects is None else self.table.subjects[chosen]
        return EncodedTable(codes=self.table.codes[chosen], subjects=subjects)

    def consent_path(self) -> Path | None:
        """Return the consent log of the simulated sites, if the study names one."""
        named = self.study.policy.consent
        return None if named is None else self.base / named


def read_schema(study: Study, base: Path) -> Schema:
    """Return the schema a study names, or the builtin source's own.

    Raises:
        ConfigError: The file is missing or wrong.
    """
    if study.data.schema_file is not None:
        return load_schema(base / study.data.schema_file)
    return builtin_schema(study.data.source.removeprefix("builtin:"))


def prepare(path: str | Path, overrides: Sequence[str] = ()) -> Prepared:
    """Read a study and its rows, and cut them into sites.

    Guarantees:
        - The same file, rows and overrides give the same study hash and the same cut.

    Raises:
        ConfigError: The study, schema or source is wrong, or there are more sites than rows.
        DataError: A row does not fit its schema.
    """
    file = load_study(Path(path), overrides)
    study, base = file.study, file.base.resolve()
    try:
        schema = read_schema(study, base)
        table = _rows(study, base, schema)
        prepared = cut(study, base, schema, table)
        check_formats(study, schema)
        check_consent(prepared)
        plan_of(prepared.resolved)  # here, so that what cannot be planned names its line
    except ConfigError as error:
        raise file.locate(error) from None
    return prepared


def _rows(study: Study, base: Path, schema: Schema) -> EncodedTable:
    """Return every row of the study's source, encoded; a bad address names the key that holds it."""
    try:
        source = open_source(study.data.source, base=base)
    except ConfigError as error:
        if error.key is None and error.where is None:
            raise ConfigError(error.what, key="data.source", hint=error.hint) from None
        raise
    return read_encoded(source, schema, limit=study.data.limit)


def check_formats(study: Study, schema: Schema) -> None:
    """Refuse a file format that rows of this schema cannot be written in, before anything is trained.

    Raises:
        ConfigError: Images were asked of a table.
    """
    pictures = sorted({"npz", "png"} & set(study.release.formats))
    if schema.kind == "table" and pictures:
        raise ConfigError(
            f"a table cannot be written as {pictures[0]}", key="release.formats", hint="use parquet or csv"
        )


def check_consent(prepared: Prepared) -> None:
    """Hold the consent log a study names against its file and schema, before anybody relies on it.

    Raises:
        ConfigError: The schema names no subject, or the log cannot be read.
        DataError: A row of the log is not understood.
    """
    if prepared.study.policy.packs:
        check_files(prepared)
        return
    path = prepared.consent_path()
    if path is None:
        return
    if prepared.table.subjects is None:
        raise ConfigError(
            "the schema does not say which column names the person, so nobody's consent can be looked up",
            key="policy.consent",
            hint="name the column as `subject` in the schema",
        )
    ConsentLog.read(path)


def declared_persons(
    study: Study, subjects: npt.NDArray[np.bytes_] | None, parts: Sequence[np.ndarray]
) -> list[int] | None:
    """Return the public number of persons of each site, or None where the study does not protect persons."""
    if subjects is None or study.privacy.unit is not Unit.PERSON:
        return None
    return [declared_size(len(np.unique(subjects[part]))) for part in parts]


def exchanged(study: Study, schema: Schema) -> int | None:
    """Return the length of what a site sends, where the plan depends on it: under distributed trust.

    Raises:
        ConfigError: The model does not fit the schema.
    """
    if study.privacy.trust is not Trust.DISTRIBUTED:
        return None
    for fault in misfits(study, schema):  # before torch is loaded, and in the words of the study
        raise fault
    from fedgen.api.bench import exchanged_parameters

    return exchanged_parameters(study, schema)


def cut(study: Study, base: Path, schema: Schema, table: EncodedTable) -> Prepared:
    """Hold rows out, cut the rest into sites, and resolve the study.

    Guarantees:
        - All rows of one person are held out together, or lie at one site together.
    """
    study = pinned(study, base)
    subjects = table.subjects
    training, holdout = split_holdout(len(table), study.data.holdout, _HOLDOUT_SEED, subjects=subjects)
    sites = study.data.sites
    people = None if subjects is None else subjects[training]
    local = partition(table.codes[training], schema, sites, sites.seed, subjects=people)
    parts = tuple(training[rows] for rows in local)
    resolved = resolve(
        study,
        schema=schema,
        sizes=[declared_size(len(part)) for part in parts],
        persons=declared_persons(study, subjects, parts),
        parameters=exchanged(study, schema),
    )
    return Prepared(
        study=study, base=base, schema=schema, resolved=resolved, table=table, parts=parts, holdout=holdout
    )
