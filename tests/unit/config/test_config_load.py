"""A study file is read whole or refused in one line with file, line and key."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fedgen.config.load import StudyFile, load_study
from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
study: one
data:
  source: csv://claims.csv
  schema: schema.yaml
  sites: {count: 8, split: dirichlet, by: plan, alpha: 0.5}
model: {name: tabular-vae, hidden: [64]}
privacy:
  unit: record
  trust: local
  epsilon: 3.0
  delta: 1e-5
training:
  rounds: 20
  batch: 64
  optimizer: {name: adam, lr: 1e-3}
"""

GOOD_TOML = """\
study = "one"

[data]
source = "csv://claims.csv"
schema = "schema.yaml"
sites = { count = 8, split = "dirichlet", by = "plan", alpha = 0.5 }

[model]
name = "tabular-vae"
hidden = [64]

[privacy]
unit = "record"
trust = "local"
epsilon = 3.0
delta = 1e-5

[training]
rounds = 20
batch = 64
optimizer.name = "adam"
optimizer.lr = 1e-3
"""

# The example of the promised interface.
PROMISED = """\
study: rand-health
data:
  source: parquet://claims.parquet
  schema: schema.yaml
  sites: {count: 8, split: dirichlet, by: idp, alpha: 0.5}
model: {name: tabular-vae, latent: 32, hidden: [256, 256]}
privacy: {unit: record, trust: distributed, epsilon: 3.0, delta: 1.0e-5, clip: 1.0}
secagg: {protocol: full, threshold: 6, dropouts: 1, colluders: 1}
training: {rounds: 200, batch: 1024, local_steps: 1, optimizer: {name: adam, lr: 1.0e-3}}
policy: {packs: [gdpr, ccpa], purpose: train_generator}
release: {rows: 20000, formats: [parquet, csv]}
"""


def write(folder: Path, text: str, name: str = "study.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(path: Path, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_study(path, overrides)
    assert "\n" not in str(caught.value)
    return caught.value


def test_yaml_and_toml_say_the_same(tmp_path: Path) -> None:
    by_yaml = load_study(write(tmp_path, GOOD))
    by_toml = load_study(write(tmp_path, GOOD_TOML, "study.toml"))
    assert by_yaml.study == by_toml.study
    assert by_yaml.study.training.optimizer.lr == 1e-3


def test_a_section_without_its_trust_is_found_at_its_line(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, PROMISED.replace("trust: distributed", "trust: local")))
    assert (error.line, error.key) == (8, "secagg")
    assert "trust: distributed" in error.what


def test_the_promised_example_is_read_whole(tmp_path: Path) -> None:
    file = load_study(write(tmp_path, PROMISED))
    assert file.study.secagg is not None
    assert (file.study.secagg.threshold, file.study.secagg.dropouts, file.study.secagg.colluders) == (6, 1, 1)
    assert file.study.policy.packs == ("gdpr", "ccpa")
    assert file.study.data.sites.count == 8
    assert file.study.policy.purpose == "train_generator"


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    error = refusal(tmp_path / "none.yaml")
    assert error.what == "no such file"
    assert str(tmp_path / "none.yaml") in str(error)


@pytest.mark.parametrize("text", ["", "# only a remark\n", "[]", "just text", "- a\n- b\n"])
def test_a_file_that_holds_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    assert refusal(write(tmp_path, text)).where == str(tmp_path / "study.yaml")


def test_a_folder_or_another_suffix_is_refused(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(_folder(tmp_path / "dir.yaml")).what
    assert ".toml" in (refusal(write(tmp_path, GOOD, "study.txt")).hint or "")


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.parametrize(
    ("old", "new", "line", "key"),
    [
        ("epsilon: 3.0", "epsilon: 0", 10, "privacy.epsilon"),
        ("epsilon: 3.0", "epsilon: -1", 10, "privacy.epsilon"),
        ("epsilon: 3.0", "epsilon: .nan", 10, "privacy.epsilon"),
        ("epsilon: 3.0", "epsilon: .inf", 10, "privacy.epsilon"),
        ("epsilon: 3.0", "epsilon: lots", 10, "privacy.epsilon"),
        ("  epsilon: 3.0\n", "", 7, "privacy"),
        ("epsilon: 3.0", "epsilon: 3.0\n  noise_multiplier: 1.0", 11, "privacy.noise_multiplier"),
        ("epsilon: 3.0", "epsilom: 3.0", 10, "privacy.epsilom"),
        ("count: 8", "count: 10001", 5, "data.sites.count"),
        ("rounds: 20", "rounds: 0", 13, "training.rounds"),
        ("lr: 1e-3", "lr: 0", 15, "training.optimizer.lr"),
        ("study: one", "study: one\nsecagg: {dropouts: 1}", 2, "secagg"),
        ("trust: local", "trust: everybody", 9, "privacy.trust"),
        ("unit: record", "unit: family", 8, "privacy.unit"),
        ("study: one", "study: one\nstudy: two", 2, "study"),
        ("model:", "modell:", 6, "modell"),
    ],
)
def test_a_mistake_is_found_at_its_line(tmp_path: Path, old: str, new: str, line: int, key: str) -> None:
    assert old in GOOD
    error = refusal(write(tmp_path, GOOD.replace(old, new)))
    assert (error.line, error.key) == (line, key)
    assert str(error).startswith(f"{tmp_path / 'study.yaml'}:{line}: {key}: ")


@pytest.mark.parametrize(
    ("old", "new", "line", "key"),
    [
        ("epsilon = 3.0", "epsilon = 0", 15, "privacy.epsilon"),
        ("epsilon = 3.0", "epsilom = 3.0", 15, "privacy.epsilom"),
        ("count = 8", "count = 0", 6, "data.sites.count"),
        ("optimizer.lr = 1e-3", "optimizer.lr = 0", 22, "training.optimizer.lr"),
        ("[privacy]", "[privacy", 12, None),
    ],
)
def test_toml_mistakes_have_lines_too(tmp_path: Path, old: str, new: str, line: int, key: str | None) -> None:
    error = refusal(write(tmp_path, GOOD_TOML.replace(old, new), "study.toml"))
    assert (error.line, error.key) == (line, key)


def test_an_override_changes_one_key(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    file = load_study(path, ["training.rounds=7", "model.hidden=[8, 4]", "simulation.evaluate_every=2"])
    assert file.study.training.rounds == 7
    assert file.study.model.hidden == (8, 4)
    assert file.study.simulation.evaluate_every == 2
    assert file.study.training.batch == 64


def test_a_later_override_wins_and_null_takes_a_key_away(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    overrides = [
        "training.rounds=7",
        "training.rounds=9",
        "privacy.epsilon=null",
        "privacy.noise_multiplier=1",
    ]
    study = load_study(path, overrides).study
    assert study.training.rounds == 9
    assert (study.privacy.epsilon, study.privacy.noise_multiplier) == (None, 1.0)


def test_a_mistake_in_an_override_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, GOOD), "privacy.epsilom=3")
    assert (error.where, error.line, error.key) == ("--set", None, "privacy.epsilom")
    assert "'epsilon'" in (error.hint or "")


def test_a_mistake_in_the_file_is_not_blamed_on_an_override(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, GOOD.replace("rounds: 20", "rounds: 0")), "privacy.epsilon=1")
    assert (error.where, error.line) == (str(tmp_path / "study.yaml"), 13)


def test_the_value_of_an_override_stays_out_of_the_error(tmp_path: Path) -> None:
    error = refusal(write(tmp_path, GOOD), "data.source=postgresql://ann:hunter2@db/claims")
    assert "hunter2" not in str(error)


def test_a_later_error_can_still_name_its_line(tmp_path: Path) -> None:
    file = load_study(write(tmp_path, GOOD), ["training.rounds=7"])
    assert isinstance(file, StudyFile)
    located = file.locate(ConfigError("no such column", key="data.sites.by", hint="look"))
    assert (located.where, located.line, located.hint) == (str(file.path), 5, "look")
    assert file.locate(ConfigError("too many", key="training.rounds")).where == "--set"
    elsewhere = ConfigError("broken", where="schema.yaml", key="columns")
    assert file.locate(elsewhere) is elsewhere
    keyless = ConfigError("broken")
    assert file.locate(keyless) is keyless


def test_paths_start_from_the_study_file(tmp_path: Path) -> None:
    file = load_study(write(tmp_path, GOOD))
    assert file.file("schema.yaml") == tmp_path / "schema.yaml"
    assert file.file("/elsewhere/s.yaml").as_posix() == "/elsewhere/s.yaml"


def test_reading_a_study_loads_nothing_heavy() -> None:
    code = (
        "import sys, fedgen.config.load, fedgen.config.resolve, fedgen.config.site, fedgen.runs.folder, "
        "fedgen.runs.journal; "
        "print([name for name in ('torch', 'opacus', 'pandas', 'scipy', 'pyarrow', 'dp_accounting', 'flwr') "
        "if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_section_that_only_the_command_line_spells_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(GOOD, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_study(path, ["trainng.rounds=3"])
    assert str(caught.value).startswith("--set: trainng: unknown key")
