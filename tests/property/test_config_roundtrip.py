"""Inverses and refusals of the study file, for any study."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fedgen.config.resolve import ResolvedStudy, resolve
from fedgen.config.study import Study, parse_study
from fedgen.errors import ConfigError, IntegrityError
from fedgen.schema.table import parse_schema

SCHEMA = parse_schema(
    {"columns": [{"name": "a", "type": "boolean"}, {"name": "b", "type": "boolean"}], "label": "a"}
)

EARLIEST = datetime(1970, 1, 1)  # noqa: DTZ001 - hypothesis wants a naive bound; the text gets its zone below

positive = st.floats(min_value=1e-6, max_value=1e6)
clocks = st.datetimes(min_value=EARLIEST).map(lambda instant: f"{instant.isoformat()}+02:00")
share = st.floats(min_value=1e-9, max_value=1.0)


@st.composite
def studies(draw: st.DrawFn) -> dict[str, Any]:
    """A valid study, as a file would say it."""
    count = draw(st.integers(1, 40))
    trust = draw(st.sampled_from(["local", "central", "distributed"]))
    if trust == "distributed":
        count += 2
    split = draw(
        st.sampled_from(
            [
                {},
                {"split": "by", "by": "b"},
                {"split": "dirichlet", "alpha": 0.5},
                {"split": "dirichlet", "by": "a", "alpha": 2},
            ]
        )
    )
    spend = draw(st.sampled_from(["epsilon", "noise_multiplier"]))
    sampling = draw(
        st.one_of(st.builds(dict, batch=st.integers(1, 10**6)), st.builds(dict, sample_rate=share))
    )
    steps = draw(st.integers(1, 20)) if trust == "local" else 1
    number = st.integers(0, count)
    shared = st.fixed_dictionaries(
        {},
        optional={
            "protocol": st.sampled_from(["full", "sum"]),
            "threshold": st.integers(2, count),
            "dropouts": number,
            "colluders": number,
            "recovery": st.sampled_from(["unmask", "restart"]),
            "ring": st.sampled_from(["auto", 32, 64, "32"]),
        },
    )
    return {
        **({"secagg": draw(st.none() | shared)} if trust == "distributed" else {}),
        "study": draw(st.from_regex(r"[a-z0-9][a-z0-9-]{0,20}", fullmatch=True)),
        "data": {
            "source": "builtin:randhie",
            "sites": {"count": count, "seed": draw(st.integers(0, 2**40)), **split},
            "holdout": draw(st.floats(0, 0.5)),
        },
        "model": {
            "name": draw(st.sampled_from(["tabular-vae", "tabular-gan"])),
            "latent": draw(st.integers(1, 99)),
        },
        "privacy": {
            "unit": "record",
            "trust": trust,
            spend: draw(positive if spend == "epsilon" else st.floats(0.01, 1e6)),
            "delta": draw(st.floats(1e-12, 0.5)),
            "clip": draw(st.floats(1e-9, 1e9)),
        },
        "training": {
            "rounds": draw(st.integers(1, 1000)),
            "local_steps": steps,
            "quorum": draw(st.one_of(st.floats(0, 1), st.integers(1, count))),
            "ema": draw(st.none() | st.floats(0, 0.999)),
            **sampling,
        },
        "simulation": {"clock_start": draw(st.none() | clocks)},
    }


@settings(max_examples=60, deadline=None)
@given(studies())
def test_a_study_survives_its_json(data: dict[str, Any]) -> None:
    study = parse_study(data)
    assert parse_study(study.to_json()) == study
    assert Study.model_validate_json(study.model_dump_json(by_alias=True)) == study


@settings(max_examples=60, deadline=None)
@given(studies(), st.data())
def test_a_resolved_study_survives_its_text_and_keeps_its_hash(
    data: dict[str, Any], draw: st.DataObject
) -> None:
    count = data["data"]["sites"]["count"]
    sizes = draw.draw(st.lists(st.integers(1, 10**6), min_size=count, max_size=count))
    done = resolve(parse_study(data), schema=SCHEMA, sizes=sizes, parameters=draw.draw(st.integers(1, 10**9)))
    again = ResolvedStudy.from_json(done.canonical())
    assert again == done
    assert again.canonical() == done.canonical()
    assert again.study_hash == done.study_hash
    assert 0 < done.sample_rate <= 1
    assert 1 <= done.quorum <= count
    assert (done.parameters is None) is (data["privacy"]["trust"] != "distributed")


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200))
def test_no_text_makes_a_site_crash(text: str) -> None:
    try:
        ResolvedStudy.from_json(text)
    except (ConfigError, IntegrityError) as error:
        assert "\n" not in str(error)  # noqa: PT017 - what matters is that nothing else is raised


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(
        ["data", "model", "privacy", "secagg", "training", "policy", "release", "simulation", "study", "new"]
    ),
    json_values,
)
def test_any_value_at_any_section_is_taken_or_explained(section: str, value: object) -> None:
    data: dict[str, Any] = {
        "study": "one",
        "data": {"source": "builtin:digits", "sites": {"count": 2}},
        "model": {"name": "image-vae"},
        "privacy": {"unit": "record", "trust": "local", "epsilon": 1.0, "delta": 1e-5},
        "training": {"rounds": 2, "batch": 8},
    }
    data[section] = value
    try:
        parse_study(data)
    except ConfigError as error:
        assert error.what  # noqa: PT017 - what matters is that nothing else is raised
        assert "\n" not in str(error)  # noqa: PT017 - see above
