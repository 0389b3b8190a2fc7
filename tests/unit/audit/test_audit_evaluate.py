"""The whole evaluation: real codec, real classifiers, every corner."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from fedgen.audit.evaluate import evaluate, evaluate_codes
from fedgen.audit.evaluation import Evaluation
from fedgen.audit.fidelity import MAX_PAIR_COLUMNS
from fedgen.audit.nearer import People
from fedgen.errors import DataError, MissingExtra
from fedgen.schema.codec import Codec
from fedgen.schema.table import ImageSchema, TableSchema, parse_schema

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="module")
def judged(schema: TableSchema, rows: Callable[..., np.ndarray]) -> Evaluation:
    return evaluate_codes(rows(400, 1), rows(300, 2), schema, rows(200, 3))


def test_good_rows_score_near_their_floor(judged: Evaluation) -> None:
    assert judged.tvd_1way is not None
    assert judged.tvd_1way_floor is not None
    assert judged.tvd_1way < judged.tvd_1way_floor + 0.05
    assert judged.pairs is not None
    assert judged.tvd_2way == judged.pairs.mean
    assert judged.pair_trends == pytest.approx(1 - judged.pairs.mean)
    assert judged.tstr is not None
    assert judged.tstr.label == "sick"
    assert judged.images is None


def test_every_part_says_whose_rows_it_read(judged: Evaluation) -> None:
    assert judged.tstr is not None
    for basis in (judged.basis, judged.tstr.basis, judged.dcr.basis):
        assert not basis.private
        assert "not covered by ε" in basis.sentence


def test_json_names_and_inverse(judged: Evaluation, schema: TableSchema) -> None:
    document = json.loads(json.dumps(judged.to_json(), allow_nan=False))
    assert Evaluation.from_json(document) == judged
    assert list(document["column_shapes"]) == list(schema.names)
    assert {"pair_trends", "tvd_1way", "tvd_2way", "tstr", "dcr", "version"} <= set(document)
    assert document["version"] == 1


def test_same_arguments_same_result(
    judged: Evaluation, schema: TableSchema, rows: Callable[..., np.ndarray]
) -> None:
    assert evaluate_codes(rows(400, 1), rows(300, 2), schema, rows(200, 3)) == judged


def test_tables_and_codes_agree(schema: TableSchema, rows: Callable[..., np.ndarray]) -> None:
    codec = Codec(schema)
    codes = [rows(60, seed) for seed in (1, 2, 3)]
    tables = [codec.decode(c, np.random.default_rng(0)) for c in codes]
    people = pa.array([f"p{i}" for i in range(60)])
    tables[0] = tables[0].append_column("person", people)  # the subject may be there, and is not read
    from_tables = evaluate(tables[0], tables[1], schema, tables[2], utility=False)
    assert from_tables == evaluate_codes(codes[0], codes[1], schema, codes[2], utility=False)


def test_the_subject_column_says_whose_rows_they_are(
    schema: TableSchema, rows: Callable[..., np.ndarray]
) -> None:
    codec = Codec(schema)
    codes = [rows(n, seed) for n, seed in ((60, 1), (30, 2), (40, 3))]
    real, synthetic, holdout = (codec.decode(c, np.random.default_rng(0)) for c in codes)
    whose = [np.array([f"p{i // 4}" for i in range(n)]) for n in (60, 40)]
    named = [t.append_column("person", pa.array(w)) for t, w in zip((real, holdout), whose, strict=True)]
    found = evaluate(named[0], synthetic, schema, named[1], utility=False)
    assert found.dcr.nearer_training is not None
    assert found.dcr.nearer_training.people
    assert found == evaluate_codes(*codes[:2], schema, codes[2], people=People(*whose), utility=False)
    for pair in ((named[0], holdout), (real, named[1]), (real, holdout)):
        unnamed = evaluate(pair[0], synthetic, schema, pair[1], utility=False)
        assert unnamed.dcr.nearer_training is not None
        assert not unnamed.dcr.nearer_training.people


def test_without_holdout(schema: TableSchema, rows: Callable[..., np.ndarray]) -> None:
    found = evaluate_codes(rows(80, 1), rows(80, 2), schema)
    assert found.reference == "training"
    assert found.tstr is None
    assert found.tvd_1way_floor is None
    assert all(fit.reference == () for fit in found.columns)
    assert any("No held-out rows" in note for note in found.notes)


def test_without_label(rows: Callable[..., np.ndarray], schema: TableSchema) -> None:
    unlabelled = schema.model_copy(update={"label": None})
    found = evaluate_codes(rows(50, 1), rows(50, 2), unlabelled, rows(50, 3))
    assert found.tstr is None
    assert any("no label" in note for note in found.notes)


def test_one_row_of_everything(schema: TableSchema, rows: Callable[..., np.ndarray]) -> None:
    found = evaluate_codes(rows(1, 1), rows(1, 1), schema, rows(1, 2))
    assert found.rows.synthetic == 1
    assert found.tstr is not None
    assert found.tstr.best("synthetic").macro_auc is None


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_an_empty_table_is_named(schema: TableSchema, rows: Callable[..., np.ndarray], empty: int) -> None:
    tables = [rows(5, 1), rows(5, 2), rows(5, 3)]
    tables[empty] = tables[empty][:0]
    with pytest.raises(DataError, match=("real", "synthetic", "held-out")[empty]):
        evaluate_codes(tables[0], tables[1], schema, tables[2])


def test_a_table_of_another_schema_is_refused(schema: TableSchema) -> None:
    other = pa.table({"height": [1.0]})
    with pytest.raises(DataError, match="no such column"):
        evaluate(other, other, schema)


def test_caps_are_said() -> None:
    many = [{"name": f"c{i}", "type": "boolean"} for i in range(MAX_PAIR_COLUMNS + 1)]
    wide = parse_schema({"columns": [*many, {"name": "fine", "type": "integer", "min": 0, "max": 99}]})
    codes = np.zeros((4, MAX_PAIR_COLUMNS + 2), dtype=np.uint8)
    notes = " ".join(evaluate_codes(codes, codes, wide, codes).notes)
    assert f"{MAX_PAIR_COLUMNS} of {MAX_PAIR_COLUMNS + 2} columns" in notes
    assert "merged" in notes


def test_single_column_has_no_pairs() -> None:
    single = parse_schema({"columns": [{"name": "x", "type": "boolean"}]})
    codes = np.array([[0], [1]], dtype=np.uint8)
    found = evaluate_codes(codes, codes, single, codes)
    assert found.pairs is None
    assert found.pair_trends is None


def test_classifiers_can_be_left_out_and_are_named_if_missing(
    monkeypatch: pytest.MonkeyPatch, schema: TableSchema, rows: Callable[..., np.ndarray]
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    tables = rows(20, 1), rows(20, 2), schema, rows(20, 3)
    assert evaluate_codes(*tables, utility=False).tstr is None
    with pytest.raises(MissingExtra):
        evaluate_codes(*tables)


def test_images(image_schema: ImageSchema, images: Callable[..., np.ndarray]) -> None:
    found = evaluate_codes(images(120, 1), images(100, 2), image_schema, images(80, 3))
    assert found.kind == "image"
    assert found.tvd_1way is None
    assert found.images is not None
    assert found.images.pixel_distance < 0.1
    assert [fit.name for fit in found.columns] == ["label"]
    assert found.tstr is not None
    assert Evaluation.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_images_without_classes_or_holdout() -> None:
    schema = ImageSchema(height=2, width=2, max_value=255)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 4)).astype(np.uint8)
    found = evaluate_codes(pixels, pixels, schema)
    assert found.columns == ()
    assert found.tstr is None
    assert found.dcr.equal_to_training.value == 1
    assert found.images is not None
    assert found.images.pixel_distance == 0
