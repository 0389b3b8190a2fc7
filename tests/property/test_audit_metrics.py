"""Laws of the metrics that hold for every table."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedgen.audit.axes import Axis, axes_of
from fedgen.audit.basis import share
from fedgen.audit.classifiers import auc
from fedgen.audit.evaluate import evaluate_codes
from fedgen.audit.evaluation import Evaluation
from fedgen.audit.fidelity import earth_mover, marginal, total_variation
from fedgen.audit.images import pixel_distance
from fedgen.audit.neighbours import gower
from fedgen.schema.table import TableSchema, parse_schema

seeds = st.integers(0, 2**32 - 1)


@st.composite
def axes(draw: st.DrawFn) -> tuple[Axis, ...]:
    found = []
    for i in range(draw(st.integers(1, 4))):
        missing = draw(st.booleans())
        levels = draw(st.integers(1, 6))
        labels = tuple(str(k) for k in range(levels + missing))
        found.append(
            Axis(f"x{i}", levels + missing, ordered=draw(st.booleans()), missing=missing, labels=labels)
        )
    return tuple(found)


def _codes(found: tuple[Axis, ...], n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, a.cardinality, n) for a in found], axis=1).astype(np.uint8)


@st.composite
def distributions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    k = draw(st.integers(1, 12))
    counts = st.lists(st.integers(0, 50), min_size=k, max_size=k).filter(any)
    p, q, r = (np.array(draw(counts), dtype=float) for _ in range(3))
    return p / p.sum(), q / q.sum(), r / r.sum()


@given(distributions())
def test_total_variation_is_a_distance(found: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    p, q, r = found
    assert 0 <= total_variation(p, q) <= 1
    assert total_variation(p, p) == 0
    assert total_variation(p, q) == total_variation(q, p)
    assert total_variation(p, r) <= total_variation(p, q) + total_variation(q, r) + 1e-12


@given(distributions())
def test_earth_mover_is_at_most_total_variation(found: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    p, q, _ = found
    moved = earth_mover(p, q, Axis("x", len(p), ordered=True, missing=False, labels=()))
    assert moved is not None
    assert 0 <= moved <= total_variation(p, q) + 1e-12


@given(st.lists(st.integers(0, 9), max_size=60))
def test_marginals_sum_to_one(codes: list[int]) -> None:
    found = marginal(np.array(codes, dtype=np.int64), 10)
    assert len(found) == 10
    assert np.isclose(found.sum(), 1 if codes else 0)


@given(axes(), st.integers(1, 12), st.integers(1, 12), seeds)
def test_gower_agrees_with_its_definition(found: tuple[Axis, ...], m: int, n: int, seed: int) -> None:
    a, b = _codes(found, m, seed), _codes(found, n, seed + 1)
    distances, rows = gower(found)(a, b)
    for i, query in enumerate(a):
        slow = [_slow(query, other, found) for other in b]
        assert np.isclose(distances[i], min(slow), atol=1e-6)
        assert np.isclose(slow[rows[i]], min(slow), atol=1e-6)
        assert (distances[i] == 0) == any((query == other).all() for other in b)


def _slow(x: np.ndarray, y: np.ndarray, found: tuple[Axis, ...]) -> float:
    parts = []
    for a, b, axis in zip(x.tolist(), y.tolist(), found, strict=True):
        absent = axis.missing and axis.levels in (a, b)
        if a == b:
            parts.append(0.0)
        elif absent or not axis.ordered:
            parts.append(1.0)
        else:
            parts.append(abs(a - b) / (axis.levels - 1))
    return sum(parts) / len(parts)


@given(st.integers(1, 10_000).flatmap(lambda of: st.tuples(st.integers(0, of), st.just(of))))
def test_interval_is_ordered(found: tuple[int, int]) -> None:
    hits, of = found
    said = share(hits, of)
    assert 0 <= said.low <= said.value <= said.high <= 1


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_area_is_a_share_of_pairs(found: list[tuple[int, bool]]) -> None:
    scores, positive = (np.array(x) for x in zip(*found, strict=True))
    if positive.all() or not positive.any():
        return
    pairs = [(p > q) + 0.5 * (p == q) for p in scores[positive] for q in scores[~positive]]
    assert np.isclose(auc(scores, positive), np.mean(pairs))
    assert np.isclose(auc(-scores, positive), 1 - np.mean(pairs))


@given(st.integers(1, 20), st.integers(1, 20), seeds)
def test_pixel_distance_is_symmetric_and_bounded(m: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 17, (m, 5)), rng.integers(0, 17, (n, 5))
    assert 0 <= pixel_distance(a, b, 16) <= 1
    assert np.isclose(pixel_distance(a, b, 16), pixel_distance(b, a, 16))
    assert pixel_distance(a, a[::-1], 16) == 0


SCHEMA = parse_schema(
    {
        "columns": [
            {"name": "a", "type": "integer", "min": 0, "max": 4, "nullable": True},
            {"name": "b", "type": "categorical", "categories": ["x", "y"]},
            {"name": "c", "type": "boolean"},
        ]
    }
)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 30), seeds)
def test_evaluation_is_finite_bounded_and_survives_json(n: int, m: int, k: int, seed: int) -> None:
    assert isinstance(SCHEMA, TableSchema)
    found = axes_of(SCHEMA)
    real, synthetic = _codes(found, n, seed), _codes(found, m, seed + 1)
    holdout = _codes(found, k, seed + 2) if k else None
    judged = evaluate_codes(real, synthetic, SCHEMA, holdout)
    text = json.dumps(judged.to_json(), allow_nan=False)
    assert Evaluation.from_json(json.loads(text)) == judged
    assert all(0 <= value <= 1 for value in judged.column_shapes.values())
    assert judged.pair_trends is not None
    assert 0 <= judged.pair_trends <= 1
    assert judged.tvd_1way is not None
    assert judged.tvd_2way is not None
    assert judged.tvd_1way <= judged.tvd_2way + 1e-9  # a table cannot agree better than its margins


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 30), seeds)
def test_order_of_rows_does_not_matter_to_fidelity(n: int, seed: int) -> None:
    assert isinstance(SCHEMA, TableSchema)
    found = axes_of(SCHEMA)
    real, synthetic = _codes(found, n, seed), _codes(found, n, seed + 1)
    order = np.random.default_rng(seed).permutation(n)
    one, other = (
        evaluate_codes(real, synthetic, SCHEMA),
        evaluate_codes(real[order], synthetic[order], SCHEMA),
    )
    assert one.columns == other.columns
    assert one.pairs == other.pairs
    assert one.dcr == other.dcr
