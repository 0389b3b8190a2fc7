"""Sites may have names of their own; the study says as little as it can, and its hash is the same either way."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from support.studies import STUDY

from fedgen.config.study import parse_study
from fedgen.errors import ConfigError


def with_sites(**sites: Any) -> dict[str, Any]:
    study = copy.deepcopy(STUDY)
    study["data"]["sites"] = sites
    return study


def test_names_make_the_roster_and_the_count_follows() -> None:
    study = parse_study(with_sites(names=["hospital-b", "hospital-a"]))
    assert study.data.sites.count == 2
    assert study.data.sites.names() == ("hospital-b", "hospital-a")
    both = parse_study(with_sites(names=["hospital-b", "hospital-a"], count=2))
    assert study == both
    assert study.to_json() == both.to_json()
    assert parse_study(study.to_json()) == study


def test_without_names_they_are_numbered_and_the_study_says_nothing_of_names() -> None:
    study = parse_study(with_sites(count=3))
    assert study.data.sites.names() == ("site-01", "site-02", "site-03")
    assert "names" not in study.to_json()["data"]["sites"]


@pytest.mark.parametrize(
    ("sites", "key", "what"),
    [
        ({"names": ["a", "b"], "count": 3}, "data.sites.names", "2 names, but count says 3"),
        ({"names": ["a", "b", "a"]}, "data.sites.names", "a is there twice"),
        ({"names": ["Hospital A"]}, "data.sites.names.0", ""),
        ({"names": []}, "data.sites", ""),
        ({}, "data.sites.count", ""),
        ({"named": ["a"], "count": 1}, "data.sites.named", ""),
    ],
)
def test_what_does_not_fit_is_named(sites: dict[str, Any], key: str, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_study(with_sites(**sites))
    assert (caught.value.key or "").startswith(key)
    assert what in caught.value.what


def test_faults_and_statements_name_these_sites() -> None:
    study = with_sites(names=["north", "south"])
    study["simulation"] = {"faults": [{"site": "site-01", "round": 1, "kind": "drop"}]}
    with pytest.raises(ConfigError) as caught:
        parse_study(study)
    assert caught.value.key == "simulation.faults.0.site"
    assert "north" in (caught.value.hint or "")
