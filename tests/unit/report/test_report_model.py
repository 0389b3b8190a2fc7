"""The model: closed, frozen, and an exact inverse of its JSON."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError, replace

import pytest
from pydantic import ValidationError

from fedgen.report.model import CELLS, Comparison, Measure, ReportModel, Rival, Series, SiteRounds


def test_json_is_an_exact_inverse(model: ReportModel, bare: ReportModel, images: ReportModel) -> None:
    for found in (model, bare, images):
        text = json.dumps(found.to_json(), allow_nan=False)
        assert ReportModel.from_json(json.loads(text)) == found


def test_the_model_is_frozen(model: ReportModel) -> None:
    with pytest.raises(FrozenInstanceError):
        model.study = "other"
    assert replace(model, study="other").study == "other"


@pytest.mark.parametrize(("key", "value"), [("version", 2), ("outcome", "well"), ("rounds_done", "many")])
def test_another_form_is_refused(bare: ReportModel, key: str, value: object) -> None:
    with pytest.raises(ValidationError):
        ReportModel.from_json(bare.to_json() | {key: value})


def test_a_missing_part_is_refused(bare: ReportModel) -> None:
    document = bare.to_json()
    del document["about"]
    with pytest.raises(ValidationError):
        ReportModel.from_json(document)


def test_cells_are_a_closed_set() -> None:
    assert {"took-part", "absent", "late", "consent"} <= CELLS
    with pytest.raises(ValueError, match="unknown cells: maybe"):
        SiteRounds("a", None, ("took-part", "maybe"))


def test_a_diverged_loss_leaves_its_round_out(bare: ReportModel) -> None:
    found = Series("loss", "w", (1, 2, 3, 4), (2.0, math.nan, math.inf, -1e301))
    assert (found.rounds, found.values) == ((1,), (2.0,))
    diverged = replace(bare, loss=(found,))
    assert ReportModel.from_json(json.loads(json.dumps(diverged.to_json(), allow_nan=False))) == diverged


def test_series_and_comparisons_must_be_complete() -> None:
    with pytest.raises(ValueError, match="1 values for 2 rounds"):
        Series("a", "b", (1, 2), (0.5,))
    with pytest.raises(ValueError, match="one value per measure"):
        Comparison((Measure("m", "lower"),), (Rival("r", "", ()),), "")
