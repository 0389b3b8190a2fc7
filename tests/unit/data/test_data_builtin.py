import importlib.util
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fedgen.data import builtin
from fedgen.data.builtin import BUILTINS, DIGITS_ROWS, builtin_schema, builtin_source
from fedgen.data.encoded import read_encoded
from fedgen.data.randhie import persons
from fedgen.errors import ConfigError, DataError, MissingExtra
from fedgen.schema.codec import Codec
from fedgen.schema.columns import Continuous
from fedgen.schema.table import ImageSchema, TableSchema


def column(table: Any, name: Any) -> Any:
    return table.codes[:, builtin_schema("randhie").names.index(name)]


@pytest.fixture(scope="module")
def randhie() -> Any:
    return read_encoded(builtin_source("randhie"), builtin_schema("randhie"))


@pytest.fixture(scope="module")
def digits() -> Any:
    return read_encoded(builtin_source("digits"), builtin_schema("digits"))


@pytest.fixture(scope="module")
def raw() -> Any:
    return pa.Table.from_batches(list(builtin_source("randhie").batches()))


def test_randhie_is_the_known_table(randhie: Any) -> None:
    assert randhie.codes.shape == (20_190, 10)
    assert randhie.codes.dtype == np.uint8
    assert randhie.clamped == {}, "public bounds hold every value"
    assert column(randhie, "idp").sum() == 5249
    assert column(randhie, "hlthg").sum() == 7309


def test_the_schema_says_what_is_public() -> None:
    schema = builtin_schema("randhie")
    assert isinstance(schema, TableSchema)
    assert schema.label == "hlthg"
    assert schema.subject == "person"
    assert max(schema.cardinalities) <= 24


def test_decoding_gives_the_amounts_of_the_design_back(raw: Any) -> None:
    """A frequent amount has a bin of its own: what is decoded is the amount, to a thousandth."""
    schema = builtin_schema("randhie")
    codec = Codec(schema)
    amounts = {
        "lncoins": np.log([1, 26, 51, 96, 101]),
        "lpi": np.log([1, 150, 300, 450, 750, 1000]),
        "fmde": np.log([1, 450 / 0.95, 1000 / 0.95, 2000, 3000, 4000]),
        "physlm": np.array([0.0, 1.0]),
    }
    codes = codec.encode(raw.drop_columns(["person"])).codes
    decoded = codec.decode(codes, np.random.default_rng(0))
    for name, values in amounts.items():
        before = raw[name].cast(pa.float64()).to_numpy()
        after = decoded[name].to_numpy()
        for value in values:
            at_value = abs(before - value) < 1e-4
            assert at_value.sum() > 200
            assert abs(after[at_value] - value).max() < 0.0021


def test_edges_are_not_of_the_data() -> None:
    """No edge is a value of the table but those that bounds and zero give: bins were not fitted to rows."""
    for column_ in builtin_schema("randhie").columns:
        if isinstance(column_, Continuous):
            assert all(b - a >= 0.000999 for a, b in pairwise(column_.bin_edges))


def test_subjects_of_randhie_are_persons_with_up_to_five_years(randhie: Any) -> None:
    people, years = np.unique(randhie.subjects, return_counts=True)
    assert len(people) == 5912
    assert people[0] == b"p00001"
    assert people[-1] == b"p05912"
    assert np.bincount(years).tolist() == [0, 269, 246, 3743, 70, 1584]


def test_what_was_asked_at_baseline_is_one_value_for_each_person(raw: Any) -> None:
    """The file has no identifier; a wrong cut into persons would break these."""
    numbers = persons()
    for name in ("physlm", "disea", "hlthg", "hlthf", "hlthp"):
        values = raw[name].cast(pa.float64()).to_numpy()
        same = numbers[1:] == numbers[:-1]
        assert (values[1:] == values[:-1])[same].all(), name
    shifted = np.roll(numbers, 1)
    values = raw["disea"].cast(pa.float64()).to_numpy()
    assert not (values[1:] == values[:-1])[shifted[1:] == shifted[:-1]].all(), "the check can fail"


def test_digits_is_the_known_set(digits: Any) -> None:
    schema = builtin_schema("digits")
    assert isinstance(schema, ImageSchema)
    assert digits.codes.shape == (1797, 65)
    assert digits.codes[:, :64].max() == 16
    assert digits.clamped == {}
    assert np.bincount(digits.codes[:, 64]).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert digits.codes[0, :8].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert digits.subjects[[0, -1]].tolist() == [b"d0001", b"d1797"]
    assert len(np.unique(digits.subjects)) == DIGITS_ROWS


@pytest.mark.parametrize("name", BUILTINS)
@pytest.mark.parametrize("rows", [1000, 65_536])
def test_the_subject_is_a_column_like_any_other(name: str, rows: Any) -> None:
    source = builtin_source(name)
    subject = source.columns[-1]
    batches = list(source.batches([subject], rows))
    assert {b.schema.names[0] for b in batches} == {subject}
    assert max(b.num_rows for b in batches) <= rows
    alone = [v for b in batches for v in b.column(0).to_pylist()]
    table = pa.Table.from_batches(list(source.batches([source.columns[0], subject, source.columns[1]])))
    assert table.column_names == [source.columns[0], subject, source.columns[1]]
    assert table[subject].to_pylist() == alone


@pytest.mark.parametrize("name", BUILTINS)
def test_without_the_package_the_extra_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "find_spec", lambda _package: None)
    with pytest.raises(MissingExtra, match=f"builtin:{name} needs an extra") as caught:
        builtin_source(name)
    assert caught.value.hint == "pip install 'fedgen[examples]'"
    assert builtin_schema(name), "what is public needs no package"


def test_a_package_without_the_file_is_as_good_as_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = importlib.util.spec_from_loader("statsmodels", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(builtin, "find_spec", lambda _package: spec)
    with pytest.raises(MissingExtra):
        builtin_source("randhie")


@pytest.mark.parametrize("rows", [3, 20_191])
def test_a_file_of_another_length_is_refused_since_persons_would_shift(
    rows: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "datasets" / "randhie" / "randhie.csv"
    file.parent.mkdir(parents=True)
    file.write_text("mdvis\n" + "0\n" * rows)
    spec = importlib.util.spec_from_loader("statsmodels", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(builtin, "find_spec", lambda _package: spec)
    with pytest.raises(DataError, match="has not the 20190 rows"):
        list(builtin_source("randhie").batches(["mdvis"]))


def test_an_unknown_name() -> None:
    with pytest.raises(ConfigError, match=r"builtin:randhi: .*did you mean builtin:randhie"):
        builtin_schema("randhi")


def test_the_packages_themselves_are_not_imported() -> None:
    code = (
        "import sys; from fedgen.data.builtin import *;"
        "[list(builtin_source(n).batches()) for n in BUILTINS];"
        "print([m for m in ('statsmodels', 'sklearn', 'scipy', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
