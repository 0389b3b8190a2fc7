"""Labels come from the declaration alone."""

from __future__ import annotations

from fedgen.audit.axes import MISSING, axes_of
from fedgen.schema.table import TableSchema, parse_schema


def _axis(**column: object) -> tuple[str, ...]:
    found = parse_schema({"columns": [{"name": "x", **column}]})
    assert isinstance(found, TableSchema)
    return axes_of(found)[0].labels


def test_one_label_per_code_and_missing_last(schema: TableSchema) -> None:
    axes = axes_of(schema)
    assert [axis.cardinality for axis in axes] == list(schema.cardinalities)
    assert [len(axis.labels) for axis in axes] == list(schema.cardinalities)
    assert [axis.labels[-1] == MISSING for axis in axes] == [axis.missing for axis in axes]
    assert [axis.levels for axis in axes] == [20, 10, 3, 3, 10, 2]
    assert [axis.ordered for axis in axes] == [True, True, False, True, True, False]


def test_bins_are_named_by_their_ends() -> None:
    assert _axis(type="continuous", min=0.0, max=1.0, bins=3) == (
        "0 to 0.3333",
        "0.3333 to 0.6667",
        "0.6667 to 1",
    )
    assert _axis(type="integer", min=0, max=9, bins=5) == ("0 to 1", "2 to 3", "4 to 5", "6 to 7", "8 to 9")
    assert _axis(type="integer", min=-1, max=1) == ("-1", "0", "1")
    assert _axis(type="integer", min=0, max=100, edges=[0, 1, 10, 100]) == ("0", "1 to 9", "10 to 100")


def test_dates_are_iso_days_or_spans() -> None:
    assert _axis(type="date", min="2023-12-31", max="2024-01-01") == ("2023-12-31", "2024-01-01")
    assert _axis(type="date", min="2024-01-01", max="2024-01-04", bins=2) == (
        "2024-01-01 to 2024-01-02",
        "2024-01-03 to 2024-01-04",
    )


def test_names_are_kept_as_declared() -> None:
    assert _axis(type="categorical", categories=["b", "a"]) == ("b", "a")
    assert _axis(type="ordinal", levels=["low", "high"]) == ("low", "high")
    assert _axis(type="boolean") == ("false", "true")


def test_close_edges_are_still_told_apart() -> None:
    labels = _axis(type="continuous", min=100000.0, max=100000.3, bins=3)
    assert len(set(labels)) == 3
    labels = _axis(type="continuous", min=0.0, max=9e9, bins=3)
    assert not any("e+" in label for label in labels)
    assert _axis(type="continuous", min=0.0, max=1e300, bins=1) == ("0.0 to 1e+300",)
