"""A study under distributed trust: resolved with nothing left open, and one plan that everybody computes alike."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fedgen.config.distributed import DistributedPlan
from fedgen.config.plan import coordinator_noise_std, plan_of, site_noise_std, statements_of
from fedgen.config.resolve import ResolvedStudy, read_resolved, resolve
from fedgen.config.study import parse_study
from fedgen.errors import ConfigError
from fedgen.privacy.units import Trust
from fedgen.schema.table import parse_schema

STUDY: dict[str, Any] = {
    "study": "one",
    "data": {"source": "csv://claims.csv", "schema": "schema.yaml", "sites": {"count": 6}},
    "model": {"name": "tabular-vae"},
    "privacy": {"unit": "record", "trust": "distributed", "epsilon": 4.0, "delta": 1e-5, "clip": 0.5},
    "secagg": {"dropouts": 1, "colluders": 1},
    "training": {"rounds": 12, "batch": 90},
}
SCHEMA = parse_schema(
    {
        "columns": [
            {"name": "age", "type": "integer", "min": 0, "max": 110},
            {"name": "who", "type": "categorical", "categories": ["a", "b"]},
        ],
        "label": "who",
        "subject": "person",
    }
)
SIZES = (100, 200, 300, 100, 100, 100)
LENGTH = 321


def resolved(
    *, parameters: int | None = LENGTH, sizes: tuple[int, ...] = SIZES, **sections: Any
) -> ResolvedStudy:
    data = copy.deepcopy(STUDY)
    for name, change in sections.items():
        data[name] = {**data.get(name, {}), **change} if isinstance(change, dict) else change
    if data["secagg"] is None:
        del data["secagg"]
    data["data"]["sites"]["count"] = len(sizes)
    return resolve(
        parse_study(data),
        schema=SCHEMA,
        sizes=sizes,
        persons=[size // 2 for size in sizes],
        parameters=parameters,
    )


def planned(**more: Any) -> DistributedPlan:
    plan = plan_of(resolved(**more))
    assert isinstance(plan, DistributedPlan)
    return plan


def test_the_length_of_a_vector_is_part_of_the_study() -> None:
    done = resolved()
    assert done.parameters == LENGTH
    assert done.to_json()["parameters"] == LENGTH
    assert ResolvedStudy.from_json(done.canonical()) == done
    assert resolved(parameters=322).study_hash != done.study_hash


def test_no_other_study_has_a_length() -> None:
    local = resolved(privacy={"trust": "local"}, secagg=None)
    assert local.parameters is None
    assert "parameters" not in local.to_json()
    with pytest.raises(ConfigError) as error:
        resolved(parameters=None)
    assert error.value.key == "privacy.trust"
    for text in (
        resolved().canonical().replace(f'"parameters":{LENGTH},', ""),
        local.canonical().replace('"roster"', '"parameters":3,"roster"'),
    ):
        with pytest.raises(ConfigError, match="parameters must be there with trust: distributed"):
            ResolvedStudy.from_json(text)


def test_a_length_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        resolved(parameters=0)


def test_the_section_and_its_threshold_are_filled_in() -> None:
    done = resolved(secagg=None)
    assert done.study.secagg is not None
    assert (done.study.secagg.threshold, done.study.secagg.protocol) == (4, "full")
    assert resolved(secagg={"threshold": 5}).study.secagg.threshold == 5  # type: ignore[union-attr]
    open_text = done.canonical().replace(',"threshold":4', "")
    assert open_text != done.canonical()
    with pytest.raises(ConfigError, match="a default was left open"):
        ResolvedStudy.from_json(open_text)


def test_a_resolved_study_is_read_from_its_file_as_it_was_written(tmp_path: Any) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(resolved().to_yaml(), encoding="utf-8")
    assert read_resolved(path) == resolved()
    assert plan_of(read_resolved(path)) == plan_of(resolved())


def test_the_batch_is_of_all_sites_together() -> None:
    assert resolved().sample_rate == 90 / 900
    assert resolved(privacy={"unit": "person"}).sample_rate == 90 / 450


def test_the_plan_takes_everything_from_the_study() -> None:
    plan = planned()
    assert plan.trust is Trust.DISTRIBUTED
    assert (plan.q, plan.rounds, plan.expected_batch, plan.clip) == (0.1, 12, 90.0, 0.5)
    assert (plan.threshold, plan.least, plan.point.noise.sites) == (4, 5, 6)
    assert plan.point.grid.dimension == LENGTH
    assert plan.point.grid.bound == 0.5 * 95  # ceil(30 + 10 sqrt(30) + 10) units at the largest site
    assert 0.99 * 4.0 < plan.epsilon_of(12) <= 4.0
    assert plan.masked
    assert not planned(secagg={"protocol": "sum"}).masked


def test_persons_are_counted_as_persons() -> None:
    plan = planned(privacy={"unit": "person"})
    assert (plan.q, plan.expected_batch) == (0.2, 90.0)


def test_a_whole_site_is_always_in() -> None:
    plan = planned(privacy={"unit": "site"}, training={"local_steps": 5})
    assert (plan.q, plan.expected_batch, plan.steps_per_round) == (1.0, 6.0, 1)
    assert plan.point.grid.whole


def test_nobody_adds_a_gaussian_beside_the_shares() -> None:
    assert site_noise_std(planned()) == coordinator_noise_std(planned()) == 0.0


def test_a_round_counts_with_as_many_sites_as_a_sum_must_hold() -> None:
    assert resolved().quorum == 5
    assert resolved(secagg={"dropouts": 2}).quorum == 4
    assert resolved(secagg={"dropouts": 2}, training={"quorum": 6}).quorum == 6
    assert resolved(privacy={"trust": "local"}, secagg=None).quorum == 3


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"sizes": (1,) * 4097}, "data.sites.count"),
        ({"secagg": {"threshold": 3}}, "secagg.threshold"),
        ({"secagg": {"dropouts": 3}}, "secagg.dropouts"),
        ({"secagg": {"ring": 32}, "privacy": {"epsilon": None, "noise_multiplier": 5e3}}, "secagg.ring"),
        ({"parameters": 2**28 + 1}, "model.name"),
    ],
)
def test_what_no_round_could_do_is_refused_at_its_key(change: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as error:
        plan_of(resolved(**change))
    assert error.value.key == key
    assert "\n" not in str(error.value)


def test_statements_speak_of_each_observer_and_say_how_many_help() -> None:
    plan = planned()
    spent = {entry.name: ((plan.event, 12),) for entry in resolved().roster}
    claims = statements_of(plan, spent)
    assert [it.colluders for it in claims] == [0, 1]
    assert [it.to_json()["colluders"] for it in claims] == [0, 1]
    assert claims[0].epsilon < claims[1].epsilon == plan.epsilon_of(12)  # type: ignore[operator]
    assert all(it.accountant == "rdp" and it.estimate is not None for it in claims)
    assert all(it.epsilon is None for it in statements_of(plan, spent, private=False))


def test_other_plans_make_the_statements_they_made() -> None:
    local = resolved(privacy={"trust": "local"}, secagg=None)
    plan = plan_of(local)
    claims = statements_of(plan, {"site-01": ((plan.event, 12),)})
    assert [it.scope for it in claims] == ["site site-01", "union"]
    assert all("colluders" not in it.to_json() for it in claims)
