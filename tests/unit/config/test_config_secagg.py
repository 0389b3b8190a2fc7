"""The ``secagg`` section: closed, with defaults that hide most, and one line for what is wrong."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from fedgen.config.secagg import SecaggSpec


def test_defaults_run_all_cryptography_and_size_the_noise_for_nobody_missing() -> None:
    assert SecaggSpec().model_dump() == {
        "protocol": "full",
        "threshold": None,
        "dropouts": 0,
        "colluders": 0,
        "recovery": "unmask",
        "ring": "auto",
    }


def test_a_command_lines_digits_are_a_ring() -> None:
    assert SecaggSpec.model_validate({"ring": "64"}) == SecaggSpec(ring=64)
    assert SecaggSpec.model_validate(SecaggSpec(ring=32, dropouts=2).model_dump()) == SecaggSpec(
        ring=32, dropouts=2
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("protocol", "half"),
        ("protocol", None),
        ("threshold", 1),
        ("threshold", True),
        ("threshold", 10_001),
        ("dropouts", -1),
        ("dropouts", 0.5),
        ("dropouts", True),
        ("colluders", -1),
        ("recovery", "retry"),
        ("ring", 16),
        ("ring", "128"),
        ("ring", True),
        ("noise", 1),
    ],
)
def test_what_does_not_belong_is_refused_at_its_key(key: str, value: object) -> None:
    with pytest.raises(ValidationError) as error:
        SecaggSpec.model_validate({key: value})
    assert {fault["loc"][0] for fault in error.value.errors()} == {key}


def test_it_is_frozen() -> None:
    with pytest.raises(ValidationError):
        SecaggSpec().dropouts = 3  # type: ignore[misc]
