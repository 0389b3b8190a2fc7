"""The study file's sections: what is accepted, what is refused, and that the refusal names the key."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from pydantic import ValidationError

from fedgen.config.study import Study, parse_study
from fedgen.errors import ConfigError

MINIMAL: dict[str, Any] = {
    "study": "one",
    "data": {"source": "builtin:randhie", "sites": {"count": 8}},
    "model": {"name": "tabular-vae"},
    "privacy": {"unit": "record", "trust": "local", "epsilon": 3.0, "delta": 1e-5},
    "training": {"rounds": 20, "batch": 64},
}


def changed(**changes: Any) -> dict[str, Any]:
    """The minimal study with keys such as ``privacy__epsilon`` set; ``...`` takes a key away."""
    data = copy.deepcopy(MINIMAL)
    for key, value in changes.items():
        *sections, last = key.split("__")
        place = data
        for section in sections:
            place = place.setdefault(section, {})
        if value is ...:
            place.pop(last)
        else:
            place[last] = value
    return data


def refusal(**changes: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_study(changed(**changes))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3
    return caught.value


def test_a_minimal_study_has_safe_defaults() -> None:
    study = parse_study(MINIMAL)
    assert study.privacy.clip == 1.0
    assert study.privacy.relation.value == "add_or_remove"
    assert study.privacy.insecure_seed is None
    assert study.data.holdout == 0.2
    assert study.data.sites.split == "iid"
    assert study.policy.regime == "opt-in"
    assert study.policy.min_cohort == 10
    assert study.training.quorum == 0.5
    assert study.training.timeout_s == 600
    assert study.training.engine == "fused"
    assert study.training.exchanged == "gradient"


def test_from_json_and_to_json_are_inverse() -> None:
    study = parse_study(
        changed(
            data__schema="s.yaml",
            training__ema=0.99,
            training__optimizer={"name": "sgd", "lr": 0.1, "momentum": 0.9},
            simulation={
                "clock_start": "2026-01-31T09:00:00+01:00",
                "clock_step_s": 3600,
                "faults": [{"site": "site-02", "round": 3, "kind": "nan"}],
            },
        )
    )
    assert parse_study(study.to_json()) == study
    assert study.to_json()["simulation"]["clock_start"] == "2026-01-31T08:00:00Z"


@pytest.mark.parametrize("key", ["unit", "trust", "delta"])
def test_no_default_decides_a_privacy_matter(key: str) -> None:
    error = refusal(**{f"privacy__{key}": ...})
    assert (error.key, error.what) == (f"privacy.{key}", "this key is missing")


@pytest.mark.parametrize("epsilon", [0, -1, -0.5, float("nan"), float("inf"), "three", True, [3]])
def test_an_epsilon_that_is_not_a_positive_number_is_refused(epsilon: object) -> None:
    assert refusal(privacy__epsilon=epsilon).key == "privacy.epsilon"


def test_epsilon_missing_is_refused() -> None:
    error = refusal(privacy__epsilon=...)
    assert error.key == "privacy"
    assert "exactly one of epsilon, noise_multiplier; neither" in error.what


def test_epsilon_together_with_noise_multiplier_is_refused() -> None:
    error = refusal(privacy__noise_multiplier=1.0)
    assert error.key == "privacy.noise_multiplier"
    assert "exactly one of epsilon, noise_multiplier; both" in error.what


def test_noise_multiplier_alone_is_accepted() -> None:
    study = parse_study(changed(privacy__epsilon=..., privacy__noise_multiplier=1.1))
    assert (study.privacy.epsilon, study.privacy.noise_multiplier) == (None, 1.1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("privacy__delta", 0),
        ("privacy__delta", 1),
        ("privacy__delta", -1e-5),
        ("privacy__delta", float("nan")),
        ("privacy__clip", 0),
        ("privacy__clip", float("inf")),
        ("privacy__insecure_seed", -1),
        ("privacy__insecure_seed", 1.5),
        ("privacy__unit", "people"),
        ("privacy__trust", "none"),
        ("study", "Has Capitals"),
        ("study", "../up"),
        ("study", ""),
        ("data__source", ""),
        ("data__source", "csv://a\nb.csv"),
        ("data__holdout", 0.51),
        ("data__holdout", -0.1),
        ("data__holdout", float("nan")),
        ("data__limit", 0),
        ("data__sites__count", 0),
        ("data__sites__count", 10_001),
        ("data__sites__count", 2.5),
        ("data__sites__count", True),
        ("data__sites__split", "random"),
        ("data__sites__seed", -1),
        ("model__name", "tabular-diffusion"),
        ("model__latent", 0),
        ("model__latent", True),
        ("model__hidden", []),
        ("model__hidden", 64),
        ("model__init_seed", -1),
        ("training__rounds", 0),
        ("training__rounds", True),
        ("training__batch", 0),
        ("training__batch", -3),
        ("training__local_steps", 0),
        ("training__exchange", "weights"),
        ("training__engine", "ghost"),
        ("training__timeout_s", 0),
        ("training__ema", 1.0),
        ("training__ema", -0.1),
        ("training__quorum", 1.5),
        ("training__quorum", -1),
        ("training__quorum", 0),
        ("training__quorum", True),
        ("training__quorum", "most"),
        ("training__quorum", float("nan")),
        ("training__optimizer", {"lr": 0}),
        ("training__optimizer", {"name": "adamw"}),
        ("policy__purpose", "has spaces"),
        ("policy__regime", "opt-maybe"),
        ("policy__min_cohort", 0),
        ("release__rows", 0),
        ("release__formats", []),
        ("release__formats", ["xlsx"]),
        ("simulation__clock_start", "2026-01-31T08:00:00"),
        ("simulation__clock_start", 2026),
        ("simulation__clock_start", "soon"),
        ("simulation__clock_start", "0001-01-01T00:00:00+02:00"),
        ("simulation__clock_step_s", -1),
        ("simulation__evaluate_every", -1),
    ],
)
def test_a_value_out_of_bounds_is_refused_at_its_key(key: str, value: object) -> None:
    dotted = key.replace("__", ".")
    named = refusal(**{key: value}).key
    assert named is not None
    assert named.startswith(dotted)


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("privcy", "privacy"),
        ("privacy__epsilom", "epsilon"),
        ("privacy__noise-multiplier", "noise_multiplier"),
        ("training__bacth", "batch"),
        ("training__optimizer__learning_rate", "lr"),
        ("data__sites__counts", "count"),
        ("data__shema", "schema"),
        ("model__latents", "latent"),
    ],
)
def test_an_unknown_key_gets_the_nearest_known_name(key: str, near: str) -> None:
    error = refusal(**{key: 1})
    assert error.what == "unknown key"
    assert error.key == key.replace("__", ".")
    assert near in (error.hint or "")


@pytest.mark.parametrize(
    ("sites", "key"),
    [
        ({"count": 3, "split": "dirichlet"}, "data.sites.split"),
        ({"count": 3, "alpha": 0.5}, "data.sites.alpha"),
        ({"count": 3, "split": "by", "by": "idp", "alpha": 0.5}, "data.sites.alpha"),
        ({"count": 3, "by": "idp"}, "data.sites.by"),
    ],
)
def test_a_split_takes_its_own_options_and_no_others(sites: dict[str, object], key: str) -> None:
    assert refusal(data__sites=sites).key == key


@pytest.mark.parametrize(
    ("count", "last"), [(1, "site-01"), (99, "site-99"), (100, "site-100"), (10_000, "site-10000")]
)
def test_site_names_are_in_order_and_sortable(count: int, last: str) -> None:
    names = parse_study(changed(data__sites={"count": count})).data.sites.names()
    assert len(names) == len(set(names)) == count
    assert names[-1] == last
    assert list(names) == sorted(names)


def test_only_a_builtin_source_may_leave_the_schema_out() -> None:
    error = refusal(data__source="csv://claims.csv")
    assert error.key == "data.schema"
    assert "fedgen init" in (error.hint or "")
    assert (
        parse_study(changed(data__source="csv://claims.csv", data__schema="s.yaml")).data.schema_file
        == "s.yaml"
    )


@pytest.mark.parametrize(
    "source",
    [
        "postgresql://ann:hunter2@db/claims?table=t",
        "postgresql://db/claims?table=t&password=hunter2",
        "postgresql://db/claims?sslpassword=hunter2",
        "postgresql://ann:hun/ter2@db/claims?table=t",
        "mysql://ann:hunter2@db/claims?table=t",
        "mongodb://ann:hunter2@db,db2/claims?collection=t",
        "mongodb://db/claims?collection=t&authMechanismProperties=x&tlsCertificateKeyFilePassword=hunter2",
        "s3://AKIA:hunter2@bucket/claims",
        "s3://bucket/claims?secret_key=hunter2",
        "s3://bucket/claims?X-Amz-Security-Token=hunter2",
        "abfs://c@a.dfs.core.windows.net/claims?sig=hunter2",
    ],
)
def test_a_password_never_goes_into_a_study_nor_into_the_error(source: str) -> None:
    error = refusal(data__source=source, data__schema="s.yaml")
    assert error.key == "data.source"
    assert "hunter2" not in str(error)


def test_the_schema_key_has_one_spelling() -> None:
    assert refusal(data__schema_file="s.yaml").what == "unknown key"


@pytest.mark.parametrize(
    ("training", "key"),
    [
        ({"rounds": 2}, "training"),
        ({"rounds": 2, "batch": 8, "sample_rate": 0.1}, "training.sample_rate"),
        ({"rounds": 2, "sample_rate": 0}, "training.sample_rate"),
        ({"rounds": 2, "sample_rate": 1.1}, "training.sample_rate"),
    ],
)
def test_exactly_one_of_batch_and_sample_rate(training: dict[str, object], key: str) -> None:
    assert refusal(training=training).key == key


@pytest.mark.parametrize(
    ("optimizer", "key"),
    [({"name": "adam", "momentum": 0.9}, "momentum"), ({"name": "sgd", "betas": [0.9, 0.99]}, "betas")],
)
def test_an_optimizer_takes_its_own_options(optimizer: dict[str, object], key: str) -> None:
    assert refusal(training__optimizer=optimizer).key == f"training.optimizer.{key}"


@pytest.mark.parametrize(
    ("quorum", "sites", "needed"),
    [(0.5, 8, 4), (0.5, 9, 5), (1.0, 8, 8), (0.0, 8, 1), (1, 8, 1), (3, 8, 3), ("0.25", 8, 2), ("4", 8, 4)],
)
def test_a_quorum_is_a_share_or_a_number(quorum: object, sites: int, needed: int) -> None:
    study = parse_study(changed(training__quorum=quorum, data__sites={"count": sites}))
    assert study.training.quorum_of(sites) == needed
    assert parse_study(study.to_json()) == study


@pytest.mark.parametrize(
    ("steps", "exchange", "travels"),
    [(1, "auto", "gradient"), (5, "auto", "update"), (1, "update", "update"), (1, "gradient", "gradient")],
)
def test_auto_exchanges_gradients_for_one_step_and_updates_for_more(
    steps: int, exchange: str, travels: str
) -> None:
    study = parse_study(changed(training__local_steps=steps, training__exchange=exchange))
    assert study.training.exchanged == travels


def test_a_simulated_clock_needs_a_start() -> None:
    assert refusal(simulation__clock_step_s=60).key == "simulation.clock_step_s"


def test_a_model_is_completed_with_its_own_defaults_once() -> None:
    spec = parse_study(changed(model__latent=7)).model
    full = spec.completed()
    assert full.latent == 7
    assert full.hidden is not None
    assert full.completed() == full
    assert (full.fake_batch, full.public_steps) == (None, None)
    assert full.kind == "table"


def test_a_gan_has_a_fake_batch_of_fixed_size() -> None:
    spec = parse_study(changed(model={"name": "image-gan"})).model.completed()
    assert (spec.is_gan, spec.kind) == (True, "image")
    assert spec.fake_batch is not None
    assert spec.public_steps == 1


def test_a_study_is_frozen() -> None:
    study = parse_study(MINIMAL)
    with pytest.raises(ValidationError):
        study.privacy.epsilon = 100.0  # type: ignore[misc]


def test_a_study_built_in_python_is_held_to_the_same_rules() -> None:
    with pytest.raises(ValidationError, match="belongs to trust: distributed"):
        Study.model_validate(changed(secagg={}))
