"""Two small studies that differ in one number."""

from __future__ import annotations

import pytest

from fedgen.config.resolve import ResolvedStudy, resolve
from fedgen.config.study import parse_study
from fedgen.schema.table import parse_schema


def _study(rounds: int) -> ResolvedStudy:
    study = parse_study(
        {
            "study": "one",
            "data": {"source": "csv://a.csv", "schema": "schema.yaml", "sites": {"count": 2}},
            "model": {"name": "tabular-vae"},
            "privacy": {"unit": "record", "trust": "local", "epsilon": 3.0, "delta": 1e-5},
            "training": {"rounds": rounds, "batch": 8},
        }
    )
    return resolve(
        study, schema=parse_schema({"columns": [{"name": "a", "type": "boolean"}]}), sizes=[50, 50]
    )


@pytest.fixture(scope="session")
def study() -> ResolvedStudy:
    return _study(20)


@pytest.fixture(scope="session")
def other() -> ResolvedStudy:
    return _study(21)
