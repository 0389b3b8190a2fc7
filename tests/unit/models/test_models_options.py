"""Options: bounded, closed, torch-free, and completed with each model's defaults."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from fedgen.errors import ConfigError
from fedgen.models.options import MODEL_NAMES, ModelOptions, complete, options_from


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_complete_fills_in_what_the_model_uses_and_nothing_else(name: str) -> None:
    full = complete(name)
    assert full.latent is not None
    assert full.hidden is not None
    assert (full.beta is None) == name.endswith("gan")
    assert (full.generator is None) == name.endswith("vae")
    assert (full.decoder is None) == (name != "tabular-vae")
    assert (full.temperature is None) == (name != "tabular-gan")


@pytest.mark.parametrize("name", MODEL_NAMES)
def test_complete_keeps_what_was_set_and_is_idempotent(name: str) -> None:
    full = complete(name, ModelOptions(latent=7, hidden=(5, 6)))
    assert (full.latent, full.hidden) == (7, (5, 6))
    assert complete(name, full) == full


def test_options_are_frozen_and_closed() -> None:
    options = ModelOptions(latent=3)
    with pytest.raises(ValidationError):
        options.latent = 4
    with pytest.raises(ValidationError):
        ModelOptions.model_validate({"lattent": 3})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("latent", 0),
        ("latent", 513),
        ("hidden", ()),
        ("hidden", (0,)),
        ("hidden", (4097,)),
        ("hidden", (1,) * 5),
        ("beta", 0.0),
        ("beta", float("nan")),
        ("beta", float("inf")),
        ("temperature", 0.01),
        ("decoder", "magic"),
    ],
)
def test_every_number_is_bounded(key: str, value: object) -> None:
    with pytest.raises(ValidationError):
        ModelOptions.model_validate({key: value})


def test_an_unknown_model_is_a_configuration_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="tabular-vae") as caught:
        complete("tabular-vea")
    assert caught.value.key == "model.name"


@pytest.mark.parametrize(
    ("name", "options", "key"),
    [
        ("tabular-gan", ModelOptions(beta=1.0), "model.beta"),
        ("image-vae", ModelOptions(decoder="factorised"), "model.decoder"),
        ("tabular-vae", ModelOptions(generator=(3,)), "model.generator"),
        ("image-gan", ModelOptions(hidden=(8,)), "model.hidden"),
        ("image-gan", ModelOptions(generator=(8, 8, 8)), "model.generator"),
    ],
)
def test_an_option_of_another_model_is_refused_by_its_key(name: str, options: ModelOptions, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        complete(name, options)
    assert caught.value.key == key


def test_options_from_names_the_key_of_a_bad_value() -> None:
    with pytest.raises(ConfigError) as caught:
        options_from("tabular-vae", {"hidden": [64, 0]})
    assert caught.value.key == "model.hidden.1"


def test_options_from_is_the_inverse_of_a_dump() -> None:
    full = complete("tabular-vae", ModelOptions(latent=3))
    assert options_from("tabular-vae", full.model_dump(exclude_none=True)) == full


def test_reading_options_never_imports_torch() -> None:
    check = "import sys, fedgen.models.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
