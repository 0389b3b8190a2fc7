"""The site file: what it must say, and that it is never looser by default."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest

from fedgen.config.site import load_site, parse_site
from fedgen.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

SITE: dict[str, Any] = {
    "name": "north",
    "source": "postgresql://ann:hunter2@db/claims?table=t",
    "schema": "schema.yaml",
    "consent": "consent.csv",
    "min_cohort": 50,
    "ceilings": {"epsilon_per_study": 3.0, "epsilon_life": 9.0, "delta": 1e-5},
    "keys": "keys",
    "ledger": "ledger.db",
}


def test_from_json_and_to_json_are_inverse() -> None:
    site = parse_site(SITE)
    assert parse_site(site.to_json()) == site
    assert site.min_cohort == 50
    assert site.durable


def test_a_password_in_its_source_is_not_shown() -> None:
    assert "hunter2" not in repr(parse_site(SITE))


@pytest.mark.parametrize("key", ["name", "source", "ceilings", "keys", "ledger"])
def test_nothing_that_limits_has_a_default(key: str) -> None:
    data = {name: value for name, value in SITE.items() if name != key}
    with pytest.raises(ConfigError, match="missing") as caught:
        parse_site(data)
    assert caught.value.key == key


def test_a_year_may_be_left_to_the_life_of_the_data() -> None:
    assert parse_site(SITE).ceilings.epsilon_per_year is None
    data = copy.deepcopy(SITE)
    data["ceilings"]["epsilon_per_year"] = 5.0
    site = parse_site(data)
    assert site.ceilings.epsilon_per_year == 5.0
    assert parse_site(site.to_json()) == site


@pytest.mark.parametrize(
    ("year", "key", "word"), [(2.9, "epsilon_per_study", "a year"), (9.1, "epsilon_per_year", "the life")]
)
def test_a_year_lies_between_one_study_and_all(year: float, key: str, word: str) -> None:
    data = copy.deepcopy(SITE)
    data["ceilings"]["epsilon_per_year"] = year
    with pytest.raises(ConfigError, match=word) as caught:
        parse_site(data)
    assert caught.value.key == f"ceilings.{key}"


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True])
def test_a_ceiling_for_a_year_is_a_positive_number(value: object) -> None:
    data = copy.deepcopy(SITE)
    data["ceilings"]["epsilon_per_year"] = value
    with pytest.raises(ConfigError) as caught:
        parse_site(data)
    assert caught.value.key == "ceilings.epsilon_per_year"


@pytest.mark.parametrize("key", ["epsilon_per_study", "epsilon_life", "delta"])
@pytest.mark.parametrize("value", [None, 0, -1, float("nan"), float("inf"), True])
def test_a_ceiling_is_a_positive_number(key: str, value: object) -> None:
    data = copy.deepcopy(SITE)
    data["ceilings"][key] = value
    with pytest.raises(ConfigError) as caught:
        parse_site(data)
    assert caught.value.key == f"ceilings.{key}"


def test_one_study_may_not_spend_more_than_all() -> None:
    data = copy.deepcopy(SITE)
    data["ceilings"]["epsilon_per_study"] = 10.0
    with pytest.raises(ConfigError) as caught:
        parse_site(data)
    assert caught.value.key == "ceilings.epsilon_per_study"


def test_a_site_file_is_explained_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("name: north\nsource: a.csv\ncielings: {}\nkeys: k\nledger: l\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_site(path)
    assert str(caught.value) == f"{path}:3: cielings: unknown key (did you mean 'ceilings'?)"


def test_a_site_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(
        "name: north\nsource: a.csv\nceilings: {epsilon_per_study: 1, epsilon_life: 2, delta: 1e-6}\n"
        "keys: k\nledger: l\n",
        encoding="utf-8",
    )
    site = load_site(path)
    assert (site.ceilings.delta, site.min_cohort, site.schema_file) == (1e-6, 10, None)
