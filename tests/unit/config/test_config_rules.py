"""Rules that join sections, and the promises this version does not keep yet."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fedgen.config.study import parse_study
from fedgen.errors import ConfigError

BASE: dict[str, Any] = {
    "study": "one",
    "data": {"source": "builtin:randhie", "sites": {"count": 8}},
    "model": {"name": "tabular-vae"},
    "privacy": {"unit": "record", "trust": "local", "epsilon": 3.0, "delta": 1e-5},
    "training": {"rounds": 20, "batch": 64},
    "policy": {},
    "release": {},
    "simulation": {},
}


def refusal(**sections: dict[str, Any] | object) -> ConfigError:
    data = copy.deepcopy(BASE)
    for name, change in sections.items():
        data[name] = {**data[name], **change} if isinstance(change, dict) and name in data else change
    with pytest.raises(ConfigError) as caught:
        parse_study(data)
    return caught.value


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"release": {"gate": {"evidence": "audit"}}}, "release.gate"),
        ({"release": {"gate": {}}}, "release.gate"),
    ],
)
def test_a_promise_of_a_later_version_is_named_as_such(sections: dict[str, Any], key: str) -> None:
    error = refusal(**sections)
    assert error.key == key
    assert "not in this version" in error.what
    assert "unknown" not in str(error)
    assert error.hint


def test_one_line_names_every_key_that_is_not_in_this_version() -> None:
    error = refusal(privacy={"relation": "replace_one"}, release={"gate": {}})
    assert error.key == "privacy.relation"
    assert "also not in this version: release.gate" in (error.hint or "")
    assert "\n" not in str(error)


@pytest.mark.parametrize("trust", ["local", "central"])
@pytest.mark.parametrize("secagg", [{}, {"protocol": "sum"}])
def test_shares_of_noise_belong_to_distributed_trust(trust: str, secagg: dict[str, Any]) -> None:
    error = refusal(privacy={"trust": trust}, secagg=secagg)
    assert (error.key, error.hint) == ("secagg", f"leave secagg out with trust: {trust}")


@pytest.mark.parametrize(
    "secagg", [None, {}, {"protocol": "sum"}, {"threshold": 6, "dropouts": 1, "colluders": 2}]
)
def test_distributed_trust_is_accepted_with_its_section_or_without(secagg: dict[str, Any] | None) -> None:
    privacy = {**BASE["privacy"], "trust": "distributed"}
    study = parse_study({**BASE, "privacy": privacy, **({} if secagg is None else {"secagg": secagg})})
    assert (study.secagg is None) is (secagg is None)
    assert parse_study(study.to_json()) == study


@pytest.mark.parametrize("count", [1, 2])
def test_a_sum_of_two_hides_nobody(count: int) -> None:
    error = refusal(privacy={"trust": "distributed"}, data={"sites": {"count": count}})
    assert (error.key, "hides nobody" in error.what) == ("data.sites.count", True)


@pytest.mark.parametrize(
    ("secagg", "key"),
    [
        ({"protocol": "half"}, "secagg.protocol"),
        ({"dropouts": -1}, "secagg.dropouts"),
        ({"treshold": 6}, "secagg.treshold"),
        ({"ring": 16}, "secagg.ring"),
        (3, "secagg"),
    ],
)
def test_a_wrong_number_of_the_section_is_named(secagg: object, key: str) -> None:
    error = refusal(privacy={"trust": "distributed"}, secagg=secagg)
    assert error.key == key
    assert "\n" not in str(error)


def test_the_other_relation_is_refused_with_its_reason() -> None:
    error = refusal(privacy={"relation": "replace_one"})
    assert (error.key, "Poisson" in error.what) == ("privacy.relation", True)


def test_gradients_are_exchanged_after_every_step() -> None:
    error = refusal(training={"exchange": "gradient", "local_steps": 2})
    assert error.key == "training.exchange"


@pytest.mark.parametrize(
    ("training", "key"),
    [({"exchange": "update"}, "training.exchange"), ({"local_steps": 4}, "training.local_steps")],
)
@pytest.mark.parametrize("trust", ["central", "distributed"])
def test_noise_for_the_sum_of_all_needs_gradients(training: dict[str, Any], key: str, trust: str) -> None:
    error = refusal(privacy={"trust": trust}, training=training)
    assert error.key == key
    assert "exchange: gradient" in error.what


def test_central_trust_with_one_step_is_accepted() -> None:
    study = parse_study({**BASE, "privacy": {**BASE["privacy"], "trust": "central"}})
    assert study.training.exchanged == "gradient"


@pytest.mark.parametrize("trust", ["local", "central", "distributed"])
def test_a_whole_site_may_take_several_steps(trust: str) -> None:
    privacy = {**BASE["privacy"], "trust": trust, "unit": "site"}
    study = parse_study({**BASE, "privacy": privacy, "training": {**BASE["training"], "local_steps": 4}})
    assert study.exchanged == "update"


def test_a_quorum_larger_than_the_roster_is_refused() -> None:
    error = refusal(training={"quorum": 9})
    assert error.key == "training.quorum"
    assert "8" in error.what


@pytest.mark.parametrize(
    ("fault", "key"),
    [
        ({"site": "site-09", "round": 1, "kind": "drop"}, "simulation.faults.0.site"),
        ({"site": "site-1", "round": 1, "kind": "drop"}, "simulation.faults.0.site"),
        ({"site": "site-08", "round": 21, "kind": "late"}, "simulation.faults.0.round"),
        ({"site": "site-08", "round": 0, "kind": "late"}, "simulation.faults.0.round"),
        ({"site": "site-08", "round": 2, "kind": "explode"}, "simulation.faults.0.kind"),
    ],
)
def test_a_rehearsed_fault_is_one_that_can_happen(fault: dict[str, object], key: str) -> None:
    assert refusal(simulation={"faults": [fault]}).key == key


@pytest.mark.parametrize(
    ("model", "key"),
    [
        ({"name": "tabular-gan", "beta": 1.0}, "model.beta"),
        ({"name": "tabular-vae", "fake_batch": 8}, "model.fake_batch"),
        ({"name": "image-vae", "public_steps": 2}, "model.public_steps"),
        ({"name": "image-vae", "temperature": 1.0}, "model.temperature"),
    ],
)
def test_a_model_takes_its_own_options_and_no_others(model: dict[str, object], key: str) -> None:
    assert refusal(model=model).key == key
