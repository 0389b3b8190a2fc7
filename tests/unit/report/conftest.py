"""A full report model on a small table, and one on images."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from markupsafe import Markup

from fedgen.audit.evaluate import evaluate_codes
from fedgen.report.model import (
    About,
    Artefact,
    Command,
    Comparison,
    Exclusion,
    Measure,
    Promise,
    ReportModel,
    Rival,
    SampleImages,
    SampleRows,
    Series,
    SiteRounds,
)
from fedgen.schema.table import ImageSchema, parse_schema

if TYPE_CHECKING:
    from fedgen.audit.evaluation import Evaluation

Parse = Callable[[str | Markup], ET.Element]


@pytest.fixture(scope="session")
def parse() -> Parse:
    """Return an element tree of a drawing; anything that is not well-formed fails."""
    return lambda markup: ET.fromstring(str(markup))  # noqa: S314 - our own output


@pytest.fixture(scope="session")
def quality() -> Evaluation:
    """An evaluation of a table with ordered, unordered and nullable columns."""
    schema = parse_schema(
        {
            "label": "sick",
            "columns": [
                {"name": "age", "type": "integer", "min": 0, "max": 60, "nullable": True},
                {"name": "ward", "type": "categorical", "categories": ["north", "south", "east"]},
                {"name": "sick", "type": "boolean"},
            ],
        }
    )
    rng = np.random.default_rng(0)
    tables = [
        np.stack([rng.integers(0, 62, n), rng.integers(0, 3, n), rng.integers(0, 2, n)], axis=1).astype(
            np.uint8
        )
        for n in (300, 250, 200)
    ]
    return evaluate_codes(tables[0], tables[1], schema, tables[2])


@pytest.fixture(scope="session")
def image_quality() -> Evaluation:
    """An evaluation of small images; the second class has no synthetic image."""
    schema = ImageSchema(height=2, width=2, max_value=16, classes=("dark", "bright"))
    rng = np.random.default_rng(0)
    tables = [
        np.concatenate([rng.integers(0, 17, (n, 4)), rng.integers(0, 2, (n, 1))], axis=1).astype(np.uint8)
        for n in (60, 50, 40)
    ]
    tables[1][:, -1] = 0
    return evaluate_codes(tables[0], tables[1], schema, tables[2])


@pytest.fixture(scope="session")
def model(quality: Evaluation) -> ReportModel:
    """A run of four sites and six rounds in which everything happens once."""
    cells = {
        "ash": ("took-part",) * 6,
        "birch": ("took-part", "took-part", "absent", "took-part", "took-part", "took-part"),
        "cedar": ("took-part", "late", "took-part", "took-part", "cohort-too-small", "cohort-too-small"),
        "elm": ("took-part",) * 6,
    }
    spent = (0.5, 0.8, 1.1, 1.4, 1.7, 1.9999)
    return ReportModel(
        study="rand-health",
        study_hash="7f" * 32,
        outcome="completed",
        rounds_done=6,
        rounds_planned=6,
        started="2026-11-20T14:02:00+00:00",
        wall_s=141.0,
        about=About(
            model="tabular-vae",
            data="a test table, about 1,000 records at 4 sites",
            unit="record",
            trust="local",
            purpose="research",
            simulated=True,
            private=True,
        ),
        promises=(
            Promise("A ready-made sentence about ε.", "each site", proved=True, assumes=("clause one",)),
        ),
        epsilon=tuple(Series(name, f"{name}'s records", (1, 2, 3, 4, 5, 6), spent) for name in cells),
        epsilon_allowed=2.0,
        participation=tuple(SiteRounds(name, 250, row) for name, row in cells.items()),
        exclusions=(
            *(Exclusion("ash", r, "consent-withdrawn", "<10" if r < 4 else "10-99") for r in range(1, 7)),
            *(Exclusion("elm", r, "consent-withdrawn", "<10") for r in range(4, 7)),
            *(Exclusion("birch", r, "objected", "0") for r in (1, 2, 4)),
        ),
        loss=(Series("held-out loss", "held-out rows", (1, 3, 6), (9.0, 7.5, 7.0)),),
        loss_basis="Computed on held-out rows.",
        quality=quality,
        samples=SampleRows(("age", "ward"), (("41", "north"), ("", "south"))),
        comparison=Comparison(
            (Measure("distance", "lower"), Measure("AUC", "higher")),
            (Rival("this run", "noised", (0.2, 0.7)), Rival("pooled", "clear", (0.1, None))),
            "Held-out rows.",
        ),
        configuration=(("model.latent", "8"),),
        versions=(("fedgen", "0.1.0"),),
        artefacts=(Artefact("synthetic.parquet", "ab" * 32),),
        commands=(Command("fedgen check study.yaml", "the plan again"),),
    )


@pytest.fixture(scope="session")
def bare() -> ReportModel:
    """The least a report can show: a run that ended before its first round."""
    about = About("own-model", "a table", "record", "local", "", simulated=False, private=True)
    return ReportModel("s", "00" * 32, "quorum", 0, 10, "", 0.2, about)


@pytest.fixture(scope="session")
def images(bare: ReportModel, image_quality: Evaluation) -> ReportModel:
    """A report on images."""
    from dataclasses import replace

    pixels = tuple(base64.b64encode(bytes([shade] * 4)).decode() for shade in (0, 128, 255))
    samples = SampleImages(2, 2, 1, ("bright", "dark", "bright"), pixels)
    return replace(bare, quality=image_quality, samples=samples)
