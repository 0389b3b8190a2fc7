"""``init`` drafts from a header and types, never from values, and leaves nothing half-made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from fedgen.api import scaffold as room
from fedgen.api.scaffold import scaffold
from fedgen.config.load import load_study
from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def _csv(folder: Path, rows: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "people.csv"
    path.write_text("\n".join(["age,ward", *rows]) + "\n")
    return path


def test_two_files_with_one_header_give_one_draft(tmp_path: Path) -> None:
    one = _csv(tmp_path / "a", ["17,north", "99,south"])
    scaffold(tmp_path / "one", one)
    _csv(tmp_path / "a", ["1,zq-canary", "2,other", "3,third"])
    scaffold(tmp_path / "two", one)
    drafts = [(tmp_path / name / "schema.yaml").read_text() for name in ("one", "two")]
    assert drafts[0] == drafts[1]
    assert "zq-canary" not in drafts[1]
    assert "99" not in drafts[0]


def test_no_value_is_read_from_a_parquet_file_either(tmp_path: Path) -> None:
    drafts = []
    for values in ([1.0, 2.0], [77.5, 88.25, 99.125]):
        path = tmp_path / "people.parquet"
        pq.write_table(pa.table({"height": values}), path)
        folder = tmp_path / f"study{len(drafts)}"
        scaffold(folder, path)
        drafts.append((folder / "schema.yaml").read_text())
    assert drafts[0] == drafts[1]
    assert "77.5" not in drafts[1]


def test_the_study_parses_and_names_its_source(tmp_path: Path) -> None:
    made = scaffold(tmp_path / "My Study 2026!", _csv(tmp_path / "data", ["1,x"]))
    file = load_study(made.files[0])
    assert file.study.study == "my-study-2026"
    assert file.study.data.source == f"csv://{tmp_path / 'data' / 'people.csv'}"
    assert made.to_do


@pytest.mark.parametrize("name", ["a: b #c", 'quo"te', "ünïcode", "{brace}"])
def test_awkward_names_of_folders_and_files_are_quoted(tmp_path: Path, name: str) -> None:
    made = scaffold(tmp_path / f"study {name}", _csv(tmp_path / name, ["1,x"]))
    study = load_study(made.files[0]).study
    assert study.data.source == f"csv://{tmp_path / name / 'people.csv'}"


@pytest.mark.parametrize("name", ["---", "日本", "_"])
def test_a_folder_without_a_letter_still_gives_a_name(tmp_path: Path, name: str) -> None:
    assert load_study(scaffold(tmp_path / name).files[0]).study.study == "study"


def test_without_a_file_the_builtin_table_is_used(tmp_path: Path) -> None:
    made = scaffold(tmp_path / "demo")
    assert yaml.safe_load(made.files[0].read_text())["data"]["source"] == "builtin:randhie"
    assert len(made.files) == 1


def test_a_missing_file_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        scaffold(tmp_path / "new", tmp_path / "absent.csv")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("present", ["study.yaml", "schema.yaml"])
def test_what_is_there_is_never_overwritten(tmp_path: Path, present: str) -> None:
    (tmp_path / present).write_text("mine")
    with pytest.raises(ConfigError, match="not overwritten"):
        scaffold(tmp_path, _csv(tmp_path / "data", ["1,x"]))
    assert (tmp_path / present).read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["data", present])


def test_half_a_study_does_not_stand_in_the_way_of_a_second_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _csv(tmp_path / "data", ["1,x"])
    write = room.write_text

    def fill(path: Path, text: str) -> None:
        if path.name == "study.yaml":
            raise ConfigError("no room left to write", where=path)
        write(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(room, "write_text", fill)
        with pytest.raises(ConfigError, match="no room"):
            scaffold(tmp_path / "new", source)
    assert scaffold(tmp_path / "new", source).files[1].is_file()
