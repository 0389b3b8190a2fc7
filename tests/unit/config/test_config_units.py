"""The privacy unit of a study: what a person and a site need, what they decide, and what the plan charges."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from fedgen.config.implied import ROWS_PER_PERSON
from fedgen.config.plan import coordinator_noise_std, plan_of, site_noise_std
from fedgen.config.resolve import ResolvedStudy, resolve
from fedgen.config.study import parse_study
from fedgen.dpsgd.noise import NoiseSource
from fedgen.errors import ConfigError
from fedgen.privacy.units import Unit
from fedgen.schema.table import parse_schema

STUDY: dict[str, Any] = {
    "study": "one",
    "data": {"source": "csv://claims.csv", "schema": "schema.yaml", "sites": {"count": 3}},
    "model": {"name": "tabular-vae"},
    "privacy": {"unit": "person", "trust": "local", "noise_multiplier": 2.0, "delta": 1e-5},
    "training": {"rounds": 20, "batch": 6},
}
TABLE: dict[str, Any] = {
    "subject": "who",
    "columns": [{"name": "age", "type": "integer", "min": 0, "max": 110}],
}
ROWS, PERSONS = (100, 200, 300), (10, 20, 30)


def _study(**sections: Any) -> Any:
    data = copy.deepcopy(STUDY)
    for name, change in sections.items():
        merged = {**data.get(name, {}), **change}
        data[name] = {key: value for key, value in merged.items() if value is not None}
    return parse_study(data)


def _resolved(persons: tuple[int, ...] | None = PERSONS, **sections: Any) -> ResolvedStudy:
    return resolve(_study(**sections), schema=parse_schema(TABLE), sizes=ROWS, persons=persons)


SITE: dict[str, Any] = {"privacy": {"unit": "site"}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("clip", 1e-300),
        ("clip", 1e300),
        ("clip", 9e-10),
        ("noise_multiplier", 1e-9),
        ("noise_multiplier", 1e7),
    ],
)
def test_noise_that_float32_cannot_hold_is_refused_with_its_key(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=r"must be (greater|less) than or equal to") as caught:
        _study(privacy={key: value})
    assert caught.value.key == f"privacy.{key}"


@pytest.mark.parametrize("clip", [1e-9, 1e9])
@pytest.mark.parametrize("multiplier", [0.01, 1e6])
def test_every_clip_and_noise_that_a_study_may_ask_for_can_be_drawn(clip: float, multiplier: float) -> None:
    asked = _resolved(privacy={"clip": clip, "noise_multiplier": multiplier})
    out = torch.zeros(8)
    NoiseSource.insecure(1).add_normal_(out, site_noise_std(plan_of(asked)))
    assert bool((out != 0).all() and torch.isfinite(out).all())


# -- persons ----------------------------------------------------------------------------------------


def test_a_batch_is_in_persons_and_so_is_the_rate() -> None:
    local = _resolved()
    assert local.sample_rate == 6 * 3 / 60
    assert plan_of(local).expected_batch == 6
    central = _resolved(privacy={"trust": "central"})
    assert central.sample_rate == 6 / 60
    assert plan_of(central).expected_batch == 6
    assert plan_of(central).q == central.sample_rate


def test_the_roster_declares_persons_and_keeps_them() -> None:
    done = _resolved()
    assert [entry.persons for entry in done.roster] == [10, 20, 30]
    assert (done.total_rows, done.total_sampled, done.sampled_of("site-02")) == (600, 60, 20)
    assert done.to_json()["roster"][0] == {"name": "site-01", "rows": 100, "persons": 10}
    assert ResolvedStudy.from_json(done.canonical()) == done


def test_a_default_bounds_the_rows_of_a_person() -> None:
    assert _resolved().study.privacy.rows_per_person == ROWS_PER_PERSON
    assert _resolved(privacy={"rows_per_person": 3}).study.privacy.rows_per_person == 3
    assert _resolved().study_hash == _resolved(privacy={"rows_per_person": ROWS_PER_PERSON}).study_hash
    assert _study().privacy.rows_per_person is None, "what a person wrote is kept as it is"


@pytest.mark.parametrize("value", [0, -1, 2**20 + 1, True, 1.5, "many"])
def test_a_bound_on_rows_is_a_number_that_can_be_kept(value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        _study(privacy={"rows_per_person": value})
    assert caught.value.key == "privacy.rows_per_person"


@pytest.mark.parametrize("unit", ["record", "site"])
def test_rows_per_person_belongs_to_persons(unit: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _study(privacy={"unit": unit, "rows_per_person": 4})
    assert caught.value.key == "privacy.rows_per_person"
    assert caught.value.hint


def test_persons_need_a_schema_that_names_them() -> None:
    bare = {**TABLE, "subject": None}
    with pytest.raises(ConfigError) as caught:
        resolve(_study(), schema=parse_schema(bare), sizes=ROWS, persons=PERSONS)
    assert caught.value.key == "privacy.unit"
    assert "subject" in (caught.value.hint or "")


@pytest.mark.parametrize("persons", [None, (10, 20)])
def test_persons_need_a_declared_number_at_every_site(persons: tuple[int, ...] | None) -> None:
    with pytest.raises(ConfigError) as caught:
        _resolved(persons)
    assert caught.value.key == "privacy.unit"


def test_a_roster_that_does_not_fit_the_unit_is_refused() -> None:
    for unit in ("record", "site"):
        assert all(e.persons is None for e in _resolved(privacy={"unit": unit}).roster)
    good = _resolved().to_json()
    for change in ({"persons": 200}, {"persons": 0}, {"persons": None}):
        bad = copy.deepcopy(good)
        bad["roster"][0] |= change
        with pytest.raises(ValueError, match=r"persons|roster"):
            ResolvedStudy.model_validate(bad)
    record = _resolved(privacy={"unit": "record"}).to_json()
    record["roster"][0]["persons"] = 10
    with pytest.raises(ValueError, match="declare persons"):
        ResolvedStudy.model_validate(record)


def test_a_roster_of_records_is_written_as_it_always_was() -> None:
    assert _resolved(privacy={"unit": "record"}).to_json()["roster"][0] == {"name": "site-01", "rows": 100}


# -- sites ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 7])
@pytest.mark.parametrize("trust", ["local", "central"])
def test_a_round_of_whole_sites_is_one_event_at_rate_one(steps: int, trust: str) -> None:
    done = _resolved(privacy={"unit": "site", "trust": trust}, training={"local_steps": steps})
    plan = plan_of(done)
    assert (plan.unit, plan.q, plan.steps_per_round, plan.rounds) == (Unit.SITE, 1.0, 1, 20)
    assert plan.expected_batch == (1 if trust == "local" else 3)
    assert done.exchange == "update"
    assert site_noise_std(plan) == (2.0 if trust == "local" else 0.0)
    assert coordinator_noise_std(plan) == (0.0 if trust == "local" else 2.0)


def test_what_a_site_samples_plays_no_part_in_its_epsilon() -> None:
    plans = {plan_of(_resolved(**SITE, training={"batch": batch})).sigma for batch in (1, 50, 600)}
    costs = {plan_of(_resolved(**SITE, training={"batch": batch})).epsilon_of(20) for batch in (1, 600)}
    assert len(plans) == len(costs) == 1


@pytest.mark.parametrize("trust", ["local", "central"])
def test_a_batch_of_a_local_step_is_a_sites_own(trust: str) -> None:
    assert _resolved(privacy={"unit": "site", "trust": trust}).sample_rate == 6 * 3 / 600


def test_an_epsilon_is_calibrated_for_rate_one() -> None:
    given = {"unit": "site", "noise_multiplier": None, "epsilon": 8.0}
    plan = plan_of(_resolved(privacy=given))
    assert 0.995 * 8 <= plan.epsilon_of(20) <= 8.0


def test_gradients_of_whole_sites_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        _study(**SITE, training={"exchange": "gradient"})
    assert caught.value.key == "training.exchange"
    assert "update" in (caught.value.hint or "")


def test_central_trust_takes_updates_of_whole_sites_and_of_nothing_else() -> None:
    assert (
        _study(privacy={"unit": "site", "trust": "central"}, training={"local_steps": 5}).exchanged
        == "update"
    )
    for unit in ("record", "person"):
        with pytest.raises(ConfigError) as caught:
            _study(privacy={"unit": unit, "trust": "central"}, training={"local_steps": 5})
        assert caught.value.key == "training.local_steps"
