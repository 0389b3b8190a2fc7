"""``--set a.b=c``: what it means, and what it cannot."""

from __future__ import annotations

from typing import Any

import pytest

from fedgen.config.overrides import Override, apply, parse_override
from fedgen.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("a=1", ("a",), 1),
        ("a.b.c=1e-5", ("a", "b", "c"), 1e-5),
        ("a.b=true", ("a", "b"), True),
        ("a.b=no", ("a", "b"), "no"),
        ("a.b=", ("a", "b"), None),
        ("a.b=null", ("a", "b"), None),
        ("a.b=[1, 2]", ("a", "b"), [1, 2]),
        ("a.b={c: d}", ("a", "b"), {"c": "d"}),
        ("a.b=x=y", ("a", "b"), "x=y"),
        ("a.b='1'", ("a", "b"), "1"),
        ("a-b.c_d=1", ("a-b", "c_d"), 1),
    ],
)
def test_a_value_is_read_as_yaml(text: str, key: tuple[str, ...], value: object) -> None:
    assert parse_override(text) == Override(key=key, value=value)


@pytest.mark.parametrize(
    "text",
    ["", "a", "=1", "a..b=1", ".a=1", "a.=1", "a b=1", "0=1", "a.b=[", "a.b={c", "a.b=!!python/none x"],
)
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_override(text)
    assert caught.value.where == "--set"


def test_sections_that_are_missing_are_made() -> None:
    data: dict[str, Any] = {"empty": None}
    apply(data, [parse_override("a.b.c=1"), parse_override("empty.x=2")])
    assert data == {"a": {"b": {"c": 1}}, "empty": {"x": 2}}


def test_nothing_goes_below_a_plain_value() -> None:
    with pytest.raises(ConfigError, match="no keys below it") as caught:
        apply({"study": "one"}, [parse_override("study.name=two")])
    assert caught.value.key == "study"
