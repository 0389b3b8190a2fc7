"""``Synthesizer``: tables in memory, one of them one site, over the real protocol."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pytest
from support.ledgers import reserved
from support.studies import HEADER, SCHEMA, people

import fedgen
from fedgen.errors import ConfigError, DataError
from fedgen.schema.table import parse_schema

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA_WITHOUT_PEOPLE = parse_schema({key: value for key, value in SCHEMA.items() if key != "subject"})
PRIVACY = fedgen.Privacy(epsilon=3, delta=1e-5, unit="record")


def _frame(first: int, count: int = 40) -> pd.DataFrame:
    rows = people(first + count)[first:]
    frame = pd.DataFrame(rows, columns=list(HEADER)).drop(columns="who")
    return frame.assign(
        age=frame["age"].astype(int), height=frame["height"].astype(float), sick=frame["sick"] == "true"
    )


def _new(**settings: object) -> fedgen.Synthesizer:
    fixed = {"privacy": PRIVACY, "rounds": 2, "options": {"latent": 2, "hidden": [8]}}
    return fedgen.Synthesizer(SCHEMA_WITHOUT_PEOPLE, **{**fixed, **settings})  # type: ignore[arg-type]


def test_fit_and_sample_return_a_frame_with_the_schemas_columns() -> None:
    synthesizer = _new().fit([_frame(0), _frame(40)])
    frame = synthesizer.sample(30)
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == ["age", "ward", "height", "sick"]
    assert len(frame) == 30
    assert frame["age"].between(0, 9).all()


def test_every_table_is_a_site_with_a_statement_of_its_own() -> None:
    synthesizer = _new().fit([_frame(0), _frame(40), _frame(80)])
    scopes = {statement["scope"] for statement in synthesizer.statements}
    assert scopes == {"site site-01", "site site-02", "site site-03", "union"}
    assert all(statement["epsilon"] <= 3 for statement in synthesizer.statements)


def test_tables_can_be_summed_so_that_nobody_sees_one_of_them() -> None:
    privacy = fedgen.Privacy(epsilon=3, delta=1e-5, unit="record", trust="distributed")
    synthesizer = _new(privacy=privacy).fit([_frame(0), _frame(40), _frame(80)])
    assert {statement["trust"] for statement in synthesizer.statements} == {"distributed"}
    assert [statement["colluders"] for statement in synthesizer.statements] == [0, 1]
    assert len(synthesizer.sample(5)) == 5
    with pytest.raises(ConfigError, match="hides nobody"):
        _new(privacy=privacy).fit([_frame(0), _frame(40)])


def test_an_arrow_table_is_taken_too_and_a_frames_index_is_not_data() -> None:
    frame = _frame(40).set_index(pd.Index(range(1000, 1040), name="secret"))
    table = pa.Table.from_pandas(_frame(0), preserve_index=False)
    assert len(_new().fit([table, frame]).sample(4)) == 4


def test_a_second_fit_is_a_study_of_its_own() -> None:
    synthesizer = _new().fit([_frame(0), _frame(40)])
    first = synthesizer.run_
    second = synthesizer.fit([_frame(0), _frame(40)]).run_
    assert first is not None
    assert second is not None
    assert second.path != first.path
    assert len(synthesizer.sample(2)) == 2


def test_temporary_folders_go_with_their_synthesizer() -> None:
    synthesizer = _new().fit([_frame(0), _frame(40)])
    assert synthesizer.run_ is not None
    path = synthesizer.run_.path
    assert path.is_dir()
    del synthesizer
    gc.collect()
    assert not path.exists()


def test_a_folder_of_ones_own_is_a_run_folder_and_is_not_used_twice(tmp_path: Path) -> None:
    synthesizer = _new(folder=tmp_path / "run").fit([_frame(0), _frame(40)])
    assert reserved(tmp_path / "run" / "sites" / "site-02" / "ledger.db") == [(1, 1), (2, 1)]
    assert len(fedgen.load_run(tmp_path / "run").sample(3)) == 3
    with pytest.raises(ConfigError, match="already holds this study"):
        synthesizer.fit([_frame(0), _frame(40)])


def test_central_trust_and_a_gan() -> None:
    privacy = fedgen.Privacy(epsilon=3, delta=1e-5, unit="record", trust="central")
    options = {"latent": 2, "hidden": [8], "generator": [8], "fake_batch": 8}
    synthesizer = _new(privacy=privacy, model="tabular-gan", options=options).fit([_frame(0), _frame(40)])
    assert {statement["scope"] for statement in synthesizer.statements} == {"union", "coordinator"}


def test_before_a_fit_there_is_nothing_to_sample() -> None:
    with pytest.raises(ConfigError, match="not fitted"):
        _new().sample(3)
    with pytest.raises(ConfigError, match="not fitted"):
        _ = _new().statements


def test_no_tables_is_an_error() -> None:
    with pytest.raises(ConfigError, match="at least one table"):
        _new().fit([])


def test_a_row_that_does_not_fit_is_named_without_its_value() -> None:
    frame = _frame(0)
    frame.loc[3, "ward"] = "zq-canary"
    with pytest.raises(DataError) as wrong:
        _new().fit([frame, _frame(40)])
    assert "ward" in str(wrong.value)
    assert "zq-canary" not in str(wrong.value)


def test_a_wrong_setting_names_its_key() -> None:
    with pytest.raises(ConfigError) as wrong:
        _new(privacy=fedgen.Privacy(epsilon=0, delta=1e-5, unit="record")).fit([_frame(0)])
    assert wrong.value.key == "privacy.epsilon"


def test_privacy_has_no_default_that_decides_anything() -> None:
    with pytest.raises(TypeError):
        fedgen.Privacy(epsilon=3, delta=1e-5)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        fedgen.Privacy(epsilon=3, unit="record")  # type: ignore[call-arg]


def test_settings_are_shown_as_scikit_learn_would() -> None:
    shown = _new().get_params()
    assert shown["privacy"]["epsilon"] == 3
    assert shown["training"]["rounds"] == 2
    assert shown["model"]["name"] == "tabular-vae"


@pytest.mark.parametrize("unit", ["person", "site"])
def test_persons_and_whole_tables_can_be_what_is_protected(unit: str) -> None:
    def table(first: int) -> pd.DataFrame:
        return _frame(first).assign(who=[f"p{first + row // 4:04d}" for row in range(40)])

    privacy = fedgen.Privacy(epsilon=8, delta=1e-5, unit=unit)  # type: ignore[arg-type]
    fixed = {"rounds": 2, "options": {"latent": 2, "hidden": [8]}}
    made = fedgen.Synthesizer(parse_schema(SCHEMA), privacy=privacy, **fixed)  # type: ignore[arg-type]
    made.fit([table(0), table(40)])
    assert {statement["unit"] for statement in made.statements} == {unit}
    assert made.run_ is not None
    assert [entry.persons for entry in made.run_.study.roster] == (
        [10, 10] if unit == "person" else [None] * 2
    )


def test_a_table_that_does_not_say_whose_its_rows_are_is_refused_for_persons() -> None:
    privacy = fedgen.Privacy(epsilon=8, delta=1e-5, unit="person")
    with pytest.raises(DataError, match="whose"):
        fedgen.Synthesizer(parse_schema(SCHEMA), privacy=privacy, rounds=2).fit([_frame(0)])
    with pytest.raises(ConfigError, match="subject"):
        fedgen.Synthesizer(SCHEMA_WITHOUT_PEOPLE, privacy=privacy, rounds=2).fit([_frame(0)])
