"""The codec is an exact inverse, for any schema and any codes, by whatever road the table has travelled."""

from __future__ import annotations

import datetime as dt
import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedgen.schema.codec import Codec
from fedgen.schema.columns import EXACT, FILL_IN, Boolean, Categorical, Continuous, Date, Integer, Ordinal
from fedgen.schema.table import ImageSchema, TableSchema, parse_schema

settings.register_profile(
    "codec", deadline=None, max_examples=80, suppress_health_check=[HealthCheck.too_slow]
)
PROFILE = settings.get_profile("codec")

REALS = st.floats(allow_nan=False, allow_infinity=False, width=64)
WHOLE = st.integers(-EXACT, EXACT)
NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12).filter(
    lambda t: t == t.strip() and t != FILL_IN
)
LABELS = st.lists(NAMES.filter(lambda t: t != "?"), min_size=1, max_size=300, unique=True).map(tuple)


@st.composite
def continuous(draw: st.DrawFn, name: Any, nullable: Any) -> Any:
    if draw(st.booleans()):
        edges = tuple(sorted(draw(st.lists(REALS, min_size=2, max_size=40, unique=True))))
        return Continuous(name=name, min=edges[0], max=edges[-1], edges=edges, nullable=nullable)
    low, high = sorted(draw(st.lists(REALS, min_size=2, max_size=2, unique=True)))
    for bins in (draw(st.integers(1, 400)), 1):
        try:
            return Continuous(name=name, min=low, max=high, bins=bins, nullable=nullable)
        except ValueError:
            assert bins > 1  # bounds of neighbouring doubles hold one bin only
    raise AssertionError


@st.composite
def integer(draw: st.DrawFn, name: Any, nullable: Any) -> Any:
    if draw(st.booleans()):
        edges = tuple(sorted(draw(st.lists(WHOLE, min_size=2, max_size=40, unique=True))))
        return Integer(name=name, min=edges[0], max=edges[-1], edges=edges, nullable=nullable)
    low = draw(st.integers(-EXACT, EXACT - 255))
    if draw(st.booleans()):
        return Integer(name=name, min=low, max=low + draw(st.integers(0, 255)), nullable=nullable)
    high = draw(st.integers(low, EXACT))
    bins = draw(st.integers(1, min(400, high - low + 1)))
    return Integer(name=name, min=low, max=high, bins=bins, nullable=nullable)


@st.composite
def date(draw: st.DrawFn, name: Any, nullable: Any) -> Any:
    low, high = sorted(draw(st.tuples(*[st.dates(dt.date(1, 1, 1), dt.date(9999, 12, 31))] * 2)))
    bins = draw(st.none() | st.integers(1, min(400, (high - low).days + 1)))
    return Date(name=name, min=low, max=high, bins=bins, nullable=nullable)


@st.composite
def column(draw: st.DrawFn, name: Any) -> Any:
    nullable = draw(st.booleans())
    match draw(st.sampled_from(["continuous", "integer", "date", "categorical", "ordinal", "boolean"])):
        case "continuous":
            return draw(continuous(name, nullable))
        case "integer":
            return draw(integer(name, nullable))
        case "date":
            return draw(date(name, nullable))
        case "categorical":
            return Categorical(name=name, categories=draw(LABELS), nullable=nullable)
        case "ordinal":
            return Ordinal(name=name, levels=draw(LABELS), nullable=nullable)
        case _:
            return Boolean(name=name, nullable=nullable)


@st.composite
def schemas(draw: st.DrawFn) -> Any:
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    return TableSchema(columns=tuple(draw(column(name)) for name in names), missing=("?",))


@st.composite
def coded(draw: st.DrawFn, some: Any = schemas()) -> Any:  # noqa: B008 - a strategy is a value
    """A schema, a table of random codes that has every extreme code, and a generator."""
    schema = draw(some)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = draw(st.integers(0, 60))
    codes = np.stack([rng.integers(0, k, rows) for k in schema.cardinalities], axis=1)
    extremes = np.array([[0] * len(schema.names), [k - 1 for k in schema.cardinalities]])
    return schema, np.concatenate([codes, extremes]), rng


def as_text(table: Any, marker: Any) -> Any:
    cells = {name: table[name].cast(pa.string()).fill_null(marker) for name in table.column_names}
    return pa.table(cells)


@PROFILE
@given(coded())
def test_encode_is_the_inverse_of_decode(case: Any) -> None:
    schema, codes, rng = case
    codec = Codec(schema)
    encoded = codec.encode(codec.decode(codes, rng))
    assert np.array_equal(encoded.codes, codes)
    assert encoded.codes.dtype == codec.dtype
    assert encoded.clamped == {}


@PROFILE
@given(coded())
def test_text_and_types_have_equal_codes(case: Any) -> None:
    schema, codes, rng = case
    codec = Codec(schema)
    text = as_text(codec.decode(codes, rng), "?")
    assert np.array_equal(codec.encode(text).codes, codes)
    padded = pa.table({name: [f" {cell}  " for cell in text[name].to_pylist()] for name in text.column_names})
    assert np.array_equal(codec.encode(padded).codes, codes)


@PROFILE
@given(coded())
def test_csv_and_parquet_files_have_equal_codes(case: Any) -> None:
    schema, codes, rng = case
    codec = Codec(schema)
    table = codec.decode(codes, rng)
    csv, parquet = io.BytesIO(), io.BytesIO()
    pa_csv.write_csv(as_text(table, "?"), csv)
    pq.write_table(table, parquet)
    options = pa_csv.ConvertOptions(
        column_types=dict.fromkeys(schema.names, pa.string()), strings_can_be_null=False
    )
    parsing = pa_csv.ParseOptions(newlines_in_values=True)
    back = pa_csv.read_csv(io.BytesIO(csv.getvalue()), convert_options=options, parse_options=parsing)
    assert np.array_equal(codec.encode(back).codes, codes)
    assert np.array_equal(codec.encode(pq.read_table(io.BytesIO(parquet.getvalue()))).codes, codes)


@PROFILE
@given(coded(), st.integers(0, 60))
def test_batches_in_any_cut_and_columns_in_any_order_have_equal_codes(case: Any, cut: Any) -> None:
    schema, codes, rng = case
    codec = Codec(schema)
    table = codec.decode(codes, rng).select(sorted(schema.names))
    parts = [codec.encode(part).codes for part in (table.slice(0, cut), table.slice(cut))]
    assert np.array_equal(np.concatenate(parts), codes)


@PROFILE
@given(coded())
def test_decoded_values_lie_within_the_declared_bounds(case: Any) -> None:
    schema, codes, rng = case
    table = Codec(schema).decode(codes, rng)
    for each in schema.columns:
        values = [value for value in table[each.name].to_pylist() if value is not None]
        if isinstance(each, (Continuous, Integer, Date)):
            assert all(each.min <= value <= each.max for value in values)
        assert (
            table[each.name].null_count
            == (codes[:, schema.names.index(each.name)] == each.missing_code).sum()
        )


@PROFILE
@given(continuous("x", nullable=True), st.lists(st.none() | REALS, max_size=40))
def test_any_real_falls_into_the_bin_that_holds_it(column: Any, values: Any) -> None:
    encoded = Codec(TableSchema(columns=(column,))).encode(pa.table({"x": pa.array(values, pa.float64())}))
    edges = column.bin_edges
    outside = 0
    for value, code in zip(values, encoded.codes[:, 0].tolist(), strict=True):
        if value is None:
            assert code == column.missing_code
            continue
        inside = min(max(value, column.min), column.max)
        outside += inside != value
        assert edges[code] <= inside
        assert inside < edges[code + 1] or (inside == column.max and code == column.bins - 1)
    assert encoded.clamped == ({"x": outside} if outside else {})


@PROFILE
@given(integer("x", nullable=False), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=40))
def test_any_whole_number_falls_into_the_bin_that_holds_it(column: Any, values: Any) -> None:
    codec = Codec(TableSchema(columns=(column,)))
    encoded = codec.encode(pa.table({"x": pa.array(values, pa.int64())}))
    starts = (*column.starts, column.max + 1)
    inside = [min(max(value, column.min), column.max) for value in values]
    for value, code in zip(inside, encoded.codes[:, 0].tolist(), strict=True):
        assert starts[code] <= value < starts[code + 1]
    outside = sum(a != b for a, b in zip(values, inside, strict=True))
    assert encoded.clamped == ({"x": outside} if outside else {})
    assert (
        np.array_equal(codec.encode(pa.table({"x": [str(v) for v in values]})).codes, encoded.codes)
        or not values
    )


@PROFILE
@given(schemas())
def test_parse_is_the_inverse_of_dump(schema: Any) -> None:
    again = parse_schema(schema.model_dump(mode="json"))
    assert again == schema
    assert again.digest() == schema.digest()


@st.composite
def image_schemas(draw: st.DrawFn) -> Any:
    side = st.integers(1, 5)
    classes = draw(st.none() | LABELS)
    top = draw(st.sampled_from([1, 16, 255, 256, 4095]))
    return ImageSchema(
        height=draw(side),
        width=draw(side),
        channels=draw(st.integers(1, 3)),
        max_value=top,
        classes=classes,
        missing=("?",),
    )


@PROFILE
@given(coded(image_schemas()))
def test_images_come_back_by_both_roads(case: Any) -> None:
    schema, codes, rng = case
    codec = Codec(schema)
    assert np.array_equal(codec.encode(codec.decode(codes, rng)).codes, codes)
    pixels, labels = codec.decode_images(codes)
    names = None if labels is None else [schema.classes[label] for label in labels]
    assert np.array_equal(codec.encode_images(pixels, names).codes, codes)
