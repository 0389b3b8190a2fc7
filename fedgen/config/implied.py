"""What follows from a study once its schema and the sizes of its sites are known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from fedgen.config.secagg import SecaggSpec
from fedgen.errors import ConfigError
from fedgen.privacy.units import Trust, Unit
from fedgen.schema.explain import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fedgen.config.study import Study
    from fedgen.schema.table import Schema


ROWS_PER_PERSON: Final = 8  # of a person's rows in one step: most of what most have, and a bound on the work


def decided(study: Study) -> Study:
    """Return ``study`` with the defaults that depend on other keys filled in; a decided one is unchanged."""
    training = study.training.model_copy(update={"exchange": study.exchanged})
    privacy = study.privacy
    if privacy.unit is Unit.PERSON:
        most = privacy.rows_per_person or ROWS_PER_PERSON
        privacy = privacy.model_copy(update={"rows_per_person": most})
    filled = {"model": study.model.completed(), "privacy": privacy, "training": training}
    if privacy.trust is Trust.DISTRIBUTED:
        filled["secagg"] = _thresholded(study.secagg or SecaggSpec(), study.data.sites.count)
    return study.model_copy(update=filled)


def _thresholded(spec: SecaggSpec, sites: int) -> SecaggSpec:
    """Return the section with its threshold as a number."""
    from fedgen.secagg.terms import default_threshold

    if spec.threshold is not None:
        return spec
    return spec.model_copy(update={"threshold": default_threshold(sites)})


def implied_rate(study: Study, sizes: Sequence[int]) -> float:
    """Return the Poisson rate that the study and the declared sizes imply.

    Args:
        study: With ``batch`` or ``sample_rate``.
        sizes: Of each site, what its steps are sampled from: persons with ``unit: person``, else rows.
    """
    training = study.training
    if training.batch is None:
        return training.sample_rate or math.nan  # the study itself refuses to have neither
    # Under distributed trust the sum of all gets the noise of one, as under central: the batch is of all sites.
    by_site = study.privacy.trust is Trust.LOCAL or study.privacy.unit is Unit.SITE
    return min(1.0, training.batch * (len(sizes) if by_site else 1) / sum(sizes))


def misfits(study: Study, schema: Schema) -> Iterator[ConfigError]:
    """Yield what is wrong with the study once this schema stands beside it."""
    if study.model.kind != schema.kind:
        yield ConfigError(
            f"{study.model.name} reads a schema of kind {study.model.kind}, not {schema.kind}",
            key="model.name",
            hint=f"use {'tabular' if schema.kind == 'table' else 'image'}-vae",
        )
    if study.privacy.unit is Unit.PERSON and schema.subject is None:
        yield ConfigError(
            "unit: person needs to know whose each row is, and the schema names no subject",
            key="privacy.unit",
            hint="name the column as `subject` in the schema, or use unit: record",
        )
    sites = study.data.sites
    if sites.split == "iid":
        return
    if sites.by is None and schema.label is None:
        yield ConfigError(
            f"split: {sites.split} needs a column, and the schema has no label",
            key="data.sites.by",
            hint="name a column",
        )
    if sites.by is not None and sites.by not in schema.names:
        near = nearest(sites.by, schema.names)
        yield ConfigError(
            "no such column in the schema",
            key="data.sites.by",
            hint=f"did you mean {near!r}?" if near else None,
        )
