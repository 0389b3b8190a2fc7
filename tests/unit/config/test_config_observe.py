"""The section observe: closed, loopback unless told otherwise."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from fedgen.config.observe import ObserveSpec


def test_the_default_is_seen_by_nobody_else() -> None:
    spec = ObserveSpec()
    assert spec.address == "127.0.0.1:9464"
    assert not spec.beyond_loopback
    assert spec.traces is None


def test_a_text_alone_is_the_address() -> None:
    assert ObserveSpec.model_validate("127.0.0.1:1234") == ObserveSpec(address="127.0.0.1:1234")


@pytest.mark.parametrize(
    "data",
    [
        "0.0.0.0:9464",
        {"address": "nowhere"},
        {"address": "192.0.2.1:1"},
        {"traces": "http://collector.example.org/v1/traces"},
        {"traces": "https://user:hunter2@collector.example.org/v1/traces"},
        {"logs": "xml"},
        {"adress": "127.0.0.1:1"},
    ],
)
def test_what_would_be_seen_or_is_unknown_is_refused(data: object) -> None:
    with pytest.raises(ValidationError):
        ObserveSpec.model_validate(data)


def test_other_machines_may_ask_when_it_is_said() -> None:
    assert ObserveSpec(address="0.0.0.0:9464", beyond_loopback=True).beyond_loopback


def test_an_address_of_a_collector_is_not_shown() -> None:
    assert "collector" not in repr(ObserveSpec(traces="https://collector.example.org/v1/traces"))
